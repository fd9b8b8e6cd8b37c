//! The sweep: which cells a scenario asks for.
//!
//! `matrix` crosses its axes; each entry of `zip` moves its axes together; matrix and zips cross each other; `exclude` takes
//! cells out; `include` adds partial trials over the base. The number of cells is computed before any is made.
//!
//! Every cell is asked for once: two that compute the same are an error, because one of them would be measured for nothing
//! and counted twice.

mod axis;
mod repeat;

use super::Cell;
use super::axes::section_of;
use super::base::Base;
use super::draft::Draft;
use super::engine::complete::complete;
use super::learning::draft::Texts;
use super::weights::Folders;
use crate::yaml::{Node, Place, Sources, YamlError, entries};
use axis::{Axes, Setting, list, partial};
use std::collections::HashSet;

/// Keys of `sweep`.
const SWEEP: &[&str] = &["matrix", "zip", "include", "exclude", "repeat"];

/// What the sweep comes to.
#[derive(Debug)]
pub(super) struct Sweep {
    /// Swept paths in the order of the file.
    pub axes: Vec<String>,
    pub cells: Vec<Cell>,
    /// Seeds with which every cell is launched, one a round; none where nothing is said of it.
    pub seeds: Vec<u64>,
}

/// A partial trial and where it stands.
type Partial = (Option<Place>, Vec<Setting>);

/// Expands a sweep over the base trial.
///
/// # Errors
/// A fault in the section; more cells than `max_cells`; a cell that is no trial and is not excluded; a cell twice.
pub(super) fn expand(
    node: Option<&Node>,
    base: &Base,
    max_cells: u64,
    cuda: fn() -> bool,
    s: &Sources,
) -> Result<Sweep, YamlError> {
    let mut axes = Axes::new(s);
    let (mut include, mut exclude, mut seeds) = (Vec::new(), Vec::new(), Vec::new());
    let partials =
        |list: &[Node]| list.iter().map(|n| Ok((n.place, partial(n, s)?))).collect::<Result<Vec<Partial>, _>>();
    for e in entries("sweep", node, SWEEP, &[], s)? {
        match e.key.as_str() {
            "matrix" => axes.matrix(&e.node)?,
            "zip" => list(e, s)?.iter().try_for_each(|n| axes.zip(n))?,
            "include" => include = partials(list(e, s)?)?,
            "repeat" => seeds = repeat::seeds(&e.node, s)?,
            _ => exclude = partials(list(e, s)?)?,
        }
    }
    let place = node.and_then(|n| n.place);
    let crossed = count(&axes, include.len(), max_cells).map_err(|message| s.fault(place, message))?;
    let mut maker = Maker::new(base, cuda, &exclude, s);
    for index in 0..crossed {
        maker.cell(&at(&axes, index), true)?;
    }
    for (_, settings) in &include {
        maker.cell(&settings.iter().collect::<Vec<_>>(), false)?;
    }
    if let Some(i) = maker.matched.iter().position(|m| !m) {
        return Err(s.fault(exclude[i].0, "sweep.exclude: no cell matches; correct it or take it out"));
    }
    if maker.cells.is_empty() {
        return Err(s.fault(place, "the sweep excludes every cell; keep one to measure"));
    }
    Ok(Sweep { axes: axes.seen.into_iter().map(|(path, _)| path).collect(), cells: maker.cells, seeds })
}

/// Cells of the crossed groups. A sweep of nothing but further cells consists of these; the base alone is a cell only where
/// nothing is swept.
fn count(axes: &Axes, included: usize, max_cells: u64) -> Result<u64, String> {
    let start = u64::from(!axes.groups.is_empty() || included == 0);
    let crossed = axes.groups.iter().try_fold(start, |n, g| n.checked_mul(g.len() as u64));
    let total = crossed.and_then(|n| n.checked_add(included as u64));
    match (crossed, total) {
        (Some(crossed), Some(total)) if total <= max_cells => Ok(crossed),
        _ => {
            let (total, most) =
                (total.map_or("more than 2^64".into(), crate::units::grouped), crate::units::grouped(max_cells));
            Err(format!("the sweep has {total} cells, and {most} are allowed; narrow it, or raise --max-cells"))
        }
    }
}

