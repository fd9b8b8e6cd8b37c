//! What a pass comes to, on the host.

use crate::transformer::backend::{Backend, Category, Store};
use crate::transformer::error::SessionError;
use crate::transformer::pass::activations::Activations;
use crate::transformer::pass::model::Model;

/// The name and the numbers of a pass's result: logits `[N, V]`, or the output `[N, C]` of a model without a vocabulary's head.
///
/// # Errors
/// [`SessionError::OutOfMemory`].
pub(super) fn of_pass<B: Backend>(
    m: &Model<B>,
    a: &Activations<B::Buffer>,
) -> Result<(&'static str, Vec<f32>), SessionError> {
    let n = a.extent.rows();
    let output = a.output(m.index.layers.len());
    let Some(head) = m.index.head else {
        let mut host = vec![0.0; n * m.shape.d_model as usize];
        m.backend.download(output, 0, &mut host);
        return Ok(("output", host));
    };
    let len = n * m.shape.vocab_size as usize;
    let mut logits = m.backend.alloc(len, Category::Activations)?;
    m.backend.linear(output, &m.parameters[head], None, &mut logits, Store::Overwrite, m.head_dims(n));
    if let Some(cap) = m.shape.parts().logit_cap {
        m.backend.soft_cap(&mut logits, len, cap);
    }
    let mut host = vec![0.0; len];
    m.backend.download(&logits, 0, &mut host);
    Ok(("logits", host))
}
