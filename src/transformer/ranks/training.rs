//! What a training rank keeps, and its step: forward, backward, exchange and update.
//!
//! A step's operations are the same every time, so that a backend may capture them once and replay them ([`Backend::captured`]):
//! tokens lie in buffers, and what else differs is told beforehand. Ranks that exchange with others do their operations one by one: what
//! a capture makes of several threads' collectives, and of a stream beside the device's own, has not been tried on GPUs. So do those
//! whose batch goes through in several micro-batches, as each has a loss to be read.

use super::super::backend::{Alloc, Backend, Captured, Category, Loss, Tokens, Update, Varying};
use super::super::collective::grid::{Parallel, Sharding};
use super::super::collective::stage::Stage;
use super::super::error::SessionError;
use super::super::levers::Levers;
use super::super::pass::activations::{Activations, Extent};
use super::super::pass::backward::Targets;
use super::super::pass::forward::StepDropout;
use super::super::pass::gradients::Gradients;
use super::super::pass::model::{Index, Model};
use super::super::pass::optimizer::State;
use super::super::pass::scratch::Scratch;
use super::super::pass::shares::Shares;
use super::super::shape::Shape;
use super::super::trace;
use super::super::{BackendKind, cuda};
use super::clip::Clip;
use super::exchange::{Exchange, Seat, Sum, Summing};
use std::ops::Range;

/// What a training rank keeps of gradients and moments.
#[derive(Clone, Copy, Debug)]
pub(in crate::transformer) struct Keeping {
    /// Layers whose gradients have buffers of their own.
    pub layers: usize,
    /// Which share of how many of the moments.
    pub state: (usize, usize),
    pub levers: Levers,
    pub sharding: Sharding,
}

impl Keeping {
    /// What a replica will keep, before there is one.
    pub(crate) fn of_replica(on: BackendKind, replica: usize, parallel: &Parallel, levers: Levers) -> Self {
        let layers = if on == BackendKind::Cuda && cuda::nccl::beside(parallel) { 2 } else { 1 };
        Self::new(layers, (replica, parallel.data as usize), parallel.sharding, levers)
    }

    /// What one replica of several keeps.
    pub(crate) fn new(layers: usize, (replica, of): (usize, usize), sharding: Sharding, levers: Levers) -> Self {
        Self { layers, state: sharding.of_optimizer(replica, of), levers, sharding }
    }
}

/// What the model should have said.
#[derive(Debug)]
enum Aim<T> {
    /// Tokens, written anew for each step.
    Tokens(T),
    /// The block's vectors.
    Vectors(T),
}

/// What goes through the model in one pass. The first stage alone has tokens, the last alone what it should have said; there is no room
/// for them in others.
#[derive(Debug)]
pub(super) struct Pass<T> {
    ids: T,
    aim: Aim<T>,
    stage: Stage,
}

impl<T> Pass<T> {
    fn new<A: Alloc<Buffer = T>>(a: &A, s: &Shape, extent: Extent, stage: Stage) -> Result<Self, SessionError> {
        let rows = |there: bool| if there { extent.rows() } else { 0 };
        let (first, last) = (rows(stage.is_first()), rows(stage.is_last()));
        let aim = if s.has_vocabulary_head() {
            Aim::Tokens(a.alloc(last, Category::Statistics)?)
        } else {
            Aim::Vectors(a.alloc(last * s.d_model as usize, Category::Activations)?)
        };
        Ok(Self { ids: a.alloc(first, Category::Statistics)?, aim, stage })
    }

    pub(super) fn put<B: Backend<Buffer = T>>(&mut self, backend: &B, (tokens, targets): (&[u32], &[u32])) {
        if self.stage.is_first() {
            backend.put_tokens(tokens, &mut self.ids);
        }
        if let (Aim::Tokens(to), true) = (&mut self.aim, self.stage.is_last()) {
            backend.put_tokens(targets, to);
        }
    }

    pub(super) fn operands(&self) -> (Tokens<'_, T>, Targets<'_, T>) {
        let targets = match &self.aim {
            Aim::Tokens(t) => Targets::Placed(t),
            Aim::Vectors(v) => Targets::Vectors(v),
        };
        (Tokens::Placed(&self.ids), targets)
    }
}

