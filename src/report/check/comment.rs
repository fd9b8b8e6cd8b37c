//! The comment on a pull request: what changed first, the rest folded, never longer than a forge takes.

use super::{bare_percent, percent, symbol, table};
use crate::comparison::check::{Check, CheckedCell, Kept};
use crate::comparison::judge::Verdict;
use crate::report::escape::{markdown as text, markdown_code};
use crate::report::format::counted;
use crate::report::markdown;
use crate::units::{Bytes, Seconds, Share, significant};

/// By this the comment is found again, and updated.
pub const MARKER: &str = "<!-- centime-check -->";

/// Bytes of a comment; forges take 65,536.
const LONGEST: usize = 60_000;

/// The whole comment, in Markdown.
pub fn comment(check: &Check) -> String {
    let mut out = format!("{MARKER}\n### {}\n\n{}\n", text(&headline(check)), text(&counts(check)));
    for guard in &check.guards {
        out += &format!("\n> ⚠️ Not trusted: {}\n", text(guard));
    }
    for remark in &check.remarks {
        out += &format!("\n> {}\n", text(remark));
    }
    if let Some((before, after)) = check.price_change {
        let change = percent(after / before);
        out += &format!(
            "\nThe price itself changed from ${}/h to ${}/h ({change}): that part of the cost is exact and is no matter of speed.\n",
            significant(before, 4),
            significant(after, 4)
        );
    }
    let changed: Vec<&CheckedCell> = check.cells.iter().filter(|c| is_changed(c)).collect();
    if changed.is_empty() {
        out += "\nNo cell changed beyond the noise.\n";
    } else {
        out += &cut("\n", &changed, LONGEST / 2);
    }
    for c in check.cells.iter().filter(|c| c.failure.is_some()).take(20) {
        out += &format!("\n- {} failed: {}", text(&c.name), text(c.failure.as_deref().unwrap_or("")));
    }
    let exact: Vec<String> = findings(check).into_iter().take(20).collect();
    if !exact.is_empty() {
        out += "\n\nExactly different, whatever the noise:\n";
        exact.iter().for_each(|f| out += &format!("\n- {}", text(f)));
        out.push('\n');
    }
    if !check.budgets.is_empty() {
        out += "\n\nBudgets:\n";
        let mut sorted: Vec<&Kept> = check.budgets.iter().collect();
        sorted.sort_by(|a, b| a.headroom.total_cmp(&b.headroom));
        for b in sorted.iter().take(20) {
            out += &format!("\n- {} {}", if b.headroom < 0.0 { "❌" } else { "✅" }, text(&budget(b)));
        }
        if sorted.len() > 20 {
            out += &format!("\n- and {} more with more headroom", sorted.len() - 20);
        }
        out.push('\n');
    }
    let method = method(check);
    let room = LONGEST.saturating_sub(out.len() + method.len() + 300);
    let rest: Vec<&CheckedCell> = check.cells.iter().filter(|c| !is_changed(c)).collect();
    if !rest.is_empty() {
        let which = if changed.is_empty() { "All" } else { "The other" };
        let counted = counted(rest.len(), "cell");
        out += &format!("\n<details><summary>{which} {counted}</summary>\n\n{}\n</details>\n", cut("", &rest, room));
    }
    out + &method
}

/// `$/M tokens: 0.412 -> 0.398 (-3.4 %, 95 % CI -4.1 .. -2.6) PASS`.
pub(super) fn headline(check: &Check) -> String {
    let verdict = if check.over_budget() > 0 { "❌ OVER BUDGET".to_string() } else { symbol(check.verdict) };
    let advisory = if check.advisory { ", advisory" } else { "" };
    let change = check
        .mean_ratio()
        .map(|(r, l, h)| format!("{}, 95 % CI {} .. {}", percent(r), bare_percent(l), bare_percent(h)));
    match (check.mean_cost(), change) {
        (Some((base, head)), Some(change)) => {
            format!("$/M tokens: {} → {} ({change}) {verdict}{advisory}", significant(base, 3), significant(head, 3))
        }
        (None, Some(change)) => format!("$/M tokens: n/a, no price; time a token {change} {verdict}{advisory}"),
        _ => match head_alone(check) {
            Some(cost) => format!("$/M tokens: {} (no baseline) {verdict}", significant(cost, 3)),
            None if check.cells.iter().any(|c| c.head.tokens_per_second.is_some()) => {
                format!("$/M tokens: n/a, no price and no baseline {verdict}")
            }
            None => format!("$/M tokens: n/a, nothing was measured {verdict}"),
        },
    }
}

/// The geometric mean of the head's costs, where there is nothing to compare with.
fn head_alone(check: &Check) -> Option<f64> {
    let all: Vec<f64> = check.cells.iter().filter_map(|c| c.head.usd_per_million_tokens).collect();
    (!all.is_empty()).then(|| (all.iter().map(|c| c.ln()).sum::<f64>() / all.len() as f64).exp())
}

