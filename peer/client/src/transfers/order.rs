//! The order of the downloads, and their limits, as the user wants them.

use super::{TransferError, Transfers};
use crate::FileRef;
use crate::priority::{Priority, QueueEnd, Rank};
use shoal_swarm::FileKey;

impl Transfers {
    /// Gives a download a priority. A more urgent one takes the place of a less urgent one that runs.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub(crate) async fn set_priority(&self, file: &FileRef, priority: Priority) -> Result<(), TransferError> {
        let record = self.named(file)?;
        self.set_rank(file, Rank { priority, ..record.rank }).await
    }

    /// Puts a download before or behind all others of its priority.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub(crate) async fn move_to(&self, file: &FileRef, end: QueueEnd) -> Result<(), TransferError> {
        let record = self.named(file)?;
        let position = self.list().position_at(end);
        self.set_rank(file, Rank { position, ..record.rank }).await
    }

    async fn set_rank(&self, file: &FileRef, rank: Rank) -> Result<(), TransferError> {
        let record = self.named(file)?;
        self.0.parts.store.set_download_rank(record.user, record.key, rank).await?;
        let running = self.list().set_rank(record.key, rank);
        if let Some(number) = running {
            self.0.places.set_rank(number, rank);
        }
        Ok(())
    }

    /// Limits the rate of one download, in bytes per second; `None` is no limit of its own.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub(crate) async fn set_limit(&self, file: &FileRef, limit: Option<u64>) -> Result<(), TransferError> {
        let record = self.named(file)?;
        self.0.parts.store.set_download_limit(record.user, record.key, limit).await?;
        self.list().set_limit(record.key, limit);
        Ok(())
    }

    /// Sets how many downloads may have sources at the same time; `None` is no bound.
    pub(crate) fn set_active(&self, bound: Option<usize>) {
        self.0.places.set_bound(bound);
    }

    /// Where a download that is begun stands, and its limit: behind all others. One that is begun again keeps what its user
    /// gave it.
    pub(super) fn new_rank(&self, key: FileKey) -> (Rank, Option<u64>) {
        let list = self.list();
        let before = list.find(key);
        let priority = before.as_ref().map_or(Priority::Normal, |before| before.rank.priority);
        (
            Rank { priority, position: list.position_at(QueueEnd::Last) },
            before.and_then(|before| before.limit),
        )
    }
}