/// Where gradients are until they are used.
#[derive(Debug)]
pub(super) enum Kept<T> {
    /// Each layer's are used before those of others are written to the same place.
    Layer(Gradients<T>),
    /// Those of all layers, until a step's last pass, or this rank's shares of them; `one` is where passes write theirs before they are
    /// added, unless they are the first.
    All { sum: Gradients<T>, one: Option<Gradients<T>>, clip: Option<Clip<T>> },
}

impl<T> Kept<T> {
    fn new<A: Alloc<Buffer = T>>(a: &A, index: &Index, keeping: Keeping) -> Result<Self, SessionError> {
        let Levers { accumulate, clip, .. } = keeping.levers;
        let of_layers = || Gradients::shared_by_layers(a, index, keeping.layers);
        if !keeping.levers.keep_gradients() {
            return Ok(Self::Layer(of_layers()?));
        }
        let shares = keeping.sharding.of_gradients();
        Ok(Self::All {
            sum: if shares { Gradients::shares(a, index, keeping.state)? } else { Gradients::all(a, index)? },
            one: (shares || accumulate > 1).then(of_layers).transpose()?,
            clip: clip.map(|largest| Clip::new(a, largest)).transpose()?,
        })
    }
}

/// Buffers of training.
#[derive(Debug)]
pub(in crate::transformer) struct Training<T> {
    /// One pass's, or those of as many as are under way at one time in a stage of a pipeline.
    pub(super) activations: Vec<Activations<T>>,
    pub(super) scratch: Scratch<T>,
    pub(super) kept: Kept<T>,
    pub(super) state: State<T>,
    /// A step's, one after the other.
    pub(super) passes: Vec<Pass<T>>,
    captured: Captured,
    /// Of the parameters, where this rank has no more of layers that are not at work.
    pub shares: Option<Shares<T>>,
}

