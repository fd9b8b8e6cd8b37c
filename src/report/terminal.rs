//! Tables for the terminal.

use super::document::Table;
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
