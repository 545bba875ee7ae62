//! PUT: hash, seal, place, and only then have the trackers name the file.
//!
//! The file is read twice: placement follows its SHA-1, which is known only at the end of the first pass. What the second pass
//! reads is sealed only if it is what the first one read: a key meets one content, whatever happens to the file. A few chunks are
//! in memory at a time, so that memory does not grow with the file; of those the one with the fewest copies goes out first. Whatever interrupts it, nothing is listed before
//! the last step, and chunks that nothing names are deleted by the trackers' rule.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use shoal_common::storage::{ChunkId, ChunkRef, StoreManifest, room_of};
use shoal_common::tracker_api::storage::{NodeEntry, StoreCall};
use shoal_common::{Blake3, Layout, PeerId, PieceIndex, RequestId, Sha1};
use tokio::sync::Semaphore;

use super::hashing::Hashed;
use super::placing::{NotPlaced, Placed, Placing, SealedChunk};
use super::reading::Reading;
use super::unfinished::Unfinished;
use super::{Client, Lease, Progress, Report, Step, StoreError, hashing, store};
use crate::keyring::Description;
use crate::name::StoredName;
use crate::seal::{OVERHEAD, Sealer};

/// Copies of each chunk by default.
const COPIES: u8 = 2;
/// Chunks that are sealed or on their way at once: some 24 MiB.
const WINDOW: usize = 6;

/// A file that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub name: StoredName,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-1.
    pub sha1: Sha1,
    /// Its chunks.
    pub chunks: u32,
    /// Copies that there are to be of each.
    pub copies: u8,
    /// The least copies of any chunk that are in place; repair makes the others.
    pub in_place: usize,
    /// Chunks that an interrupted PUT had placed before.
    pub found: u32,
}

/// A PUT under way.
struct Put {
    path: PathBuf,
    file: Arc<File>,
    name: StoredName,
    layout: Layout,
    sealer: Arc<Sealer>,
    /// What each piece must be to be sealed.
    pieces: Arc<[Blake3]>,
    placing: Placing,
    report: Report,
    done: AtomicU64,
}

impl Client {
    /// Stores a file under its own name, with so many copies; without a number as many as the stored file of that name has, or 2.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is listed then that was not before.
    pub async fn put(&self, path: &Path, copies: Option<u8>, report: &Report) -> Result<Stored, StoreError> {
        self.persist(report, || self.put_once(path, copies, report)).await
    }

