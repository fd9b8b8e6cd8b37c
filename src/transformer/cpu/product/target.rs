//! Where a product goes.

/// A place to write: dense columns, rows `row_stride` apart. Raw, because threads write to interleaved parts of one buffer.
#[derive(Clone, Copy, Debug)]
pub(in crate::transformer::cpu) struct Target {
    start: *mut f32,
    pub(super) len: usize,
    pub row_stride: usize,
}

// SAFETY: a Target is only written through unsafe functions, whose callers keep the parts that threads write apart.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// Rows `row_stride` apart in `data`.
    pub(in crate::transformer::cpu) fn new(data: &mut [f32], row_stride: usize) -> Self {
        Self { start: data.as_mut_ptr(), len: data.len(), row_stride }
    }

    /// The same rows from `offset` elements on.
    pub(in crate::transformer::cpu) fn at(self, offset: usize) -> Self {
        assert!(offset <= self.len, "a target beyond its buffer");
        // SAFETY: offset is within the buffer, checked above.
        Self { start: unsafe { self.start.add(offset) }, len: self.len - offset, row_stride: self.row_stride }
    }

    /// Writes one element.
    ///
    /// # Safety
    /// No other thread touches it, and the buffer is alive.
    pub(in crate::transformer::cpu) unsafe fn write(self, value: f32) {
        assert!(self.len > 0, "a write beyond its buffer");
        // SAFETY: there is an element, checked above; the caller keeps others away.
        unsafe { self.start.write(value) };
    }

    /// The first element.
    pub(in crate::transformer::cpu) fn start(self) -> *mut f32 {
        self.start
    }

    /// Writes a factor times some elements.
    ///
    /// # Safety
    /// No other thread touches them, and the buffer is alive.
    #[inline(always)]
    pub(in crate::transformer::cpu) unsafe fn write_scaled(self, from: &[f32], factor: f32) {
        assert!(from.len() <= self.len, "a write beyond its buffer");
        for (i, x) in from.iter().enumerate() {
            // SAFETY: within the buffer, checked above.
            let to = unsafe { self.start.add(i) };
            // SAFETY: as above; the caller keeps others away.
            unsafe { to.write(x * factor) };
        }
    }

    /// Zeroes `len` elements.
    ///
    /// # Safety
    /// No other thread touches them, and the buffer is alive.
    pub(in crate::transformer::cpu) unsafe fn zero(self, len: usize) {
        assert!(len <= self.len, "zeroes beyond their buffer");
        // SAFETY: `len` elements are there, checked above; the caller keeps others away.
        unsafe { self.start.write_bytes(0, len) };
    }
}
