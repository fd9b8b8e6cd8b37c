//! Cells gathered into series: along one field, one series for each combination of the others.

use super::plot::{Axis, Join, Mark, Series};
use super::scale::Scale;
use super::style::MOST_SERIES;
use crate::cost::metric::{Estimate, Metric};
use crate::report::facts::{Facts, Varied};
use crate::report::format;

/// Series over a field, and what was left out.
pub(super) struct Gathered {
    pub x: Axis,
    pub series: Vec<Series>,
    /// How many series there were before the best were chosen.
    pub all: usize,
    /// What the chosen ones have in common of what tells all cells apart, and their names leave out.
    pub common: String,
}

/// Names of some records by what tells these apart, of the fields beside `without`; and what else they have in common.
pub(super) fn names(facts: &Facts, records: &[usize], without: &[&str]) -> (Vec<String>, String) {
    let differs = |path: &str| records.windows(2).any(|w| facts.value(w[0], path) != facts.value(w[1], path));
    let paths = facts.varied.iter().map(|v| v.path.as_str()).filter(|path| !without.contains(path));
    let (telling, common): (Vec<&str>, Vec<&str>) = paths.partition(|path| differs(path));
    let names = records.iter().map(|&i| facts.name_without(i, &[without, &common].concat())).collect();
    let known = records.first().filter(|&&i| common.iter().any(|path| facts.value(i, path).is_some()));
    (names, known.map_or(String::new(), |&i| facts.name_without(i, &[without, &telling].concat())))
}

/// A metric over a swept field. `None` where no series has two points.
pub(super) fn over(facts: &Facts, along: &Varied, metric: &Metric) -> Option<Gathered> {
    let places = Places::of(along);
    let without = [along.path.as_str()];
    // Of each combination its first record and its marks.
    let mut groups: Vec<(String, usize, Vec<Mark>)> = Vec::new();
    for i in facts.measured() {
        let found = facts.get(i, metric).zip(facts.value(i, &along.path).and_then(|v| places.at(&v)));
        let Some((y, x)) = found.and_then(|(y, at)| Some((y, Estimate::exact(at)?))) else { continue };
        let name = facts.name_without(i, &without);
        let mark = Mark { filled: !facts.disturbed(i), ..Mark::at(x, y) };
        match groups.iter_mut().find(|(n, ..)| *n == name) {
            Some((.., marks)) => marks.push(mark),
            None => groups.push((name, i, vec![mark])),
        }
    }
    if groups.iter().all(|(.., marks)| marks.len() < 2) {
        return None;
    }
    let all = groups.len();
    // Too many to tell apart: those with the lowest value.
    if all > MOST_SERIES {
        let least = |marks: &[Mark]| marks.iter().map(|m| m.y.value).fold(f64::INFINITY, f64::min);
        groups.sort_by(|a, b| least(&a.2).total_cmp(&least(&b.2)));
        groups.truncate(MOST_SERIES);
    }
    let (mut labels, common) = names(facts, &groups.iter().map(|g| g.1).collect::<Vec<_>>(), &without);
    if let [alone] = labels.as_mut_slice() {
        alone.clear();
    }
    let series = groups
        .into_iter()
        .zip(labels)
        .enumerate()
        .map(|(look, ((.., mut marks), label))| {
            marks.sort_by(|a, b| a.x.value.total_cmp(&b.x.value));
            let line = if places.are_numbers() { Join::Joined } else { Join::None };
            Series { label, marks, line, look }
        })
        .collect();
    Some(Gathered { x: Axis { name: axis_name(along), scale: places.scale() }, series, all, common })
}

/// "batch, sequences".
pub(super) fn axis_name(v: &Varied) -> String {
    if v.unit.is_empty() || v.label.contains(v.unit) { v.label.clone() } else { format!("{}, {}", v.label, v.unit) }
}

/// Where the values of a field stand: numbers by their size, words in their order.
enum Places {
    Numbers(Vec<f64>),
    Words(Vec<String>),
}

impl Places {
    fn of(v: &Varied) -> Self {
        let numbers: Option<Vec<f64>> =
            v.values.iter().map(|t| t.parse().ok().filter(|x: &f64| x.is_finite())).collect();
        numbers.map_or_else(|| Self::Words(v.values.clone()), Self::Numbers)
    }

    fn at(&self, value: &str) -> Option<f64> {
        match self {
            Self::Numbers(_) => value.parse().ok(),
            Self::Words(words) => words.iter().position(|w| w == value).map(|i| i as f64),
        }
    }

    fn are_numbers(&self) -> bool {
        matches!(self, Self::Numbers(_))
    }

    fn scale(&self) -> Scale {
        match self {
            Self::Numbers(values) => Scale::swept(values, number),
            Self::Words(words) => Scale::names(words.clone()),
        }
    }
}

/// A tick of a swept field: as it was written.
fn number(x: f64) -> String {
    if x.fract() == 0.0 && (0.0..1e15).contains(&x) { crate::units::grouped(x as u64) } else { x.to_string() }
}

