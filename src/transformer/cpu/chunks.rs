//! Data in pieces that threads can hold at once.

/// Data in numbered pieces that do not overlap, so that threads can hold different ones at once.
pub(super) trait Chunked: Sync {
    type Chunk;
    fn count(&self) -> usize;
    /// # Safety
    /// No number is asked for twice while a piece of it is alive; `i < count()`.
    unsafe fn chunk(&self, i: usize) -> Self::Chunk;
}

pub(super) struct SyncChunks<'a, C>(pub &'a C);

impl<C: Chunked> SyncChunks<'_, C> {
    pub(super) unsafe fn get(&self, i: usize) -> C::Chunk {
        // SAFETY: the caller's obligation is the same.
        unsafe { self.0.chunk(i) }
    }
}

/// Pieces to write.
pub(super) struct Writing<'a, T> {
    start: *mut T,
    len: usize,
    size: usize,
    borrowed: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: pieces do not overlap, and `chunk`'s callers take each once: as sending `&mut [T]`s to threads.
unsafe impl<T: Send> Sync for Writing<'_, T> {}

/// `data` in pieces of `size`, the last one perhaps shorter.
pub(super) fn writing<T>(data: &mut [T], size: usize) -> Writing<'_, T> {
    Writing { start: data.as_mut_ptr(), len: data.len(), size: size.max(1), borrowed: std::marker::PhantomData }
}

impl<'a, T: Send> Chunked for Writing<'a, T> {
    type Chunk = &'a mut [T];
    fn count(&self) -> usize {
        self.len.div_ceil(self.size)
    }
    unsafe fn chunk(&self, i: usize) -> &'a mut [T] {
        let from = (i * self.size).min(self.len);
        let len = self.size.min(self.len - from);
        // SAFETY: within the borrowed slice.
        let start = unsafe { self.start.add(from) };
        // SAFETY: as above; the caller asks for each piece once, so that no two overlap.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}

/// Pieces to write of what may not be there: then every piece is empty.
pub(super) struct Perhaps<'a, T>(Writing<'a, T>);

/// [`writing`] of data that may be empty.
pub(super) fn perhaps<T>(data: &mut [T], size: usize) -> Perhaps<'_, T> {
    Perhaps(writing(data, size))
}

impl<'a, T: Send> Chunked for Perhaps<'a, T> {
    type Chunk = &'a mut [T];
    fn count(&self) -> usize {
        // Beside others: as many as they have.
        if self.0.len == 0 { usize::MAX } else { self.0.count() }
    }
    unsafe fn chunk(&self, i: usize) -> &'a mut [T] {
        if self.0.len == 0 {
            return &mut [];
        }
        // SAFETY: the caller's obligation is the same.
        unsafe { self.0.chunk(i) }
    }
}

/// Pieces to read.
pub(super) struct Reading<'a, T> {
    data: &'a [T],
    size: usize,
}

/// `data` in pieces of `size`, the last one perhaps shorter.
pub(super) fn reading<T>(data: &[T], size: usize) -> Reading<'_, T> {
    Reading { data, size: size.max(1) }
}

impl<'a, T: Sync> Chunked for Reading<'a, T> {
    type Chunk = &'a [T];
    fn count(&self) -> usize {
        self.data.len().div_ceil(self.size)
    }
    unsafe fn chunk(&self, i: usize) -> &'a [T] {
        let from = (i * self.size).min(self.data.len());
        &self.data[from..(from + self.size).min(self.data.len())]
    }
}

macro_rules! chunked_together {
    ($($name:ident $at:tt),+) => {
        impl<$($name: Chunked),+> Chunked for ($($name,)+) {
            type Chunk = ($($name::Chunk,)+);
            fn count(&self) -> usize {
                // As zip does: as many as all have.
                [$(self.$at.count()),+].into_iter().min().unwrap_or(0)
            }
            unsafe fn chunk(&self, i: usize) -> Self::Chunk {
                // SAFETY: the caller's obligation is the same for each part.
                ($(unsafe { self.$at.chunk(i) },)+)
            }
        }
    };
}
chunked_together!(A 0, B 1);
chunked_together!(A 0, B 1, C 2);
chunked_together!(A 0, B 1, C 2, D 3);
