//! What training has come to, rank by rank: parameters and the optimizer's moments, written to a file a rank and read back.
//!
//! What replicas have alike the first one writes, and all read; what each keeps a share of, each writes itself. Everything else that a
//! step depends on is a function of how many there were: tokens, dropout, the optimizer's corrections. Where ranks have rounded copies of
//! what others update, what is exact of it comes to all of them first.

use super::super::backend::{Backend, Store, Stretch};
use super::super::checkpoint::file::{Number, TensorFile};
use super::super::checkpoint::written::{Planned, Written, write};
use super::super::collective::grid::Groups;
use super::super::collective::{Job, share};
use super::super::error::SessionError;
use super::one::{Rank, RankOutcome, Work};
use std::path::Path;

/// Where a tensor is kept.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// By its number.
    Parameter(usize),
    /// The optimizer's first or second moments of a parameter.
    Moments(usize, usize),
}

/// A tensor of a rank's state.
#[derive(Debug)]
struct Kept {
    planned: Planned,
    place: Place,
    /// Whether it is this rank's share, which no other replica has.
    own: bool,
}

/// The file of a part of a replica.
fn file_name(replica: usize, part: usize) -> String {
    format!("state-{replica}-{part}.safetensors")
}

impl<B: Backend + Clone> Rank<B> {
    /// All that training changes, in an order that is always the same.
    fn kept(&self) -> Vec<Kept> {
        let Work::Train(t) = &self.work else { return Vec::new() };
        let specs = &self.model.index.specs;
        let (replica, of_shares) = (self.place().0, self.seat.groups.data.size());
        let layers = self.model.index.of_layers();
        let mut all = Vec::new();
        // Of what other stages of a pipeline have, nothing is here.
        let here = |i: &usize| specs[*i].len() > 0;
        for (i, spec) in specs.iter().enumerate().filter(|(i, _)| here(i)) {
            let own = t.shares.is_some() && layers.contains(&i);
            let shape =
                if own { vec![share(spec.len(), replica, of_shares).len()] } else { vec![spec.rows, spec.columns] };
            let planned = Planned { name: format!("parameters.{}", spec.name), shape };
            all.push(Kept { planned, place: Place::Parameter(i), own });
        }
        let (rank, of) = t.state().place();
        for (which, moments) in t.state().moments().into_iter().enumerate() {
            for i in (0..moments.len()).filter(here) {
                let shape = vec![share(specs[i].len(), rank, of).len()];
                let name = format!("optimizer.moments{}.{}", which + 1, specs[i].name);
                all.push(Kept { planned: Planned { name, shape }, place: Place::Moments(which, i), own: of > 1 });
            }
        }
        all
    }

    /// Replica, and which part of it: where experts are spread over replicas, they are together what one is elsewhere.
    fn place(&self) -> (usize, usize) {
        let Groups { data, experts, tensor, stages, .. } = &self.seat.groups;
        match experts {
            Some(spread) => (spread.holders.rank(), spread.ranks.rank()),
            None => (data.rank(), stages.all.rank() * tensor.size() + tensor.rank()),
        }
    }

    fn buffer(&self, place: Place) -> Option<&B::Buffer> {
        let Work::Train(t) = &self.work else { return None };
        match place {
            Place::Parameter(i) => match &t.shares {
                Some(shares) => shares.own(i).or(self.model.parameters.get(i)),
                None => self.model.parameters.get(i),
            },
            Place::Moments(which, i) => t.state().moments()[which].get(i),
        }
    }

    fn put(&mut self, place: Place, numbers: &[f32]) {
        let Work::Train(t) = &mut self.work else { return };
        let backend = &self.model.backend;
        let buffer = match place {
            Place::Parameter(i) => match t.shares.as_mut().and_then(|s| s.own_mut(i)) {
                Some(own) => Some(own),
                None => self.model.parameters.get_mut(i),
            },
            Place::Moments(which, i) => t.state_mut().moments_mut(which).get_mut(i),
        };
        buffer.into_iter().for_each(|buffer| backend.upload(numbers, buffer));
    }

