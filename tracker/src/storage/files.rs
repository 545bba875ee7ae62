//! The stored files as their manifests name them, and the state of each chunk's copies.
//!
//! Pure. It uses the selector of downloads, turned round: a file's selector counts the live copies of its chunks, and the
//! chunks that it wants are those to be copied.

use std::collections::{BTreeSet, HashMap};

use shoal_common::storage::{ChunkRef, MAX_COPIES, PointerKey, StoreManifest};
use shoal_common::tracker_api::storage::{Health, OwnedChunk};
use shoal_common::{Blake3, Uid};
use shoal_engine_core::selector::Selector;

use super::nodes::NodeIx;

/// Number of a file in memory; never reused while the tracker runs.
pub(super) type FileIx = u32;

/// Where a chunk is named: in which file, as which chunk.
pub(super) type Home = (FileIx, u32);

/// One version of a stored file.
pub(super) struct File {
    pub(super) owner: Uid,
    pub(super) version: Blake3,
    pub(super) copies: u8,
    pub(super) shift: u16,
    /// The servers as the manifest names them, without successors.
    pub(super) servers: Vec<NodeIx>,
    pub(super) chunks: Vec<ChunkRef>,
    /// Whether it was named before this tracker started, so that a server that has not reported since may hold its part.
    pub(super) old: bool,
    /// Pointers that name it.
    names: u32,
    selector: Selector,
    /// Copies not lost of each chunk, up to what is wanted.
    kept: Vec<u8>,
    /// Number of chunks by live copies, up to what is wanted.
    live: Vec<u32>,
    /// Its place in [`Files::wanting`].
    rank: Option<u32>,
}

/// The state of one chunk's copies.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Copies {
    /// On servers that are up.
    pub(super) live: u8,
    /// Not lost: on servers that are up, or away only for a while.
    pub(super) kept: u8,
    /// Whether one is to be made and can be.
    pub(super) wanted: bool,
}

/// Sums over all files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) chunks: u64,
    pub(super) missing_copies: u64,
    pub(super) lost_chunks: u64,
}

/// All files.
#[derive(Default)]
pub(super) struct Files {
    files: HashMap<FileIx, File>,
    next: FileIx,
    by_version: HashMap<(Uid, Blake3), FileIx>,
    by_key: HashMap<(Uid, PointerKey), Blake3>,
    by_chunk: HashMap<OwnedChunk, Vec<Home>>,
    /// Pointers whose manifest cannot be read. No chunk of their users may be deleted.
    opaque: BTreeSet<(Uid, PointerKey)>,
    /// Files with chunks to be copied, those with the fewest live copies of one first.
    wanting: BTreeSet<(u32, FileIx)>,
    totals: Totals,
}

/// What naming a file changed.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// A file that is new.
    pub(super) new: Option<FileIx>,
    /// Chunks that no file names any more.
    pub(super) unnamed: Vec<OwnedChunk>,
}

impl File {
    /// Chunk number `chunk` as nodes know it.
    pub(super) fn key(&self, chunk: u32) -> Option<OwnedChunk> {
        let found = self.chunks.get(chunk as usize)?;
        Some(OwnedChunk { owner: self.owner, chunk: found.id })
    }

    /// Servers in the order of preference for a chunk.
    pub(super) fn placement(&self, chunk: u32) -> impl Iterator<Item = NodeIx> {
        shoal_common::storage::placement(chunk, self.shift, self.servers.len())
            .filter_map(|at| self.servers.get(at).copied())
    }

    /// The chunk to be copied next.
    pub(super) fn rarest(&self, rng: &mut fastrand::Rng) -> Option<u32> {
        self.selector.rarest(None, |_| true, rng)
    }

    fn health(&self) -> Health {
        let least = self.live.iter().position(|&chunks| chunks > 0);
        Health {
            wanted: self.copies,
            copies: least.and_then(|copies| u8::try_from(copies).ok()).unwrap_or(self.copies),
            chunks: u32::try_from(self.chunks.len()).unwrap_or(u32::MAX),
            missing: self.live.first().copied().unwrap_or(0),
        }
    }
}

impl Files {
    pub(super) fn get(&self, file: FileIx) -> Option<&File> {
        self.files.get(&file)
    }

    /// Where a chunk is named.
    pub(super) fn homes(&self, key: &OwnedChunk) -> &[Home] {
        self.by_chunk.get(key).map_or(&[], Vec::as_slice)
    }

