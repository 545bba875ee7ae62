//! How a download ends: nothing runs on, what is worth keeping is saved, and a whole file is put in its place.

use std::sync::Arc;

use shoal_common::Bitfield;

use crate::content::Target;
use crate::driver::{Driver, End, checkpoint};
use crate::part::PartContext;
use crate::progress::{DownloadError, Outcome, State};
use crate::shared::Control;

impl Driver {
    /// Stops everything, saves what is worth saving, and finishes the file if it is whole.
    pub(super) async fn end(mut self, end: End, target: &Target) -> Outcome {
        self.fetches.stop(&mut self.stats).await;
        self.stop_work.cancel();
        let keep = matches!(end, End::Stopped(Control::Pause) | End::Failed(DownloadError::NoSources { .. }));
        if !keep {
            self.queue.clear();
        }
        // What was received is still checked and written: at most the pool's worth.
        loop {
            self.start_writing();
            let Some(done) = self.work.join_next().await else { break };
            if let Err(error) = self.worked(done) {
                tracing::debug!(%error, "while a download ended");
            }
        }
        if matches!(end, End::Whole(_)) {
            self.publish_as(State::Finishing);
        }
        let outcome = self.settle(end, target).await;
        self.place.part.unlock();
        self.publish_as(State::Ended);
        outcome
    }

    async fn settle(&mut self, end: End, target: &Target) -> Outcome {
        let (place, written, target) = (self.place.clone(), self.written.clone(), target.clone());
        let settled = tokio::task::spawn_blocking(move || match end {
            End::Whole(digest) => match place.part.finish(&target) {
                Ok(()) => {
                    place.journal.remove();
                    Outcome::Complete { path: target.path().to_owned(), digest }
                }
                Err(error) => {
                    save(&place, &written);
                    Outcome::Failed(Arc::new(error).into())
                }
            },
            End::Stopped(Control::Cancel) => {
                place.part.remove();
                place.journal.remove();
                Outcome::Cancelled
            }
            End::Stopped(_) => {
                save(&place, &written);
                Outcome::Paused
            }
            End::Failed(error) => {
                if !matches!(error, DownloadError::Digest { .. }) {
                    save(&place, &written);
                }
                Outcome::Failed(error)
            }
        });
        settled.await.unwrap_or(Outcome::Failed(DownloadError::Stopped))
    }
}

/// A checkpoint at the end, as far as the disk allows: without it the pieces in the list are hashed at the next start.
fn save(place: &PartContext, written: &Bitfield) {
    if let Err(error) = checkpoint(place, written) {
        tracing::warn!(%error, "cannot save a download's state; it will be checked again when it is resumed");
    }
}
