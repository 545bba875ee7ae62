//! How a file is sealed, chunk by chunk. Pure, but for the randomness of fresh keys.
//!
//! Every version of a file has a random 256-bit key and a random id of its own. Chunk `i` of `n` is sealed by AES-256-GCM
//! (NIST SP 800-38D) under that key with the nonce `i` (96 bits, big end first) and the associated data
//! `domain ‖ file id ‖ i ‖ n`. So a chunk that is changed, cut, moved, left out or taken from another version does not
//! open. The id under which a chunk is stored is BLAKE3 of the sealed bytes.
//!
//! Behind the tag stand 32 bytes: BLAKE3 of the chunk's *removal key*, which comes of the file's key. Who shows a node that
//! key may have the chunk deleted at once; nodes and trackers do not know it, so that no ticket that a tracker made up deletes
//! anything. Versions stored before lack these bytes and open as well ([`Form`]).
//!
//! A nonce must never seal two different plaintexts under one key. It cannot as long as a key meets one content only: what
//! is sealed is first compared with what was hashed when the key was made, and a key is used again only to go on with an
//! interrupted PUT of the very same bytes (see `put`). Sealing those again gives the same sealed bytes, which is also how a
//! chunk that was written to disk is checked. Limits: 2³² chunks a key
//! (a file has at most 50,000) and 64 GiB a chunk (4 MiB); both far below GCM's bounds.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use shoal_common::storage::{ChunkId, ChunkRef};
use shoal_common::{Layout, PieceIndex};
use shoal_engine::SealedPieces;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::wire::RemovalKey;

/// Bytes that sealing adds to a chunk: the tag, and the digest of its removal key.
pub const OVERHEAD: u32 = TAG + LOCK;
/// Bytes of the tag.
const TAG: u32 = 16;
/// Bytes of a removal key's digest.
pub(crate) const LOCK: u32 = 32;
/// Bytes of a file's key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a file version's id.
pub const FILE_ID_BYTES: usize = 16;

/// Keeps these seals from being taken for others.
const DOMAIN: &[u8; 16] = b"shoal dfs chunk1";
const AAD_BYTES: usize = 16 + FILE_ID_BYTES + 8;

/// The secret of one version of one file. It is wiped when dropped, and never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct FileSecret {
    /// The key.
    pub key: [u8; KEY_BYTES],
    /// The version's id.
    pub id: [u8; FILE_ID_BYTES],
}

impl FileSecret {
    /// A fresh one from the system's randomness.
    ///
    /// # Panics
    /// When the system has none.
    #[must_use]
    pub fn random() -> Self {
        let mut secret = Self { key: [0; KEY_BYTES], id: [0; FILE_ID_BYTES] };
        getrandom::fill(&mut secret.key).expect("the system provides randomness");
        getrandom::fill(&mut secret.id).expect("the system provides randomness");
        secret
    }
}

impl std::fmt::Debug for FileSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileSecret")
    }
}

/// A chunk that does not open: it is not what was sealed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a chunk is not what was stored")]
pub struct NotAuthentic;

/// What stands behind a chunk's sealed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Nothing but the tag, in versions stored before there were removal keys.
    Bare,
    /// The tag, then the digest of the removal key.
    Removable,
}

impl Form {
    /// The form of a stored file's chunks, by their lengths.
    #[must_use]
    pub fn of(layout: &Layout, chunks: &[ChunkRef]) -> Self {
        let first = layout.iter().next().map(|piece| layout.length(piece));
        match (first, chunks.first()) {
            (Some(length), Some(chunk)) if chunk.sealed == length + TAG => Self::Bare,
            _ => Self::Removable,
        }
    }

    /// Bytes that sealing adds.
    #[must_use]
    pub fn overhead(self) -> u32 {
        match self {
            Self::Bare => TAG,
            Self::Removable => OVERHEAD,
        }
    }
}

/// Seals and opens the chunks of one version of one file.
pub struct Sealer {
    key: LessSafeKey,
    id: [u8; FILE_ID_BYTES],
    chunks: u32,
    form: Form,
    removal: Zeroizing<[u8; 32]>,
    #[cfg(feature = "observe")]
    observed: [u8; 32],
}

impl Sealer {
    /// For a new file of `chunks` chunks.
    #[must_use]
    pub fn new(secret: &FileSecret, chunks: u32) -> Self {
        Self::in_form(secret, chunks, Form::Removable)
    }

