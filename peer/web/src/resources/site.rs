//! What the handlers of resources work with: the client, and how far paths reach that come with requests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use shoal_client::{Begun, Client, ClientError, DownloadOptions, FileRef, SharedFile};
use shoal_common::GroupName;
use shoal_disk::Held;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::refusal::Refusal;
use crate::roots::{self, Reach, Refused, Root};

/// Files that are read to be shared at a time; more would only share the drive.
const AT_ONCE: usize = 4;
/// Files that are being shared, or wait for that; further ones are refused.
const MAX_SHARING: usize = 1_024;

/// Files that are sent at a time.
const MAX_UPLOADS: usize = 8;

/// What the handlers of resources work with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) client: Client,
    reach: Reach,
    work: Work,
}

/// Looks a path up: the roots, the private folders, the path.
type Look = fn(&[Root], &[PathBuf], &Path) -> Result<Held, Refused>;

/// What is at a path, for a user who may go anywhere.
fn anywhere(_: &[Root], _: &[PathBuf], path: &Path) -> Result<Held, Refused> {
    Held::open(path).map_err(|error| Refused::Unusable { path: path.to_owned(), error })
}

/// What goes on when the page that asked for it is gone: hashing a large file takes longer than people look at it.
#[derive(Clone)]
pub(crate) struct Work {
    tasks: TaskTracker,
    closing: CancellationToken,
    at_once: Arc<Semaphore>,
    places: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
}

impl Work {
    pub(crate) fn new(tasks: TaskTracker, closing: CancellationToken) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        let (at_once, sharing, uploads) = (places(AT_ONCE), places(MAX_SHARING), places(MAX_UPLOADS));
        Self { tasks, closing, at_once, places: sharing, uploads }
    }
}

impl Site {
    pub(crate) fn new(client: Client, reach: Reach, work: Work) -> Self {
        Self { client, reach, work }
    }

    /// Whether paths are limited: a page asks.
    pub(super) fn is_limited(&self) -> bool {
        matches!(self.reach, Reach::Roots { .. })
    }

    /// The folders that a page may reach; none where everything is reached.
    pub(super) async fn roots(&self) -> Result<Vec<Root>, ClientError> {
        match &self.reach {
            Reach::Everywhere => Ok(Vec::new()),
            Reach::Roots { given, .. } => roots::roots(&self.client, given).await,
        }
    }

    /// What is at a path that came with a request.
    pub(super) async fn find(&self, path: PathBuf) -> Result<Held, Refusal> {
        self.look(path, roots::find).await
    }

    /// The folder at a path that came with a request; what is lacking of it is made. Without a path, the download folder.
    pub(super) async fn folder(&self, path: Option<PathBuf>) -> Result<(Held, PathBuf), Refusal> {
        let path = match path {
            Some(path) => path,
            None => self.client.download_folder().await?.ok_or(ClientError::NoFolder)?,
        };
        if !self.is_limited() {
            let made = path.clone();
            // A failure shows when it is opened.
            let _ = tokio::task::spawn_blocking(move || std::fs::create_dir_all(made)).await;
        }
        let held = self.look(path, roots::make_folder).await?;
        let real = held.real_path().map_err(|error| Refused::Unusable { path: held.path(), error })?;
        Ok((held, real))
    }

    async fn look(&self, path: PathBuf, look: Look) -> Result<Held, Refusal> {
        let (roots, mut private) = (self.roots().await?, vec![self.client.whoami().data_dir]);
        if let Reach::Roots { private: more, .. } = &self.reach {
            private.extend(more.iter().cloned());
        }
        let look: Look = if self.is_limited() { look } else { anywhere };
        let looked = tokio::task::spawn_blocking(move || look(&roots, &private, &path)).await;
        Ok(looked.map_err(|stopped| Refusal::Stopped(stopped.to_string()))??)
    }

    /// Hashes and shares a file. It goes on when the caller is gone.
    pub(super) async fn share(&self, path: PathBuf, group: GroupName) -> Result<SharedFile, Refusal> {
        if !self.is_limited() {
            let client = self.client.clone();
            return self.lasting(async move { Ok(client.upload(&path, group, Vec::new()).await?) }).await;
        }
        let held = self.find(path.clone()).await?;
        self.share_held(held, path, group).await
    }

    /// The same for a file that was found.
    pub(super) async fn share_held(
        &self,
        held: Held,
        path: PathBuf,
        group: GroupName,
    ) -> Result<SharedFile, Refusal> {
        let is_file = held.is_file().map_err(|error| Refused::Unusable { path: path.clone(), error })?;
        if !is_file {
            return Err(Refused::OtherKind { path, expected: "file" }.into());
        }
        let client = self.client.clone();
        self.lasting(async move { Ok(client.upload_held(&held, group).await?) }).await
    }

    /// Begins a download into a folder.
    pub(super) async fn download(
        &self,
        file: FileRef,
        folder: Option<PathBuf>,
        options: DownloadOptions,
    ) -> Result<Begun, Refusal> {
        if !self.is_limited() {
            let folder = match folder {
                Some(folder) => folder,
                None => self.client.download_folder().await?.ok_or(ClientError::NoFolder)?,
            };
            // With a slash at its end, so that it is made.
            return Ok(self.client.download(file, folder.join(""), options).await?);
        }
        if file.file.as_str().starts_with('.') {
            return Err(Refused::Hidden(file.file.as_str().into()).into());
        }
        let (held, real) = self.folder(folder).await?;
        let begun = self.client.download(file.clone(), real.join(""), options).await?;
        // The download opened its files by their path: that must still have led into the folder that was found.
        if held.is_at(&real).is_ok_and(|is_there| is_there) {
            return Ok(begun);
        }
        self.client.cancel(&file).await?;
        Err(Refused::Outside(real).into())
    }

    /// Moves a finished download into a folder. It goes on when the caller is gone: a copy to another drive takes its time.
    pub(super) async fn move_download(&self, file: FileRef, folder: PathBuf) -> Result<PathBuf, Refusal> {
        let (held, real) = self.folder(Some(folder)).await?;
        if self.is_limited() && !held.is_at(&real).is_ok_and(|is_there| is_there) {
            return Err(Refused::Outside(real).into());
        }
        let client = self.client.clone();
        self.lasting(async move { Ok(client.move_download(&file, real).await?) }).await
    }

    /// A place for a file that is sent.
    pub(super) fn upload_place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.work.uploads.clone().try_acquire_owned().map_err(|_| Refusal::Busy)
    }

    /// Does something that goes on when the caller is gone, and ends with the daemon.
    pub(super) async fn lasting<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let Work { tasks, closing, at_once, places, .. } = self.work.clone();
        let Ok(place) = places.try_acquire_owned() else { return Err(Refusal::Busy) };
        let done = tasks.spawn(async move {
            let _place = place;
            let work = async {
                // The semaphore is never closed.
                let _turn = at_once.acquire().await;
                work.await
            };
            closing.run_until_cancelled(work).await
        });
        match done.await {
            Ok(Some(done)) => done,
            Ok(None) => Err(Refusal::Stopped("the daemon ends".to_owned())),
            Err(stopped) => Err(Refusal::Stopped(stopped.to_string())),
        }
    }
}