/// The settings of one crossing; the last group turns fastest, as nested loops would.
fn at<'a>(axes: &'a Axes, index: u64) -> Vec<&'a Setting> {
    let mut rest = index;
    let mut chosen: Vec<&Vec<Setting>> = Vec::with_capacity(axes.groups.len());
    for g in axes.groups.iter().rev() {
        let length = g.len() as u64;
        chosen.push(&g[(rest % length) as usize]);
        rest /= length;
    }
    chosen.into_iter().rev().flatten().collect()
}

struct Maker<'a> {
    base: &'a Base,
    cuda: fn() -> bool,
    exclude: &'a [Partial],
    s: &'a Sources,
    /// Which of `exclude` have matched a cell.
    matched: Vec<bool>,
    ids: HashSet<String>,
    cells: Vec<Cell>,
    folders: Folders,
    texts: Texts,
}

impl<'a> Maker<'a> {
    fn new(base: &'a Base, cuda: fn() -> bool, exclude: &'a [Partial], s: &'a Sources) -> Self {
        let matched = vec![false; exclude.len()];
        let (ids, cells) = (HashSet::new(), Vec::new());
        let (folders, texts) = (Folders::default(), Texts::default());
        Self { base, cuda, exclude, s, matched, ids, cells, folders, texts }
    }

    fn cell(&mut self, settings: &[&Setting], excludable: bool) -> Result<(), YamlError> {
        let mut draft = self.base.draft.clone();
        for setting in settings {
            setting.apply(&mut draft).map_err(|m| self.s.fault(setting.place, m))?;
        }
        if let Some(name) = &draft.weights_from {
            let looked = self.folders.look(name, self.s);
            draft.folder = Some(looked.map_err(|message| self.fault("weights_from", &message, settings))?);
        }
        if draft.learning.is_said() {
            let looked = self.texts.look(&draft.learning, self.s);
            draft.learning.sealed = Some(looked.map_err(|(path, message)| self.fault(path, &message, settings))?);
        }
        if excludable && self.excluded(&draft) {
            return Ok(());
        }
        let trial = draft
            .finish(self.cuda)
            .and_then(|trial| complete(trial, &draft))
            .map_err(|(path, message)| self.fault(&path, &message, settings))?;
        let coordinates: Vec<_> = settings.iter().map(|s| s.coordinate()).collect();
        if !self.ids.insert(trial.id()) {
            let message = format!(
                "the cell {} is asked for twice; take one out (fields that a phase does not use make no difference)",
                shown(&coordinates)
            );
            return Err(self.s.fault(settings.first().and_then(|s| s.place), message));
        }
        self.cells.push(Cell { trial, coordinates });
        Ok(())
    }

    fn excluded(&mut self, draft: &Draft) -> bool {
        let mut out = false;
        for (i, (_, wanted)) in self.exclude.iter().enumerate() {
            if wanted.iter().all(|w| has(draft, w)) {
                self.matched[i] = true;
                out = true;
            }
        }
        out
    }

    /// Points at what the sweep sets, or else at what the base says.
    fn fault(&self, path: &str, message: &str, settings: &[&Setting]) -> YamlError {
        let beside = |s: &Setting| section_of(&s.field.path) == section_of(path);
        let place = settings
            .iter()
            .find(|s| s.field.path == path)
            .and_then(|s| s.place)
            .or_else(|| self.base.place(path))
            .or_else(|| settings.iter().rfind(|s| beside(s)).and_then(|s| s.place))
            .or_else(|| self.base.near(path));
        let coordinates: Vec<_> = settings.iter().map(|s| s.coordinate()).collect();
        match coordinates.as_slice() {
            [] => self.s.fault(place, format!("{path}: {message}")),
            _ => self.s.fault(place, format!("{path}: {message} (in the cell {})", shown(&coordinates))),
        }
    }
}

/// Whether a draft has a value already: setting it changes nothing, or nothing of the shape that comes of it.
fn has(draft: &Draft, wanted: &Setting) -> bool {
    let mut changed = draft.clone();
    if wanted.apply(&mut changed).is_err() {
        return false;
    }
    if changed == *draft {
        return true;
    }
    if let (Ok(a), Ok(b)) = (draft.parallel(), changed.parallel())
        && (wanted.field.path == "devices" || section_of(&wanted.field.path) == Some("parallel"))
    {
        return a == b;
    }
    let shapes = (draft.shape(), changed.shape());
    wanted.field.path.starts_with("model.") && matches!(shapes, (Ok((_, a)), Ok((_, b))) if a == b)
}

fn shown(coordinates: &[(String, String)]) -> String {
    coordinates.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
}
