//! Ends a download: all tasks stop, useful state is saved, and a whole file is put in its place.

use std::sync::Arc;

use shoal_common::Bitfield;

use crate::content::Target;
use crate::driver::{Driver, End, checkpoint};
use crate::part::PartContext;
use crate::progress::{DownloadError, Outcome, Phase};
use crate::resources::Control;

impl Driver {
    /// Stops everything, saves what is worth saving, and finishes the file if it is whole.
    pub(super) async fn end(mut self, end: End, target: &Target) -> Outcome {
        self.fetches.stop(&mut self.stats).await;
        self.stop_work.cancel();
        let keep = matches!(end, End::Stopped(Control::Pause) | End::Failed(DownloadError::NoSources { .. }));
        if !keep {
            self.queue.clear();
        }
        // Received pieces are still checked and written: at most the pool's worth.
        loop {
            self.start_writing();
            let Some(done) = self.work.join_next().await else { break };
            if let Err(error) = self.worked(done) {
                tracing::debug!(%error, "while a download ended");
            }
        }
        if matches!(end, End::Whole(_)) {
            self.publish_as(Phase::Finishing);
        }
        let outcome = self.finish_or_save(end, target).await;
        self.context.part.unlock();
        self.publish_as(Phase::Ended);
        outcome
    }

    async fn finish_or_save(&mut self, end: End, target: &Target) -> Outcome {
        let (context, written, target) = (self.context.clone(), self.written.clone(), target.clone());
        let chosen = self.files.chosen();
        let finished = tokio::task::spawn_blocking(move || match end {
            End::Whole(digest) => match context.part.finish(&target, &chosen) {
                Ok(()) => {
                    context.journal.remove();
                    Outcome::Complete { path: target.path().to_owned(), digest }
                }
                Err(error) => {
                    save(&context, &written);
                    Outcome::Failed(Arc::new(error).into())
                }
            },
            End::Stopped(Control::Cancel) => {
                context.part.remove();
                context.journal.remove();
                Outcome::Cancelled
            }
            End::Stopped(_) => {
                save(&context, &written);
                Outcome::Paused
            }
            End::Failed(error) => {
                if !matches!(error, DownloadError::Digest { .. }) {
                    save(&context, &written);
                }
                Outcome::Failed(error)
            }
        });
        finished.await.unwrap_or(Outcome::Failed(DownloadError::Stopped))
    }
}

/// Writes a checkpoint if the disk allows. Without it the next start hashes the listed pieces.
fn save(context: &PartContext, written: &Bitfield) {
    if let Err(error) = checkpoint(context, written) {
        tracing::warn!(%error, "cannot save a download's state; it will be checked again when it is resumed");
    }
}
