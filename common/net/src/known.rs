//! The trackers whose keys are known, and the file that remembers them: `known_trackers` in a data folder.
//!
//! Clients, storage nodes and trackers alike ask here which key a tracker must show, and tell here what they found and what
//! trackers vouched for; nothing else decides that. The rules are [`shoal_common::vouching`]'s. The file may be edited while
//! a program runs: it is read again before each contact.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use shoal_common::tracker_info::TrackerLine;
use shoal_common::vouching::{
    Expected, MAX_PINS_BYTES, Met, News, Numbered, Pins, PinsError, Scope, SignedList, TrackerList,
};
use shoal_common::{PeerId, TrackerInfo};

use crate::control::{Control, DialError};

/// The file's name in a data folder.
pub const KNOWN_TRACKERS_FILE: &str = "known_trackers";
/// Readable by its owner only: no one else may decide which trackers are believed.
const MODE: u32 = 0o600;

/// Lists by their signers.
type Heard = BTreeMap<PeerId, TrackerList>;

/// Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct KnownTrackers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    lines: Vec<Numbered>,
    /// As last read or written.
    pins: Mutex<Pins>,
    /// The newest list of each tracker so far. Held while the file is read and written.
    file: Mutex<Heard>,
}

/// Why a tracker is not believed, or the file cannot be used. The first two begin with the tracker's address.
#[derive(Debug, thiserror::Error)]
pub enum KnownError {
    /// It shows another key than the pinned one.
    #[error(
        "{at} shows another key than before ({found}, not {pinned}): if it was replaced on purpose, remove its line from \
         {path} or put its peer id in tracker_info.txt",
        path = path.display()
    )]
    OtherKey {
        /// The tracker's address.
        at: String,
        /// The key that is pinned.
        pinned: PeerId,
        /// The key that it shows.
        found: PeerId,
        /// The file of pins.
        path: PathBuf,
    },
    /// The other trackers say that it is none any more.
    #[error(
        "{at} is no tracker any more, as the others say: put - in place of its line in tracker_info.txt, where a line's place \
         is its number; if that is wrong, remove its line from {path}",
        path = path.display()
    )]
    Removed {
        /// The tracker's address.
        at: String,
        /// The file of pins.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot read or write {path}: {source}", path = path.display())]
    Io {
        /// The file of pins.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{path}: {error}; mend that line or remove it", path = path.display())]
    Malformed {
        /// The file of pins.
        path: PathBuf,
        /// What is wrong with it.
        error: PinsError,
    },
}

/// Why no tracker that is to be believed was reached.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// Nothing answers, or not the tracker that the file names.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// A tracker answers that is not believed.
    #[error(transparent)]
    Known(#[from] KnownError),
}

impl KnownTrackers {
    /// The trackers of a file, and what is remembered of them in a data folder, which exists. A tracker leaves out its own
    /// number. Blocks on the disk.
    ///
    /// # Errors
    /// When the file of pins cannot be read or written, or makes no sense.
    pub fn open(folder: &Path, info: &TrackerInfo, own: Option<u8>) -> Result<Self, KnownError> {
        let lines = info.iter().filter(|(number, _)| Some(*number) != own);
        let lines = lines.map(|(number, line)| (number, line.clone())).collect();
        let path = folder.join(KNOWN_TRACKERS_FILE);
        let known = Inner { path, lines, pins: Mutex::default(), file: Mutex::default() };
        known.update(|pins, lines, _| pins.forget_unfounded(lines))?;
        Ok(Self(Arc::new(known)))
    }

    /// The file of pins.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The key of that tracker, if it is known.
    #[must_use]
    pub fn key(&self, line: &TrackerLine) -> Option<PeerId> {
        self.0.pins().key(line)
    }

    /// All keys that are known, with their trackers' numbers.
    #[must_use]
    pub fn keys(&self) -> Vec<(u8, PeerId)> {
        let pins = self.0.pins();
        self.0.lines.iter().filter_map(|(number, line)| Some((*number, pins.key(line)?))).collect()
    }

    /// The key that a dial to that tracker must find, by the file as it is now.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn expected(&self, line: &TrackerLine) -> Result<Expected, KnownError> {
        let line = line.clone();
        self.update(move |pins, _, _| pins.expected(&line)).await
    }

    /// Connects to that tracker, and to no other: the key that it proved. At the first contact any key will do, and
    /// [`met`](Self::met) is to be called once it has shown itself to be a tracker, before anything is said to it or believed.
    ///
    /// # Errors
    /// See [`ReachError`].
    pub async fn dial(&self, control: &Control, line: &TrackerLine) -> Result<PeerId, ReachError> {
        let path = self.0.path.clone();
        let (expected, pinned) = match self.expected(line).await? {
            Expected::Named(key) => (Some(key), false),
            Expected::Pinned(key) => (Some(key), true),
            Expected::Anyone => (None, false),
            Expected::Nobody => return Err(KnownError::Removed { at: line.to_string(), path }.into()),
        };
        match control.dial(&line.host, line.port, expected).await {
            Err(DialError::WrongKey { at, expected, found }) if pinned => {
                Err(KnownError::OtherKey { at, pinned: expected, found, path }.into())
            }
            dialled => Ok(dialled?),
        }
    }

    /// The tracker of that line proved `key`: pins it, durably, if none is pinned; true for that.
    ///
    /// # Errors
    /// When another key is pinned, or the disk does not take it.
    pub async fn met(&self, line: &TrackerLine, key: PeerId) -> Result<bool, KnownError> {
        let of = line.clone();
        match self.update(move |pins, lines, _| pins.meet(&of, key, lines)).await? {
            Met::Known => Ok(false),
            Met::First => Ok(true),
            Met::Other(pinned) => {
                let path = self.0.path.clone();
                Err(KnownError::OtherKey { at: line.to_string(), pinned, found: key, path })
            }
        }
    }

    /// Pins `key` for that tracker in place of any other, on the word of one who may decide that.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub async fn accept(&self, line: &TrackerLine, key: PeerId) -> Result<(), KnownError> {
        let line = line.clone();
        self.update(move |pins, lines, _| pins.accept(&line, key, lines)).await
    }

    /// Takes the lists that a tracker handed out; what they changed. Only known trackers' signatures count.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub async fn learn(&self, lists: Vec<SignedList>, scope: Scope) -> Result<Vec<News>, KnownError> {
        self.update(move |pins, lines, heard| pins.learn(lines, &lists, heard, scope)).await
    }

    /// Reads the file, changes what it says, and writes it if that is another. Goes on when it is dropped.
    async fn update<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Pins, &[Numbered], &mut Heard) -> T + Send + 'static,
    ) -> Result<T, KnownError> {
        let inner = self.0.clone();
        let done = tokio::task::spawn_blocking(move || inner.update(change)).await;
        done.unwrap_or_else(|error| Err(self.0.io(io::Error::other(error))))
    }
}

