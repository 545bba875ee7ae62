//! What clients, storage nodes and trackers must agree on about the encrypted file store: chunks, the public part of a
//! stored file's manifest, and which server is to hold which chunk. Nothing here can read a chunk: ids are digests of
//! sealed bytes.

use std::collections::HashSet;
use std::fmt;

use minicbor::{Decode, Encode};

use crate::digest::Blake3;
use crate::peer_id::PeerId;

/// Longest chunk before sealing, in bytes (F4).
pub const MAX_CHUNK: u32 = 4 * 1024 * 1024;
/// Longest sealed chunk, in bytes: what a seal may add to [`MAX_CHUNK`] fits with room.
pub const MAX_SEALED_CHUNK: u32 = MAX_CHUNK + 256;
/// Chunks of one file at most: their table of 36 bytes each fits one message and one blob; 200 GB in the longest chunks.
pub const MAX_CHUNKS: usize = 50_000;
/// Servers over which one file may be spread.
pub const MAX_STORE_SERVERS: usize = 64;
/// Copies of each chunk at most.
pub const MAX_COPIES: u8 = 16;
/// Longest sealed part of a manifest, in bytes: a name, digests and a key take a few hundred.
pub const MAX_SEALED_PART: usize = 4 * 1024;
/// Longest encoded public part, in bytes.
pub const MAX_STORE_MANIFEST: usize = MAX_CHUNKS * ENTRY + MAX_STORE_SERVERS * 40 + 64;

/// Shortest sealed chunk, except the last, of a file with more than [`FEW_CHUNKS`]. Clients cut files of 16 MiB and more into
/// the longest chunks, and no user may fill a node with tiny ones.
pub const MIN_OF_MANY: u32 = 1024 * 1024;
/// Chunks of a file that may be of any length.
pub const FEW_CHUNKS: usize = 16;

/// What the smallest chunk takes of a node's capacity and of its owner's quota, in bytes: a block of the disk.
const CHUNK_BLOCK: u32 = 4_096;

/// What a chunk of so many sealed bytes takes of a node's capacity and of its owner's quota, in bytes.
#[must_use]
pub fn room_of(sealed: u32) -> u64 {
    u64::from(sealed.max(CHUNK_BLOCK))
}

/// Bytes of one chunk in the packed table: id, then sealed length, big end first.
const ENTRY: usize = 36;

/// A chunk's name: BLAKE3 of its sealed bytes, so that a node checks what it stores without a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct ChunkId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

impl ChunkId {
    /// The id of these sealed bytes.
    #[must_use]
    pub fn of(sealed: &[u8]) -> Self {
        Self(Blake3::of(sealed).0)
    }
}

/// The key of a stored file at the trackers: HMAC of its name under the user's account key, so that they do not learn the
/// name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct PointerKey(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

macro_rules! printed_as_hex {
    ($($id:ty),*) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

printed_as_hex!(ChunkId, PointerKey);

/// A chunk of a stored file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkRef {
    /// Its id.
    pub id: ChunkId,
    /// Length of its sealed bytes.
    pub sealed: u32,
}

/// The public part of a stored file's manifest: what repair needs, and nothing of name, size or content.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StoreManifest {
    /// Copies of each chunk that there are to be.
    #[n(0)]
    pub copies: u8,
    /// The servers that may hold chunks, in the order of the client's `dfs.conf`.
    #[n(1)]
    pub servers: Vec<PeerId>,
    /// The file's SHA-1 as a big-endian integer, modulo the number of servers.
    #[n(2)]
    pub shift: u16,
    /// The chunks, in order; none for an empty file.
    #[cbor(n(3), with = "table")]
    pub chunks: Vec<ChunkRef>,
}

/// Why a public part cannot be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreManifestError {
    /// Not CBOR of this shape, or over [`MAX_STORE_MANIFEST`].
    #[error("it cannot be read")]
    Malformed,
    /// Too few servers for the copies, too many of either, or one listed twice.
    #[error(
        "{copies} copies on {servers} servers: there must be 1 to 16 copies on as many different servers, and at most 64"
    )]
    Servers {
        /// Copies asked for.
        copies: u8,
        /// Servers listed.
        servers: usize,
    },
    /// `shift` is not a remainder of the number of servers.
    #[error("its shift of {0} is not below the number of servers")]
    Shift(u16),
    /// Too many chunks, one listed twice, or one whose length cannot be.
    #[error("its chunks break a limit: at most 50,000, each once and of 1 byte to 4 MiB")]
    Chunks,
}

