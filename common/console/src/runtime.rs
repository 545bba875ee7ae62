//! The binaries' tokio runtime, set up to go on working when the system has no more threads.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// How long an idle thread for blocking work lives.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How often one of them gets work, so that there always is one. If no thread can be made, tokio waits for an existing one, and
/// panics if there is none.
const KEEP_ONE: Duration = Duration::from_secs(30);

/// The runtime of a binary.
///
/// # Errors
/// When the system has no threads.
pub fn runtime() -> io::Result<Runtime> {
    runtime_of(Builder::new_multi_thread().thread_keep_alive(KEEP_ALIVE))
}

/// The same with at most so many threads for blocking work: each keeps some memory of what it had in hand.
///
/// # Errors
/// When the system has no threads.
pub fn runtime_with(blocking_threads: usize) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    runtime_of(builder.thread_keep_alive(KEEP_ALIVE).max_blocking_threads(blocking_threads))
}

fn runtime_of(builder: &mut Builder) -> io::Result<Runtime> {
    let runtime = builder.enable_all().build()?;
    runtime.spawn(async {
        // It ends with the runtime.
        loop {
            let _ = tokio::task::spawn_blocking(|| ()).await;
            tokio::time::sleep(KEEP_ONE).await;
        }
    });
    Ok(runtime)
}