impl Inner {
    fn update<T>(
        &self,
        change: impl FnOnce(&mut Pins, &[Numbered], &mut Heard) -> T,
    ) -> Result<T, KnownError> {
        let mut heard = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // Another process may use the same folder. A file system without locks is used by one at a time.
        let folder = File::open(self.folder()).map_err(|error| self.io(error))?;
        let _held = shoal_disk::lock(&folder);
        let before = self.read()?;
        let mut pins = before.clone();
        let done = change(&mut pins, &self.lines, &mut heard);
        if pins != before {
            self.write(&pins).map_err(|error| self.io(error))?;
        }
        *self.pins() = pins;
        Ok(done)
    }

    fn read(&self) -> Result<Pins, KnownError> {
        let mut text = String::new();
        match File::open(&self.path) {
            Ok(file) => {
                file.take(MAX_PINS_BYTES).read_to_string(&mut text).map_err(|error| self.io(error))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(self.io(error)),
        }
        Pins::parse(&text).map_err(|error| KnownError::Malformed { path: self.path.clone(), error })
    }

    /// Whole or not at all, and durable before any tracker is believed by it.
    fn write(&self, pins: &Pins) -> io::Result<()> {
        let draft = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&draft)?;
        file.write_all(pins.to_string().as_bytes())?;
        shoal_disk::sync_file(&file)?;
        std::fs::rename(&draft, &self.path)?;
        shoal_disk::sync_folder(self.folder())
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    fn io(&self, source: io::Error) -> KnownError {
        KnownError::Io { path: self.path.clone(), source }
    }

    fn pins(&self) -> std::sync::MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
