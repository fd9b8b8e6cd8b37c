//! Checks the built-in transformer against golden files, group by group: logits, loss, gradients, optimizers, greedy tokens.
//!
//! The error of a tensor is `max |ours - theirs| / scale`, where the scale is the largest magnitude of their tensor, but at
//! least a thousandth of the largest in its group: a tensor that is nothing but rounding noise (the gradient of a key bias is
//! zero by the softmax's invariance) is held to an absolute bound instead of to its noise. After optimizer steps, elements
//! whose gradient is such noise (`noise`) are left out and counted: Adam divides the noise by itself.

mod comparison;
mod file;
mod noise;
pub(crate) mod stored;
mod tolerance;

use super::backend::{Backend, Category};
use super::checkpoint::names::{self, ExpertNames};
use super::checkpoint::place::Place;
use super::pass::activations::{Activations, Extent, Keep};
use super::pass::backward::Targets;
use super::pass::generate::Inference;
use super::pass::gradients::Gradients;
use super::pass::model::{Model, Purpose};
use super::pass::optimizer::State;
use super::pass::scratch::Scratch;
use super::shape::Family;
use super::{Dtype, WeightFormat};
pub(crate) use comparison::Group;
use comparison::{Comparison, FLOOR, merge};
pub(crate) use file::{Golden, GoldenError, Tensor};
use std::collections::BTreeMap;
use tolerance::of_gradients;
pub(crate) use tolerance::tolerance;

/// The model of a golden file on a backend, with everything that a check needs.
struct Bench<'a, B: Backend> {
    golden: &'a Golden,
    model: Model<B>,
    places: BTreeMap<String, Place>,
    ids: Vec<u32>,
    extent: Extent,
    tokens: Vec<u32>,
    vectors: Option<B::Buffer>,
}

/// What a group's error may be on a backend of this format.
pub(crate) fn allowed(group: &Group, golden: &Golden, dtype: Dtype, weights: WeightFormat) -> f64 {
    let tokens = golden.tensors.tokens("input_ids").map_or(1, |(rows, length, _)| rows * length);
    match group.name.as_str() {
        "gradients" => of_gradients(dtype, weights, &golden.shape, tokens),
        _ => tolerance(dtype, weights, &golden.shape),
    }
}

/// Runs every check that the file has data for.
///
/// # Errors
/// A file without parameters or inputs, or with a parameter of another size; memory.
pub(crate) fn verify<B: Backend>(
    golden: &Golden,
    backend: B,
    weights: WeightFormat,
) -> Result<Vec<Group>, GoldenError> {
    let mut bench = Bench::new(golden, backend)?;
    let mut groups = Vec::new();
    if weights != WeightFormat::Dtype {
        // A token picked from near ties may be another one, and all after it: logits alone can be compared.
        bench.load_for_inference()?;
        bench.check_forward(&mut groups)?;
        return Ok(groups);
    }
    bench.check_forward_and_backward(&mut groups)?;
    for (name, update) in &golden.optimizers {
        bench.check_optimizer(name, update, &mut groups)?;
    }
    bench.load_for_inference()?;
    bench.check_greedy(&mut groups)?;
    if groups.is_empty() {
        return Err(
            golden.fault("nothing to compare with: no logits, loss, gradients, optimizer steps or greedy tokens")
        );
    }
    Ok(groups)
}

impl<'a, B: Backend> Bench<'a, B> {
    fn new(golden: &'a Golden, backend: B) -> Result<Self, GoldenError> {
        let (batch, tokens, ids) =
            golden.tensors.tokens("input_ids").ok_or_else(|| golden.fault("no tensor input_ids [B, T] of i64"))?;
        if let Some(id) = ids.iter().find(|&&id| id >= golden.shape.vocab_size) {
            return Err(
                golden.fault(format!("input_ids: {id} is beyond the vocabulary of {}", golden.shape.vocab_size))
            );
        }
        let targets = golden.tensors.tokens("targets").map(|(_, _, t)| t).unwrap_or_default();
        let model = Model::new(backend, &golden.shape, 0, Purpose::Training)?;
        let vectors = match golden.tensors.floats.get("targets") {
            Some(t) if golden.shape.family == Family::Block => {
                let mut buffer = model.backend.alloc(t.values.len(), Category::Activations)?;
                model.backend.upload(&t.values, &mut buffer);
                Some(buffer)
            }
            _ => None,
        };
        let places = names::places(&golden.shape, &model.index, ExpertNames::Together);
        let extent = Extent { batch, tokens };
        let mut bench = Self { golden, model, places, ids, extent, tokens: targets, vectors };
        bench.load_parameters()?;
        Ok(bench)
    }