    /// Files that name one of these servers.
    pub(super) fn on(&self, is_meant: impl Fn(NodeIx) -> bool) -> Vec<FileIx> {
        let on = self.files.iter().filter(|(_, file)| file.servers.iter().any(|&server| is_meant(server)));
        on.map(|(&file, _)| file).collect()
    }

    pub(super) fn count(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    /// Whether that version is known, so that its manifest need not be read.
    pub(super) fn knows(&self, owner: Uid, version: Blake3) -> bool {
        self.by_version.contains_key(&(owner, version))
    }

    pub(super) fn health(&self, owner: Uid, version: Blake3) -> Option<Health> {
        self.by_version.get(&(owner, version)).and_then(|file| self.files.get(file)).map(File::health)
    }

    /// Whether a user has a file whose manifest cannot be read.
    pub(super) fn has_opaque(&self, owner: Uid) -> bool {
        let of_user = (owner, PointerKey([0; 32]))..=(owner, PointerKey([u8::MAX; 32]));
        self.opaque.range(of_user).next().is_some()
    }

    /// The files with chunks to be copied, the most urgent first.
    pub(super) fn wanting(&self) -> impl Iterator<Item = FileIx> + '_ {
        self.wanting.iter().map(|(_, file)| *file)
    }

    /// A pointer names that version now, or nothing. A version that is not known comes with its manifest, and the
    /// indices of its servers.
    pub(super) fn point(
        &mut self,
        (owner, key): (Uid, PointerKey),
        version: Option<Blake3>,
        manifest: Option<(StoreManifest, Vec<NodeIx>)>,
        old: bool,
    ) -> Named {
        let mut named = Named::default();
        let before = self.by_key.get(&(owner, key)).copied();
        if before == version {
            return named;
        }
        if let Some(version) = version {
            if let Some((manifest, servers)) = manifest.filter(|_| !self.knows(owner, version)) {
                named.new = Some(self.insert(owner, version, manifest, servers, old));
            }
            let file = self.by_version.get(&(owner, version)).and_then(|file| self.files.get_mut(file));
            match file {
                Some(file) => {
                    file.names += 1;
                    self.opaque.remove(&(owner, key));
                }
                None => drop(self.opaque.insert((owner, key))),
            }
            self.by_key.insert((owner, key), version);
        } else {
            self.by_key.remove(&(owner, key));
            self.opaque.remove(&(owner, key));
        }
        if let Some(before) = before {
            named.unnamed = self.drop_name(owner, before);
        }
        named
    }

    fn insert(
        &mut self,
        owner: Uid,
        version: Blake3,
        manifest: StoreManifest,
        servers: Vec<NodeIx>,
        old: bool,
    ) -> FileIx {
        let ix = self.next;
        self.next = self.next.wrapping_add(1);
        let count = u32::try_from(manifest.chunks.len()).unwrap_or(0);
        let mut selector = Selector::new(count);
        (0..count).for_each(|chunk| selector.unwant(chunk));
        for (chunk, number) in manifest.chunks.iter().zip(0..) {
            let key = OwnedChunk { owner, chunk: chunk.id };
            self.by_chunk.entry(key).or_default().push((ix, number));
        }
        let mut live = vec![0; usize::from(manifest.copies) + 1];
        live[0] = count;
        let missing = u64::from(count) * u64::from(manifest.copies);
        self.totals.chunks += u64::from(count);
        self.totals.missing_copies += missing;
        self.totals.lost_chunks += u64::from(count);
        let file = File {
            owner,
            version,
            copies: manifest.copies.min(MAX_COPIES),
            shift: manifest.shift,
            servers,
            kept: vec![0; manifest.chunks.len()],
            chunks: manifest.chunks,
            old,
            names: 0,
            selector,
            live,
            rank: None,
        };
        self.files.insert(ix, file);
        self.by_version.insert((owner, version), ix);
        ix
    }

