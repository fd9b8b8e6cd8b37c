//! What a rank does when: spans of its operations, exchanges and batches, kept while somebody asks for them.
//!
//! A span is a guard: `let _span = trace::span(..)` at the head of what it covers. Nobody asks: a thread's own flag is read. Somebody
//! does: two readings of the clock and 80 bytes. Spans are of the thread that asks for operations; what a pool's threads do for one is
//! inside it. Devices of their own do later what they are asked for now, so that operations of theirs have none. A tool that this process
//! was started by ([`super::nvtx`]) is shown every span as a range, and what devices are asked for as well, since it follows them itself.

use super::nvtx::{self, Tool};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::time::Instant;

/// What kind of work a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Matrix products, those of experts among them.
    Product,
    Attention,
    Norm,
    /// Activations, positions, additions, copies, embeddings.
    Elementwise,
    /// The last product and the loss over the vocabulary.
    Loss,
    Optimizer,
    /// Among ranks.
    Exchange,
    /// Batches that are made or waited for.
    Data,
    /// A step, or a part of one: holds other spans.
    Whole,
}

impl Kind {
    /// Every kind of single work, in the order of a report.
    pub const ALL: &'static [Self] = &[
        Self::Product,
        Self::Attention,
        Self::Norm,
        Self::Elementwise,
        Self::Loss,
        Self::Optimizer,
        Self::Exchange,
        Self::Data,
    ];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Product => "products",
            Self::Attention => "attention",
            Self::Norm => "norms",
            Self::Elementwise => "elementwise",
            Self::Loss => "head and loss",
            Self::Optimizer => "optimizer",
            Self::Exchange => "exchange",
            Self::Data => "data",
            Self::Whole => "step",
        }
    }
}

/// What has to be computed and moved at least.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// FLOPs of matrix products and attention, a multiply-add as two.
    pub flops: f64,
    /// Bytes read and written, each once.
    pub bytes: f64,
}

/// A span that has ended. Nanoseconds since the moment that whoever asked named.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    pub kind: Kind,
    pub name: &'static str,
    pub from: u64,
    pub to: u64,
    pub work: Work,
}

/// What one rank did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Track {
    pub rank: usize,
    /// In the order of their ends.
    pub events: Vec<Event>,
}

/// Who is told of this thread's spans.
#[derive(Clone, Copy)]
struct Told {
    kept: bool,
    tool: Option<&'static Tool>,
}

thread_local! {
    static TOLD: Cell<Told> = const { Cell::new(Told { kept: false, tool: None }) };
    static RECORDER: RefCell<Recorder> = const { RefCell::new(Recorder { epoch: None, events: Vec::new() }) };
}

struct Recorder {
    epoch: Option<Instant>,
    events: Vec<Event>,
}

/// From now on the spans of this thread are kept, their times counted from `epoch`.
pub(super) fn begin(epoch: Instant) {
    RECORDER.with_borrow_mut(|r| r.epoch = Some(epoch));
    TOLD.set(Told { kept: true, ..TOLD.get() });
}

/// What was kept of this thread; nothing more is.
pub(super) fn end() -> Vec<Event> {
    TOLD.set(Told { kept: false, ..TOLD.get() });
    RECORDER.with_borrow_mut(|r| std::mem::take(&mut r.events))
}

/// From now on the tool that this process was started by, if there is one, is shown the spans of this thread.
pub(super) fn show() {
    TOLD.set(Told { tool: nvtx::tool(), ..TOLD.get() });
}

/// Lasts until it is dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct Span {
    kept: Option<(Kind, &'static str, Work, Instant)>,
    shown: Option<&'static Tool>,
}

impl Span {
    #[cold]
    fn begin(told: Told, kind: Kind, name: &'static str, work: impl FnOnce() -> Work) -> Self {
        told.tool.inspect(|tool| tool.push(name));
        Self { kept: told.kept.then(|| (kind, name, work(), Instant::now())), shown: told.tool }
    }
}

/// A span from here on.
#[inline]
pub(super) fn span(kind: Kind, name: &'static str, work: impl FnOnce() -> Work) -> Span {
    match TOLD.get() {
        Told { kept: false, tool: None } => Span { kept: None, shown: None },
        told => Span::begin(told, kind, name, work),
    }
}

/// A span of which nothing is counted.
#[inline]
pub(super) fn plain(kind: Kind, name: &'static str) -> Span {
    span(kind, name, Work::default)
}

/// A part of a step that is done when its span ends, `on_host`, or that a device has then been asked for, of which a tool alone is told.
pub(super) fn part(on_host: bool, name: &'static str) -> Span {
    match TOLD.get() {
        _ if on_host => plain(Kind::Whole, name),
        Told { tool: None, .. } => Span { kept: None, shown: None },
        told => Span::begin(Told { kept: false, ..told }, Kind::Whole, name, Work::default),
    }
}

/// An exchange among so many ranks; of one there is none.
pub(super) fn exchange(ranks: usize, name: &'static str) -> Option<Span> {
    (ranks > 1).then(|| plain(Kind::Exchange, name))
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if let Some((kind, name, work, from)) = self.kept.take() {
            kept(kind, name, work, from);
        }
        if let Some(tool) = self.shown {
            tool.pop();
        }
    }
}

#[cold]
fn kept(kind: Kind, name: &'static str, work: Work, from: Instant) {
    let now = Instant::now();
    RECORDER.with_borrow_mut(|r| {
        let Some(epoch) = r.epoch else { return };
        let since = |at: Instant| u64::try_from(at.saturating_duration_since(epoch).as_nanos()).unwrap_or(u64::MAX);
        r.events.push(Event { kind, name, from: since(from), to: since(now), work });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_kept_between_begin_and_end_and_never_else() {
        drop(plain(Kind::Norm, "before"));
        begin(Instant::now());
        {
            let _whole = plain(Kind::Whole, "step");
            drop(span(Kind::Product, "linear", || Work { flops: 6.0, bytes: 4.0 }));
        }
        let events = end();
        drop(span(Kind::Norm, "after", || unreachable!("nobody asks")));
        let names: Vec<&str> = events.iter().map(|e| e.name).collect();
        assert_eq!(names, ["linear", "step"]);
        let (inner, whole) = (&events[0], &events[1]);
        assert!(whole.from <= inner.from && inner.from <= inner.to && inner.to <= whole.to);
        assert_eq!((inner.work.flops, whole.work), (6.0, Work::default()));
        begin(Instant::now());
        assert_eq!(end(), []);
    }

    #[test]
    fn threads_keep_their_own() {
        begin(Instant::now());
        std::thread::spawn(|| drop(plain(Kind::Norm, "elsewhere"))).join().unwrap();
        assert_eq!(end(), []);
    }
}
