//! The names of series: at the ends of their lines where they are short, else whole below the panel, in as many columns as fit.

use super::plot::Panel;
use super::style::{self, LETTERS, WIDTH};
use crate::report::escape;

/// Longest name that stands beside a panel, in characters.
const LONGEST_BESIDE: usize = 34;
/// Longest name that is shown whole, in characters; the table has the others.
const LONGEST: usize = 440;
/// Pixels from a line of names to the next.
pub(super) const STEP: i32 = 19;
/// Pixels at either end of what stands below.
const MARGIN: i32 = 16;
/// Pixels that a mark takes before its name.
const MARK: i32 = 20;
/// Pixels that keep columns apart.
const APART: i32 = 24;

/// The names of a panel's series.
#[derive(Debug)]
pub(super) struct Legend {
    /// Of each series, where none is too long to stand beside the panel; a series may have none.
    pub beside: Option<Vec<String>>,
    /// Else what stands below.
    pub below: Vec<Line>,
}

/// A line of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The look of the mark that stands before it, where it begins a name.
    pub mark: Option<usize>,
    pub text: String,
    /// Pixels from the panel's lower left corner to the middle of the mark, or to where it would be.
    pub at: (i32, i32),
}

impl Legend {
    /// Of panels above each other: names that the next panel has as well stand below that one alone.
    pub(super) fn of(panels: &[Panel]) -> Vec<Self> {
        let known = |p: &Panel| p.series.iter().map(|s| (s.look, s.label.clone())).collect::<Vec<_>>();
        let one = |(i, panel): (usize, &Panel)| {
            let names: Vec<String> = panel.series.iter().map(|s| escape::plain(&s.label)).collect();
            if names.iter().all(|n| n.chars().count() <= LONGEST_BESIDE) {
                return Self { beside: Some(names), below: vec![] };
            }
            let again = panels.get(i + 1).is_some_and(|next| known(next) == known(panel));
            Self { beside: None, below: if again { vec![] } else { lines(panel, &names) } }
        };
        panels.iter().enumerate().map(one).collect()
    }

    /// Pixels that it takes at the right of the panel.
    pub(super) fn right(&self) -> i32 {
        match self.beside.iter().flatten().map(|n| style::width(n, LETTERS)).max() {
            Some(widest) if widest > 0 => widest + 44,
            _ => 28,
        }
    }

    /// Pixels that it takes below the panel.
    pub(super) fn height(&self) -> u32 {
        self.below.iter().map(|l| (l.at.1 + STEP) as u32).max().unwrap_or(0)
    }
}

impl Line {
    /// Where its words begin.
    pub(super) fn words_at(&self) -> (i32, i32) {
        (self.at.0 + MARK - 8, self.at.1)
    }
}

fn lines(panel: &Panel, names: &[String]) -> Vec<Line> {
    let room = WIDTH as i32 - 2 * MARGIN;
    let most = style::fitting(room - MARK, LETTERS);
    let named: Vec<(usize, Vec<String>)> = panel
        .series
        .iter()
        .zip(names)
        .filter(|(_, name)| !name.is_empty())
        .map(|(s, name)| (s.look, style::wrapped(&style::fitted(name, LONGEST), most)))
        .collect();
    let widest = named.iter().flat_map(|(_, lines)| lines).map(|l| style::width(l, LETTERS)).max().unwrap_or(0);
    let columns = (room + APART) / (MARK + widest + APART);
    let rows = named.len().div_ceil(columns.max(1) as usize).max(1);
    let mut all = Vec::new();
    for (column, named) in named.chunks(rows).enumerate() {
        let x = MARGIN + 8 + column as i32 * (MARK + widest + APART);
        let lines = named.iter().flat_map(|(look, lines)| lines.iter().enumerate().map(move |line| (*look, line)));
        for (row, (look, (nth, text))) in lines.enumerate() {
            let at = (x, STEP / 2 + row as i32 * STEP);
            all.push(Line { mark: (nth == 0).then_some(look), text: text.clone(), at });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::plot::{Axis, Join, Series};
    use super::super::scale::Scale;
    use super::*;

    fn panel(names: &[&str]) -> Panel {
        let axis = || Axis { name: "x".into(), scale: Scale::linear(&[0.0, 1.0], |x| x.to_string()) };
        let one =
            |(look, name): (usize, &&str)| Series { label: (*name).into(), marks: vec![], line: Join::None, look };
        let series = names.iter().enumerate().map(one).collect();
        Panel { x: axis(), y: axis(), series, reference: None, bars: vec![], height: 300 }
    }

    #[test]
    fn short_names_stand_beside_their_lines_and_take_nothing_below() {
        let all = Legend::of(&[panel(&["batch 4", "batch 8, devices 2"])]);
        assert_eq!((all[0].below.len(), all[0].height()), (0, 0));
        assert_eq!(all[0].right(), style::width("batch 8, devices 2", LETTERS) + 44);
        assert_eq!(Legend::of(&[panel(&[""])])[0].right(), 28);
    }

    #[test]
    fn long_names_stand_below_whole_and_within_the_picture() {
        let some = "accumulate 4, recompute attention, sharding none";
        let long = [some; 8].join(", ");
        for (names, columns) in [(vec![some; 5], 2), (vec!["d_model 128", &long, "", some], 1)] {
            let legend = &Legend::of(&[panel(&names)])[0];
            assert_eq!((legend.right(), legend.beside.is_none()), (28, true));
            let at: std::collections::BTreeSet<i32> = legend.below.iter().map(|l| l.at.0).collect();
            assert_eq!(at.len(), columns, "{legend:?}");
            for (i, line) in legend.below.iter().enumerate() {
                assert!(line.words_at().0 + style::width(&line.text, LETTERS) <= WIDTH as i32, "{line:?}");
                assert!((line.at.1 as u32) < legend.height(), "{line:?}");
                assert!(legend.below[..i].iter().all(|other| other.at != line.at), "{line:?}");
            }
            let said: Vec<&str> = legend.below.iter().map(|l| l.text.as_str()).collect();
            let wanted: Vec<&str> = names.iter().copied().filter(|n| !n.is_empty()).collect();
            assert_eq!(said.join(" "), wanted.join(" "), "nothing is cut off");
            let marks: Vec<usize> = legend.below.iter().filter_map(|l| l.mark).collect();
            let shown = names.iter().enumerate().filter(|(_, n)| !n.is_empty()).map(|(i, _)| i);
            assert_eq!(marks, shown.collect::<Vec<_>>());
        }
    }

    #[test]
    fn names_of_several_panels_stand_below_the_last_of_them() {
        let names = ["accumulate 4, recompute attention, sharding none", "accumulate 1"];
        let all = Legend::of(&[panel(&names), panel(&names), panel(&["other"])]);
        assert_eq!(all.iter().map(|l| l.below.len()).collect::<Vec<_>>(), [0, 2, 0]);
        assert!(all[0].beside.is_none() && all[2].beside.is_some());
    }
}
