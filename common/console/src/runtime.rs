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
    let runtime = Builder::new_multi_thread().enable_all().thread_keep_alive(KEEP_ALIVE).build()?;
    runtime.spawn(async {
        // It ends with the runtime.
        loop {
            let _ = tokio::task::spawn_blocking(|| ()).await;
            tokio::time::sleep(KEEP_ONE).await;
        }
    });
    Ok(runtime)
}
