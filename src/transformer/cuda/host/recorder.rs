//! Steps captured and replayed, as a GPU does, over the host.

use super::super::super::error::SessionError;
use super::super::super::memory::DeviceMemory;
use super::super::device::{Address, Arg, Device, DeviceFacts, Graph, Launch, Product, Real, Trace};
use super::HostDevice;
use std::sync::Mutex;

/// A device that writes operations down and plays them back, as a GPU does, over the host.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub host: HostDevice,
    /// Whether what was written down cannot be kept, as where a driver refuses a capture.
    refuses: bool,
    capture: Mutex<Option<Vec<Operation>>>,
    kept: Mutex<Vec<Vec<Operation>>>,
    replays: Mutex<usize>,
}

#[derive(Clone, Debug)]
enum Operation {
    Zero(Address, usize),
    Copy(Address, Address, usize),
    Launch {
        file: &'static str,
        kernel: &'static str,
        real: Real,
        grid: [u32; 3],
        threads: u32,
        shared: u32,
        args: Vec<Arg>,
    },
    Product(Product),
}

impl Recorder {
    pub(crate) fn new(host: HostDevice) -> Self {
        Self { host, refuses: false, capture: Mutex::default(), kept: Mutex::default(), replays: Mutex::default() }
    }

    /// One that keeps nothing of what it writes down.
    pub(crate) fn refusing(host: HostDevice) -> Self {
        Self { refuses: true, ..Self::new(host) }
    }

    /// How often something was played back.
    pub(crate) fn replays(&self) -> usize {
        *self.replays.lock().unwrap()
    }

    /// The kernels of what was captured first, in their order; anything that is no launch is called `other`.
    pub(crate) fn captured(&self) -> Vec<&'static str> {
        let kept = self.kept.lock().unwrap();
        let name = |o: &Operation| if let Operation::Launch { kernel, .. } = o { *kernel } else { "other" };
        kept.first().map_or_else(Vec::new, |list| list.iter().map(name).collect())
    }

    /// Writes an operation down, or does it.
    fn ask(&self, operation: Operation) {
        match self.capture.lock().unwrap().as_mut() {
            Some(list) => list.push(operation),
            None => self.run(&operation),
        }
    }

    fn run(&self, operation: &Operation) {
        match operation {
            Operation::Zero(at, bytes) => self.host.zero(*at, *bytes),
            Operation::Copy(from, to, bytes) => self.host.copy(*from, *to, *bytes),
            Operation::Product(p) => self.host.product(p),
            Operation::Launch { file, kernel, real, grid, threads, shared, args } => self.host.launch(&Launch {
                file,
                kernel,
                real: *real,
                grid: *grid,
                threads: *threads,
                shared_bytes: *shared,
                args,
            }),
        }
    }

    /// What a GPU refuses while it writes down.
    fn not_while_capturing(&self, what: &str) {
        assert!(self.capture.lock().unwrap().is_none(), "{what} while capturing");
    }
}

impl Device for Recorder {
    fn facts(&self) -> &DeviceFacts {
        self.host.facts()
    }
    fn trace(&self) -> &Trace {
        self.host.trace()
    }
    fn allocate(&self, bytes: usize) -> Result<Address, SessionError> {
        self.not_while_capturing("allocate");
        self.host.allocate(bytes)
    }
    fn release(&self, at: Address, bytes: usize) {
        self.host.release(at, bytes);
    }
    fn high_water(&self) -> Option<DeviceMemory> {
        self.host.high_water()
    }
    fn zero(&self, at: Address, bytes: usize) {
        self.ask(Operation::Zero(at, bytes));
    }
    fn copy(&self, from: Address, to: Address, bytes: usize) {
        self.ask(Operation::Copy(from, to, bytes));
    }
    fn write(&self, from: &[u8], to: Address) {
        self.not_while_capturing("write");
        self.host.write(from, to);
    }
    fn read(&self, from: Address, to: &mut [u8]) {
        self.not_while_capturing("read");
        self.host.read(from, to);
    }
    fn launch(&self, l: &Launch<'_>) {
        let Launch { file, kernel, real, grid, threads, shared_bytes: shared, args } = *l;
        self.ask(Operation::Launch { file, kernel, real, grid, threads, shared, args: args.to_vec() });
    }
    fn product(&self, product: &Product) {
        self.ask(Operation::Product(*product));
    }
    fn begin_capture(&self) -> bool {
        *self.capture.lock().unwrap() = Some(Vec::new());
        true
    }
    fn end_capture(&self) -> Option<Graph> {
        let list = self.capture.lock().unwrap().take().filter(|_| !self.refuses)?;
        let mut kept = self.kept.lock().unwrap();
        kept.push(list);
        Some(kept.len() as Graph - 1)
    }
    fn replay(&self, graph: Graph) {
        *self.replays.lock().unwrap() += 1;
        let list = self.kept.lock().unwrap()[graph as usize].clone();
        list.iter().for_each(|o| self.run(o));
    }
    fn wait(&self) -> Result<(), SessionError> {
        self.host.wait()
    }
}
