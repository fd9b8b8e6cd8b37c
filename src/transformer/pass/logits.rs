//! What a pass comes to, on the host: for who compares models, not for what is timed.

use super::super::backend::{Backend, Category, Store};
use super::super::error::SessionError;
use super::activations::Activations;
use super::model::Model;

impl<B: Backend> Model<B> {
    /// The name and the numbers of a pass's result: logits `[N, V]` (of the rank's words where ranks split the vocabulary), or the output `[N, C]` of a model without a vocabulary's head.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(in crate::transformer) fn logits(
        &self,
        a: &Activations<B::Buffer>,
    ) -> Result<(&'static str, Vec<f32>), SessionError> {
        let n = a.extent.rows();
        let output = a.output();
        let Some(head) = self.index.head else {
            let mut host = vec![0.0; n * self.shape.d_model as usize];
            self.backend.download(output, 0, &mut host);
            return Ok(("output", host));
        };
        let len = n * self.shape.vocab_size as usize;
        let mut logits = self.backend.alloc(len, Category::Activations)?;
        self.backend.linear(output, &self.parameters[head], None, &mut logits, Store::Overwrite, self.head_dims(n));
        if let Some(cap) = self.shape.parts().logit_cap {
            self.backend.soft_cap(&mut logits, len, cap);
        }
        let mut host = vec![0.0; len];
        self.backend.download(&logits, 0, &mut host);
        Ok(("logits", host))
    }
}