    async fn put_once(&self, path: &Path, copies: Option<u8>, report: &Report) -> Result<Stored, StoreError> {
        let keyring = self.keyring()?;
        let name = StoredName::of_path(path)?;
        // What is stored already keeps its name's form, and is replaced.
        let name = self.stored_as(&name).await?.unwrap_or(name);
        let reading = open(path).await?;
        let fingerprint = reading.fingerprint.clone();
        let file = Arc::new(reading.file.try_clone().map_err(StoreError::file("read", path))?);
        let layout = Layout::stored(fingerprint.size)?;
        let copies = self.copies_for(&name, copies).await?;
        let servers = self.servers_for(copies).await?;
        let Hashed { digest, pieces } = hash(path, &file, layout.clone(), report).await?;
        // Known before anything is sent; what changes later is found at the end.
        if !reading.is_unchanged() {
            return Err(StoreError::Changed(path.to_owned()));
        }
        let unfinished = {
            let (folder, keyring, path, found) =
                (self.folder.clone(), keyring.clone(), path.to_owned(), fingerprint.clone());
            let begin = move || Unfinished::begin(&folder, &keyring, &path, &found, &digest);
            let begun =
                tokio::task::spawn_blocking(begin).await.unwrap_or_else(|e| Err(std::io::Error::other(e)));
            begun.map_err(StoreError::file("note the progress of a put in", &self.folder))?
        };
        if !unfinished.resumed
            && let Err(error) = self.room_for(&name, layout.clone(), copies).await
        {
            unfinished.forget();
            return Err(error);
        }
        let lease = Lease::take(&self.session).await?;
        let shift = remainder(&digest.sha1, servers.len());
        let resumed = unfinished.resumed;
        let put = Put {
            path: path.to_owned(),
            file: file.clone(),
            name: name.clone(),
            layout: layout.clone(),
            sealer: Arc::new(Sealer::new(&unfinished.secret, layout.pieces())),
            pieces: pieces.into(),
            placing: Placing::new(self.nodes.clone(), servers.clone(), shift, copies.into(), resumed),
            report: report.clone(),
            done: AtomicU64::new(0),
        };
        let placed = put.place_all().await;
        if !reading.is_unchanged() || matches!(placed, Err(StoreError::Changed(_))) {
            // What is there now is stored under a key of its own.
            unfinished.forget();
            lease.end().await;
            return Err(StoreError::Changed(path.to_owned()));
        }
        let (chunks, in_place, found) = match placed {
            Ok(placed) => placed,
            Err(error) => {
                lease.end().await;
                return Err(error);
            }
        };
        // A list shows all copies from the first moment.
        put.placing.wait_reported().await;
        let manifest = StoreManifest { copies, servers, shift, chunks };
        let encoded = manifest.encode();
        let description = Description {
            name: name.clone(),
            size: layout.size(),
            digest,
            secret: unfinished.secret.clone(),
        };
        let sealed = keyring.seal(&description, &Blake3::of(&encoded));
        let key = keyring.pointer(&name);
        let call = StoreCall::Put { request: RequestId::random(), key, manifest: encoded, sealed };
        store(&self.session, call).await?;
        unfinished.forget();
        lease.end().await;
        Ok(Stored {
            name,
            size: layout.size(),
            sha1: digest.sha1,
            chunks: layout.pieces(),
            copies,
            in_place: if layout.pieces() == 0 { copies.into() } else { in_place },
            found,
        })
    }

    /// Whether the stored file of that name has this very content, and as many copies if a number is given.
    ///
    /// # Errors
    /// [`StoreError`], as for a PUT.
    pub async fn is_stored(
        &self,
        path: &Path,
        copies: Option<u8>,
        report: &Report,
    ) -> Result<bool, StoreError> {
        let Some(name) = self.stored_as(&StoredName::of_path(path)?).await? else { return Ok(false) };
        let found = self.find(&name).await?;
        let reading = open(path).await?;
        let size = reading.fingerprint.size;
        if found.description.size != size || copies.is_some_and(|copies| copies != found.manifest.copies) {
            return Ok(false);
        }
        let file = Arc::new(reading.file.try_clone().map_err(StoreError::file("read", path))?);
        let hashed = hash(path, &file, Layout::stored(size)?, report).await?;
        Ok(reading.is_unchanged() && hashed.digest == found.description.digest)
    }

    /// The copies that are asked for, else those that the stored file of that name has.
    async fn copies_for(&self, name: &StoredName, asked: Option<u8>) -> Result<u8, StoreError> {
        if let Some(copies) = asked {
            return Ok(copies);
        }
        match self.find(name).await {
            Ok(found) => Ok(found.manifest.copies),
            Err(StoreError::NotFound { .. }) => Ok(COPIES),
            Err(error) => Err(error),
        }
    }

    /// Whether the servers have room for so many copies together, and the user's quota for a new file, as far as the trackers
    /// know: nothing is sent in vain.
    async fn room_for(&self, name: &StoredName, layout: Layout, copies: u8) -> Result<(), StoreError> {
        let (servers, status) = (self.nodes.peers().await, self.status().await?);
        let needed = layout.size().saturating_mul(copies.into());
        if let Some(free) = free_on(&servers, &status.nodes).filter(|free| *free < needed) {
            return Err(StoreError::NoRoom { needed, free });
        }
        let copy: u64 = layout.iter().map(|piece| room_of(layout.length(piece) + OVERHEAD)).sum();
        let needed = copy.saturating_mul(copies.into());
        if let Some(left) = status.room.filter(|left| needed > *left)
            // What takes a file's place needs only the difference, which the trackers judge.
            && matches!(self.find(name).await, Err(StoreError::NotFound { .. }))
        {
            return Err(StoreError::Quota { name: name.clone(), needed, left });
        }
        Ok(())
    }

