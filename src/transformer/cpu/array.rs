//! Memory of the CPU backends: zeroed f32, on cache lines; large ones on huge pages where the system has them.

use super::super::error::SessionError;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A huge page of x86-64 and of most arm64 systems.
const HUGE_PAGE: usize = 2 << 20;
pub(super) const CACHE_LINE: usize = 64;

/// An owned, zeroed, aligned slice of f32.
#[derive(Debug)]
pub struct Array {
    start: NonNull<f32>,
    len: usize,
    memory: Memory,
}

/// Where an array's memory comes from.
#[derive(Debug)]
enum Memory {
    /// A block of its own.
    Own(Layout),
    /// A part of a slab, which lives as long as any of its parts.
    Part { _of: Arc<Slab> },
}

/// A large block that arrays are cut from, so that each need not fill huge pages of its own.
#[derive(Debug)]
struct Slab {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a slab is only handed out in parts that do not overlap.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: `start` came from the global allocator with this layout, and is freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Bytes of the largest slab; arrays of a quarter of it and more get blocks of their own.
const SLAB: usize = 64 << 20;
/// Bytes of the first one: a small model does not ask for much. Each next one is twice as large.
const FIRST_SLAB: usize = 2 << 20;

/// Cuts arrays from slabs, one after another. What is left of a slab goes to the next arrays that are small enough: a slab's last
/// huge page is resident whether its end is used or not.
#[derive(Debug, Default)]
pub(super) struct Slabs(Mutex<Cutting>);

/// The slabs that have room, oldest first, how much of each is gone, and how many there have been.
#[derive(Debug, Default)]
struct Cutting {
    open: Vec<(Weak<Slab>, usize)>,
    made: u32,
}

impl Cutting {
    /// A slab with room for `bytes`, and where in it they begin.
    fn room(&mut self, bytes: usize) -> Result<(Arc<Slab>, usize), SessionError> {
        for (slab, used) in &mut self.open {
            if let Some(slab) = slab.upgrade().filter(|slab| *used + bytes <= slab.layout.size()) {
                let at = *used;
                *used += bytes;
                return Ok((slab, at));
            }
        }
        self.open.retain(|(slab, used)| slab.upgrade().is_some_and(|slab| *used < slab.layout.size()));
        let size = (FIRST_SLAB << self.made.min(5)).max(bytes.next_multiple_of(HUGE_PAGE));
        let slab = Arc::new(Slab::new(size)?);
        self.made += 1;
        self.open.push((Arc::downgrade(&slab), bytes));
        Ok((slab, 0))
    }
}

impl Slabs {
    /// `len` zeros.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(super) fn zeros(&self, len: usize) -> Result<Array, SessionError> {
        let bytes = len.saturating_mul(size_of::<f32>()).next_multiple_of(CACHE_LINE);
        if bytes >= SLAB / 4 {
            return Array::zeros(len);
        }
        let (slab, at) = self.0.lock().unwrap_or_else(PoisonError::into_inner).room(bytes)?;
        // SAFETY: the part is within the slab, and no other array has it: what is gone of a slab only grows.
        let start = unsafe { slab.start.add(at) };
        // SAFETY: as above.
        unsafe { start.as_ptr().write_bytes(0, bytes) };
        Ok(Array { start: start.cast(), len, memory: Memory::Part { _of: slab } })
    }
}

impl Slab {
    fn new(bytes: usize) -> Result<Self, SessionError> {
        let refused = || SessionError::OutOfMemory(format!("no block of {bytes} bytes"));
        let layout = Layout::from_size_align(bytes, HUGE_PAGE).map_err(|_| refused())?;
        let start = on_huge_pages(layout).ok_or_else(refused)?;
        Ok(Self { start, layout })
    }
}

// SAFETY: an Array owns its memory alone, as a Box<[f32]> does.
unsafe impl Send for Array {}
// SAFETY: shared access only reads, as with a Box<[f32]>.
unsafe impl Sync for Array {}

impl Array {
    /// `len` zeros.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`] when the allocator has no such block.
    pub fn zeros(len: usize) -> Result<Self, SessionError> {
        let refused = || SessionError::OutOfMemory(format!("no block of {len} f32 elements"));
        let bytes = len.max(1).checked_mul(size_of::<f32>()).ok_or_else(refused)?;
        let align = if bytes >= 2 * HUGE_PAGE { HUGE_PAGE } else { CACHE_LINE };
        let layout = Layout::from_size_align(bytes, align).map_err(|_| refused())?;
        let start = zeroed(layout).ok_or_else(refused)?;
        Ok(Self { start: start.cast(), len, memory: Memory::Own(layout) })
    }

