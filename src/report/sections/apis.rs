//! Own machines against APIs: from which utilisation tokens are cheaper than bought ones.

use crate::comparison::break_even::{AgainstApi, against_api};
use crate::cost::metric::{Context, Quantity};
use crate::cost::metrics::{TOKENS_PER_SECOND, USD_PER_MILLION};
use crate::cost::price::blended;
use crate::hardware::api::Api;
use crate::report::charts::{self, DrawError};
use crate::report::document::{Block, Cell, Column, Row, Table};
use crate::report::facts::Facts;
use crate::report::format::bare;
use crate::scenario::price::UseCase;
use crate::transformer::Phase;
use crate::units::{Share, significant};

/// The APIs that a run's own report is held against; `centime compare --api` takes any.
const USUAL: [&str; 2] = ["gpt-4o-mini", "gpt-4o"];

pub(crate) fn blocks(facts: &Facts) -> Result<Vec<Block>, DrawError> {
    let usual = |m: &&str| facts.book.apis.iter().rev().find(|a| a.model == **m).cloned();
    let apis: Vec<Api> = USUAL.iter().filter_map(usual).collect();
    let label = [facts.run.environment.price.hardware.clone()];
    blocks_of(&label, &[Facts::of(facts.run, facts.book)], &apis)
}

/// The cheapest trial of each run whose tokens an API sells, too.
fn against<'a>(runs: &[Facts], apis: &'a [Api]) -> Vec<AgainstApi<'a>> {
    let mut all = Vec::new();
    for (r, facts) in runs.iter().enumerate() {
        let sold = |i: &usize| facts.records()[*i].cell.trial.workload.phase != Phase::Train;
        let priced =
            facts.measured().into_iter().filter(sold).filter_map(|i| Some((i, facts.get(i, &USD_PER_MILLION)?)));
        let Some((i, _)) = priced.min_by(|a, b| a.1.value.total_cmp(&b.1.value)) else { continue };
        let record = &facts.records()[i];
        let context = Context::of(facts.run, record, facts.book);
        let w = &record.cell.trial.workload;
        let mix = UseCase {
            name: String::new(),
            input_tokens: if w.phase == Phase::Decode { 0 } else { u64::from(w.prompt_len) },
            output_tokens: if w.phase == Phase::Prefill { 0 } else { u64::from(w.new_tokens) },
        };
        for api in apis {
            let found =
                blended(&mix, api.input, api.output).ok().zip(context.hour.zip(facts.get(i, &TOKENS_PER_SECOND)));
            all.extend(found.and_then(|(price, (hour, rate))| against_api((r, i), hour, rate.value, api, price)));
        }
    }
    all
}

/// Each run's cheapest trial against each API: a picture and a table; nothing where no tokens are sold or priced.
///
/// # Errors
/// The drawing library's.
pub(crate) fn blocks_of(labels: &[String], runs: &[Facts], apis: &[Api]) -> Result<Vec<Block>, DrawError> {
    let all = against(runs, apis);
    let label = |run: usize| labels.get(run).cloned().unwrap_or_default();
    let mut table = Table::new(vec![
        Column::text("run"),
        Column::text("trial"),
        Column::number("$/M tokens at full use"),
        Column::text("API"),
        Column::number("asks, $/M tokens"),
        Column::number("cheaper from"),
    ]);
    let mut machines: Vec<(String, f64)> = Vec::new();
    let mut apis: Vec<(String, f64)> = Vec::new();
    for a in &all {
        let phase = runs[a.run].records()[a.record].cell.trial.workload.phase;
        let name = runs[a.run].name(a.record);
        table.rows.push(Row::new(vec![
            Cell::text(label(a.run)),
            Cell::text(format!("{phase}, {name}")),
            Cell::number(bare(Quantity::UsdPerMillionTokens, a.at_full_use), a.at_full_use),
            Cell::text(format!("{} {}, seen {}", a.api.provider, a.api.model, a.api.date)),
            Cell::number(bare(Quantity::UsdPerMillionTokens, a.asked), a.asked),
            match a.utilisation {
                Some(share) => Cell::number(used(share), share.get()),
                None => Cell::text("never"),
            },
        ]));
        if !machines.iter().any(|(l, _)| *l == label(a.run)) {
            machines.push((label(a.run), a.at_full_use));
        }
        if !apis.iter().any(|(l, _)| *l == a.api.model) {
            apis.push((a.api.model.clone(), a.asked));
        }
    }
    let Some(drawn) = charts::utilisation::utilisation(&machines, &apis) else { return Ok(vec![]) };
    table.caption =
        "Cheaper from: the utilisation from which the machine's tokens cost less than the API's (quoted; of input \
                     tokens for prefill, of output tokens for decode, mixed as the trial does for generate)."
            .into();
    Ok(vec![Block::Chart(charts::chart(drawn)?), Block::Table(table)])
}

/// A share with the digits that it needs.
fn used(share: Share) -> String {
    if share.get() < 0.01 { format!("{} %", significant(share.get() * 100.0, 2)) } else { share.to_string() }
}