    /// The file's parameters, in the order and layout of the index.
    fn parameters(&self) -> Result<Vec<Vec<f32>>, GoldenError> {
        let specs = &self.model.index.specs;
        let mut host: Vec<Vec<f32>> = specs.iter().map(|s| vec![f32::NAN; s.len()]).collect();
        for (name, place) in &self.places {
            let tensor = self.golden.tensors.floats.get(&format!("param/{name}"));
            let tensor = tensor.ok_or_else(|| self.golden.fault(format!("no tensor param/{name}")))?;
            if tensor.values.len() != place.len() {
                let (have, want) = (tensor.values.len(), place.len());
                return Err(self
                    .golden
                    .fault(format!("param/{name}: expected {want} elements by the shape, found {have}")));
            }
            for (i, v) in tensor.values.iter().enumerate() {
                host[place.parameter][place.position(i)] = *v;
            }
        }
        Ok(host)
    }

    fn load_parameters(&mut self) -> Result<(), GoldenError> {
        let host = self.parameters()?;
        for (host, buffer) in host.iter().zip(&mut self.model.parameters) {
            self.model.backend.upload(host, buffer);
        }
        Ok(())
    }

    /// Puts the file's matrices into the form that inference multiplies by, so that this form is checked as well.
    fn load_for_inference(&mut self) -> Result<(), GoldenError> {
        let host = self.parameters()?;
        let Model { backend, index, parameters, .. } = &mut self.model;
        for (i, (host, buffer)) in host.iter().zip(parameters).enumerate() {
            if let Some(matrices) = index.matrices(i) {
                let mut rest = host.as_slice();
                let mut next = |rows: &mut [f32]| {
                    let (here, after) = rest.split_at(rows.len());
                    rows.copy_from_slice(here);
                    rest = after;
                };
                let spec = &index.specs[i];
                *buffer = backend.weights(matrices, spec.rows / matrices, spec.columns, &mut next)?;
            } else {
                backend.upload(host, buffer);
            }
        }
        Ok(())
    }