    /// Has parameters that other replicas update as exact as they have them, by way of where gradients are between two steps.
    fn make_exact(&mut self) {
        let Work::Train(t) = &mut self.work else { return };
        let (model, data) = (&mut self.model, &*self.seat.groups.data);
        if t.state().place().1 == 1 || !model.backend.rounds_parameters() {
            return;
        }
        let layers = model.index.of_layers();
        let own = |i: &usize| t.shares.is_some() && layers.contains(i);
        let here = |i: &usize| model.index.specs[*i].len() > 0 && !own(i);
        let all: Vec<usize> = (0..model.index.specs.len()).filter(here).collect();
        let room = t.room();
        for i in all {
            let whole = Stretch { from: 0, to: 0, len: model.index.specs[i].len() };
            model.backend.put(&model.parameters[i], room.of(i), whole, Store::Overwrite);
            data.run(Job::AllGather, std::slice::from_mut(room.of(i)));
            model.backend.put(room.of(i), &mut model.parameters[i], whole, Store::Overwrite);
        }
    }

    /// Writes what no rank before it does to a file of its own in this folder, and returns when that is on the disk. `None`: others
    /// write all that it has. All ranks are asked at once.
    ///
    /// # Errors
    /// Disk or permissions, in words.
    pub(crate) fn save(&mut self, folder: &Path) -> Result<Option<Written>, String> {
        if !matches!(self.work, Work::Train(_)) {
            return Err("only training has a state to go on from".into());
        }
        self.make_exact();
        let (replica, part) = self.place();
        let (planned, places): (Vec<Planned>, Vec<Place>) =
            self.kept().into_iter().filter(|k| k.own || replica == 0).map(|k| (k.planned, k.place)).unzip();
        if planned.is_empty() {
            return Ok(None);
        }
        let path = folder.join(file_name(replica, part));
        self.model.backend.synchronize();
        let written = write(&path, &planned, &mut |tensor, first, out| {
            if let Some(buffer) = self.buffer(places[tensor]) {
                self.model.backend.download(buffer, first, out);
            }
        });
        let written = written.map_err(|e| format!("{}: {e}", path.display()))?;
        // A device that failed gave numbers that mean nothing.
        self.check().map_err(|e| e.to_string())?;
        Ok(Some(written))
    }

    /// Goes on from what [`Rank::save`] wrote of all ranks after so many steps.
    ///
    /// # Errors
    /// Files that cannot be read or are of another model or other ranks; what is there then is of no use.
    pub(crate) fn restore(&mut self, folder: &Path, step: u64) -> Result<RankOutcome, SessionError> {
        let (replica, part) = self.place();
        let kept = self.kept();
        if kept.is_empty() {
            return Err(SessionError::Invalid("only training goes on from a checkpoint".into()));
        }
        let open = |replica: usize| {
            let path = folder.join(file_name(replica, part));
            TensorFile::open(&path).map_err(|e| SessionError::Invalid(e.to_string()))
        };
        let common = open(0)?;
        let own = if replica > 0 && kept.iter().any(|k| k.own) { Some(open(replica)?) } else { None };
        let mut host = Vec::new();
        for Kept { planned: Planned { name, shape }, place, own: is_own } in kept {
            let (file, stated) = own.as_ref().filter(|_| is_own).unwrap_or(&common);
            let fault = |found: String| {
                let path = file.path.display();
                SessionError::Invalid(format!("{path}: expected a tensor {name} of {shape:?} in F32, found {found}"))
            };
            let stated = stated.get(&name).ok_or_else(|| fault("none".into()))?;
            let wanted: Vec<u64> = shape.iter().map(|n| *n as u64).collect();
            if stated.dtype != "F32" || stated.shape != wanted {
                return Err(fault(format!("{:?} in {}", stated.shape, stated.dtype)));
            }
            host.resize(shape.iter().product(), 0.0);
            file.numbers(stated, Number::F32, 0, &mut host).map_err(|e| fault(e.to_string()))?;
            self.put(place, &host);
        }
        if let Work::Train(t) = &mut self.work {
            t.state_mut().set_steps(u32::try_from(step).unwrap_or(u32::MAX));
            t.shares.iter_mut().for_each(|shares| shares.forget());
        }
        self.begin_at(step);
        self.model.backend.synchronize();
        self.check()?;
        Ok(RankOutcome::nothing())
    }
}
