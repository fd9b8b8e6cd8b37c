//! A stream beside a device's own: what is put into it starts after what the device was asked for so far, and runs beside what
//! it is asked for next, until that has to wait for it.

use super::fault::DriverFault;
use cudarc::driver::{result, sys};
use std::collections::VecDeque;

/// The stream, and the marks in it that are waited for. The device's context is current whenever it is used.
#[derive(Debug)]
pub(crate) struct Side {
    stream: sys::CUstream,
    /// Reached by the device's own stream when a job may start.
    ready: sys::CUevent,
    /// Ends of jobs that nobody has waited for yet, by number.
    ends: VecDeque<(u64, sys::CUevent)>,
    /// Marks to be used again.
    free: Vec<sys::CUevent>,
    jobs: u64,
}

// SAFETY: streams and events are handles that the driver lets any thread use.
unsafe impl Send for Side {}

fn mark() -> Result<sys::CUevent, DriverFault> {
    Ok(result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?)
}

impl Side {
    /// # Errors
    /// What the driver says.
    pub(crate) fn new() -> Result<Self, DriverFault> {
        let ready = mark()?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)?;
        Ok(Self { stream, ready, ends: VecDeque::new(), free: Vec::new(), jobs: 0 })
    }

    /// Where jobs go.
    pub(crate) fn stream(&self) -> sys::CUstream {
        self.stream
    }

    /// Lets what is put in next start after all that `main` has been given.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn begin(&mut self, main: sys::CUstream) -> Result<(), DriverFault> {
        // SAFETY: the event and both streams are alive; a wait is for the event as it was recorded last.
        unsafe { result::event::record(self.ready, main) }?;
        // SAFETY: as above.
        Ok(unsafe {
            result::stream::wait_event(self.stream, self.ready, sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT)
        }?)
    }

    /// Marks the end of a job; its number.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn end(&mut self) -> Result<u64, DriverFault> {
        let end = match self.free.pop() {
            Some(end) => end,
            None => mark()?,
        };
        self.jobs += 1;
        self.ends.push_back((self.jobs, end));
        // SAFETY: the event and the stream are alive.
        unsafe { result::event::record(end, self.stream) }?;
        Ok(self.jobs)
    }

    /// Lets what `main` is given next wait for every job so far.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn join_all(&mut self, main: sys::CUstream) -> Result<(), DriverFault> {
        self.join(self.jobs, main)
    }

    /// Lets what `main` is given next wait for a job.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn join(&mut self, job: u64, main: sys::CUstream) -> Result<(), DriverFault> {
        // Jobs end in order: the one waited for stands for all before it.
        while let Some(&(number, end)) = self.ends.front().filter(|(number, _)| *number <= job) {
            self.ends.pop_front();
            self.free.push(end);
            if number == job {
                // SAFETY: the event and the stream are alive; the wait is for the event as it is recorded now.
                unsafe { result::stream::wait_event(main, end, sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT) }?;
            }
        }
        Ok(())
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        for event in self.ends.drain(..).map(|(_, e)| e).chain(self.free.drain(..)).chain([self.ready]) {
            // SAFETY: made by us, destroyed once; the driver keeps what is still waited for.
            let _ = unsafe { result::event::destroy(event) };
        }
        // SAFETY: as above.
        let _ = unsafe { result::stream::destroy(self.stream) };
    }
}
