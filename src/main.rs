//! The program: see the library (`src/lib.rs`).

use std::process::ExitCode;

/// An invite is many small allocations. This allocator spends less time on them than the system's (docs/PERFORMANCE.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    session_invite::main()
}