    /// The servers over which a file is spread, if enough of them answer.
    async fn servers_for(&self, copies: u8) -> Result<Vec<PeerId>, StoreError> {
        let states = self.ping().await?;
        let servers = self.nodes.peers().await;
        if copies == 0 || usize::from(copies) > servers.len() {
            let unknown = states.into_iter().filter(|state| state.peer.is_none()).map(|state| state.name);
            return Err(StoreError::Copies { copies, servers: servers.len(), unknown: unknown.collect() });
        }
        let up = states.iter().filter(|state| state.problem.is_none()).count();
        if up < usize::from(copies).min(2) {
            let who = states.iter().filter_map(|state| {
                state.problem.as_ref().map(|problem| format!("{}: {problem}", state.name))
            });
            let who = who.collect::<Vec<_>>().join("; ");
            return Err(StoreError::Servers { up, all: states.len(), who });
        }
        Ok(servers)
    }
}

impl Put {
    /// Places all chunks: what they are, the least copies of any, and how many were there already.
    async fn place_all(&self) -> Result<(Vec<ChunkRef>, usize, u32), StoreError> {
        self.advance(0);
        let memory = Arc::new(Semaphore::new(WINDOW));
        let sealed = futures::stream::iter(self.layout.iter())
            .map(|piece| {
                let memory = memory.clone();
                async move {
                    // The semaphore is never closed.
                    let memory =
                        memory.acquire_owned().await.map_err(|_| StoreError::Changed(self.path.clone()))?;
                    let (id, bytes) = self.seal(piece).await?;
                    Ok(SealedChunk { index: piece.get(), id, bytes, _memory: memory })
                }
            })
            .buffered(WINDOW);
        let (mut ids, mut least, mut found) = (vec![None; self.layout.pieces() as usize], usize::MAX, 0);
        let placed = |placed: Placed| {
            ids[placed.index as usize] = Some(placed.id);
            least = least.min(placed.copies);
            found += u32::from(placed.found);
            self.advance((placed.length as u64).saturating_sub(OVERHEAD.into()));
        };
        match self.placing.place_all(self.layout.pieces(), sealed, placed).await {
            Ok(()) => {}
            Err(NotPlaced::Sealing(error)) => return Err(error),
            Err(NotPlaced::Nowhere(index, why)) => {
                let (name, needed) = (self.name.clone(), self.placing.needed());
                return Err(StoreError::NoPlace { name, part: index + 1, needed, why });
            }
        }
        let chunks = self.layout.iter().zip(ids.into_iter().flatten());
        let chunks = chunks.map(|(piece, id)| ChunkRef { id, sealed: self.layout.length(piece) + OVERHEAD });
        Ok((chunks.collect(), least, found))
    }

    async fn seal(&self, piece: PieceIndex) -> Result<(ChunkId, Bytes), StoreError> {
        let (file, sealer, layout) = (self.file.clone(), self.sealer.clone(), self.layout.clone());
        let hashed = self.pieces.get(piece.as_usize()).copied();
        let sealed = tokio::task::spawn_blocking(move || {
            let length = layout.length(piece) as usize;
            let mut chunk = Vec::with_capacity(length + OVERHEAD as usize);
            chunk.resize(length, 0);
            file.read_exact_at(&mut chunk, layout.offset(piece))?;
            // Compared before it is sealed: the key has been, or will be, used for what was hashed.
            if hashed != Some(Blake3::of(&chunk)) {
                return Ok(None);
            }
            sealer.seal(piece.get(), &mut chunk);
            Ok(Some((ChunkId::of(&chunk), Bytes::from(chunk))))
        });
        let sealed = sealed.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let sealed = sealed.map_err(|error| unread(&self.path, error))?;
        sealed.ok_or_else(|| StoreError::Changed(self.path.clone()))
    }