/// A tick of a metric's axis.
pub(crate) fn tick(metric: &'static Metric) -> fn(f64) -> String {
    use crate::cost::metric::Quantity;
    match metric.quantity {
        Quantity::UsdPerMillionTokens => |x| format!("${}", trimmed(x)),
        Quantity::Usd => |x| format!("${}", trimmed(x)),
        Quantity::Seconds => |x| format::with_unit(Quantity::Seconds, x).replace(".00 ", " ").replace(".0 ", " "),
        Quantity::Bytes => |x| format::with_unit(Quantity::Bytes, x).replace(".00 ", " ").replace(".0 ", " "),
        _ => trimmed,
    }
}

/// A number as short as it reads well.
pub(super) fn short(x: f64) -> String {
    trimmed(x)
}

/// A round number without the zeros of its rounding: 0.005, 2.5, 12,000.
fn trimmed(x: f64) -> String {
    if x >= 1000.0 {
        return number(x.round());
    }
    let text = format!("{x:.9}");
    let short = text.trim_end_matches('0').trim_end_matches('.');
    if short.is_empty() || (short == "0" && x > 0.0) { format!("{x:e}") } else { short.to_string() }
}

/// What a caption says of series that are not shown, of what is left out of their names, and of marks that are hollow.
pub(super) fn left_out(g: &Gathered) -> String {
    let hollow = g.series.iter().flat_map(|s| &s.marks).any(|m| !m.filled);
    let mut said = String::from(if hollow { HOLLOW } else { "" });
    if g.all > g.series.len() {
        said += &format!(
            " Of {} combinations of the other fields, the {} lowest are shown; the table has all.",
            g.all,
            g.series.len()
        );
    }
    said + &in_common(&g.common)
}

/// What a caption says of what names leave out, since all that is shown has it.
pub(super) fn in_common(common: &str) -> String {
    if common.is_empty() { String::new() } else { format!(" All that is shown has {common}.") }
}

/// What hollow marks are, where there are any.
pub(super) const HOLLOW: &str = " Hollow marks are of rows that others on the machine disturbed.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::metrics::{TOKENS_PER_SECOND, USD_PER_MILLION};
    use crate::fixture;

    #[test]
    fn a_series_is_a_combination_of_the_other_fields() {
        let run = fixture::sweep();
        let facts = Facts::of(&run, fixture::book());
        let g = over(&facts, &facts.varied[1], &TOKENS_PER_SECOND).unwrap();
        assert_eq!(g.all, 4);
        assert_eq!(g.series[0].label, "d_model 256, devices 1");
        let xs: Vec<f64> = g.series[0].marks.iter().map(|m| m.x.value).collect();
        assert_eq!(xs, [1.0, 4.0, 8.0]);
        assert_eq!(g.x.name, "batch, sequences");
    }

    #[test]
    fn without_a_price_there_is_no_series_of_costs() {
        let mut run = fixture::sweep();
        run.environment.price.usd_per_hour = None;
        let facts = Facts::of(&run, fixture::book());
        assert!(over(&facts, &facts.varied[1], &USD_PER_MILLION).is_none());
    }

    #[test]
    fn marks_of_disturbed_rows_are_hollow_and_the_caption_says_so() {
        let mut run = fixture::sweep();
        let quiet = over(&Facts::of(&run, fixture::book()), &varied(&run, 1), &TOKENS_PER_SECOND).unwrap();
        assert_eq!(left_out(&quiet), "");
        let lost = crate::runner::watch::Disturbance { waited: Some(0.2), ..Default::default() };
        run.records[0].measurement.figures.as_mut().unwrap().disturbance = Some(lost);
        let g = over(&Facts::of(&run, fixture::book()), &varied(&run, 1), &TOKENS_PER_SECOND).unwrap();
        assert_eq!(g.series.iter().flat_map(|s| &s.marks).filter(|m| !m.filled).count(), 1);
        assert_eq!(left_out(&g), HOLLOW);
    }

    #[test]
    fn what_all_series_have_is_said_once_and_not_in_each_name() {
        let mut run = fixture::sweep();
        let facts = Facts::of(&run, fixture::book());
        let of = |records: &[usize], without: &[&str]| names(&facts, records, without);
        assert_eq!(
            of(&[0, 2, 4], &[]),
            (["batch 1", "batch 4", "batch 8"].map(String::from).into(), "d_model 256, devices 1".into())
        );
        assert_eq!(
            of(&[0, 1], &["batch"]),
            (["devices 1", "devices 2"].map(String::from).into(), "d_model 256".into())
        );
        assert_eq!(of(&[0, 1], &["batch", "model.d_model"]).1, "");
        run.records[6..].iter_mut().for_each(|r| r.measurement.figures = None);
        let g = over(&Facts::of(&run, fixture::book()), &varied(&run, 1), &TOKENS_PER_SECOND).unwrap();
        assert_eq!(g.series.iter().map(|s| s.label.as_str()).collect::<Vec<_>>(), ["devices 1", "devices 2"]);
        assert_eq!(left_out(&g), " All that is shown has d_model 256.");
    }

    fn varied(run: &crate::results::run::Run, at: usize) -> Varied {
        Facts::of(run, fixture::book()).varied[at].clone()
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!([0.005, 2.5, 12000.0, 0.0].map(trimmed), ["0.005", "2.5", "12,000", "0"]);
        assert_eq!(tick(&USD_PER_MILLION)(0.02), "$0.02");
    }
}