    /// For a file of `chunks` chunks of that form.
    ///
    /// # Panics
    /// Never: the key has the length that the cipher wants.
    #[must_use]
    pub fn in_form(secret: &FileSecret, chunks: u32, form: Form) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, &secret.key).expect("a key of 32 bytes");
        let mut removal = blake3::Hasher::new_derive_key("shoal 2026 dfs chunk removal");
        removal.update(&secret.key).update(&secret.id);
        Self {
            key: LessSafeKey::new(key),
            id: secret.id,
            chunks,
            form,
            removal: Zeroizing::new(*removal.finalize().as_bytes()),
            #[cfg(feature = "observe")]
            observed: blake3::derive_key("shoal 2026 observed key", &secret.key),
        }
    }

    /// The form of its chunks.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }

    /// What has chunk `index` deleted at once.
    #[must_use]
    pub fn removal_key(&self, index: u32) -> RemovalKey {
        RemovalKey(*blake3::keyed_hash(&self.removal, &index.to_be_bytes()).as_bytes())
    }

    /// Seals chunk `index` where it lies.
    ///
    /// # Panics
    /// Never: a chunk is far shorter than the cipher's limit.
    pub fn seal(&self, index: u32, chunk: &mut Vec<u8>) {
        #[cfg(feature = "observe")]
        observe::note(self.observed, index, chunk);
        let sealed = self.key.seal_in_place_append_tag(nonce(index), self.aad(index), chunk);
        sealed.expect("a chunk is below the cipher's limit");
        if self.form == Form::Removable {
            chunk.extend_from_slice(&self.removal_key(index).lock());
        }
    }

    /// Opens chunk `index` where it lies; the plain bytes are at its beginning.
    ///
    /// # Errors
    /// When it is anything else than that chunk.
    pub fn open<'a>(&self, index: u32, mut sealed: &'a mut [u8]) -> Result<&'a [u8], NotAuthentic> {
        if self.form == Form::Removable {
            let (chunk, lock) = sealed.split_last_chunk_mut::<32>().ok_or(NotAuthentic)?;
            if *lock != self.removal_key(index).lock() {
                return Err(NotAuthentic);
            }
            sealed = chunk;
        }
        let opened = self.key.open_in_place(nonce(index), self.aad(index), sealed);
        opened.map(|plain| &*plain).map_err(|_| NotAuthentic)
    }

    fn aad(&self, index: u32) -> Aad<[u8; AAD_BYTES]> {
        let mut aad = [0; AAD_BYTES];
        let (domain, rest) = aad.split_at_mut(DOMAIN.len());
        let (id, rest) = rest.split_at_mut(FILE_ID_BYTES);
        domain.copy_from_slice(DOMAIN);
        id.copy_from_slice(&self.id);
        rest[..4].copy_from_slice(&index.to_be_bytes());
        rest[4..].copy_from_slice(&self.chunks.to_be_bytes());
        Aad::from(aad)
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("chunks", &self.chunks).finish_non_exhaustive()
    }
}

