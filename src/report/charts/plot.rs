//! What a chart shows, before it is drawn: series of marks over two axes.

use super::scale::Scale;
use crate::cost::metric::Estimate;

/// One or several panels above each other.
#[derive(Clone)]
pub(crate) struct Plot {
    pub title: String,
    pub panels: Vec<Panel>,
}

/// One pair of axes.
#[derive(Clone)]
pub(crate) struct Panel {
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
    /// A line of the form y = x or the like, drawn from corner to corner where it crosses.
    pub reference: Option<Reference>,
    /// Lying bars, below the marks.
    pub bars: Vec<Bar>,
    /// Pixels.
    pub height: u32,
}

/// A lying bar in a row of names. Where one ends as the next begins, a thin line joins them.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    /// Place on the axis of names.
    pub row: f64,
    pub from: f64,
    pub to: f64,
    /// Which colour.
    pub look: usize,
    /// Said beside its end.
    pub note: String,
}

/// A scale with its name.
#[derive(Clone)]
pub(crate) struct Axis {
    pub name: String,
    pub scale: Scale,
}

/// Marks that belong together.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub label: String,
    pub marks: Vec<Mark>,
    pub line: Join,
    /// Which colour and shape.
    pub look: usize,
}

/// How the marks of a series are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Join {
    None,
    Joined,
    Dashed,
    /// Joined without the marks themselves: of many places on one line.
    Curve,
    /// The same with the mark of the last place.
    ToTheLast,
}

/// One mark.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub x: Estimate,
    pub y: Estimate,
    /// Filled marks stand out from hollow ones.
    pub filled: bool,
    /// Said beside it.
    pub note: String,
}

/// A line to read the marks against.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub points: Vec<(f64, f64)>,
    pub label: String,
}

impl Mark {
    /// A filled mark without words.
    pub(crate) fn at(x: Estimate, y: Estimate) -> Self {
        Self { x, y, filled: true, note: String::new() }
    }
}

/// Every end of every interval, for a scale that holds them all.
pub(super) fn extents(series: &[Series], of: fn(&Mark) -> &Estimate) -> Vec<f64> {
    let marks = series.iter().flat_map(|s| &s.marks).map(of);
    marks.flat_map(|e| [Some(e.value), e.low, e.high]).flatten().collect()
}
