//! Rereads everything over time, because disks forget.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Chunks;

/// How fast, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Scrub {
    /// Bytes per second: low enough not to disturb users.
    pub rate: u64,
    /// From the end of one pass to the beginning of the next.
    pub every: Duration,
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Chunks that this pass has read.
    pub checked: u64,
    /// Chunks that it is to read.
    pub total: u64,
    /// Finished passes.
    pub passes: u64,
    /// Rotten chunks found since the start.
    pub rotten: u64,
}

/// Runs until `stop`, and says in `progress` how far it is. What is rotten is set aside and, by no longer being held, reported.
pub async fn scrub(chunks: Chunks, scrub: Scrub, progress: watch::Sender<Scrubbed>, stop: CancellationToken) {
    let _ = stop
        .run_until_cancelled(async {
            loop {
                pass(&chunks, scrub.rate, &progress).await;
                tokio::time::sleep(scrub.every).await;
            }
        })
        .await;
}

async fn pass(chunks: &Chunks, rate: u64, progress: &watch::Sender<Scrubbed>) {
    let (held, _) = chunks.snapshot();
    let (total, mut rotten) = (held.len(), 0_u64);
    progress.send_modify(|now| (now.checked, now.total) = (0, total as u64));
    tracing::info!(chunks = total, "scrubbing: reads all chunks again");
    for chunk in held {
        let Some(length) = chunks.length(&chunk) else { continue };
        if matches!(chunks.verify(chunk).await, Ok(false)) {
            rotten += 1;
            progress.send_modify(|now| now.rotten += 1);
        }
        progress.send_modify(|now| now.checked += 1);
        tokio::time::sleep(Duration::from_secs_f64(f64::from(length) / rate.max(1) as f64)).await;
    }
    progress.send_modify(|now| now.passes += 1);
    tracing::info!(chunks = total, rotten, "scrubbing: all chunks were read again");
}
