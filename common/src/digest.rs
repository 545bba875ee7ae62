//! The digests that Shoal knows: SHA-1, which users see and pieces are checked by; BLAKE3, because SHA-1 collisions can be
//! made; and those that HTTP servers and Metalinks publish: SHA-2 of every length, and MD5.

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

/// A SHA-512 digest, 64 bytes; printed as 128 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha512(pub [u8; 64]);

/// A SHA-384 digest, 48 bytes; printed as 96 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha384(pub [u8; 48]);

/// A SHA-224 digest, 28 bytes; printed as 56 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha224(pub [u8; 28]);

/// An MD5 digest, 16 bytes; printed as 32 hex digits. It detects damage, but not forgery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Md5(pub [u8; 16]);

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
    /// Which no known attack can forge.
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
    /// SHA-512.
    pub sha512: Option<Sha512>,
    /// SHA-384.
    pub sha384: Option<Sha384>,
    /// SHA-224.
    pub sha224: Option<Sha224>,
    /// MD5.
    pub md5: Option<Md5>,
}

/// Whether two that are known are the same.
fn same<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
    one.is_none() || other.is_none() || one == other
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
        // Nothing contradicts, and nothing is left to be computed.
        self.allows(computed) && computed.or(self) == *computed
    }

    /// Whether both can be of one file: no digest that both know differs.
    #[must_use]
    pub fn allows(&self, other: &Self) -> bool {
        same(self.sha1, other.sha1)
            && same(self.sha256, other.sha256)
            && same(self.blake3, other.blake3)
            && same(self.sha512, other.sha512)
            && same(self.sha384, other.sha384)
            && same(self.sha224, other.sha224)
            && same(self.md5, other.md5)
    }

    /// These digests, with those of `other` for the kinds that are not known here.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self {
            sha1: self.sha1.or(other.sha1),
            sha256: self.sha256.or(other.sha256),
            blake3: self.blake3.or(other.blake3),
            sha512: self.sha512.or(other.sha512),
            sha384: self.sha384.or(other.sha384),
            sha224: self.sha224.or(other.sha224),
            md5: self.md5.or(other.md5),
        }
    }
}

impl From<FileDigest> for Digests {
    fn from(digest: FileDigest) -> Self {
        Self { sha1: Some(digest.sha1), blake3: Some(digest.blake3), ..Self::default() }
    }
}

/// Prints one digest, if there is one: of the strong ones the best known, else a weak one.
impl fmt::Display for Digests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { sha256: Some(digest), .. } => write!(f, "SHA-256 {digest}"),
            Self { sha512: Some(digest), .. } => write!(f, "SHA-512 {digest}"),
            Self { sha384: Some(digest), .. } => write!(f, "SHA-384 {digest}"),
            Self { sha224: Some(digest), .. } => write!(f, "SHA-224 {digest}"),
            Self { sha1: Some(digest), .. } => write!(f, "SHA-1 {digest}"),
            Self { blake3: Some(digest), .. } => write!(f, "BLAKE3 {digest}"),
            Self { md5: Some(digest), .. } => write!(f, "MD5 {digest}"),
            _ => f.write_str("no digest"),
        }
    }
}

/// Computes the digests to compare, except SHA-1, from a file's bytes in order.
#[derive(Clone)]
pub struct OtherDigestsHasher {
    sha256: Option<sha2::Sha256>,
    blake3: Option<Blake3Hasher>,
    // Rarely used, and large.
    sha512: Option<Box<sha2::Sha512>>,
    sha384: Option<Box<sha2::Sha384>>,
    sha224: Option<Box<sha2::Sha224>>,
    md5: Option<Box<md5::Md5>>,
}

impl OtherDigestsHasher {
    /// A hasher of those digests of `expected` that are not SHA-1.
    #[must_use]
    pub fn confirming(expected: &Digests) -> Self {
        Self {
            sha256: expected.sha256.map(|_| sha2::Sha256::default()),
            blake3: expected.blake3.map(|_| Blake3Hasher::default()),
            sha512: expected.sha512.map(|_| Box::default()),
            sha384: expected.sha384.map(|_| Box::default()),
            sha224: expected.sha224.map(|_| Box::default()),
            md5: expected.md5.map(|_| Box::default()),
        }
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let long = self.sha512.is_none() && self.sha384.is_none();
        self.sha256.is_none() && self.blake3.is_none() && long && self.sha224.is_none() && self.md5.is_none()
    }

