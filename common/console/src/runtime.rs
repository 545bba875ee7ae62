//! The runtime that the binaries run on: tokio's, that goes on working where the system gives out no more threads.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// How long a thread for blocking work lives that has nothing to do.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How often one of them gets something to do, so that there always is one: if no thread can be made and none is there,
/// tokio gives up, with one it waits for that one.
const KEEP_ONE: Duration = Duration::from_secs(30);

/// The runtime of a binary.
///
/// # Errors
/// When the system gives out no threads.
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
