//! How many records a peer may send for little: those that carry nothing end the connection when they are many, those that
//! carry little are read no faster than so many per second.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use shoal_common::bucket::{Allowance, Bucket};
use tokio::time::{Instant, Sleep, sleep};

/// Records without data: alerts that say nothing, new keys, empty ones. Our writer sends one for 2^23 records, and rustls
/// one for 2^24; a session's beginning has a few.
const EMPTY: Allowance = Allowance { burst: 256, refill: Duration::from_millis(100) };
/// Records with less than [`SMALL_BYTES`]. The most that is honest: at 10 Gbit/s and pieces of 64 KiB a requester sends
/// 19,000 requests and as many announcements per second, each in a record of its own at worst. To open 40,000 records costs
/// 2 % of a core. The burst is what is honest for five seconds, so that a pause of ours is made up for.
const SMALL: Allowance = Allowance { burst: 200_000, refill: Duration::from_micros(25) };
/// A record with less costs as much as one with this much.
const SMALL_BYTES: usize = 256;

/// Debts are paid in pauses of this length at least: timers are no finer than a millisecond.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Debug)]
pub(super) struct RecordBudget {
    empty: Bucket,
    small: Bucket,
    pause: Option<Pin<Box<Sleep>>>,
}

impl RecordBudget {
    pub(super) fn new() -> Self {
        let full = Bucket::full(Instant::now().into_std());
        Self { empty: full, small: full, pause: None }
    }

    /// Counts a record with so many bytes of data.
    ///
    /// # Errors
    /// When too many carried nothing.
    pub(super) fn count(&mut self, bytes: usize) -> io::Result<()> {
        if bytes >= SMALL_BYTES {
            return Ok(());
        }
        let now = Instant::now().into_std();
        if bytes == 0 && self.empty.take(1, EMPTY, now).is_err() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many records that carry nothing"));
        }
        let owed = self.small.charge(1, SMALL, now);
        if owed >= SHORTEST_PAUSE {
            self.pause = Some(Box::pin(sleep(owed)));
        }
        Ok(())
    }

    /// Completes when the next record may be read.
    pub(super) fn poll_paid(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }
}
