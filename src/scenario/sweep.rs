//! The sweep: which cells a scenario asks for.
//!
//! `matrix` crosses its axes; each entry of `zip` moves its axes together; matrix and zips cross each other; `exclude` takes
//! cells out; `include` adds partial trials over the base. The number of cells is computed before any is made.

use super::Cell;
use super::axes::{self, Axis, Draft};
use super::document::Sources;
use super::error::{ScenarioError, did_you_mean};
use super::fields::entries;
use super::node::{Entry, Node, Place, Value};
use super::ranges;
use std::collections::HashSet;

/// Keys of `sweep`.
pub const SWEEP: &[&str] = &["matrix", "zip", "include", "exclude"];

/// One value of an axis and where it is written.
type Setting = (&'static Axis, Value, Option<Place>);

/// Axes that move together: a list of settings for each position.
type Group = Vec<Vec<Setting>>;

fn axis_of(e: &Entry, s: &Sources) -> Result<&'static Axis, ScenarioError> {
    axes::find(&e.key).ok_or_else(|| {
        let hint = did_you_mean(&e.key, axes::AXES.iter().map(|a| a.path));
        s.fault(e.place, format!("no field `{}` in a trial to sweep over; {hint}", e.key))
    })
}

/// The values of an axis: a list (with ranges in it), a range, or one value.
fn values(e: &Entry, axis: &'static Axis, s: &Sources) -> Result<Vec<Setting>, ScenarioError> {
    let nodes = match &e.node.value {
        Value::List(list) => list.as_slice(),
        _ => std::slice::from_ref(&e.node),
    };
    let mut out = Vec::new();
    for node in nodes {
        let range = match &node.value {
            Value::Text(t) if axis.kind == axes::Kind::Count => {
                ranges::expand(t).map_err(|m| s.fault(node.place, format!("{}: {m}", axis.path)))?
            }
            _ => None,
        };
        match range {
            Some(numbers) => out.extend(numbers.into_iter().map(|n| (axis, Value::Integer(n), node.place))),
            None => out.push((axis, node.value.clone(), node.place)),
        }
    }
    if out.is_empty() {
        return Err(
            s.fault(e.node.place, format!("{}: an axis without values sweeps nothing; give at least one", axis.path))
        );
    }
    for (_, value, place) in &out {
        (axis.set)(&mut Draft::default(), value).map_err(|m| s.fault(*place, format!("{}: {m}", axis.path)))?;
    }
    Ok(out)
}

struct Axes<'a> {
    seen: Vec<&'static Axis>,
    groups: Vec<Group>,
    sources: &'a Sources,
}

impl Axes<'_> {
    fn note(&mut self, axis: &'static Axis, place: Option<Place>) -> Result<(), ScenarioError> {
        if self.seen.iter().any(|a| a.path == axis.path) {
            return Err(self.sources.fault(place, format!("{} is swept twice; keep one of the two", axis.path)));
        }
        self.seen.push(axis);
        Ok(())
    }

    fn matrix(&mut self, node: &Node) -> Result<(), ScenarioError> {
        for e in map(node, "sweep.matrix", self.sources)? {
            let axis = axis_of(e, self.sources)?;
            self.note(axis, e.place)?;
            self.groups.push(values(e, axis, self.sources)?.into_iter().map(|v| vec![v]).collect());
        }
        Ok(())
    }

    fn zip(&mut self, node: &Node) -> Result<(), ScenarioError> {
        let mut group: Group = Vec::new();
        let mut first: Option<&'static str> = None;
        for e in map(node, "sweep.zip", self.sources)? {
            let axis = axis_of(e, self.sources)?;
            self.note(axis, e.place)?;
            let values = values(e, axis, self.sources)?;
            match first {
                None => group = values.into_iter().map(|v| vec![v]).collect(),
                Some(name) if values.len() != group.len() => {
                    let message = format!(
                        "{} has {} values and {name} has {}; axes that move together have equally many",
                        axis.path,
                        values.len(),
                        group.len()
                    );
                    return Err(self.sources.fault(e.place, message));
                }
                Some(_) => group.iter_mut().zip(values).for_each(|(g, v)| g.push(v)),
            }
            first = first.or(Some(axis.path));
        }
        if !group.is_empty() {
            self.groups.push(group);
        }
        Ok(())
    }
}