impl StoreManifest {
    /// Reads and checks what a client sent or a blob holds.
    ///
    /// # Errors
    /// [`StoreManifestError`] says what is wrong.
    pub fn read(bytes: &[u8]) -> Result<Self, StoreManifestError> {
        if bytes.len() > MAX_STORE_MANIFEST {
            return Err(StoreManifestError::Malformed);
        }
        let manifest: Self = minicbor::decode(bytes).map_err(|_| StoreManifestError::Malformed)?;
        manifest.validate()?;
        Ok(manifest)
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`StoreManifestError`] says what is wrong.
    pub fn validate(&self) -> Result<(), StoreManifestError> {
        let (copies, servers) = (self.copies, self.servers.len());
        let distinct = self.servers.iter().collect::<HashSet<_>>().len() == servers;
        let enough = (1..=MAX_COPIES).contains(&copies) && usize::from(copies) <= servers;
        if !enough || servers > MAX_STORE_SERVERS || !distinct {
            return Err(StoreManifestError::Servers { copies, servers });
        }
        if usize::from(self.shift) >= servers {
            return Err(StoreManifestError::Shift(self.shift));
        }
        let fits = |chunk: &ChunkRef| (1..=MAX_SEALED_CHUNK).contains(&chunk.sealed);
        let distinct = self.chunks.iter().map(|chunk| chunk.id).collect::<HashSet<_>>().len();
        if self.chunks.len() > MAX_CHUNKS || distinct != self.chunks.len() || !self.chunks.iter().all(fits) {
            return Err(StoreManifestError::Chunks);
        }
        Ok(())
    }

    /// Whether the chunks are as long as so many chunks must be. It is checked before a file is stored, not afterwards.
    #[must_use]
    pub fn has_fair_lengths(&self) -> bool {
        let but_last = self.chunks.split_last().map_or(&[][..], |(_, others)| others);
        self.chunks.len() <= FEW_CHUNKS || but_last.iter().all(|chunk| chunk.sealed >= MIN_OF_MANY)
    }

    /// The encoded form, whose BLAKE3 names it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("a vector takes every write")
    }

    /// The servers for a chunk, as indices into `servers`, the best first: copy k of chunk c goes to server
    /// (c + H − k) mod m (F4). The first `copies` of them are the rule's; those behind stand in where one of these is away
    /// or full.
    pub fn placement(&self, chunk: u32) -> impl Iterator<Item = usize> + use<> {
        placement(chunk, self.shift, self.servers.len())
    }
}

/// See [`StoreManifest::placement`]; `shift` is H mod `servers`.
pub fn placement(chunk: u32, shift: u16, servers: usize) -> impl Iterator<Item = usize> + use<> {
    let start = if servers == 0 { 0 } else { (chunk as usize % servers + usize::from(shift)) % servers };
    (0..servers).map(move |copy| (start + servers - copy) % servers)
}

/// The table of chunks, packed.
mod table {
    use minicbor::decode::{Decoder, Error};
    use minicbor::encode::{Encoder, Write};

    use super::{ChunkId, ChunkRef, ENTRY, MAX_CHUNKS};