impl<T> Training<T> {
    /// Of steps of the given extent, which micro-batches divide, on the stage whose parameters the index lists.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn new<A: Alloc<Buffer = T>>(
        a: &A,
        s: &Shape,
        index: &Index,
        extent: Extent,
        update: &Update,
        keeping: Keeping,
    ) -> Result<Self, SessionError> {
        let (extent, stage, passes) = (keeping.levers.of_pass(extent), index.stage, keeping.levers.accumulate);
        let in_flight = (stage, stage.in_flight(passes as usize));
        Ok(Self {
            activations: Activations::in_flight(a, s, extent, keeping.levers.keep(), in_flight)?,
            scratch: Scratch::new(a, s, extent)?,
            kept: Kept::new(a, index, keeping)?,
            state: State::sharded(a, index, update, keeping.state)?,
            passes: (0..passes).map(|_| Pass::new(a, s, extent, stage)).collect::<Result<_, _>>()?,
            captured: Captured::default(),
            shares: None,
        })
    }

    /// What the last pass kept.
    pub(crate) fn activations(&self) -> &Activations<T> {
        &self.activations[0]
    }

    /// Rows of a pass.
    fn rows(&self) -> usize {
        self.activations[0].extent.rows()
    }

    /// The optimizer's.
    pub(crate) fn state(&self) -> &State<T> {
        &self.state
    }

    /// The same, to be written.
    pub(crate) fn state_mut(&mut self) -> &mut State<T> {
        &mut self.state
    }

    /// Where a pass writes its gradients, those of each parameter: of nobody between two steps.
    pub(super) fn room(&mut self) -> &mut Gradients<T> {
        match &mut self.kept {
            Kept::Layer(all) | Kept::All { one: Some(all), .. } | Kept::All { sum: all, .. } => all,
        }
    }

    /// Where the block's targets lie, of one pass after the other.
    pub(crate) fn vectors(&mut self) -> impl Iterator<Item = &mut T> {
        self.passes.iter_mut().filter_map(|pass| match &mut pass.aim {
            Aim::Vectors(vectors) if pass.stage.is_last() => Some(vectors),
            _ => None,
        })
    }

    /// The loss of these tokens and targets, without dropout and without a gradient. What the last step kept is gone then.
    pub(crate) fn loss<B: Backend<Buffer = T> + Clone>(
        &mut self,
        model: &mut Model<B>,
        seat: &Seat<T>,
        update: &Update,
        (tokens, targets): (&[u32], &[u32]),
    ) -> f32 {
        let (backend, rows) = (model.backend.clone(), self.rows());
        if model.index.stage.of > 1 {
            let of_passes = tokens.chunks_exact(rows).zip(targets.chunks_exact(rows));
            self.passes.iter_mut().zip(of_passes).for_each(|(pass, of_pass)| pass.put(&backend, of_pass));
            return self.loss_of_stage(model, seat);
        }
        let Self { activations, state, passes, shares, .. } = self;
        let activations = &mut activations[0];
        // Where replicas keep shares of the layers, each layer comes together for its pass.
        let mut exchange = Exchange::new(&seat.groups, seat.sharding, update, state);
        exchange.parameters = shares.as_mut();
        let (mut sum, count) = (0.0, passes.len());
        for (pass, of_pass) in passes.iter_mut().zip(tokens.chunks_exact(rows).zip(targets.chunks_exact(rows))) {
            pass.put(&backend, of_pass);
            let (ids, targets) = pass.operands();
            model.forward_by_layers(ids, activations, None, |model, layer| exchange.whole(model, layer));
            sum += f64::from(model.loss(activations, &targets));
        }
        (sum / count as f64) as f32
    }

    /// Asks for one step over these tokens and targets. The loss is to be read when nothing more is to be asked for.
    pub(crate) fn step<B: Backend<Buffer = T> + Clone>(
        &mut self,
        model: &mut Model<B>,
        seat: &Seat<T>,
        update: &Update,
        (tokens, targets): (&[u32], &[u32]),
        dropout: Option<StepDropout>,
    ) -> Loss {
        let backend = model.backend.clone();
        let rows = self.rows();
        let of_passes = tokens.chunks_exact(rows).zip(targets.chunks_exact(rows));
        self.passes.iter_mut().zip(of_passes).for_each(|(pass, of_pass)| pass.put(&backend, of_pass));
        self.state.begin_step();
        match self.kept {
            _ if model.index.stage.of > 1 => self.stage_of_step(model, seat, update, dropout),
            Kept::Layer(_) => self.at_once(model, seat, update, dropout),
            Kept::All { .. } => self.in_passes(model, seat, update, dropout),
        }
    }

    /// One pass, each layer being updated as soon as its gradients are there.
    fn at_once<B: Backend<Buffer = T> + Clone>(
        &mut self,
        model: &mut Model<B>,
        seat: &Seat<T>,
        update: &Update,
        dropout: Option<StepDropout>,
    ) -> Loss {
        let Self { activations, scratch, kept: Kept::Layer(gradients), state, passes, captured, shares } = self else {
            return Loss::OnDevice;
        };
        let activations = &mut activations[0];
        let (backend, Some(pass)) = (model.backend.clone(), passes.first()) else { return Loss::OnDevice };
        let (ids, targets) = pass.operands();
        let varying = varying(model, update, state.steps(), dropout);
        // A device does later what it is asked for now.
        let on_host = backend.kind() == BackendKind::Cpu;
        let alone = seat.is_alone() && shares.is_none();
        let mut loss = Loss::OnDevice;
        let mut step = || {
            let mut exchange = Exchange::new(&seat.groups, seat.sharding, update, state);
            exchange.parameters = shares.as_mut();
            let forward = trace::part(on_host, "forward");
            model.forward_by_layers(ids, activations, dropout, |model, layer| exchange.whole(model, layer));
            drop(forward);
            let _backward = trace::part(on_host, "backward and update");
            loss = model.backward_by_layers(ids, &targets, activations, scratch, gradients, dropout, &mut exchange);
            exchange.end(model, gradients);
        };
        if alone {
            backend.captured(&varying, captured, &mut step);
        } else {
            step();
        }
        loss
    }

    /// One pass after the other, whose gradients are added up; what comes of the last one is exchanged, clipped and used. The loss is
    /// the mean of theirs, and their gradients that of theirs. A single pass, whose loss nobody has to wait for, may be captured.
    fn in_passes<B: Backend<Buffer = T> + Clone>(
        &mut self,
        model: &mut Model<B>,
        seat: &Seat<T>,
        update: &Update,
        dropout: Option<StepDropout>,
    ) -> Loss {
        let Self { activations, scratch, kept: Kept::All { sum, one, clip }, state, passes, captured, shares } = self
        else {
            return Loss::OnDevice;
        };
        let backend = model.backend.clone();
        let (count, activations) = (passes.len(), &mut activations[0]);
        let varying = varying(model, update, state.steps(), dropout);
        let alone = seat.is_alone() && count == 1 && shares.is_none();
        let mut loss = Loss::OnDevice;
        let mut step = || {
            let mut exchange = Exchange::new(&seat.groups, seat.sharding, update, state);
            exchange.together = clip.is_some();
            exchange.parameters = shares.as_mut();
            let room =
                Room { activations: &mut *activations, scratch: &mut *scratch, sum: &mut *sum, one: one.as_mut() };
            loss = room.go_through(model, &mut exchange, passes, (seat.sharding.of_gradients(), dropout));
            // Shares of gradients are used by way of where passes write theirs.
            let (room, shares) = match one.as_mut() {
                Some(one) if seat.sharding.of_gradients() => (one, Some(&*sum)),
                _ => (&mut *sum, None),
            };
            if let Some(clip) = clip.as_mut() {
                exchange.wait(model, room, None);
                let place = exchange.state.place();
                let clip = clip.measure(model, seat, shares.unwrap_or(&*room), place);
                exchange.update_all(model, room, shares, clip);
            }
            exchange.end(model, room);
        };
        if alone {
            backend.captured(&varying, captured, &mut step);
        } else {
            step();
        }
        loss
    }
}

