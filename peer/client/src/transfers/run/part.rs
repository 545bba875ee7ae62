//! Runs of which only a part is fetched: some files of a folder, or its listing alone.

use shoal_engine::Outcome;

use super::{Learned, Run};
use crate::transfers::holders::HoldersAnswer;

impl Run {
    /// Runs outside of the queue until what is fetched is there; gives why it is not.
    pub(in crate::transfers) async fn alone(self, answer: HoldersAnswer) -> Result<(), String> {
        let mut learned = Learned::new(&self.record.manifest, self.downloads.parts.mirrors);
        tokio::select! {
            outcome = self.download.wait() => match outcome {
                Outcome::Complete { .. } => Ok(()),
                Outcome::Failed(error) => Err(error.to_string()),
                Outcome::Paused | Outcome::Cancelled => Err("it was stopped".to_owned()),
            },
            problem = self.feed(&mut learned, Some(answer)) => Err(problem),
        }
    }
}
