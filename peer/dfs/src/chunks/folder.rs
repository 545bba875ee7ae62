//! Chunks in a local folder: `OWNER/xx/ID`, where `xx` begins the id. A chunk is written under another name, synced,
//! renamed and its folder synced, so that what has its name is whole and durable.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use futures::future::BoxFuture;
use shoal_common::Uid;
use shoal_common::storage::{ChunkId, MAX_SEALED_CHUNK};
use shoal_common::tracker_api::storage::OwnedChunk;
use shoal_console::data_dir::{DataDir, DataDirError};
use shoal_console::disk::free_bytes;

use super::{Backend, BackendError, Found};

/// Where chunks are until they have their name.
const DRAFTS: &str = "tmp";
/// Where rotten ones go.
const ASIDE: &str = "rotten";

/// A folder of chunks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Folder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    sync: bool,
    drafts: AtomicU64,
    /// The copies of two nodes in one folder would be one.
    _held: DataDir,
}

impl Folder {
    /// Opens or makes the folder. Blocks on the disk. Without `sync` nothing is made durable: for measuring only.
    ///
    /// # Errors
    /// When it cannot be made or written to, or another node has it.
    pub fn open(root: &Path, sync: bool) -> io::Result<Self> {
        let held = DataDir::open(root).map_err(|error| match error {
            DataDirError::InUse { pid, .. } => {
                io::Error::new(io::ErrorKind::ResourceBusy, format!("it is in use by another process{pid}"))
            }
            DataDirError::Unusable { error, .. } => error,
            DataDirError::NoHome => io::Error::other(error),
        })?;
        let make = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        make(&root.join(DRAFTS))?;
        make(&root.join(ASIDE))?;
        // What was being written when the last run ended was never acknowledged.
        for entry in fs::read_dir(root.join(DRAFTS))? {
            fs::remove_file(entry?.path())?;
        }
        let (root, drafts) = (root.to_owned(), AtomicU64::new(0));
        let shared = Shared { root, sync, drafts, _held: held };
        shared.try_out()?;
        Ok(Self { shared: Arc::new(shared) })
    }

    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> io::Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, BackendError>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || work(&shared)).await;
            done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(BackendError::from)
        })
    }
}

impl From<io::Error> for BackendError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl Backend for Folder {
    fn list(&self) -> BoxFuture<'_, Result<Vec<Found>, BackendError>> {
        self.blocking(Shared::list)
    }

    fn put(&self, chunk: OwnedChunk, bytes: Bytes) -> BoxFuture<'_, Result<(), BackendError>> {
        self.blocking(move |shared| shared.put(chunk, &bytes))
    }

    fn read(
        &self,
        chunk: OwnedChunk,
        offset: u32,
        length: u32,
    ) -> BoxFuture<'_, Result<Bytes, BackendError>> {
        self.blocking(move |shared| {
            let mut bytes = vec![0; length as usize];
            File::open(shared.path(&chunk))?.read_exact_at(&mut bytes, offset.into())?;
            Ok(bytes.into())
        })
    }

    fn delete(&self, chunk: OwnedChunk) -> BoxFuture<'_, Result<(), BackendError>> {
        self.blocking(move |shared| match fs::remove_file(shared.path(&chunk)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }

    fn touch(&self, chunks: Vec<OwnedChunk>, at: SystemTime) -> BoxFuture<'_, Result<bool, BackendError>> {
        self.blocking(move |shared| {
            for chunk in chunks {
                // The time of a file takes no room on a full disk. Its owner may set it whatever the file's mode is.
                match File::open(shared.path(&chunk)).and_then(|file| file.set_modified(at)) {
                    // There is no place for it, as with objects.
                    Err(error) if shoal_disk::is_refused(&error) => return Ok(false),
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            Ok(true)
        })
    }

    fn left(&self) -> BoxFuture<'_, Option<u64>> {
        let left = self.blocking(|shared| Ok(free_bytes(&shared.root)));
        Box::pin(async { left.await.ok().flatten() })
    }

    fn set_aside(&self, chunk: OwnedChunk) -> BoxFuture<'_, Result<(), BackendError>> {
        self.blocking(move |shared| {
            let name = format!("{}-{}", chunk.owner, chunk.chunk);
            fs::rename(shared.path(&chunk), shared.root.join(ASIDE).join(name))
        })
    }
}

