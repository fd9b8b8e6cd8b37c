//! Tables drawn to a width: texts are broken between words, and where that is not enough the least telling columns are left out
//! and named.

use comfy_table::{Attribute, Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};
use unicode_width::UnicodeWidthStr;

/// What is drawn: texts under headings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grid {
    pub headings: Vec<String>,
    /// Columns of numbers: they stand to the right and are never broken.
    pub numeric: Vec<bool>,
    pub rows: Vec<Vec<String>>,
    /// Rows in bold.
    pub bold: Vec<usize>,
    /// Columns that a narrow terminal does without, the least telling first. Others follow from the right, but never the first
    /// column nor the last.
    pub least: Vec<usize>,
}

/// A table as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Drawn {
    pub table: String,
    /// Headings of columns for which there was no room.
    pub left_out: Vec<String>,
}

/// The width that no column of text is pressed below while others can still be left out.
const READABLE: usize = 32;
/// Longest word that is kept whole.
const LONGEST_WORD: usize = 24;

/// Draws it at most `width` wide.
pub(crate) fn draw(grid: &Grid, width: u16, colour: bool) -> Drawn {
    let columns: Vec<Extent> = (0..grid.headings.len()).map(|c| Extent::of(grid, c)).collect();
    let (kept, widths) = choose(&columns, &grid.least, usize::from(width));
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    // What the widths add up to; without it the library would ask the terminal itself.
    table.set_width(u16::try_from(total(&widths)).unwrap_or(u16::MAX));
    if colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(kept.iter().map(|&c| &grid.headings[c]));
    for (i, row) in grid.rows.iter().enumerate() {
        table.add_row(kept.iter().map(|&c| {
            let cell = Cell::new(&row[c]);
            let cell = if grid.numeric[c] { cell.set_alignment(CellAlignment::Right) } else { cell };
            if colour && grid.bold.contains(&i) { cell.add_attribute(Attribute::Bold) } else { cell }
        }));
    }
    for (column, width) in table.column_iter_mut().zip(&widths) {
        // With the space on either side.
        let fixed = Width::Fixed(u16::try_from(width + 2).unwrap_or(u16::MAX));
        column.set_constraint(ColumnConstraint::Absolute(fixed));
    }
    let out = (0..columns.len()).filter(|c| !kept.contains(c)).map(|c| grid.headings[c].clone()).collect();
    Drawn { table: table.to_string(), left_out: out }
}

/// How wide a column may be.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// Nothing is broken.
    natural: usize,
    /// Numbers whole, texts readable.
    readable: usize,
    /// Numbers and words whole.
    least: usize,
}

impl Extent {
    fn of(grid: &Grid, c: usize) -> Self {
        let length = UnicodeWidthStr::width;
        let word = |t: &str| t.split(' ').map(length).max().unwrap_or(0);
        let cells = || grid.rows.iter().map(|r| r[c].as_str());
        let heading = &grid.headings[c];
        let widest = cells().map(length).max().unwrap_or(0);
        let natural = widest.max(length(heading)).max(1);
        if grid.numeric[c] {
            let whole = widest.max(word(heading)).max(1);
            return Self { natural, readable: whole, least: whole };
        }
        let least = cells().map(word).max().unwrap_or(0).min(LONGEST_WORD).max(word(heading)).max(1);
        // A long text takes a few lines, not a page.
        let readable = natural.min(READABLE.max(natural / 6).max(least));
        Self { natural, readable, least }
    }
}

/// With a border on either side of each column and a space inside of it.
fn total(widths: &[usize]) -> usize {
    widths.iter().map(|w| w + 3).sum::<usize>() + 1
}

/// Which columns are drawn, and how wide each is.
fn choose(columns: &[Extent], least: &[usize], width: usize) -> (Vec<usize>, Vec<usize>) {
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    let wide =
        |kept: &[usize], of: fn(&Extent) -> usize| total(&kept.iter().map(|&c| of(&columns[c])).collect::<Vec<_>>());
    for c in least {
        if wide(&kept, |e| e.readable) <= width {
            break;
        }
        kept.retain(|k| k != c);
    }
    while wide(&kept, |e| e.least) > width && kept.len() > 2 {
        kept.remove(kept.len() - 2);
    }
    let floor: fn(&Extent) -> usize = if wide(&kept, |e| e.readable) <= width { |e| e.readable } else { |e| e.least };
    let widths = share(&kept.iter().map(|&c| (floor(&columns[c]), columns[c].natural)).collect::<Vec<_>>(), width);
    (kept, widths)
}

/// What is left of the width goes to the columns that want more: to each the same, and no more than it wants.
fn share(columns: &[(usize, usize)], width: usize) -> Vec<usize> {
    let mut widths: Vec<usize> = columns.iter().map(|(floor, _)| *floor).collect();
    let mut left = width.saturating_sub(total(&widths));
    let mut hungry: Vec<usize> = (0..columns.len()).filter(|&i| columns[i].1 > widths[i]).collect();
    hungry.sort_by_key(|&i| columns[i].1 - widths[i]);
    let mut waiting = hungry.len();
    for i in hungry {
        let more = (columns[i].1 - widths[i]).min(left / waiting);
        widths[i] += more;
        left -= more;
        waiting -= 1;
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let row = |cell: &str, note: &str| [cell, "1,234,567.8", "12.3 GiB", "0.0123", note].map(String::from).to_vec();
        Grid {
            headings: ["cell", "tokens per second", "memory", "usd", "note"].map(String::from).to_vec(),
            numeric: vec![false, true, true, true, false],
            rows: vec![
                row("batch=8", ""),
                row("batch=16 model.n_heads=4", "skipped: it needs more memory than there is"),
            ],
            bold: vec![1],
            least: vec![2],
        }
    }

    fn widest(drawn: &Drawn) -> usize {
        drawn.table.lines().map(|l| l.chars().count()).max().unwrap()
    }

    #[test]
    fn a_table_is_never_wider_than_it_may_be_and_numbers_stay_whole() {
        for width in 50..200 {
            let drawn = draw(&grid(), width, false);
            assert!(widest(&drawn) <= usize::from(width), "{width}:\n{}", drawn.table);
            assert!(drawn.table.contains("1,234,567.8"), "{width}:\n{}", drawn.table);
        }
    }

    #[test]
    fn texts_are_broken_before_columns_go_and_those_that_go_are_named() {
        let roomy = draw(&grid(), 180, false);
        assert!(roomy.left_out.is_empty() && roomy.table.contains("it needs more memory than there is"));
        assert!(draw(&grid(), 100, false).left_out.is_empty());
        assert_eq!(draw(&grid(), 75, false).left_out, ["memory"]);
        let narrow = draw(&grid(), 50, false);
        assert!(narrow.table.contains("cell") && narrow.table.contains("note"), "{}", narrow.table);
        assert!(narrow.left_out.contains(&"usd".to_string()), "{:?}", narrow.left_out);
    }

    #[test]
    fn with_room_nothing_is_broken_and_bold_is_only_where_it_is_understood() {
        let drawn = draw(&grid(), u16::MAX, false);
        assert_eq!(drawn.table.lines().count(), 6, "{}", drawn.table);
        assert!(!drawn.table.contains('\u{1b}') && draw(&grid(), u16::MAX, true).table.contains('\u{1b}'));
    }

    #[test]
    fn a_table_without_rows_is_its_headings() {
        let empty = Grid { rows: Vec::new(), bold: Vec::new(), ..grid() };
        assert!(draw(&empty, 80, false).table.contains("tokens per second"));
    }
}