    fn advance(&self, more: u64) {
        let done = self.done.fetch_add(more, Ordering::Relaxed) + more;
        self.report.send_replace(Progress { step: Step::Storing, done, total: self.layout.size() });
    }
}

async fn open(path: &Path) -> Result<Reading, StoreError> {
    let opened = path.to_owned();
    let open = tokio::task::spawn_blocking(move || Reading::open(&opened)).await;
    open.map_err(io::Error::other).map_err(StoreError::file("read", path))?
}

async fn hash(path: &Path, file: &Arc<File>, layout: Layout, report: &Report) -> Result<Hashed, StoreError> {
    let (file, report, size) = (file.clone(), report.clone(), layout.size());
    // Dropped with the future: hashing stops.
    let alive = Arc::new(());
    let watched = Arc::downgrade(&alive);
    let hashed = tokio::task::spawn_blocking(move || {
        hashing::pieces(&file, &layout, |done| {
            report.send_replace(Progress { step: Step::Hashing, done, total: size });
            watched.strong_count() > 0
        })
    });
    let hashed = hashed.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    drop(alive);
    hashed.map_err(|error| unread(path, error))
}

/// What it means that a file cannot be read on. One that is shorter than it was when it was opened has changed.
fn unread(path: &Path, error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => StoreError::Changed(path.to_owned()),
        _ => StoreError::File { action: "read", path: path.to_owned(), error },
    }
}

/// The digest as a big-endian integer, modulo the number of servers.
fn remainder(sha1: &Sha1, servers: usize) -> u16 {
    let servers = u32::try_from(servers).unwrap_or(u32::MAX).max(1);
    let remainder = sha1.0.iter().fold(0, |rest, &byte| (rest * 256 + u32::from(byte)) % servers);
    u16::try_from(remainder).unwrap_or(0)
}

/// Bytes that are free on these servers together; `None` while one has not told the trackers: it may have any room. A
/// tracker that was just started has heard of none.
fn free_on(servers: &[PeerId], nodes: &[NodeEntry]) -> Option<u64> {
    servers.iter().try_fold(0_u64, |sum, server| {
        let node = nodes.iter().find(|node| node.peer == *server && node.silent_ms.is_some())?;
        Some(sum.saturating_add(node.free))
    })
}

#[cfg(test)]
mod tests {
    use shoal_common::NodeName;

    use super::*;

    #[test]
    fn servers_that_have_not_told_the_trackers_may_have_any_room() {
        let node = |number: u8, told: bool, free: u64| NodeEntry {
            peer: PeerId([number; 32]),
            name: NodeName::create("DFS1").unwrap(),
            address: String::new(),
            up: true,
            silent_ms: told.then_some(0),
            capacity: free,
            free,
            chunks: 0,
            successor: None,
        };
        let servers = [PeerId([1; 32]), PeerId([2; 32])];
        assert_eq!(free_on(&servers, &[node(1, true, 5), node(2, true, 7), node(3, true, 9)]), Some(12));
        assert_eq!(free_on(&servers, &[node(1, true, 5), node(2, false, 0)]), None, "a tracker just started");
        assert_eq!(free_on(&servers, &[node(1, true, 5)]), None);
    }

    #[test]
    fn the_digest_is_divided_as_one_number() {
        let mut sha1 = Sha1([0; 20]);
        sha1.0[18..].copy_from_slice(&[1, 2]);
        assert_eq!(remainder(&sha1, 4), 258 % 4);
        assert_eq!(remainder(&sha1, 7), 258 % 7);
        sha1.0[17] = 3;
        assert_eq!(remainder(&sha1, 64), u16::try_from((3 * 65_536 + 258) % 64).unwrap());
        assert_eq!(remainder(&Sha1([0xff; 20]), 1), 0);
        // 2^160 - 1 modulo 5 is 0, because 2^4 is 1 modulo 5.
        assert_eq!(remainder(&Sha1([0xff; 20]), 5), 0);
    }
}
