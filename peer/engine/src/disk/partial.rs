//! What an unfinished download has so far, for a program that serves it meanwhile. `NAME.pinfo` beside the partial file
//! says what the content is; the checkpoint in `NAME.pstate` says which pieces are durable. Only those are given out:
//! they do not change any more, whatever happens to the download. Blocking.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use shoal_common::limits::MAX_PIECES;
use shoal_common::{Bitfield, Blake3, Digests, Layout, Md5, Sha1, Sha224, Sha256, Sha384, Sha512};

use crate::content::{Content, Target, Verification};
use crate::disk::journal::{MAX_STATE, Saved};

/// Begins every `.pinfo` file; the number is the format's version.
const MAGIC: &[u8; 16] = b"shoal-content 1\n";
/// Longest `.pinfo` file that is read: the digests of the most pieces, and what stands before them.
const MAX_INFO: u64 = 64 * 1024 + 20 * MAX_PIECES as u64;

/// An unfinished download as it is on the disk.
#[derive(Debug, Clone)]
pub struct Partial {
    content: Content,
    durable: Bitfield,
}

impl Partial {
    /// Reads a download's `.pinfo` and `.pstate`; `None` if they are damaged or not of the same content.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(info: File, state: File) -> io::Result<Option<Self>> {
        let Some(content) = parse(&read_bounded(info, MAX_INFO)?) else { return Ok(None) };
        let state = read_bounded(state, MAX_STATE)?;
        Ok(match Saved::parse(&state, &content) {
            Saved::Known { durable, .. } => Some(Self { content, durable }),
            _ => None,
        })
    }

    /// Whether a `.pstate` may be that of a download of this content: it is, or it was cut off before it says of which.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn may_be_of(state: File, content: &Content) -> io::Result<bool> {
        let state = read_bounded(state, MAX_STATE)?;
        Ok(matches!(Saved::parse(&state, content), Saved::Known { .. } | Saved::Torn))
    }

    /// The content that is being downloaded.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The pieces that are durable in the partial file.
    #[must_use]
    pub fn durable(&self) -> &Bitfield {
        &self.durable
    }
}

fn read_bounded(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes what the content is beside its partial file, if it can be told. Without it the download works as well; only
/// nobody else can serve what is there.
pub(super) fn describe(target: &Target, content: &Content) {
    let Some(bytes) = written(content) else { return forget(target) };
    let (path, new_path) = (target.info_path(), target.beside(".pinfo~"));
    if std::fs::read(&path).is_ok_and(|found| found == bytes) {
        return;
    }
    // A new file under a new name, so that a link in its place is not followed.
    let _ = std::fs::remove_file(&new_path);
    let saved = File::create_new(&new_path)
        .and_then(|mut file| file.write_all(&bytes))
        .and_then(|()| std::fs::rename(&new_path, &path));
    if let Err(error) = saved {
        let _ = std::fs::remove_file(&new_path);
        tracing::debug!(path = %path.display(), %error, "cannot describe a partial file");
    }
}

/// Removes the description.
pub(super) fn forget(target: &Target) {
    let _ = std::fs::remove_file(target.info_path());
}

/// The kinds of digests with their tags, which are part of the format.
fn tagged(digests: &Digests) -> Vec<(u8, Vec<u8>)> {
    let all = [
        (1, digests.sha1.map(|digest| digest.0.to_vec())),
        (2, digests.blake3.map(|digest| digest.0.to_vec())),
        (3, digests.sha256.map(|digest| digest.0.to_vec())),
        (4, digests.sha512.map(|digest| digest.0.to_vec())),
        (5, digests.sha384.map(|digest| digest.0.to_vec())),
        (6, digests.sha224.map(|digest| digest.0.to_vec())),
        (7, digests.md5.map(|digest| digest.0.to_vec())),
    ];
    all.into_iter().filter_map(|(tag, digest)| Some((tag, digest?))).collect()
}

/// The description; `None` for sealed content, which nobody without its key may serve, and for folders, which only peers serve.
fn written(content: &Content) -> Option<Vec<u8>> {
    if content.listing().is_some() {
        return None;
    }
    let pieces: &[Sha1] = match content.verification() {
        Verification::Sha1(pieces) => pieces,
        Verification::Unchecked => &[],
        Verification::Aead(_) => return None,
    };
    let layout = content.layout();
    let mut bytes = MAGIC.to_vec();
    bytes.extend(layout.size().to_le_bytes());
    bytes.extend(layout.piece_length().to_le_bytes());
    let digests = tagged(content.digest());
    bytes.push(u8::try_from(digests.len()).ok()?);
    for (tag, digest) in digests {
        bytes.push(tag);
        bytes.extend(digest);
    }
    bytes.push(u8::from(matches!(content.verification(), Verification::Sha1(_))));
    pieces.iter().for_each(|piece| bytes.extend(piece.0));
    Some(bytes)
}

/// Reads a description. Damage shows when the content's identity is compared with the state's.
fn parse(bytes: &[u8]) -> Option<Content> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let size = u64::from_le_bytes(take(&mut rest)?);
    let layout = Layout::new(size, u32::from_le_bytes(take(&mut rest)?)).ok()?;
    let mut digests = Digests::default();
    let [count] = take(&mut rest)?;
    for _ in 0..count {
        let [tag] = take(&mut rest)?;
        match tag {
            1 => digests.sha1 = Some(Sha1(take(&mut rest)?)),
            2 => digests.blake3 = Some(Blake3(take(&mut rest)?)),
            3 => digests.sha256 = Some(Sha256(take(&mut rest)?)),
            4 => digests.sha512 = Some(Sha512(take(&mut rest)?)),
            5 => digests.sha384 = Some(Sha384(take(&mut rest)?)),
            6 => digests.sha224 = Some(Sha224(take(&mut rest)?)),
            7 => digests.md5 = Some(Md5(take(&mut rest)?)),
            _ => return None,
        }
    }
    let [checked] = take(&mut rest)?;
    let (pieces, rest) = rest.as_chunks::<20>();
    if !rest.is_empty() || checked == 0 && !pieces.is_empty() {
        return None;
    }
    match checked {
        0 => Some(Content::unchecked(layout, digests)),
        1 => {
            let pieces: Arc<[Sha1]> = pieces.iter().map(|&piece| Sha1(piece)).collect();
            Content::new(layout, pieces, digests).ok()
        }
        _ => None,
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::limits::MIN_PIECE_LENGTH;

    #[test]
    fn a_description_comes_back_and_damage_is_noticed() {
        let layout = Layout::new(5 * 65_536 + 7, MIN_PIECE_LENGTH).unwrap();
        let digest = Digests {
            sha1: Some(Sha1([1; 20])),
            sha256: Some(Sha256([2; 32])),
            md5: Some(Md5([3; 16])),
            ..Digests::default()
        };
        let pieces: Arc<[Sha1]> = (0..6).map(|number| Sha1([number; 20])).collect();
        for content in [
            Content::new(layout.clone(), pieces, digest).unwrap(),
            Content::unchecked(layout.clone(), digest),
            Content::unchecked(layout, Digests::default()),
        ] {
            let bytes = written(&content).unwrap();
            let read = parse(&bytes).unwrap();
            assert_eq!(written(&read).unwrap(), bytes);
            assert_eq!((read.layout(), read.digest()), (content.layout(), content.digest()));
            for cut in 0..bytes.len() {
                // Shorter than it was, it is something else or nothing.
                assert!(parse(&bytes[..cut]).is_none_or(|cut| written(&cut).unwrap() != bytes));
            }
        }
    }
}