    /// Takes the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        fn update<D: sha2::Digest>(hasher: Option<&mut D>, bytes: &[u8]) {
            if let Some(hasher) = hasher {
                hasher.update(bytes);
            }
        }
        update(self.sha256.as_mut(), bytes);
        update(self.sha512.as_deref_mut(), bytes);
        update(self.sha384.as_deref_mut(), bytes);
        update(self.sha224.as_deref_mut(), bytes);
        update(self.md5.as_deref_mut(), bytes);
        if let Some(hasher) = &mut self.blake3 {
            hasher.update(bytes);
        }
    }

    /// The digests of all bytes taken, with their SHA-1 if that was computed.
    #[must_use]
    pub fn finish(&self, sha1: Option<Sha1>) -> Digests {
        Digests {
            sha1,
            sha256: self.sha256.clone().map(|hasher| Sha256(hasher.finalize().into())),
            blake3: self.blake3.as_ref().map(Blake3Hasher::finish),
            sha512: self.sha512.clone().map(|hasher| Sha512(hasher.finalize().into())),
            sha384: self.sha384.clone().map(|hasher| Sha384(hasher.finalize().into())),
            sha224: self.sha224.clone().map(|hasher| Sha224(hasher.finalize().into())),
            md5: self.md5.clone().map(|hasher| Md5(hasher.finalize().into())),
        }
    }
}

impl fmt::Debug for OtherDigestsHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OtherDigestsHasher")
    }
}

/// Computes the digests of a file that are to be compared, from its bytes in order.
#[derive(Debug, Clone)]
pub struct DigestsHasher {
    sha1: Option<shoal_sha1::Hasher>,
    others: OtherDigestsHasher,
}

impl DigestsHasher {
    /// A hasher that can confirm `expected`.
    #[must_use]
    pub fn confirming(expected: &Digests) -> Self {
        let sha1 = expected.sha1.map(|_| shoal_sha1::Hasher::default());
        Self { sha1, others: OtherDigestsHasher::confirming(expected) }
    }

    /// Computes the SHA-1 in any case.
    #[must_use]
    pub fn with_sha1(mut self) -> Self {
        self.sha1.get_or_insert_default();
        self
    }

    /// Takes the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some(sha1) = &mut self.sha1 {
            sha1.update(bytes);
        }
        self.others.update(bytes);
    }

    /// The digests of all that was taken.
    #[must_use]
    pub fn finish(self) -> Digests {
        self.others.finish(self.sha1.map(|sha1| Sha1(sha1.finish())))
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

printed_as_hex!(Sha1, Sha256, Blake3, Sha512, Sha384, Sha224, Md5);

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
    fn every_kind_is_computed_and_one_that_differs_is_found() {
        // FIPS 180-4's and RFC 1321's examples.
        let all = Digests {
            sha512: Some(Sha512([0; 64])),
            sha384: Some(Sha384([0; 48])),
            sha224: Some(Sha224([0; 28])),
            md5: Some(Md5([0; 16])),
            ..Digests::default()
        };
        let mut hasher = DigestsHasher::confirming(&all);
        hasher.update(b"abc");
        let computed = hasher.finish();
        let text = |digest: Option<&dyn fmt::Display>| digest.unwrap().to_string();
        assert!(
            text(computed.sha512.as_ref().map(|d| d as _)).starts_with("ddaf35a193617abacc417349ae204131")
        );
        assert!(
            text(computed.sha384.as_ref().map(|d| d as _)).starts_with("cb00753f45a35e8bb5a03d699ac65007")
        );
        assert_eq!(
            text(computed.sha224.as_ref().map(|d| d as _)),
            "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"
        );
        assert_eq!(text(computed.md5.as_ref().map(|d| d as _)), "900150983cd24fb0d6963f7d28e17f72");
        for wrong in [
            Digests { sha512: all.sha512, ..computed },
            Digests { sha384: all.sha384, ..computed },
            Digests { sha224: all.sha224, ..computed },
            Digests { md5: all.md5, ..computed },
        ] {
            assert!(
                !wrong.confirmed_by(&computed)
                    && !wrong.allows(&computed)
                    && computed.confirmed_by(&computed)
            );
        }
        let fewer = Digests { md5: None, ..computed };
        assert!(fewer.confirmed_by(&computed) && !computed.confirmed_by(&fewer) && computed.allows(&fewer));
        assert_eq!(fewer.or(&computed), computed);
    }

    #[test]
    fn parts_make_the_whole() {
        let mut hasher = FileHasher::default();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.finish(), FileDigest { sha1: Sha1::of(b"abc"), blake3: Blake3::of(b"abc") });
    }
}
