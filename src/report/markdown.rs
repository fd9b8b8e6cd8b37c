//! A document as GitHub-flavoured Markdown; its charts are files beside it.

use super::document::{Block, Document, Span, Table};
use super::escape::{markdown as text, markdown_code};
use std::fmt::Write;

/// The whole file.
pub(super) fn render(d: &Document) -> String {
    let mut out = format!("# {}\n\n", text(&d.title));
    if !d.description.trim().is_empty() {
        let _ = writeln!(out, "{}\n", text(&d.description));
    }
    for s in &d.sections {
        let _ = writeln!(out, "## {}\n", text(s.title));
        s.blocks.iter().for_each(|b| block(&mut out, b));
    }
    let _ = writeln!(out, "---\n\n{}", text(&d.foot));
    out
}

fn block(out: &mut String, b: &Block) {
    let _ = match b {
        Block::Paragraph(spans) => writeln!(out, "{}\n", inline(spans)),
        Block::Answer(spans) => writeln!(out, "> {}\n", inline(spans)),
        Block::Figures(figures) => {
            for f in figures {
                let _ = writeln!(out, "- **{}** {} ({})", text(&f.value), text(&f.label), text(&f.note));
            }
            writeln!(out)
        }
        Block::Table(t) => writeln!(out, "{}", table(t)),
        Block::Chart(c) => {
            // Alternative text ends at a bracket, which the escape keeps apart; the file's name is ours.
            writeln!(out, "![{}](charts/{}.svg)\n\n{}\n", text(&c.alt), c.name, text(&c.caption))
        }
        Block::List(items) => {
            for i in items {
                let _ = writeln!(out, "- {}", inline(i));
            }
            writeln!(out)
        }
        Block::Folded { summary, blocks } => {
            let _ = writeln!(out, "<details><summary>{}</summary>\n", super::escape::html(summary));
            blocks.iter().for_each(|b| block(out, b));
            writeln!(out, "</details>\n")
        }
        Block::Command(c) => writeln!(out, "{}\n", markdown_code(c)),
    };
}

fn inline(spans: &[Span]) -> String {
    let one = |s: &Span| {
        let padded = |t: &str, form: &dyn Fn(&str) -> String| {
            // Marks of emphasis have to touch the words.
            let lead = if t.starts_with(' ') { " " } else { "" };
            let trail = if t.ends_with(' ') && t.len() > 1 { " " } else { "" };
            format!("{lead}{}{trail}", form(t.trim()))
        };
        match s {
            Span::Plain(t) => padded(t, &|t| text(t)),
            Span::Strong(t) => padded(t, &|t| format!("**{}**", text(t))),
            Span::Code(t) => padded(t, &|t| markdown_code(t)),
        }
    };
    spans.iter().map(one).collect()
}

/// A table with its caption.
pub(super) fn table(t: &Table) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut out = line(t.columns.iter().map(|c| text(&c.heading)).collect());
    out += &line(t.columns.iter().map(|c| if c.numeric { "---:" } else { "---" }.to_string()).collect());
    for row in &t.rows {
        let form = |c: &String| if row.highlighted && !c.is_empty() { format!("**{c}**") } else { c.clone() };
        out += &line(row.cells.iter().map(|c| form(&text(&c.text))).collect());
    }
    if !t.caption.is_empty() {
        let _ = write!(out, "\n{}\n", text(&t.caption));
    }
    out
}
