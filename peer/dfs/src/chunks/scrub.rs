//! Rereads everything over time, because disks forget.

use std::time::Duration;

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

/// Runs until `stop`. What is rotten is set aside and, by no longer being held, reported.
pub async fn scrub(chunks: Chunks, scrub: Scrub, stop: CancellationToken) {
    let _ = stop
        .run_until_cancelled(async {
            loop {
                pass(&chunks, scrub.rate).await;
                tokio::time::sleep(scrub.every).await;
            }
        })
        .await;
}

async fn pass(chunks: &Chunks, rate: u64) {
    let (held, _) = chunks.snapshot();
    let (total, mut rotten) = (held.len(), 0_u64);
    for chunk in held {
        let Some(length) = chunks.length(&chunk) else { continue };
        if matches!(chunks.verify(chunk).await, Ok(false)) {
            rotten += 1;
        }
        tokio::time::sleep(Duration::from_secs_f64(f64::from(length) / rate.max(1) as f64)).await;
    }
    tracing::info!(chunks = total, rotten, "read all chunks again");
}
