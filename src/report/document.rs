//! What a report says, without how it looks: made once from a run, rendered as HTML, Markdown and for the terminal.
//!
//! Everything here is plain text; each renderer escapes it in its one place.

/// A whole report.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Document {
    pub title: String,
    /// Why the sweep exists, from the scenario.
    pub description: String,
    pub sections: Vec<Section>,
    /// What stands under everything.
    pub foot: String,
}

/// One heading and what stands under it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Section {
    /// Anchor; unique in the document.
    pub id: &'static str,
    pub title: &'static str,
    pub blocks: Vec<Block>,
}

/// A piece of a section.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Block {
    Paragraph(Vec<Span>),
    /// The answer: what a reader in a hurry takes away.
    Answer(Vec<Span>),
    /// Single figures, large.
    Figures(Vec<Figure>),
    Table(Table),
    Chart(Chart),
    List(Vec<Vec<Span>>),
    /// Shown when asked for.
    Folded {
        summary: String,
        blocks: Vec<Block>,
    },
    /// To be typed.
    Command(String),
}

/// A run of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Span {
    Plain(String),
    Strong(String),
    Code(String),
}

/// One figure with its name, and what it rests on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    pub value: String,
    pub label: String,
    pub note: String,
}

/// Rows under headings.
#[derive(Clone, Debug, PartialEq, Default)]
pub(super) struct Table {
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
    pub caption: String,
}

/// A heading.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column {
    pub heading: String,
    /// Numbers stand to the right.
    pub numeric: bool,
}

/// A line of a table.
#[derive(Clone, Debug, PartialEq, Default)]
pub(super) struct Row {
    pub cells: Vec<Cell>,
    /// Set apart from the others, in addition to what its words say.
    pub highlighted: bool,
}

/// One cell of a table.
#[derive(Clone, Debug, PartialEq, Default)]
pub(super) struct Cell {
    pub text: String,
    /// What it is sorted by, where that is a number.
    pub sort: Option<f64>,
}

/// A picture.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chart {
    /// File name without its ending.
    pub name: String,
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// What it shows, for who cannot see it.
    pub alt: String,
    pub svg: String,
}

impl Table {
    /// A table without rows yet.
    pub(super) fn new(columns: Vec<Column>) -> Self {
        Self { columns, ..Self::default() }
    }
}

impl Column {
    pub(super) fn text(heading: impl Into<String>) -> Self {
        Self { heading: heading.into(), numeric: false }
    }

    pub(super) fn number(heading: impl Into<String>) -> Self {
        Self { heading: heading.into(), numeric: true }
    }
}

impl Row {
    pub(super) fn new(cells: Vec<Cell>) -> Self {
        Self { cells, highlighted: false }
    }
}

impl Cell {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), sort: None }
    }

    pub(super) fn number(text: impl Into<String>, sort: f64) -> Self {
        Self { text: text.into(), sort: Some(sort) }
    }
}

impl Span {
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::Plain(text.into())
    }

    pub(super) fn strong(text: impl Into<String>) -> Self {
        Self::Strong(text.into())
    }

    pub(super) fn code(text: impl Into<String>) -> Self {
        Self::Code(text.into())
    }
}

/// A paragraph of plain text.
pub(super) fn paragraph(text: impl Into<String>) -> Block {
    Block::Paragraph(vec![Span::plain(text)])
}

/// Every chart of the blocks, folded ones included.
pub(super) fn charts(sections: &[Section]) -> Vec<&Chart> {
    fn of(blocks: &[Block]) -> Vec<&Chart> {
        blocks
            .iter()
            .flat_map(|b| match b {
                Block::Chart(c) => vec![c],
                Block::Folded { blocks, .. } => of(blocks),
                _ => vec![],
            })
            .collect()
    }
    sections.iter().flat_map(|s| of(&s.blocks)).collect()
}
