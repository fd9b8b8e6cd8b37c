//! Tables for the terminal.

use super::document::{Block, Section, Span, Table};
use super::escape::plain;
use super::fit::{Grid, draw};

/// How the terminal wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal; `None` where there is none: text is not broken then, and tables have `WITHOUT_TERMINAL`.
    pub width: Option<u16>,
    /// Bold and colour are understood.
    pub colour: bool,
}

/// How wide tables are in a file or a pipe.
const WITHOUT_TERMINAL: u16 = 120;

impl Style {
    /// Columns that a table may have.
    pub fn table_width(self) -> u16 {
        self.width.unwrap_or(WITHOUT_TERMINAL)
    }
}

/// Most rows that are shown; a report has all.
pub(super) const MOST_ROWS: usize = 60;

/// Sections one below the other: their text and tables; pictures are for a page.
pub(super) fn sections(all: &[Section], style: Style) -> String {
    let mut out = String::new();
    for s in all.iter().filter(|s| s.blocks.iter().any(|b| !matches!(b, Block::Chart(_) | Block::Folded { .. }))) {
        let heading = plain(s.title);
        if !out.is_empty() {
            out.push('\n');
        }
        out += &if style.colour { format!("\u{1b}[1m{heading}\u{1b}[0m\n") } else { format!("{heading}\n") };
        for b in &s.blocks {
            match b {
                Block::Paragraph(spans) | Block::Answer(spans) => {
                    out += &format!("{}\n", wrapped(&inline(spans), style, ""))
                }
                Block::List(items) => {
                    for i in items {
                        out += &format!("{}\n", wrapped(&format!("- {}", inline(i)), style, "  "));
                    }
                }
                Block::Figures(figures) => {
                    for f in figures {
                        out += &format!("{} {}\n", plain(&f.value), plain(&f.label));
                    }
                }
                Block::Table(t) => out += &format!("{}\n", render(t, style)),
                Block::Command(c) => out += &format!("  {}\n", plain(c)),
                Block::Chart(_) | Block::Folded { .. } => {}
            }
        }
    }
    out
}

fn inline(spans: &[Span]) -> String {
    let one = |s: &Span| match s {
        Span::Plain(t) | Span::Strong(t) | Span::Code(t) => plain(t),
    };
    spans.iter().map(one).collect()
}

/// Broken between words where the terminal ends; lines after the first are indented.
pub(crate) fn wrapped(text: &str, style: Style, indent: &str) -> String {
    let Some(width) = style.width.map(usize::from).filter(|w| *w > 20) else { return text.to_string() };
    let (mut out, mut used) = (String::new(), 0);
    for word in text.split(' ') {
        let long = word.chars().count();
        if used > 0 && used + 1 + long > width {
            out += "\n";
            out += indent;
            used = indent.len();
        } else if !out.is_empty() {
            out.push(' ');
            used += 1;
        }
        out += word;
        used += long;
    }
    out
}

/// A table within the terminal's width, with what was left out of it said below.
pub(super) fn render(t: &Table, style: Style) -> String {
    let shown = t.rows.iter().take(MOST_ROWS);
    let grid = Grid {
        headings: t.columns.iter().map(|c| plain(&c.heading)).collect(),
        numeric: t.columns.iter().map(|c| c.numeric).collect(),
        rows: shown.clone().map(|r| r.cells.iter().map(|c| plain(&c.text)).collect()).collect(),
        bold: shown.enumerate().filter(|(_, r)| r.highlighted).map(|(i, _)| i).collect(),
        least: Vec::new(),
    };
    let drawn = draw(&grid, style.table_width(), style.colour);
    let mut out = drawn.table;
    let left_out = t.rows.len().saturating_sub(MOST_ROWS);
    if left_out > 0 {
        out += &format!("\n... and {left_out} more rows; the report has all");
    }
    if !drawn.left_out.is_empty() {
        let text = format!("no room for: {}; the report has all columns", drawn.left_out.join(", "));
        out += &format!("\n{}", wrapped(&text, style, "  "));
    }
    out
}
