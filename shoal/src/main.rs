//! `shoal`: the six programs as subcommands, `shoal up` to begin, and each command of the prompt for a client that runs in the
//! background.
//!
//! `programs` hands over to the six; `definition` is what clap knows of everything. `dispatch` tells apart what was typed;
//! `invocation` is a command of the prompt among it. `ask` carries such a command to the daemon that `choose` finds, `passwords` has
//! what it asks for, and `show` shows what it says. `watch` follows events, and `link` lets a browser in, which `browser` opens. `up` is a tracker and a
//! client in one process, and `moving` takes them to another machine.

mod ask;
mod browser;
mod choose;
mod definition;
mod dispatch;
mod invocation;
mod link;
mod moving;
mod passwords;
mod programs;
mod show;
mod up;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use shoal_wipe::Wiping;

/// Keeps the memory it got: giving it back and faulting it in again costs a third of the time at full speed. What work on secrets
/// frees is wiped.
#[global_allocator]
static ALLOCATOR: Wiping<mimalloc::MiMalloc> = Wiping(mimalloc::MiMalloc);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called = arguments.next();
    let arguments: Vec<OsString> = arguments.collect();
    programs::run(called.as_deref(), &arguments).unwrap_or_else(|| dispatch::run(arguments))
}
