//! Memory whose bounds are watched: each allocation ends at pages that must not be touched, and has some canaries and other such
//! pages before it.

use super::super::device::Address;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use std::collections::BTreeMap;
use std::ptr::null_mut;

/// A multiple of the page of x86-64 and of most arm64 systems.
const PAGE: usize = 16 << 10;
/// Bytes on either side that trap: as far as a wrong row or stride is likely to lead.
const GUARD: usize = 256 << 10;
/// What lies around an allocation: NaN in both formats, so that a read of it shows too.
const CANARY: u8 = 0xff;

#[derive(Debug)]
struct Allocation {
    /// `[guard][up to a page of canaries, data, up to 15 canaries][guard]`
    map: usize,
    map_bytes: usize,
    bytes: usize,
}

impl Allocation {
    /// Whether the bytes around the data at `start` are as they were.
    fn intact(&self, start: Address) -> Result<(), String> {
        let (low, end) = (self.map + GUARD, self.map + self.map_bytes - GUARD);
        let data_end = start as usize + self.bytes;
        // SAFETY: within the mapping's accessible pages, before the data.
        let before = unsafe { std::slice::from_raw_parts(low as *const u8, start as usize - low) };
        // SAFETY: within the mapping's accessible pages, after the data.
        let after = unsafe { std::slice::from_raw_parts(data_end as *const u8, end - data_end) };
        let name = format!("the allocation of {} bytes at {start:#x}", self.bytes);
        if let Some(i) = before.iter().rposition(|b| *b != CANARY) {
            return Err(format!("something was written {} bytes before {name}", before.len() - i));
        }
        if let Some(i) = after.iter().position(|b| *b != CANARY) {
            return Err(format!("something was written {i} bytes after the end of {name}"));
        }
        Ok(())
    }
}

/// All allocations, by where they start.
#[derive(Debug, Default)]
pub(super) struct Memory {
    all: BTreeMap<Address, Allocation>,
    in_use: u64,
    peak: u64,
    allocations: usize,
}

impl Memory {
    pub(super) fn in_use(&self) -> u64 {
        self.in_use
    }

    /// The most that has been in use.
    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    /// How often something has been allocated.
    pub(super) fn allocations(&self) -> usize {
        self.allocations
    }

    pub(super) fn allocate(&mut self, bytes: usize) -> Result<Address, String> {
        let data = bytes.next_multiple_of(16);
        let map_bytes = (data + 1).next_multiple_of(PAGE) + 2 * GUARD;
        let failed = |e: rustix::io::Errno| format!("{bytes} bytes: {e}");
        // SAFETY: a new mapping, wherever the system likes.
        let map = unsafe { mmap_anonymous(null_mut(), map_bytes, ProtFlags::empty(), MapFlags::PRIVATE) };
        let map = map.map_err(failed)? as usize;
        let inner = map_bytes - 2 * GUARD;
        // SAFETY: within the mapping just made.
        unsafe { mprotect((map + GUARD) as *mut _, inner, MprotectFlags::READ | MprotectFlags::WRITE) }
            .map_err(failed)?;
        let start = map + map_bytes - GUARD - data;
        // SAFETY: the inner pages are ours and writable; fresh pages are zero, so the data stay so.
        unsafe { std::ptr::write_bytes((map + GUARD) as *mut u8, CANARY, start - map - GUARD) };
        // SAFETY: as above.
        unsafe { std::ptr::write_bytes((start + bytes) as *mut u8, CANARY, data - bytes) };
        self.all.insert(start as Address, Allocation { map, map_bytes, bytes });
        self.in_use += bytes as u64;
        self.peak = self.peak.max(self.in_use);
        self.allocations += 1;
        Ok(start as Address)
    }

    pub(super) fn release(&mut self, at: Address, bytes: usize) -> Result<(), String> {
        let Some(a) = self.all.remove(&at) else { return Err(format!("release of {at:#x}, which is not allocated")) };
        self.in_use -= a.bytes as u64;
        let intact = a.intact(at);
        // SAFETY: the mapping is ours and no longer in the table.
        unsafe { munmap(a.map as *mut _, a.map_bytes) }.map_err(|e| e.to_string())?;
        if a.bytes != bytes {
            return Err(format!("release of {bytes} bytes at {at:#x}, where {} were allocated", a.bytes));
        }
        intact
    }

    pub(super) fn check(&self) -> Result<(), String> {
        self.all.iter().try_for_each(|(start, a)| a.intact(*start))
    }

    /// The bytes, when they lie in one allocation.
    pub(super) fn within(&self, at: Address, bytes: usize) -> Option<*mut u8> {
        let (start, a) = self.all.range(..=at).next_back()?;
        (at + bytes as u64 <= start + a.bytes as u64).then_some(at as *mut u8)
    }

    /// Adds to a message that ends in the address of a fault what lies near it.
    pub(super) fn explain(&self, message: String) -> String {
        let at = message.rsplit_once(" at 0x").and_then(|(_, hex)| Address::from_str_radix(hex, 16).ok());
        let Some(at) = at.filter(|_| message.contains("outside device memory")) else { return message };
        let far = 1 << 24;
        let below = self.all.range(..=at).next_back().map(|(s, a)| (at - s - a.bytes as u64, "after the end of", s, a));
        let above = self.all.range(at..).next().map(|(s, a)| (s - at, "before", s, a));
        let near = [below, above].into_iter().flatten().filter(|n| n.0 < far).min_by_key(|n| n.0);
        match near {
            Some((by, side, start, a)) => {
                format!("{message}, {by} bytes {side} the allocation of {} bytes at {start:#x}", a.bytes)
            }
            None => message,
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for a in self.all.values() {
            // SAFETY: the mapping is ours, and nothing can ask for it any more. A failure leaves it to the process's end.
            let _ = unsafe { munmap(a.map as *mut _, a.map_bytes) };
        }
    }
}