    /// Removes one pointer; returns the chunks that no file names any more.
    fn drop_name(&mut self, owner: Uid, version: Blake3) -> Vec<OwnedChunk> {
        let Some(&ix) = self.by_version.get(&(owner, version)) else { return Vec::new() };
        let Some(file) = self.files.get_mut(&ix) else { return Vec::new() };
        file.names = file.names.saturating_sub(1);
        if file.names > 0 {
            return Vec::new();
        }
        let Some(file) = self.files.remove(&ix) else { return Vec::new() };
        self.by_version.remove(&(owner, file.version));
        if let Some(rank) = file.rank {
            self.wanting.remove(&(rank, ix));
        }
        let mut unnamed = Vec::new();
        for (chunk, kept) in file.chunks.iter().zip(&file.kept) {
            self.totals.chunks -= 1;
            self.totals.missing_copies -= u64::from(file.copies - kept);
            self.totals.lost_chunks -= u64::from(*kept == 0);
            let key = OwnedChunk { owner, chunk: chunk.id };
            if let Some(homes) = self.by_chunk.get_mut(&key) {
                homes.retain(|(home, _)| *home != ix);
                if homes.is_empty() {
                    self.by_chunk.remove(&key);
                    unnamed.push(key);
                }
            }
        }
        unnamed
    }

    /// Notes the state of a chunk's copies.
    pub(super) fn note(&mut self, (ix, chunk): Home, copies: Copies) {
        let Some(file) = self.files.get_mut(&ix) else { return };
        let Some(kept) = file.kept.get_mut(chunk as usize) else { return };
        let cut = |count: u8| count.min(file.copies);
        let before = std::mem::replace(kept, cut(copies.kept));
        self.totals.missing_copies += u64::from(before);
        self.totals.missing_copies -= u64::from(*kept);
        self.totals.lost_chunks += u64::from(*kept == 0);
        self.totals.lost_chunks -= u64::from(before == 0);
        let (held, live) = (file.selector.holders(chunk), u32::from(copies.live));
        let slot = |count: u32| usize::from(cut(u8::try_from(count).unwrap_or(u8::MAX)));
        file.live[slot(held)] -= 1;
        file.live[slot(live)] += 1;
        (held..live).for_each(|_| file.selector.gain(chunk));
        (live..held).for_each(|_| file.selector.lose(chunk));
        if copies.wanted {
            file.selector.want(chunk)
        } else {
            file.selector.unwant(chunk)
        }
        // Any of the rarest has the fewest holders, so which one a fixed seed picks does not matter.
        let rarest = file.rarest(&mut fastrand::Rng::with_seed(0));
        let rank = rarest.map(|chunk| file.selector.holders(chunk));
        if rank != file.rank {
            if let Some(old) = std::mem::replace(&mut file.rank, rank) {
                self.wanting.remove(&(old, ix));
            }
            if let Some(rank) = rank {
                self.wanting.insert((rank, ix));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::storage::ChunkId;

    #[test]
    fn of_all_files_the_least_safe_chunk_is_copied_first() {
        let (files_at_most, chunks, owner) = (5, 12, Uid([1; 16]));
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut files = Files::default();
            // The plain definition: the live copies of each chunk, and whether one is to be made.
            let mut naive: HashMap<Home, (u32, bool)> = HashMap::new();
            for number in 0..rng.u8(1..=files_at_most) {
                let chunk = |at| ChunkRef { id: ChunkId([number * chunks + at; 32]), sealed: 100 };
                let chunks = (0..rng.u8(1..=chunks)).map(chunk).collect();
                let manifest = StoreManifest { copies: 3, servers: Vec::new(), shift: 0, chunks };
                let named = (Blake3([number; 32]), (manifest, Vec::new()));
                let pointer = (owner, PointerKey([number; 32]));
                let file = files.point(pointer, Some(named.0), Some(named.1), false).new.unwrap();
                naive.extend(
                    files.files[&file].chunks.iter().zip(0..).map(|(_, at)| ((file, at), (0, false))),
                );
            }
            let mut homes: Vec<Home> = naive.keys().copied().collect();
            homes.sort_unstable();
            for _ in 0..300 {
                let home = homes[rng.usize(..homes.len())];
                let (live, wanted) = (rng.u8(..6), rng.bool());
                files.note(home, Copies { live, kept: live, wanted });
                naive.insert(home, (live.into(), wanted));
                let fewest = naive.values().filter(|(_, wanted)| *wanted).map(|(live, _)| *live).min();
                let next = files.wanting().next();
                let next = next.map(|file| (file, files.files[&file].rarest(&mut rng).unwrap()));
                assert_eq!(next.map(|home| naive[&home]), fewest.map(|live| (live, true)), "seed {seed}");
            }
        }
    }
}
