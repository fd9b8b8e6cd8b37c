//! The `centime` program: parses, calls, prints, exits.

use centime::runner::allocation::CountingAllocator;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    centime::cli::main()
}
