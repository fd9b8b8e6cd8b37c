//! Counts what the process holds from its allocator, so that a trial can say how much memory it asked for.
//!
//! Resident memory is what the kernel gave; allocated memory is what the program wanted. The second is the same from run to
//! run. Small allocations are left out: they are many, they come and go with the threads' timing, and together they are
//! nothing beside a model's buffers.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Allocations below this many bytes are not counted.
const SMALLEST_COUNTED: usize = 4096;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, with a count of the bytes held. The program installs it; the library leaves the choice to its user.
#[derive(Clone, Copy, Debug)]
pub struct CountingAllocator;

/// Highest bytes that were held at one time since the process began; 0 where [`CountingAllocator`] is not installed.
pub(crate) fn peak_bytes() -> u64 {
    PEAK.load(Ordering::Relaxed) as u64
}

/// Has the highest bytes begin anew, from what is held now.
pub(crate) fn forget_peak() {
    PEAK.store(HELD.load(Ordering::Relaxed), Ordering::Relaxed);
}

fn took(bytes: usize) {
    if bytes >= SMALLEST_COUNTED {
        let held = HELD.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        PEAK.fetch_max(held, Ordering::Relaxed);
    }
}

fn gave_back(bytes: usize) {
    if bytes >= SMALLEST_COUNTED {
        HELD.fetch_sub(bytes, Ordering::Relaxed);
    }
}

// SAFETY: every call is handed to `System` unchanged, and its answer is returned unchanged; counting touches atomics only
// and allocates nothing.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's obligations are those of `System::alloc`.
        let place = unsafe { System.alloc(layout) };
        if !place.is_null() {
            took(layout.size());
        }
        place
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's obligations are those of `System::alloc_zeroed`.
        let place = unsafe { System.alloc_zeroed(layout) };
        if !place.is_null() {
            took(layout.size());
        }
        place
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        gave_back(layout.size());
        // SAFETY: `place` came from `System` through this allocator, with this layout.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: `place` came from `System` through this allocator, with this layout.
        let moved = unsafe { System.realloc(place, layout, size) };
        if !moved.is_null() {
            gave_back(layout.size());
            took(size);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The counters are the process's own, and other tests of this binary do not use the allocator under test: nobody else
    // writes them here.
    #[test]
    fn the_peak_is_the_most_that_was_held_at_one_time() {
        let layout = |bytes| Layout::from_size_align(bytes, 64).unwrap();
        let allocator = CountingAllocator;
        // SAFETY: no layout is empty.
        let take = |bytes| unsafe { allocator.alloc(layout(bytes)) };
        // SAFETY: every block is given back once, with the layout it has.
        let give = |block, bytes| unsafe { allocator.dealloc(block, layout(bytes)) };
        let (first, small) = (take(1 << 20), take(64));
        // SAFETY: as for the others.
        let second = unsafe { allocator.alloc_zeroed(layout(1 << 20)) };
        give(first, 1 << 20);
        give(small, 64);
        // SAFETY: the block is alive, and this is the layout it has.
        let grown = unsafe { allocator.realloc(second, layout(1 << 20), 3 << 19) };
        assert_eq!(peak_bytes(), 2 << 20);
        assert_eq!(HELD.load(Ordering::Relaxed), 3 << 19);
        give(grown, 3 << 19);
        assert_eq!(HELD.load(Ordering::Relaxed), 0);
    }
}
