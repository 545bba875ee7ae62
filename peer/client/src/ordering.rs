//! The queue of downloads as the user wants it: how many are active, which are next, and how fast each may be.

use crate::priority::{Priority, QueueEnd};
use crate::store::{Store, StoreError};
use crate::{Client, ClientError, FileRef};

/// The setting of how many downloads may have sources at the same time.
const ACTIVE_DOWNLOADS: &str = "active_downloads";

impl Client {
    /// Gives a download a priority; it is kept over restarts. A more urgent one takes the place of a less urgent one that runs.
    ///
    /// # Errors
    /// When nobody is logged in, there is no such download, or the store fails.
    pub async fn set_priority(&self, file: &FileRef, priority: Priority) -> Result<(), ClientError> {
        self.who()?;
        Ok(self.0.transfers.set_priority(file, priority).await?)
    }

    /// Puts a download before or behind all others of its priority; that is kept over restarts. One that runs is not sent back
    /// for an equal one.
    ///
    /// # Errors
    /// As [`Client::set_priority`].
    pub async fn move_in_queue(&self, file: &FileRef, end: QueueEnd) -> Result<(), ClientError> {
        self.who()?;
        Ok(self.0.transfers.move_to(file, end).await?)
    }

    /// Limits the rate of one download, in bytes per second, from now on and after a restart; `None` is no limit of its own.
    /// The limit of all downloads holds besides.
    ///
    /// # Errors
    /// As [`Client::set_priority`].
    pub async fn set_download_limit(&self, file: &FileRef, rate: Option<u64>) -> Result<(), ClientError> {
        self.who()?;
        Ok(self.0.transfers.set_limit(file, rate.filter(|&rate| rate > 0)).await?)
    }

    /// How many downloads may have sources at the same time; `None` is no bound.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn active_downloads(&self) -> Result<Option<usize>, ClientError> {
        Ok(active_downloads(&self.0.store).await?)
    }

    /// Sets how many downloads may have sources at the same time, from now on and after a restart; `None` or 0 is no bound.
    /// One that waits for a sharer does not count.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn set_active_downloads(&self, bound: Option<usize>) -> Result<(), ClientError> {
        let bound = bound.filter(|&bound| bound > 0);
        match bound {
            Some(bound) => self.0.store.set_setting(ACTIVE_DOWNLOADS, bound.to_string()).await?,
            None => self.0.store.remove_setting(ACTIVE_DOWNLOADS).await?,
        }
        self.0.transfers.set_active(bound);
        Ok(())
    }
}

/// The bound that was set.
pub(crate) async fn active_downloads(store: &Store) -> Result<Option<usize>, StoreError> {
    let text = store.setting(ACTIVE_DOWNLOADS).await?;
    Ok(text.and_then(|text| text.parse().ok()).filter(|&bound| bound > 0))
}