    pub(super) fn encode<C, W: Write>(
        chunks: &[ChunkRef],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let packed: Vec<u8> = chunks.iter().flat_map(|chunk| entry(*chunk)).collect();
        e.bytes(&packed)?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<ChunkRef>, Error> {
        let (entries, rest) = d.bytes()?.as_chunks::<ENTRY>();
        if !rest.is_empty() || entries.len() > MAX_CHUNKS {
            return Err(Error::message("not a table of chunks"));
        }
        Ok(entries.iter().map(chunk).collect())
    }

    fn entry(chunk: ChunkRef) -> [u8; ENTRY] {
        let mut entry = [0; ENTRY];
        entry[..32].copy_from_slice(&chunk.id.0);
        entry[32..].copy_from_slice(&chunk.sealed.to_be_bytes());
        entry
    }

    fn chunk(entry: &[u8; ENTRY]) -> ChunkRef {
        let (mut id, mut sealed) = ([0; 32], [0; 4]);
        id.copy_from_slice(&entry[..32]);
        sealed.copy_from_slice(&entry[32..]);
        ChunkRef { id: ChunkId(id), sealed: u32::from_be_bytes(sealed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn manifest(copies: u8, servers: u8, shift: u16, chunks: u8) -> StoreManifest {
        StoreManifest {
            copies,
            servers: (0..servers).map(|number| PeerId([number; 32])).collect(),
            shift,
            chunks: (0..chunks)
                .map(|n| ChunkRef { id: ChunkId([n; 32]), sealed: u32::from(n) + 1 })
                .collect(),
        }
    }

    /// Which chunks, counted from 1, each of four servers holds of the first four.
    fn row(copies: usize, shift: u16) -> [Vec<u32>; 4] {
        let mut row = <[Vec<u32>; 4]>::default();
        for chunk in 0..4 {
            placement(chunk, shift, 4).take(copies).for_each(|server| row[server].push(chunk + 1));
        }
        row
    }

    #[test]
    fn chunks_are_placed_as_the_tables_say() {
        let sorted = |row: [[u32; 2]; 4]| {
            row.map(|mut pair| {
                pair.sort_unstable();
                pair.to_vec()
            })
        };
        assert_eq!(row(2, 0), sorted([[1, 2], [2, 3], [3, 4], [4, 1]]));
        assert_eq!(row(2, 1), sorted([[4, 1], [1, 2], [2, 3], [3, 4]]));
        assert_eq!(row(2, 2), sorted([[3, 4], [4, 1], [1, 2], [2, 3]]));
        assert_eq!(row(2, 3), sorted([[2, 3], [3, 4], [4, 1], [1, 2]]));
        assert_eq!(row(3, 0), [vec![1, 2, 3], vec![2, 3, 4], vec![1, 3, 4], vec![1, 2, 4]]);
    }

    #[test]
    fn what_breaks_a_bound_is_refused() {
        assert_eq!(manifest(2, 4, 3, 9).validate(), Ok(()));
        assert_eq!(manifest(4, 4, 0, 0).validate(), Ok(()));
        for bad in [manifest(0, 4, 0, 1), manifest(5, 4, 0, 1), manifest(2, 65, 0, 1), manifest(17, 20, 0, 1)]
        {
            assert!(matches!(bad.validate(), Err(StoreManifestError::Servers { .. })), "{bad:?}");
        }
        assert_eq!(manifest(2, 4, 4, 1).validate(), Err(StoreManifestError::Shift(4)));
        let mut twice = manifest(2, 4, 0, 2);
        twice.chunks[1].id = twice.chunks[0].id;
        assert_eq!(twice.validate(), Err(StoreManifestError::Chunks));
        let mut long = manifest(2, 4, 0, 1);
        long.chunks[0].sealed = MAX_SEALED_CHUNK + 1;
        assert_eq!(long.validate(), Err(StoreManifestError::Chunks));
        let mut same = manifest(2, 4, 0, 1);
        same.servers[1] = same.servers[0];
        assert!(same.validate().is_err());
    }

    #[test]
    fn many_chunks_must_not_be_tiny() {
        assert!(manifest(2, 4, 0, 16).has_fair_lengths());
        let mut many = manifest(2, 4, 0, 17);
        assert!(!many.has_fair_lengths());
        assert_eq!(StoreManifest::read(&many.encode()), Ok(many.clone()), "what is stored already is read");
        many.chunks.iter_mut().take(16).for_each(|chunk| chunk.sealed = MIN_OF_MANY);
        assert!(many.has_fair_lengths(), "the last may be short");
    }

    #[test]
    fn the_largest_reads_back_within_its_bound() {
        let mut largest = manifest(2, 64, 0, 0);
        let id = |n: u32| ChunkId([n.to_le_bytes(); 8].concat().try_into().unwrap());
        let all = 0..u32::try_from(MAX_CHUNKS).unwrap();
        largest.chunks = all.map(|n| ChunkRef { id: id(n), sealed: MAX_SEALED_CHUNK }).collect();
        let bytes = largest.encode();
        assert!(bytes.len() <= MAX_STORE_MANIFEST, "{}", bytes.len());
        assert!(bytes.len() + MAX_SEALED_PART < crate::limits::MAX_CLIENT_MESSAGE);
        assert_eq!(StoreManifest::read(&bytes), Ok(largest));
    }

    proptest! {
        #[test]
        fn any_placement_spreads_copies_and_load(servers in 1usize..20, copies in 1usize..20, shift in 0u16..20, rounds in 1usize..4) {
            prop_assume!(copies <= servers && usize::from(shift) < servers);
            let mut loads = vec![0usize; servers];
            // Whole rounds and every cut of the last one.
            for chunk in 0..servers * rounds {
                let chosen: Vec<usize> = placement(u32::try_from(chunk).unwrap(), shift, servers).take(copies).collect();
                prop_assert_eq!(chosen.iter().collect::<HashSet<_>>().len(), copies);
                chosen.iter().for_each(|&server| loads[server] += 1);
                let (most, least) = (loads.iter().max().unwrap(), loads.iter().min().unwrap());
                prop_assert!(most - least <= copies.min(servers - copies), "{:?}", loads);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = StoreManifest::read(&bytes);
        }

        #[test]
        fn damaged_manifests_never_panic(at in 0usize..500, to in any::<u8>(), cut in 0usize..500) {
            let mut bytes = manifest(2, 4, 1, 6).encode();
            let (at, cut) = (at % bytes.len(), cut % bytes.len());
            bytes[at] = to;
            let _ = StoreManifest::read(&bytes);
            let _ = StoreManifest::read(&bytes[..cut]);
        }
    }
}