impl Shared {
    /// Does once what each chunk needs, so that a folder that takes none is noticed before anybody sends one. A full disk is no
    /// reason not to start: what is there can be read.
    fn try_out(&self) -> io::Result<()> {
        let (draft, renamed) = (self.root.join(DRAFTS).join("try"), self.root.join(DRAFTS).join("tried"));
        let tried = self
            .write(&draft, b"chunk")
            .and_then(|()| fs::rename(&draft, &renamed))
            .and_then(|()| if self.sync { shoal_disk::sync_folder(&self.root.join(DRAFTS)) } else { Ok(()) });
        let _ = (fs::remove_file(&draft), fs::remove_file(&renamed));
        match tried {
            Err(error)
                if !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                Err(io::Error::new(error.kind(), format!("it takes no chunks: {error}")))
            }
            _ => Ok(()),
        }
    }

    fn folder(&self, chunk: &OwnedChunk) -> PathBuf {
        self.root.join(chunk.owner.to_string()).join(format!("{:02x}", chunk.chunk.0[0]))
    }

    fn path(&self, chunk: &OwnedChunk) -> PathBuf {
        self.folder(chunk).join(chunk.chunk.to_string())
    }

    fn put(&self, chunk: OwnedChunk, bytes: &[u8]) -> io::Result<()> {
        let draft = self.root.join(DRAFTS).join(self.drafts.fetch_add(1, Ordering::Relaxed).to_string());
        let put = self.write(&draft, bytes).and_then(|()| self.publish(&draft, &chunk));
        if put.is_err() {
            // It would only lie there until the next start.
            let _ = fs::remove_file(&draft);
        }
        put
    }

    fn write(&self, draft: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::options().write(true).create_new(true).open(draft)?;
        file.write_all(bytes)?;
        if self.sync { shoal_disk::sync_data(&file) } else { Ok(()) }
    }

    fn publish(&self, draft: &Path, chunk: &OwnedChunk) -> io::Result<()> {
        let folder = self.folder(chunk);
        match fs::rename(draft, self.path(chunk)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
                if self.sync {
                    folder.ancestors().skip(1).take(2).try_for_each(shoal_disk::sync_folder)?;
                }
                fs::rename(draft, self.path(chunk))?;
            }
            renamed => renamed?,
        }
        if self.sync { shoal_disk::sync_folder(&folder) } else { Ok(()) }
    }

    fn list(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for owner in fs::read_dir(&self.root)? {
            let owner = owner?;
            let Some(uid) = hex::<16>(&owner.file_name()).map(Uid) else { continue };
            for fan in fs::read_dir(owner.path())? {
                for file in fs::read_dir(fan?.path())? {
                    let file = file?;
                    let Some(id) = hex::<32>(&file.file_name()).map(ChunkId) else { continue };
                    let metadata = file.metadata()?;
                    let length = u32::try_from(metadata.len()).ok();
                    let Some(length) = length.filter(|length| (1..=MAX_SEALED_CHUNK).contains(length)) else {
                        continue;
                    };
                    let stored = metadata.modified().unwrap_or_else(|_| SystemTime::now());
                    found.push(Found { chunk: OwnedChunk { owner: uid, chunk: id }, length, stored });
                }
            }
        }
        Ok(found)
    }
}

/// Reads a name that is exactly so many bytes in lower-case hex.
pub(super) fn hex<const N: usize>(name: &std::ffi::OsStr) -> Option<[u8; N]> {
    let text = name.to_str().filter(|text| text.len() == 2 * N)?;
    if !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}