fn map<'a>(node: &'a Node, section: &str, s: &Sources) -> Result<&'a [Entry], ScenarioError> {
    match &node.value {
        Value::Map(entries) => Ok(entries),
        Value::Null => Ok(&[]),
        other => Err(
            s.fault(node.place, format!("{section}: a map of axes to values is wanted, and this is {}", other.kind()))
        ),
    }
}

fn list<'a>(e: &'a Entry, s: &Sources) -> Result<&'a [Node], ScenarioError> {
    match &e.node.value {
        Value::List(list) => Ok(list),
        Value::Null => Ok(&[]),
        other => Err(s.fault(e.node.place, format!("sweep.{}: a list is wanted, and this is {}", e.key, other.kind()))),
    }
}

/// A partial trial: settings of single values, flattened (`model: { d_model: 8 }` is `model.d_model: 8`).
fn partial(node: &Node, s: &Sources) -> Result<Vec<Setting>, ScenarioError> {
    let mut out = Vec::new();
    for e in map(node, "a partial trial", s)? {
        if e.key == "model" {
            for inner in map(&e.node, "model", s)? {
                out.push(single(&Entry { key: format!("model.{}", inner.key), ..inner.clone() }, s)?);
            }
        } else {
            out.push(single(e, s)?);
        }
    }
    Ok(out)
}

fn single(e: &Entry, s: &Sources) -> Result<Setting, ScenarioError> {
    let axis = axis_of(e, s)?;
    (axis.set)(&mut Draft::default(), &e.node.value)
        .map_err(|m| s.fault(e.node.place, format!("{}: {m}", axis.path)))?;
    Ok((axis, e.node.value.clone(), e.node.place))
}

/// What the sweep comes to.
#[derive(Debug)]
pub struct Sweep {
    /// Swept paths in the order of the file.
    pub axes: Vec<String>,
    pub cells: Vec<Cell>,
}

/// Expands a sweep over the base trial.
///
/// # Errors
/// A fault in the section; more cells than `max_cells`; a cell that is no trial and is not excluded; a cell twice.
pub fn expand(
    node: Option<&Node>,
    base: &Draft,
    max_cells: u64,
    cuda: bool,
    s: &Sources,
) -> Result<Sweep, ScenarioError> {
    let sections = entries("sweep", node, SWEEP, s)?;
    let mut axes = Axes { seen: Vec::new(), groups: Vec::new(), sources: s };
    let (mut include, mut exclude) = (Vec::new(), Vec::new());
    for e in sections {
        match e.key.as_str() {
            "matrix" => axes.matrix(&e.node)?,
            "zip" => list(e, s)?.iter().try_for_each(|n| axes.zip(n))?,
            "include" => {
                include =
                    list(e, s)?.iter().map(|n| Ok((n.place, partial(n, s)?))).collect::<Result<_, ScenarioError>>()?
            }
            _ => {
                exclude =
                    list(e, s)?.iter().map(|n| Ok((n.place, partial(n, s)?))).collect::<Result<_, ScenarioError>>()?
            }
        }
    }
    // A sweep of nothing but further cells consists of these; the base alone is a cell only where nothing is swept.
    let start = u64::from(!axes.groups.is_empty() || include.is_empty());
    let crossed = axes.groups.iter().try_fold(start, |n, g| n.checked_mul(g.len() as u64));
    let total = crossed.and_then(|n| n.checked_add(include.len() as u64)).filter(|n| *n <= max_cells);
    let Some(total) = total else {
        let count = crossed.map_or("more than 2^64".into(), crate::units::grouped);
        let place = node.and_then(|n| n.place);
        return Err(s.fault(
            place,
            format!("the sweep has {count} cells, over {max_cells}; narrow it, or allow them with --max-cells"),
        ));
    };
    let mut maker = Maker {
        base,
        cuda,
        s,
        exclude: &exclude,
        matched: vec![false; exclude.len()],
        ids: HashSet::new(),
        cells: Vec::with_capacity(total as usize),
    };
    for index in 0..crossed.unwrap_or(0) {
        let mut rest = index;
        let mut settings: Vec<&Setting> = Vec::new();
        // The last group turns fastest, as nested loops would.
        for g in axes.groups.iter().rev() {
            let at = (rest % g.len() as u64) as usize;
            rest /= g.len() as u64;
            settings.splice(0..0, &g[at]);
        }
        maker.cell(&settings, true)?;
    }
    for (_, settings) in &include {
        maker.cell(&settings.iter().collect::<Vec<_>>(), false)?;
    }
    if let Some(i) = maker.matched.iter().position(|m| !m) {
        return Err(s.fault(exclude[i].0, "sweep.exclude: no cell matches; correct it or take it out"));
    }
    if maker.cells.is_empty() {
        return Err(s.fault(node.and_then(|n| n.place), "the sweep excludes every cell; nothing is left to measure"));
    }
    Ok(Sweep { axes: axes.seen.iter().map(|a| a.path.to_string()).collect(), cells: maker.cells })
}

