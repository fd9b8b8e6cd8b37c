//! How far apart tensors are, and the groups that a check is told in.

/// The least scale of a tensor, of the largest number of its group.
pub(super) const FLOOR: f64 = 1e-3;

/// What a group of comparisons came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group {
    /// "logits", "loss", "gradients", "optimizer adamw", "greedy" ...
    pub name: String,
    /// Tensors (for greedy: sequences) compared.
    pub compared: usize,
    /// The largest relative error; for greedy tokens the share that differs.
    pub error: f64,
    /// Which tensor has it.
    pub worst: String,
    /// Elements left out because their gradient is rounding noise.
    pub left_out: usize,
}

impl Group {
    /// Whether the group is within a tolerance (a NaN is not).
    pub(crate) fn passes(&self, tolerance: f64) -> bool {
        self.error <= tolerance
    }
}

pub(super) struct Comparison {
    pub(super) group: Group,
    floor: f64,
}

impl Comparison {
    pub(super) fn new(name: impl Into<String>, theirs: impl Iterator<Item = f32>) -> Self {
        let floor = FLOOR * theirs.fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
        Self { group: Group { name: name.into(), compared: 0, error: 0.0, worst: String::new(), left_out: 0 }, floor }
    }

    pub(super) fn add(&mut self, name: &str, pairs: impl Iterator<Item = (f32, f32)> + Clone) {
        let scale = pairs.clone().fold(self.floor, |m, (_, theirs)| m.max(f64::from(theirs.abs())));
        let difference = pairs.fold(0.0f64, |m, (ours, theirs)| {
            let d = (f64::from(ours) - f64::from(theirs)).abs();
            if d.is_nan() { f64::INFINITY } else { m.max(d) }
        });
        let error = if difference == 0.0 { 0.0 } else { difference / scale };
        self.group.compared += 1;
        if error >= self.group.error {
            self.group.error = error;
            self.group.worst = name.into();
        }
    }
}

/// Adds a group's findings to the one of the same name.
pub(super) fn merge(groups: &mut Vec<Group>, new: Group) {
    match groups.iter_mut().find(|g| g.name == new.name) {
        Some(g) => {
            g.compared += new.compared;
            g.left_out = g.left_out.max(new.left_out);
            if new.error >= g.error {
                g.error = new.error;
                g.worst = new.worst;
            }
        }
        None => groups.push(new),
    }
}
