//! The two digests that Shoal knows: SHA-1, which users see and pieces are checked by, and BLAKE3, which stands
//! behind it because SHA-1 collisions can be made.

use std::fmt;

use minicbor::{Decode, Encode};

/// A SHA-1 digest, 20 bytes; printed as 40 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Sha1(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 20]);

/// A BLAKE3 digest, 32 bytes; printed as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Blake3(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

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

printed_as_hex!(Sha1, Blake3);

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
    fn parts_make_the_whole() {
        let mut hasher = FileHasher::default();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.finish(), FileDigest { sha1: Sha1::of(b"abc"), blake3: Blake3::of(b"abc") });
    }
}