struct Maker<'a> {
    base: &'a Draft,
    cuda: bool,
    s: &'a Sources,
    exclude: &'a [(Option<Place>, Vec<Setting>)],
    matched: Vec<bool>,
    ids: HashSet<String>,
    cells: Vec<Cell>,
}

impl Maker<'_> {
    fn cell(&mut self, settings: &[&Setting], excludable: bool) -> Result<(), ScenarioError> {
        let mut draft = self.base.clone();
        for (axis, value, place) in settings {
            (axis.set)(&mut draft, value).map_err(|m| self.s.fault(*place, format!("{}: {m}", axis.path)))?;
        }
        if excludable && self.excluded(&draft, settings) {
            return Ok(());
        }
        let trial = draft.finish(self.cuda).map_err(|(path, message)| self.fault(path, &message, settings))?;
        let coordinates: Vec<(String, String)> =
            settings.iter().map(|(axis, value, _)| (axis.path.to_string(), value.to_string())).collect();
        if !self.ids.insert(trial.id()) {
            let at = shown(&coordinates);
            let place = settings.first().and_then(|(_, _, p)| *p);
            return Err(self.s.fault(
                place,
                format!("the cell {at} is asked for twice; a field that its phase does not use may be swept"),
            ));
        }
        self.cells.push(Cell { trial, coordinates });
        Ok(())
    }

    fn excluded(&mut self, draft: &Draft, settings: &[&Setting]) -> bool {
        let mut out = false;
        for (i, (_, wanted)) in self.exclude.iter().enumerate() {
            let matches = wanted.iter().all(|(axis, value, _)| {
                match settings.iter().find(|(a, _, _)| a.path == axis.path) {
                    Some((_, have, _)) => have.to_string() == value.to_string(),
                    None => {
                        // Not swept: it matches where setting it changes nothing.
                        let mut changed = draft.clone();
                        (axis.set)(&mut changed, value).is_ok() && format!("{changed:?}") == format!("{draft:?}")
                    }
                }
            });
            self.matched[i] |= matches;
            out |= matches;
        }
        out
    }

    fn fault(&self, path: &str, message: &str, settings: &[&Setting]) -> ScenarioError {
        let place = settings.iter().find(|(a, _, _)| a.path == path).or(settings.first()).and_then(|(_, _, p)| *p);
        let coordinates: Vec<(String, String)> =
            settings.iter().map(|(a, v, _)| (a.path.to_string(), v.to_string())).collect();
        match coordinates.as_slice() {
            [] => self.s.fault(place, format!("{path}: {message}")),
            _ => self.s.fault(place, format!("{path}: {message} (in the cell {})", shown(&coordinates))),
        }
    }
}

fn shown(coordinates: &[(String, String)]) -> String {
    coordinates.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
}