fn nonce(index: u32) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 4..].copy_from_slice(&index.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// A stored file as the engine checks it: what is on disk is right if sealing it again gives the chunk that was stored.
#[derive(Debug)]
pub struct StoredPieces {
    sealer: std::sync::Arc<Sealer>,
    ids: Vec<ChunkId>,
    version: [u8; 32],
}

impl StoredPieces {
    /// The chunks of the version of that name, in order.
    #[must_use]
    pub fn new(sealer: std::sync::Arc<Sealer>, ids: Vec<ChunkId>, version: [u8; 32]) -> Self {
        Self { sealer, ids, version }
    }
}

impl SealedPieces for StoredPieces {
    fn identity(&self) -> [u8; 32] {
        self.version
    }

    fn is_right(&self, piece: PieceIndex, bytes: &[u8]) -> bool {
        let mut chunk = Vec::with_capacity(bytes.len() + OVERHEAD as usize);
        chunk.extend_from_slice(bytes);
        self.sealer.seal(piece.get(), &mut chunk);
        self.ids.get(piece.as_usize()) == Some(&ChunkId::of(&chunk))
    }
}

/// Tells a test of everything that is sealed.
#[cfg(feature = "observe")]
pub mod observe {
    use std::sync::{Mutex, PoisonError};

    /// What tells a key (it is not the key), the nonce's number, and BLAKE3 of the plain bytes.
    pub type Sealed = ([u8; 32], u32, [u8; 32]);

    static SEALED: Mutex<Vec<Sealed>> = Mutex::new(Vec::new());

    pub(super) fn note(key: [u8; 32], index: u32, plain: &[u8]) {
        let mut sealed = SEALED.lock().unwrap_or_else(PoisonError::into_inner);
        sealed.push((key, index, *blake3::hash(plain).as_bytes()));
    }

    /// Everything that this process has sealed so far.
    #[must_use]
    pub fn all() -> Vec<Sealed> {
        SEALED.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secret(seed: u8) -> FileSecret {
        FileSecret { key: [seed; KEY_BYTES], id: [seed; FILE_ID_BYTES] }
    }

    fn sealed(sealer: &Sealer, index: u32, plain: &[u8]) -> Vec<u8> {
        let mut chunk = plain.to_vec();
        sealer.seal(index, &mut chunk);
        chunk
    }

    #[test]
    fn seals_as_it_did() {
        // As another implementation (OpenSSL, through Python) seals it: files stored once must open for ever.
        let chunk = sealed(&Sealer::in_form(&secret(7), 4, Form::Bare), 2, b"shoal");
        let hex: String = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "8203db428d3aaeeb7e07b61110fd399c7c6b656137");
        let removable = sealed(&Sealer::new(&secret(7), 4), 2, b"shoal");
        assert_eq!(removable[..chunk.len()], chunk);
        assert_eq!(removable.len(), chunk.len() + LOCK as usize);
    }

    #[test]
    fn a_removal_key_is_of_one_chunk_of_one_version_and_says_nothing_of_others() {
        let sealer = Sealer::new(&secret(1), 4);
        let chunk = sealed(&sealer, 1, b"plain bytes");
        assert!(chunk.ends_with(&sealer.removal_key(1).lock()));
        for other in [sealer.removal_key(2), Sealer::new(&secret(2), 4).removal_key(1)] {
            assert!(!chunk.ends_with(&other.lock()));
        }
    }

    #[test]
    fn chunks_of_both_forms_open() {
        let layout = Layout::stored(11).unwrap();
        for form in [Form::Bare, Form::Removable] {
            let sealer = Sealer::in_form(&secret(1), layout.pieces(), form);
            let plain = vec![7; layout.piece_length() as usize];
            let mut chunk = sealed(&sealer, 0, &plain);
            let found = ChunkRef { id: ChunkId::of(&chunk), sealed: u32::try_from(chunk.len()).unwrap() };
            assert_eq!(Form::of(&layout, &[found]), form);
            assert_eq!(sealer.open(0, &mut chunk), Ok(&plain[..]));
        }
    }

    #[test]
    fn a_chunk_opens_only_as_itself() {
        let sealer = Sealer::new(&secret(1), 4);
        let chunk = sealed(&sealer, 1, b"plain bytes");
        let open = |sealer: &Sealer, index, chunk: &[u8]| {
            sealer.open(index, &mut chunk.to_vec()).map(<[u8]>::to_vec)
        };
        assert_eq!(open(&sealer, 1, &chunk), Ok(b"plain bytes".to_vec()));
        assert_eq!(open(&sealer, 0, &chunk), Err(NotAuthentic), "in another place");
        assert_eq!(open(&Sealer::new(&secret(1), 5), 1, &chunk), Err(NotAuthentic), "in a longer file");
        assert_eq!(open(&Sealer::new(&secret(2), 4), 1, &chunk), Err(NotAuthentic), "under another key");
        let other = FileSecret { id: [9; FILE_ID_BYTES], ..secret(1) };
        assert_eq!(open(&Sealer::new(&other, 4), 1, &chunk), Err(NotAuthentic), "of another version");
        for cut in 0..chunk.len() {
            assert_eq!(open(&sealer, 1, &chunk[..cut]), Err(NotAuthentic), "cut to {cut}");
        }
        assert_eq!(open(&sealer, 1, &[&chunk[..], b"x"].concat()), Err(NotAuthentic), "longer");
    }

    #[test]
    fn what_is_on_disk_is_checked_by_sealing_it_again() {
        let layout = Layout::stored(11).unwrap();
        let sealer = std::sync::Arc::new(Sealer::new(&secret(1), layout.pieces()));
        let plain: Vec<&[u8]> = b"hello world".chunks(layout.piece_length() as usize).collect();
        let ids = plain.iter().zip(0..).map(|(bytes, index)| ChunkId::of(&sealed(&sealer, index, bytes)));
        let stored = StoredPieces::new(sealer.clone(), ids.collect(), [1; 32]);
        for (piece, bytes) in layout.iter().zip(&plain) {
            assert!(stored.is_right(piece, bytes));
            let mut wrong = bytes.to_vec();
            wrong[0] ^= 1;
            assert!(!stored.is_right(piece, &wrong));
        }
    }

    #[test]
    fn secrets_do_not_show() {
        assert_eq!(format!("{:?}", secret(3)), "FileSecret");
        assert!(!format!("{:?}", Sealer::new(&secret(3), 1)).contains('3'));
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_and_a_flipped_bit_never(
            plain in proptest::collection::vec(any::<u8>(), 0..300), index in any::<u32>(), at in any::<usize>(),
        ) {
            let sealer = Sealer::new(&secret(5), u32::MAX);
            let chunk = sealed(&sealer, index, &plain);
            prop_assert_eq!(chunk.len(), plain.len() + OVERHEAD as usize);
            let mut whole = chunk.clone();
            prop_assert_eq!(sealer.open(index, &mut whole), Ok(&plain[..]));
            let mut flipped = chunk.clone();
            flipped[at % chunk.len()] ^= 1 << (at / chunk.len() % 8);
            prop_assert_eq!(sealer.open(index, &mut flipped), Err(NotAuthentic));
        }
    }
}
