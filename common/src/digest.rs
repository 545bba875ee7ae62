//! The digests that Shoal knows: SHA-1, which users see and pieces are checked by; BLAKE3, which stands behind it
//! because SHA-1 collisions can be made; and SHA-256, which HTTP servers and Metalinks publish.

use std::fmt;

use minicbor::{Decode, Encode};
use sha2::Digest as _;

/// A SHA-1 digest, 20 bytes; printed as 40 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Sha1(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 20]);

/// A BLAKE3 digest, 32 bytes; printed as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Blake3(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

/// A SHA-256 digest, 32 bytes; printed as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha1 {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(shoal_sha1::digest(bytes))
    }
}

impl Blake3 {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// Both digests of a whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileDigest {
    /// What users see and compare.
    pub sha1: Sha1,
    /// What no known attack can forge.
    pub blake3: Blake3,
}

/// Digests of one whole file as far as they are known: all, some or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digests {
    /// SHA-1.
    pub sha1: Option<Sha1>,
    /// SHA-256.
    pub sha256: Option<Sha256>,
    /// BLAKE3.
    pub blake3: Option<Blake3>,
}

impl Digests {
    /// Whether no digest is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether every digest that is known here has the same value in `computed`.
    #[must_use]
    pub fn confirmed_by(&self, computed: &Self) -> bool {
        self.sha1.is_none_or(|digest| computed.sha1 == Some(digest))
            && self.sha256.is_none_or(|digest| computed.sha256 == Some(digest))
            && self.blake3.is_none_or(|digest| computed.blake3 == Some(digest))
    }
}

impl From<FileDigest> for Digests {
    fn from(digest: FileDigest) -> Self {
        Self { sha1: Some(digest.sha1), sha256: None, blake3: Some(digest.blake3) }
    }
}

/// Prints the strongest that users know: SHA-256, else SHA-1, else BLAKE3.
impl fmt::Display for Digests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.sha256, self.sha1, self.blake3) {
            (Some(digest), _, _) => write!(f, "SHA-256 {digest}"),
            (_, Some(digest), _) => write!(f, "SHA-1 {digest}"),
            (_, _, Some(digest)) => write!(f, "BLAKE3 {digest}"),
            (None, None, None) => f.write_str("no digest"),
        }
    }
}

/// Computes what is to be compared beside SHA-1 from a file's bytes in order.
#[derive(Clone)]
pub struct OtherDigestsHasher {
    sha256: Option<sha2::Sha256>,
    blake3: Option<Blake3Hasher>,
}

impl OtherDigestsHasher {
    /// A hasher of those digests of `expected` that are not SHA-1.
    #[must_use]
    pub fn confirming(expected: &Digests) -> Self {
        Self {
            sha256: expected.sha256.map(|_| sha2::Sha256::default()),
            blake3: expected.blake3.map(|_| Blake3Hasher::default()),
        }
    }

    /// Whether nothing is to be computed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.sha256.is_none() && self.blake3.is_none()
    }

    /// Takes the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.sha256 {
            hasher.update(bytes);
        }
        if let Some(hasher) = &mut self.blake3 {
            hasher.update(bytes);
        }
    }

    /// The digests of all that was taken, beside its SHA-1.
    #[must_use]
    pub fn finish(&self, sha1: Sha1) -> Digests {
        Digests {
            sha1: Some(sha1),
            sha256: self.sha256.clone().map(|hasher| Sha256(hasher.finalize().into())),
            blake3: self.blake3.as_ref().map(Blake3Hasher::finish),
        }
    }
}

impl fmt::Debug for OtherDigestsHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OtherDigestsHasher")
    }
}

/// Computes the digests of a file from its bytes in order: SHA-1, and of the others those that are to be compared.
#[derive(Debug, Clone)]
pub struct DigestsHasher {
    sha1: shoal_sha1::Hasher,
    others: OtherDigestsHasher,
}

impl DigestsHasher {
    /// A hasher that can confirm `expected`.
    #[must_use]
    pub fn confirming(expected: &Digests) -> Self {
        Self { sha1: shoal_sha1::Hasher::default(), others: OtherDigestsHasher::confirming(expected) }
    }

    /// Takes the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha1.update(bytes);
        self.others.update(bytes);
    }

    /// The digests of all that was taken.
    #[must_use]
    pub fn finish(self) -> Digests {
        self.others.finish(Sha1(self.sha1.finish()))
    }
}

/// Computes a [`FileDigest`] from a file's bytes in order.
#[derive(Clone, Default)]
pub struct FileHasher {
    sha1: shoal_sha1::Hasher,
    blake3: Blake3Hasher,
}

impl FileHasher {
    /// Takes the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha1.update(bytes);
        self.blake3.update(bytes);
    }

    /// The digest of all that was taken.
    #[must_use]
    pub fn finish(self) -> FileDigest {
        FileDigest { sha1: Sha1(self.sha1.finish()), blake3: self.blake3.finish() }
    }
}

/// Computes a [`Blake3`] from bytes in order.
#[derive(Clone, Default)]
pub struct Blake3Hasher(Box<blake3::Hasher>);

impl Blake3Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was taken.
    #[must_use]
    pub fn finish(&self) -> Blake3 {
        Blake3(*self.0.finalize().as_bytes())
    }
}

impl fmt::Debug for Blake3Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Blake3Hasher")
    }
}

impl fmt::Debug for FileHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileHasher")
    }
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

macro_rules! printed_as_hex {
    ($($digest:ty),*) => {$(
        impl serde::Serialize for $digest {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl fmt::Display for $digest {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(f, &self.0)
            }
        }

        impl fmt::Debug for $digest {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(f, &self.0)
            }
        }
    )*};
}

printed_as_hex!(Sha1, Sha256, Blake3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_the_published_ones() {
        // FIPS 180-4's example, and BLAKE3's test vector for the empty input.
        assert_eq!(Sha1::of(b"abc").to_string(), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(
            Blake3::of(b"").to_string(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
    }

    #[test]
    fn what_is_known_is_confirmed_and_nothing_else() {
        let known = Digests { sha1: Some(Sha1::of(b"abc")), ..Digests::default() };
        let hash = |expected: &Digests, bytes: &[u8]| {
            let mut hasher = DigestsHasher::confirming(expected);
            hasher.update(bytes);
            hasher.finish()
        };
        let all = Digests { sha256: Some(Sha256([0; 32])), blake3: Some(Blake3([0; 32])), ..known };
        let computed = hash(&all, b"abc");
        // FIPS 180-4's example.
        assert_eq!(
            computed.to_string(),
            "SHA-256 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(known.confirmed_by(&computed) && computed.confirmed_by(&computed));
        assert!(!all.confirmed_by(&computed) && !computed.confirmed_by(&hash(&known, b"abc")));
        assert!(!known.confirmed_by(&hash(&known, b"abd")) && Digests::default().confirmed_by(&computed));
    }

    #[test]
    fn parts_make_the_whole() {
        let mut hasher = FileHasher::default();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.finish(), FileDigest { sha1: Sha1::of(b"abc"), blake3: Blake3::of(b"abc") });
    }
}
