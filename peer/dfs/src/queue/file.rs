//! A queue on disk: one file per user and store, changed only under a lock, and replaced as a whole.
//!
//! `queue/ID` holds BLAKE3 of what follows, then the CBOR of [`Kept`]. `ID.edit` is locked while the file is changed,
//! `ID.work` by the process that works the queue off. All of it blocks.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};
use shoal_common::UserName;
use shoal_disk::Lock;

use super::{MAX_JOBS, MAX_PATH, Queue};

/// The folder of queues in the data folder.
const FOLDER: &str = "queue";
/// Longest file of a queue, in bytes: every job with the longest path, name and note.
const MAX_BYTES: u64 = (MAX_JOBS * 3 * MAX_PATH) as u64;
const DIGEST_BYTES: usize = 32;

/// What the file holds.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Kept {
    #[n(0)]
    user: String,
    #[cbor(n(1), with = "minicbor::bytes")]
    store: Vec<u8>,
    #[n(2)]
    queue: Queue,
}

/// Where the queue of one user and one store is.
#[derive(Debug, Clone)]
pub struct QueueFile {
    folder: PathBuf,
    id: String,
    user: String,
    store: Vec<u8>,
}

/// What came of looking at a queue or changing it.
#[derive(Debug)]
pub struct Edited<T> {
    /// What the change gave.
    pub value: T,
    /// Where a damaged file was moved to; the queue began empty then.
    pub set_aside: Option<PathBuf>,
}

/// The right to work a queue off; it ends when this is dropped, or with the process.
#[derive(Debug)]
pub struct WorkLock(#[expect(dead_code, reason = "the lock lasts as long as both")] (File, Lock));

impl QueueFile {
    /// The queue of that user for the store that this `dfs.conf` names.
    ///
    /// # Errors
    /// When `dfs.conf` is not there.
    pub fn open(data: &Path, user: &UserName, conf: &Path) -> io::Result<Self> {
        let store = fs::canonicalize(conf)?.as_os_str().as_bytes().to_vec();
        let mut hasher = blake3::Hasher::new();
        hasher.update(user.as_str().as_bytes()).update(&[0]).update(&store);
        let id = hasher.finalize().to_hex()[..32].to_owned();
        let folder = data.join(FOLDER);
        Ok(Self { folder, id, user: user.as_str().to_owned(), store })
    }

    /// The queue's file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join(&self.id)
    }

    /// Takes the right to work the queue off; `None` if another process has it.
    ///
    /// # Errors
    /// When the lock's file cannot be used.
    pub fn work(&self) -> io::Result<Option<WorkLock>> {
        let file = self.lock_file("work")?;
        match shoal_disk::try_lock(&file) {
            Ok(held) => Ok(Some(WorkLock((file, held)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Looks at the queue or changes it; what was changed is on disk when this returns.
    ///
    /// # Errors
    /// When it cannot be read or written; the file is as before then.
    pub fn edit<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> io::Result<Edited<T>> {
        let lock = self.lock_file("edit")?;
        let _held = shoal_disk::lock(&lock)?;
        let (before, set_aside) = self.read()?;
        let mut queue = before.clone();
        let value = change(&mut queue);
        if queue != before {
            self.write(queue)?;
        }
        Ok(Edited { value, set_aside })
    }

    fn lock_file(&self, kind: &str) -> io::Result<File> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let path = self.path().with_extension(kind);
        File::options().write(true).create(true).truncate(false).mode(0o600).open(path)
    }

    fn read(&self) -> io::Result<(Queue, Option<PathBuf>)> {
        let mut bytes = Vec::new();
        match File::open(self.path()) {
            Ok(file) => file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Queue::default(), None)),
            Err(error) => return Err(error),
        };
        match self.parse(&bytes) {
            Some(queue) => Ok((queue, None)),
            None => Ok((Queue::default(), Some(self.set_aside()?))),
        }
    }

    /// The queue in these bytes, if they are whole and of this user and store.
    fn parse(&self, bytes: &[u8]) -> Option<Queue> {
        let (digest, body) = bytes.split_at_checked(DIGEST_BYTES)?;
        if blake3::hash(body).as_bytes() != digest {
            return None;
        }
        let kept: Kept = minicbor::decode(body).ok()?;
        (kept.user == self.user && kept.store == self.store && kept.queue.is_sound()).then_some(kept.queue)
    }

    fn set_aside(&self) -> io::Result<PathBuf> {
        for number in 1_u32.. {
            let path = self.path().with_extension(format!("damaged-{number}"));
            if !path.try_exists()? {
                fs::rename(self.path(), &path)?;
                return Ok(path);
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Replaces the file as a whole, durably.
    fn write(&self, queue: Queue) -> io::Result<()> {
        let kept = Kept { user: self.user.clone(), store: self.store.clone(), queue };
        let body = minicbor::to_vec(&kept).map_err(io::Error::other)?;
        shoal_disk::replace(&self.path(), &[blake3::hash(&body).as_bytes(), &body[..]].concat())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::queue::Work;

    #[test]
    fn a_queue_is_private_belongs_to_one_user_and_store_and_is_set_aside_when_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let (conf, other_conf) = (dir.path().join("a.conf"), dir.path().join("b.conf"));
        fs::write(&conf, "").unwrap();
        fs::write(&other_conf, "").unwrap();
        let [ann, bob] = ["ann", "bob"].map(|name| UserName::refer(name).unwrap());
        let of = |user, conf| QueueFile::open(dir.path(), user, conf).unwrap();
        let count = |file: &QueueFile| file.edit(|queue| queue.jobs().len()).unwrap().value;
        let queue = of(&ann, &conf);
        let work = Work::Get { name: "film".to_owned(), to: "/tmp".into(), force: false };
        queue.edit(|queue| queue.add(vec![work])).unwrap().value.unwrap();
        assert_eq!(fs::metadata(queue.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(count(&of(&ann, &conf)), 1);
        assert_eq!((count(&of(&bob, &conf)), count(&of(&ann, &other_conf))), (0, 0));
        let lock = queue.work().unwrap();
        assert!(lock.is_some() && of(&ann, &conf).work().unwrap().is_none());
        drop(lock);
        assert!(queue.work().unwrap().is_some());
        // Another user's file under this name is not believed, nor is a flipped bit.
        let mut bytes = fs::read(queue.path()).unwrap();
        fs::write(of(&bob, &conf).path(), &bytes).unwrap();
        assert!(of(&bob, &conf).edit(|_| ()).unwrap().set_aside.is_some());
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            fs::write(queue.path(), &bytes).unwrap();
            bytes[at] ^= 1;
            assert!(queue.edit(|_| ()).unwrap().set_aside.is_some_and(|path| path.is_file()), "byte {at}");
        }
        assert_eq!(count(&queue), 0);
    }
}