    fn targets(&self) -> Option<Targets<'_, B::Buffer>> {
        match &self.vectors {
            Some(v) => Some(Targets::Vectors(v)),
            None if self.tokens.len() == self.ids.len() => Some(Targets::Tokens(&self.tokens)),
            None => None,
        }
    }

    fn host(&self, buffer: &B::Buffer, len: usize) -> Vec<f32> {
        let mut host = vec![0.0; len];
        self.model.backend.download(buffer, 0, &mut host);
        host
    }

    fn check_forward_and_backward(&self, groups: &mut Vec<Group>) -> Result<(), GoldenError> {
        let m = &self.model;
        let mut a = Activations::new(&m.backend, &m.shape, self.extent, Keep::All)?;
        m.forward(&self.ids, &mut a, None);
        self.check_output(&a, groups)?;
        let Some(targets) = self.targets() else { return Ok(()) };
        let loss = m.loss(&mut a, &targets);
        self.check_loss("loss", "loss", loss, groups);
        let mut scratch = Scratch::new(&m.backend, &m.shape, self.extent)?;
        let mut gradients = Gradients::all(&m.backend, &m.index)?;
        m.backward(&self.ids, &targets, &mut a, &mut scratch, &mut gradients, None);
        self.check_tensors("gradients", "grad/", gradients.buffers(), None, groups);
        Ok(())
    }

    fn check_forward(&self, groups: &mut Vec<Group>) -> Result<(), GoldenError> {
        let m = &self.model;
        let mut a = Activations::new(&m.backend, &m.shape, self.extent, Keep::OneLayer)?;
        m.forward(&self.ids, &mut a, None);
        self.check_output(&a, groups)
    }

    fn check_output(&self, a: &Activations<B::Buffer>, groups: &mut Vec<Group>) -> Result<(), GoldenError> {
        let (name, ours) = self.model.logits(a)?;
        let Some(theirs) = self.golden.tensors.floats.get(name) else { return Ok(()) };
        if theirs.values.len() != ours.len() {
            return Err(self.golden.fault(format!(
                "{name} has {} elements, and the shape needs {}",
                theirs.values.len(),
                ours.len()
            )));
        }
        let mut c = Comparison::new(name, theirs.values.iter().copied());
        c.add(name, ours.iter().copied().zip(theirs.values.iter().copied()));
        groups.push(c.group);
        Ok(())
    }

    fn check_loss(&self, group: &str, tensor: &str, ours: f32, groups: &mut Vec<Group>) {
        let Some(theirs) = self.golden.tensors.floats.get(tensor).and_then(|t| t.values.first()) else { return };
        let mut c = Comparison::new(group, std::iter::once(*theirs));
        c.add(tensor, std::iter::once((ours, *theirs)));
        merge(groups, c.group);
    }

    /// Compares every tensor of the file under `prefix` with ours; `noise` names elements to leave out.
    fn check_tensors(
        &self,
        group: &str,
        prefix: &str,
        ours: &[B::Buffer],
        noise: Option<&[Vec<bool>]>,
        groups: &mut Vec<Group>,
    ) {
        let theirs: Vec<(&str, &Tensor, &Place)> = self
            .golden
            .tensors
            .floats
            .iter()
            .filter_map(|(k, t)| k.strip_prefix(prefix).map(|n| (n, t)))
            .filter_map(|(n, t)| self.places.get(n).map(|p| (n, t, p)))
            .filter(|(_, t, p)| t.values.len() == p.len())
            .collect();
        if theirs.is_empty() {
            return;
        }
        let mut c = Comparison::new(group, theirs.iter().flat_map(|(_, t, _)| t.values.iter().copied()));
        for (name, tensor, place) in theirs {
            let host = self.host(&ours[place.parameter], self.model.index.specs[place.parameter].len());
            let is_noise = |i: usize| noise.is_some_and(|n| n[place.parameter][place.position(i)]);
            c.group.left_out += (0..place.len()).filter(|&i| is_noise(i)).count();
            let kept = (0..place.len()).filter(|&i| !is_noise(i));
            c.add(name, kept.map(|i| (host[place.position(i)], tensor.values[i])));
        }
        merge(groups, c.group);
    }

    fn check_optimizer(
        &mut self,
        name: &str,
        update: &super::backend::Update,
        groups: &mut Vec<Group>,
    ) -> Result<(), GoldenError> {
        // Hugging Face files: optim/<name>/after<k>/...; the Keras file: after<k>/...
        let prefixes = [format!("optim/{name}/after"), "after".to_string()];
        let steps = |p: &String| {
            self.golden
                .tensors
                .floats
                .keys()
                .filter_map(|k| k.strip_prefix(p.as_str())?.split('/').next()?.parse::<u32>().ok())
                .max()
        };
        let Some((prefix, steps)) = prefixes.iter().find_map(|p| steps(p).map(|s| (p.clone(), s))) else {
            return Ok(());
        };
        self.load_parameters()?;
        let group = format!("optimizer {name}");
        let mut state = State::new(&self.model.backend, &self.model.index, update)?;
        let mut a = Activations::new(&self.model.backend, &self.model.shape, self.extent, Keep::All)?;
        let mut scratch = Scratch::new(&self.model.backend, &self.model.shape, self.extent)?;
        let mut gradients = Gradients::all(&self.model.backend, &self.model.index)?;
        let mut noise: Vec<Vec<bool>> = Vec::new();
        for step in 0..steps {
            let Some(targets) = self.targets() else { return Ok(()) };
            self.model.forward(&self.ids, &mut a, None);
            let loss = self.model.backward(&self.ids, &targets, &mut a, &mut scratch, &mut gradients, None);
            self.check_loss(&group, &format!("optim/{name}/loss{step}"), loss, groups);
            self.mark_noise(gradients.buffers(), update.learning_rate * (step + 1) as f32, &mut noise);
            if update.eps_before_correction {
                self.square_slices(&scratch.stream, gradients.buffers(), update, &mut state);
            }
            self.model.update(update, gradients.buffers(), &mut state);
            let after = format!("{prefix}{}/", step + 1);
            let noise = (update.kind != super::OptimizerKind::Sgd).then_some(noise.as_slice());
            self.check_tensors(&group, &after, &self.model.parameters, noise, groups);
        }
        Ok(())
    }

    /// Keras hands an embedding's gradient to Adam as slices, one a token, and squares them before it adds those of equal
    /// tokens up: the second moment takes the sum of squares, not the square of the sum. The update squares the summed
    /// gradient, so the difference is put into the moment beforehand.
    fn square_slices(
        &self,
        stream: &B::Buffer,
        gradients: &[B::Buffer],
        update: &super::backend::Update,
        state: &mut State<B::Buffer>,
    ) {
        let table = self.model.index.table;
        let (len, c) = (self.model.index.specs[table].len(), self.model.shape.d_model as usize);
        let Some(second) = state.second_mut(table) else { return };
        let (slices, summed) = (self.host(stream, self.extent.rows() * c), self.host(&gradients[table], len));
        let mut squares = vec![0.0f64; len];
        for (id, slice) in self.ids.iter().zip(slices.chunks_exact(c)) {
            for (s, g) in squares[*id as usize * c..][..c].iter_mut().zip(slice) {
                *s += f64::from(*g).powi(2);
            }
        }
        let mut moment = self.host(second, len);
        let factor = (1.0 - f64::from(update.beta2)) / f64::from(update.beta2);
        for ((m, s), g) in moment.iter_mut().zip(&squares).zip(&summed) {
            *m = (f64::from(*m) + factor * (s - f64::from(*g).powi(2))) as f32;
        }
        self.model.backend.upload(&moment, second);
    }

    /// Marks elements whose gradient has been rounding noise in some step.
    fn mark_noise(&self, gradients: &[B::Buffer], moved: f32, noise: &mut Vec<Vec<bool>>) {
        let specs = &self.model.index.specs;
        let hosts = |all: &[B::Buffer]| all.iter().zip(specs).map(|(b, s)| self.host(b, s.len())).collect::<Vec<_>>();
        let (host, parameters) = (hosts(gradients), hosts(&self.model.parameters));
        let largest = |all: &mut dyn Iterator<Item = f32>| all.fold(0.0f32, |m, x| m.max(x.abs()));
        let after_noise = noise.iter().flatten().any(|noise| *noise);
        let floor = FLOOR as f32 * largest(&mut parameters.iter().flatten().copied());
        let dtype = self.model.backend.dtype();
        let tolerance = of_gradients(dtype, WeightFormat::Dtype, &self.model.shape, self.ids.len());
        let below = |place: &Place, scale, of_all| {
            let of_place = (0..place.len()).map(|i| parameters[place.parameter][place.position(i)]);
            let of_parameter = largest(&mut of_place.into_iter()).max(floor);
            let steps = noise::Steps { moved, scale: of_parameter, len: place.len(), after_noise };
            noise::below(dtype, tolerance, steps, scale, of_all)
        };
        noise::mark(&host, self.places.values(), below, noise);
    }

    fn check_greedy(&self, groups: &mut Vec<Group>) -> Result<(), GoldenError> {
        let Some((rows, length, theirs)) = self.golden.tensors.tokens("greedy") else { return Ok(()) };
        let prompt = self.prompt_length(rows, length, &theirs);
        if rows != self.extent.batch || prompt == 0 {
            return Err(self.golden.fault("greedy does not begin with the first tokens of input_ids"));
        }
        let m = &self.model;
        let mut inference =
            Inference::new(&m.backend, &m.shape, rows, (prompt, prompt), length - prompt, m.backend.dtype().into())?;
        let prompts: Vec<u32> = theirs.chunks_exact(length).flat_map(|r| r[..prompt].iter().copied()).collect();
        m.prefill(&prompts, &mut inference);
        // Where the two are within the tolerance of one another, either is right, and what follows is another text.
        let (mut different, mut tied) = (0, vec![false; rows]);
        for at in prompt..length {
            let next = m.greedy(&mut inference);
            for (r, ours) in next.iter().enumerate().filter(|(r, t)| theirs[r * length + at] != **t) {
                tied[r] |= self.is_tie(&inference, r, [*ours, theirs[r * length + at]]);
                different += usize::from(!tied[r]);
            }
            if at + 1 < length {
                m.decode(&next, &mut inference);
            }
        }
        let total = rows * (length - prompt);
        groups.push(Group {
            name: "greedy".into(),
            compared: rows,
            error: different as f64 / total.max(1) as f64,
            worst: format!("{different} of {total} tokens differ"),
            left_out: tied.iter().filter(|tied| **tied).count(),
        });
        Ok(())
    }

    /// Whether two tokens' logits of a row are within the tolerance of one another.
    fn is_tie(&self, inference: &Inference<B::Buffer>, row: usize, tokens: [u32; 2]) -> bool {
        let v = self.model.shape.vocab_size as usize;
        let mut logits = vec![0.0; v];
        self.model.backend.download(&inference.logits, row * v, &mut logits);
        let scale = logits.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let [ours, theirs] = tokens.map(|t| logits.get(t as usize).copied().unwrap_or(f32::NEG_INFINITY));
        let tolerance = tolerance(self.model.backend.dtype(), WeightFormat::Dtype, &self.model.shape);
        f64::from(ours - theirs) <= tolerance * f64::from(scale)
    }

    /// How many tokens the greedy rows share with the inputs: the prompt. (Were a made token equal to the input's by chance,
    /// a longer prompt gives the same continuation.)
    fn prompt_length(&self, rows: usize, length: usize, greedy: &[u32]) -> usize {
        let row = |r: usize| {
            let input = self.ids.chunks_exact(self.extent.tokens).nth(r).unwrap_or_default();
            greedy[r * length..][..length].iter().zip(input).take_while(|(a, b)| a == b).count()
        };
        (0..rows).map(row).min().unwrap_or(0).min(length.saturating_sub(1))
    }
}