    /// Zeros, for small tables whose absence would be a fault of the program; aborts as `Vec` does when memory is gone.
    pub(super) fn small(len: usize) -> Self {
        Self::zeros(len).unwrap_or_else(|_| handle_alloc_error(Layout::new::<f32>()))
    }
}

/// Zeroed memory, asked to stand on huge pages before it is first touched.
fn zeroed(layout: Layout) -> Option<NonNull<u8>> {
    if layout.align() < HUGE_PAGE {
        // SAFETY: the layout's size is at least four bytes.
        return NonNull::new(unsafe { alloc_zeroed(layout) });
    }
    let start = on_huge_pages(layout)?;
    // SAFETY: `start` is valid for `layout.size()` bytes, allocated above.
    unsafe { start.as_ptr().write_bytes(0, layout.size()) };
    Some(start)
}

/// Memory that has not been touched yet, asked to stand on huge pages.
fn on_huge_pages(layout: Layout) -> Option<NonNull<u8>> {
    // SAFETY: the layout's size is not zero.
    let start = NonNull::new(unsafe { std::alloc::alloc(layout) })?;
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the range was allocated above and nothing refers to it yet; the advice changes no contents. A refusal only
        // means small pages.
        let _ = unsafe { rustix::mm::madvise(start.as_ptr().cast(), layout.size(), rustix::mm::Advice::LinuxHugepage) };
    }
    Some(start)
}

impl Drop for Array {
    fn drop(&mut self) {
        if let Memory::Own(layout) = self.memory {
            // SAFETY: `start` came from the global allocator with this layout, and is freed once.
            unsafe { dealloc(self.start.as_ptr().cast(), layout) };
        }
    }
}

impl Deref for Array {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: `start` is valid for `len` initialised f32 as long as self lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Array {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl AsMut<[f32]> for Array {
    fn as_mut(&mut self) -> &mut [f32] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_zeroed_and_stand_on_cache_lines() {
        for len in [0, 1, 15, 4096, 3 << 20] {
            let a = Array::zeros(len).unwrap();
            assert_eq!(a.len(), len);
            assert!(a.iter().all(|&x| x == 0.0));
            assert_eq!(a.as_ptr() as usize % CACHE_LINE, 0);
        }
    }

    #[test]
    fn parts_of_slabs_are_zeroed_and_do_not_overlap() {
        let slabs = Slabs::default();
        let mut all: Vec<Array> = (0..60).map(|i| slabs.zeros(1 + i * 9973).unwrap()).collect();
        for (i, a) in all.iter_mut().enumerate() {
            assert!(a.iter().all(|x| *x == 0.0) && (a.as_ptr() as usize).is_multiple_of(CACHE_LINE));
            a.fill(i as f32);
        }
        assert!(all.iter().enumerate().all(|(i, a)| a.iter().all(|x| *x == i as f32)));
        assert_eq!(slabs.zeros(SLAB).unwrap().len(), SLAB);
    }

    #[test]
    fn what_is_left_of_a_slab_goes_to_arrays_that_fit() {
        let slabs = Slabs::default();
        let quarter = FIRST_SLAB / size_of::<f32>() / 4;
        let [first, second, large, small] =
            [quarter, quarter, FIRST_SLAB, quarter].map(|len| slabs.zeros(len).unwrap());
        let after = |a: &Array| a.as_ptr() as usize + (a.len() * size_of::<f32>()).next_multiple_of(CACHE_LINE);
        assert_eq!(second.as_ptr() as usize, after(&first));
        assert_eq!(small.as_ptr() as usize, after(&second));
        assert!(large.len() == FIRST_SLAB && large.iter().all(|x| *x == 0.0));
    }

    #[test]
    fn a_block_beyond_the_address_space_is_an_error() {
        assert!(matches!(Array::zeros(usize::MAX / 2), Err(SessionError::OutOfMemory(_))));
        assert!(matches!(Array::zeros(usize::MAX / 8), Err(SessionError::OutOfMemory(_))));
    }
}