/// One line of counts.
pub(super) fn counts(check: &Check) -> String {
    let pairs: Vec<usize> = check.cells.iter().map(|c| c.judged.pairs).collect();
    let (least, most) = (pairs.iter().min().copied().unwrap_or(0), pairs.iter().max().copied().unwrap_or(0));
    let pairs = if least == most { format!("{most}") } else { format!("{least} to {most}") };
    format!(
        "{}: {} pass, {} regressed, {} inconclusive, {} failed; {pairs} {} a cell.",
        counted(check.cells.len(), "cell"),
        check.counted(Verdict::Pass),
        check.counted(Verdict::Regression),
        check.counted(Verdict::Inconclusive),
        check.failed(),
        if check.advisory { "launches" } else { "pairs" }
    )
}

/// What is exactly different, with its cells.
pub(super) fn findings(check: &Check) -> Vec<String> {
    let mut all: Vec<(String, Vec<&str>)> = Vec::new();
    for c in &check.cells {
        for f in &c.findings {
            match all.iter_mut().find(|(g, _)| g == f) {
                Some((_, cells)) => cells.push(&c.name),
                None => all.push((f.clone(), vec![&c.name])),
            }
        }
    }
    all.into_iter()
        .map(|(f, cells)| match cells.as_slice() {
            [one] => format!("{one}: {f}"),
            [first, rest @ ..] => format!("{first} and {}: {f}", counted(rest.len(), "other cell")),
            [] => f,
        })
        .collect()
}

/// "batch 8: $0.0041 of $0.0050 per million tokens, 18 % headroom".
pub(super) fn budget(b: &Kept) -> String {
    let shown = |x: f64| match b.limit {
        "usd_per_million_tokens" => format!("${} per million tokens", significant(x, 3)),
        "peak_memory_bytes" => Bytes(x as u64).to_string(),
        _ => Seconds(x).to_string(),
    };
    let what = match b.limit {
        "usd_per_million_tokens" => "cost",
        "peak_memory_bytes" => "peak memory",
        "ttft_seconds" => "TTFT",
        _ => "TPOT",
    };
    let room = if b.headroom < 0.0 {
        format!("over by {:.1} %", -b.headroom * 100.0)
    } else {
        format!("{:.1} % headroom", b.headroom * 100.0)
    };
    format!("{}: {what} {} of {}, {room}", b.cell, shown(b.is), shown(b.budget))
}

/// Whether a cell is shown before the fold.
fn is_changed(c: &CheckedCell) -> bool {
    let told = c.judged.low.zip(c.judged.high).is_some_and(|(l, h)| h < 0.99 || l > 1.01);
    c.failure.is_some() || c.judged.verdict != Verdict::Pass || told
}

/// A table of as many rows as have room.
fn cut(lead: &str, cells: &[&CheckedCell], room: usize) -> String {
    let full = markdown::table(&table(cells, "\u{a0}"));
    if full.len() <= room {
        return format!("{lead}{full}");
    }
    let mut out = String::from(lead);
    let mut shown = 0;
    for (i, line) in full.split_inclusive('\n').enumerate() {
        if out.len() + line.len() + 100 > room {
            break;
        }
        out += line;
        shown = (i + 1).saturating_sub(2);
    }
    out + &format!("\n... and {}; check.json has all\n", counted(cells.len() - shown.min(cells.len()), "more cell"))
}

fn method(check: &Check) -> String {
    let m = &check.method;
    let detectable: Vec<f64> = check.cells.iter().filter_map(|c| c.judged.detectable).collect();
    let worst = detectable.iter().copied().fold(0.0, f64::max);
    let mut lines = Vec::new();
    if check.cells.iter().all(|c| c.base.tokens_per_second.is_none()) && check.advisory {
        lines.push("Fresh launches of this build alone.".to_string());
    } else if check.advisory {
        lines.push(format!(
            "Compared with the stored run {}, which was not interleaved with this one: {} launches a cell, prediction interval of \
             one more like them. Advisory.",
            m.base, check.cells.first().map_or(0, |c| c.judged.pairs)
        ));
    } else {
        lines.push(format!(
            "{} against {}: fresh launches of {} s in pairs, a seeded coin (seed {}) decides who goes first, looks up to {} pairs; exact \
             one-sided signed-rank test, Holm over the cells, false alarms in at most 1 % of checks.",
            m.head, m.base, significant(m.launch_seconds, 2), m.seed, m.pairs_at_most
        ));
        lines.push(format!("Control arm: {} of the baseline against itself.", counted(m.control_pairs, "pair")));
    }
    lines.push(format!(
        "A cell regresses when it is surely slower and by more than {}; it passes when {} is excluded. Smallest slowdown that every \
         cell could have told: {}.",
        Share(m.tolerance),
        Share(m.detect),
        if worst > 0.0 { Share(worst).to_string() } else { "n/a".into() }
    ));
    lines.push(format!(
        "Machine: {}; steal {}.",
        m.machine,
        m.steal_share.map_or("n/a".into(), |s| Share(s).to_string())
    ));
    lines.push(format!("Price: {}.", m.price));
    let items: String = lines.iter().map(|l| format!("- {}\n", text(l))).collect();
    format!(
        "\n<details><summary>Method, and how to reproduce it</summary>\n\n{items}\n{}\n</details>\n",
        markdown_code(&m.command)
    )
}
