//! Tables for the terminal.

use super::document::{Block, Section, Span, Table};
use super::escape::plain;
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table as Drawn, presets};

/// How the terminal wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal; `None` where the text goes elsewhere and may be as wide as it is.
    pub width: Option<u16>,
    /// Bold and colour are understood.
    pub colour: bool,
}

/// Most rows that are shown; a report has all.
pub const MOST_ROWS: usize = 60;

/// Sections one below the other: their text and tables; pictures are for a page.
pub fn sections(all: &[Section], style: Style) -> String {
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
                Block::Table(t) => {
                    let (drawn, left_out) = render(t, style);
                    out += &format!("{drawn}\n");
                    if left_out > 0 {
                        out += &format!("... and {left_out} more rows; the page has all\n");
                    }
                }
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
fn wrapped(text: &str, style: Style, indent: &str) -> String {
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

/// The table, and how many rows were left out of it.
pub fn render(t: &Table, style: Style) -> (String, usize) {
    let mut drawn = Drawn::new();
    drawn.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    match style.width {
        Some(width) => {
            drawn.set_width(width);
        }
        None => {
            drawn.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    if style.colour {
        drawn.enforce_styling();
    } else {
        drawn.force_no_tty();
    }
    drawn.set_header(t.columns.iter().map(|c| plain(&c.heading)));
    for row in t.rows.iter().take(MOST_ROWS) {
        drawn.add_row(row.cells.iter().zip(&t.columns).map(|(c, column)| {
            let cell = Cell::new(plain(&c.text));
            let cell = if column.numeric { cell.set_alignment(CellAlignment::Right) } else { cell };
            if row.highlighted && style.colour { cell.add_attribute(Attribute::Bold) } else { cell }
        }));
    }
    (drawn.to_string(), t.rows.len().saturating_sub(MOST_ROWS))
}
