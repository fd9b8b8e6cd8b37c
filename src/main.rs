//! The `centime` program: parses, calls, prints, exits.

use centime::internal::runner::CountingAllocator;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    centime::internal::cli::main()
}