/// What a step's operations are told beside what lies in buffers.
fn varying<'u, B: Backend>(
    model: &Model<B>,
    update: &'u Update,
    steps: u32,
    dropout: Option<StepDropout>,
) -> Varying<'u> {
    let (position_row, dropout) = (model.position_row(0), dropout.map_or(0, |d| d.seed));
    Varying { position: 0, position_row, dropout, update: Some((update, steps)) }
}

/// Where the passes of a step are gone through, and what they come to is added up.
struct Room<'a, T> {
    activations: &'a mut Activations<T>,
    scratch: &'a mut Scratch<T>,
    sum: &'a mut Gradients<T>,
    one: Option<&'a mut Gradients<T>>,
}

impl<T> Room<'_, T> {
    /// The mean of the passes' losses; `shared`: each replica adds up its own share of the gradients.
    fn go_through<B: Backend<Buffer = T>>(
        self,
        model: &mut Model<B>,
        exchange: &mut Exchange<'_, T>,
        passes: &[Pass<T>],
        (shared, dropout): (bool, Option<StepDropout>),
    ) -> Loss {
        let Self { activations, scratch, sum, mut one } = self;
        let (count, share) = (passes.len(), 1.0 / passes.len() as f32);
        // A device does later what it is asked for now.
        let on_host = model.backend.kind() == BackendKind::Cpu;
        let (mut loss, mut losses) = (Loss::OnDevice, 0.0);
        for (number, pass) in passes.iter().enumerate() {
            let ((ids, targets), dropout) = (pass.operands(), dropout.map(|d| d.of_micro_batch(number)));
            let forward = trace::part(on_host, "forward");
            model.forward_by_layers(ids, activations, dropout, |model, layer| exchange.whole(model, layer));
            drop(forward);
            let backward = trace::part(on_host, "backward");
            let (first, last) = (number == 0, number + 1 == count);
            loss = match one.as_deref_mut() {
                // Replicas exchange what each pass comes to, and each adds up its own share.
                Some(one) if shared => {
                    let sum = Sum { shares: &mut *sum, first, last: last.then_some(share) };
                    let mut turns = Summing { exchange: &mut *exchange, sum };
                    let loss = model.backward_by_layers(ids, &targets, activations, scratch, one, dropout, &mut turns);
                    let Summing { exchange, mut sum } = turns;
                    exchange.wait(model, one, Some(&mut sum));
                    loss
                }
                Some(one) if !first => {
                    let finished = |model: &mut Model<B>, parameters: Range<usize>, one: &mut Gradients<T>| {
                        sum.add(&model.backend, &model.index, parameters.clone(), one);
                        if last {
                            sum.scale(&model.backend, &model.index, parameters.clone(), share);
                            exchange.send(model, parameters, sum, None);
                        }
                    };
                    model.backward_by_layers(ids, &targets, activations, scratch, one, dropout, finished)
                }
                _ => {
                    let finished = |model: &mut Model<B>, parameters: Range<usize>, sum: &mut Gradients<T>| {
                        if last {
                            exchange.send(model, parameters, sum, None);
                        }
                    };
                    model.backward_by_layers(ids, &targets, activations, scratch, sum, dropout, finished)
                }
            };
            drop(backward);
            // The next pass leaves its loss in the same place.
            if count > 1 {
                losses += f64::from(model.backend.read_loss(loss));
            }
        }
        if count > 1 { Loss::Known((losses / count as f64) as f32) } else { loss }
    }
}
