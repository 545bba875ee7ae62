//! Chunks in an S3-compatible object store: `PREFIX/OWNER/ID`. An object appears whole or not at all, and is as durable as
//! that store makes it.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};
use shoal_common::Uid;
use shoal_common::storage::{ChunkId, MAX_SEALED_CHUNK};
use shoal_common::tracker_api::storage::OwnedChunk;
use url::Url;

use super::folder::hex;
use super::{Backend, BackendError, Found};

/// Where rotten chunks go.
const ASIDE: &str = "rotten";
/// How long one request may take, and how long it is tried again.
const REQUEST: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(20);

/// A bucket, or a part of one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ObjectBackend {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

/// Why a URL cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ObjectUrlError {
    /// It is none of those that are understood.
    #[error(
        "{0} is no store: give a folder, or s3://BUCKET/PREFIX with AWS_ENDPOINT, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
    )]
    Unknown(String),
    /// The settings do not make a client.
    #[error("cannot use {url}: {error}")]
    Settings {
        /// The URL.
        url: String,
        /// What is wrong.
        error: object_store::Error,
    },
}

impl ObjectBackend {
    /// The bucket of `s3://BUCKET/PREFIX`. Endpoint, region and keys come from the environment, as for other S3 tools:
    /// `AWS_ENDPOINT`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_ALLOW_HTTP`.
    ///
    /// # Errors
    /// [`ObjectUrlError`].
    pub fn open(url: &str) -> Result<Self, ObjectUrlError> {
        let unknown = || ObjectUrlError::Unknown(url.to_owned());
        let parsed = Url::parse(url).map_err(|_| unknown())?;
        let bucket = parsed.host_str().filter(|_| parsed.scheme() == "s3").ok_or_else(unknown)?;
        let settings = |error| ObjectUrlError::Settings { url: url.to_owned(), error };
        let prefix = Path::from_url_path(parsed.path()).map_err(|error| settings(error.into()))?;
        let options = ClientOptions::new().with_timeout(REQUEST).with_allow_http(allow_http());
        let retry = RetryConfig { retry_timeout: RETRY, ..RetryConfig::default() };
        let store = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_client_options(options)
            .with_retry(retry)
            .build()
            .map_err(settings)?;
        Ok(Self { store: Arc::new(store), prefix })
    }

    fn path(&self, chunk: &OwnedChunk) -> Path {
        self.prefix.clone().join(chunk.owner.to_string()).join(chunk.chunk.to_string())
    }

    async fn find_all(&self) -> Result<Vec<Found>, BackendError> {
        let mut listed = self.store.list(Some(&self.prefix));
        let mut found = Vec::new();
        while let Some(object) = listed.try_next().await? {
            let mut parts = object.location.parts().rev();
            let id = parts.next().and_then(|part| hex::<32>(OsStr::new(part.as_ref())));
            let owner = parts.next().and_then(|part| hex::<16>(OsStr::new(part.as_ref())));
            let (Some(id), Some(owner)) = (id, owner) else { continue };
            let chunk = OwnedChunk { owner: Uid(owner), chunk: ChunkId(id) };
            let length =
                u32::try_from(object.size).ok().filter(|length| (1..=MAX_SEALED_CHUNK).contains(length));
            // Other objects, such as chunks set aside, are not ours.
            if let Some(length) = length.filter(|_| object.location == self.path(&chunk)) {
                found.push(Found { chunk, length, stored: SystemTime::from(object.last_modified) });
            }
        }
        Ok(found)
    }
}

fn allow_http() -> bool {
    std::env::var("AWS_ALLOW_HTTP").is_ok_and(|value| value == "1" || value.eq_ignore_ascii_case("true"))
}

impl From<object_store::Error> for BackendError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound,
            error => Self::Failed(error.to_string()),
        }
    }
}

impl Backend for ObjectBackend {
    fn list(&self) -> BoxFuture<'_, Result<Vec<Found>, BackendError>> {
        self.find_all().boxed()
    }

    fn put(&self, chunk: OwnedChunk, bytes: Bytes) -> BoxFuture<'_, Result<(), BackendError>> {
        async move {
            self.store.put(&self.path(&chunk), bytes.into()).await?;
            Ok(())
        }
        .boxed()
    }

    fn read(
        &self,
        chunk: OwnedChunk,
        offset: u32,
        length: u32,
    ) -> BoxFuture<'_, Result<Bytes, BackendError>> {
        async move {
            let range = u64::from(offset)..u64::from(offset) + u64::from(length);
            let bytes = self.store.get_range(&self.path(&chunk), range).await?;
            if bytes.len() == length as usize {
                Ok(bytes)
            } else {
                Err(BackendError::Failed("the object is shorter than it was".to_owned()))
            }
        }
        .boxed()
    }

    fn delete(&self, chunk: OwnedChunk) -> BoxFuture<'_, Result<(), BackendError>> {
        async move {
            match self.store.delete(&self.path(&chunk)).await.map_err(BackendError::from) {
                Err(BackendError::NotFound) => Ok(()),
                deleted => deleted,
            }
        }
        .boxed()
    }

    fn touch(&self, _: Vec<OwnedChunk>, _: SystemTime) -> BoxFuture<'_, Result<bool, BackendError>> {
        // An object's time is that of its last upload; copying it onto itself would be an upload for each question.
        async move { Ok(false) }.boxed()
    }

    fn set_aside(&self, chunk: OwnedChunk) -> BoxFuture<'_, Result<(), BackendError>> {
        async move {
            let aside = self.prefix.clone().join(ASIDE).join(format!("{}-{}", chunk.owner, chunk.chunk));
            self.store.rename(&self.path(&chunk), &aside).await?;
            Ok(())
        }
        .boxed()
    }
}
