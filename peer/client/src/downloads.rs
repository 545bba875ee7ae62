//! Downloads and rate limits.

use std::path::PathBuf;
use std::time::{Duration, Instant};

#[cfg(doc)]
use crate::MAX_ENTRIES;
use crate::results::{PieceMap, SourceEntry};
use crate::taking::{DownloadOptions, Rule};
use crate::transfers::{Begun, DownloadRow, FilesChosen, FolderFiles, Resumed};
use crate::{Client, ClientError, FileRef};

/// The setting of the folder for downloads without a destination.
const DOWNLOAD_FOLDER: &str = "download_folder";

impl Client {
    /// Where downloads go for which no destination is given: the folder that was set, else the user's download folder, else
    /// `~/Downloads`. `None` without a home folder.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn download_folder(&self) -> Result<Option<PathBuf>, ClientError> {
        let set = self.0.store.setting(DOWNLOAD_FOLDER).await?;
        let usual = || dirs::download_dir().or_else(|| dirs::home_dir().map(|home| home.join("Downloads")));
        Ok(set.map(PathBuf::from).or_else(usual))
    }

    /// Sets where downloads go for which no destination is given; `None` is the user's download folder.
    ///
    /// # Errors
    /// When the path is no UTF-8, or the store fails.
    pub async fn set_download_folder(&self, folder: Option<PathBuf>) -> Result<(), ClientError> {
        let Some(folder) = folder else {
            return Ok(self.0.store.remove_setting(DOWNLOAD_FOLDER).await?);
        };
        let path = std::path::absolute(&folder).unwrap_or(folder).into_os_string();
        let text = path.into_string().map_err(|path| ClientError::NoText(path.into()))?;
        Ok(self.0.store.set_setting(DOWNLOAD_FOLDER, text).await?)
    }

    /// Begins a download in the background; `destination` is a folder or the file's new path. One that ends in a slash is
    /// made.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn download(
        &self,
        file: FileRef,
        destination: PathBuf,
        options: DownloadOptions,
    ) -> Result<Begun, ClientError> {
        self.who()?;
        Ok(self.0.transfers.begin(file, destination, options, &self.0.hashing).await?)
    }

    /// Has the download of a folder fetch more or fewer files: the rules are added to those that it has, and the last one that
    /// matches a file counts. One that is complete goes on if more is to be fetched.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn choose(&self, file: &FileRef, rules: Vec<Rule>) -> Result<FilesChosen, ClientError> {
        self.who()?;
        Ok(self.0.transfers.choose(file, rules).await?)
    }

    /// What is in a folder of a group, or below a path in it: `most` entries, [`MAX_ENTRIES`] at most, from the one of that
    /// number on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn folder_files(
        &self,
        file: FileRef,
        within: &str,
        from: usize,
        most: usize,
    ) -> Result<FolderFiles, ClientError> {
        self.who()?;
        Ok(self.0.transfers.entries(file, within, (from, most)).await?)
    }

    /// All downloads of the user who is logged in.
    #[must_use]
    pub fn downloads(&self) -> Vec<DownloadRow> {
        self.0.transfers.rows()
    }

    /// A download in detail: its row, the pieces that are there, and its sources.
    ///
    /// # Errors
    /// When nobody is logged in, or there is no such download.
    pub async fn download_detail(
        &self,
        file: &FileRef,
    ) -> Result<(DownloadRow, Option<PieceMap>, Vec<SourceEntry>), ClientError> {
        self.who()?;
        Ok(self.0.transfers.detail(file).await?)
    }

    /// Pauses a download; what is there is kept.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn pause(&self, file: &FileRef) -> Result<(), ClientError> {
        self.who()?;
        Ok(self.0.transfers.pause(file).await?)
    }

    /// Continues a paused or failed download.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn resume(&self, file: &FileRef) -> Result<Resumed, ClientError> {
        self.who()?;
        Ok(self.0.transfers.resume(file).await?)
    }

    /// Abandons a download, or takes a finished one off the list. True if it was finished: then the file stays.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cancel(&self, file: &FileRef) -> Result<bool, ClientError> {
        self.who()?;
        Ok(self.0.transfers.cancel(file).await?)
    }

    /// Moves a finished download into a folder, which is made if its path ends in a slash; gives the new path. Its shares
    /// follow. See [`Client::hashing`] for how far a copy to another drive came. Dropping the future gives such a copy up.
    ///
    /// # Errors
    /// See [`ClientError`]. Nothing is replaced; the file is where it was then.
    pub async fn move_download(&self, file: &FileRef, folder: PathBuf) -> Result<PathBuf, ClientError> {
        self.who()?;
        Ok(self.0.transfers.move_download(file, folder, &self.0.hashing).await?)
    }

    /// Completes when no download runs. Safe to drop.
    pub async fn idle(&self) {
        self.0.transfers.idle().await;
    }

    /// Waits until no download runs, `limit` at most; gives how long it took. Safe to drop.
    ///
    /// # Errors
    /// When the time is over before, or a download failed since the last call.
    pub async fn wait(&self, limit: Option<Duration>) -> Result<Duration, ClientError> {
        self.who()?;
        let begun = Instant::now();
        let idle = self.0.transfers.idle();
        match limit {
            None => idle.await,
            Some(limit) => {
                if tokio::time::timeout(limit, idle).await.is_err() {
                    let running = self.0.transfers.running();
                    return Err(ClientError::StillRunning { running, waited: limit });
                }
            }
        }
        let failed = self.0.transfers.take_failures();
        if failed.is_empty() { Ok(begun.elapsed()) } else { Err(ClientError::DownloadsFailed(failed)) }
    }
}
