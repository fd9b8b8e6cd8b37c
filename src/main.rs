//! The `centime` program: parses, calls, prints, exits.

use std::process::ExitCode;

fn main() -> ExitCode {
    centime::cli::main()
}
