//! What an export holds, as it is written: maps of CBOR by index (docs/formats.md, "An export").

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};
use shoal_common::{Fid, Gid, GroupName, Manifest, Uid};
use shoal_engine::hash::FileIdentity;
use shoal_session::text;
use shoal_swarm::FileKey;

use super::folders::Listings;
use crate::FileRef;
use crate::priority::{Priority, Rank};
use crate::store::{DownloadRecord, DownloadState, ShareRecord, Whole, time, time_column};
use crate::taking::Take;

/// Longest path that Linux takes (`PATH_MAX`), in bytes.
const MAX_PATH: usize = 4_096;

/// All of it.
#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct Content {
    /// When it was made, in seconds since 1970.
    #[n(0)]
    made: u64,
    /// The client's key file.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) identity: Vec<u8>,
    #[n(2)]
    pub(super) trackers: String,
    /// The file of the trackers' keys.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub(super) known: Option<Vec<u8>>,
    /// The file of the kept session.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub(super) kept: Option<Vec<u8>>,
    /// Names and values.
    #[n(5)]
    settings: Vec<(String, String)>,
    #[n(6)]
    piece_lists: Vec<PieceList>,
    #[n(7)]
    pub(super) shares: Vec<Share>,
    #[n(8)]
    pub(super) downloads: Vec<Download>,
    #[n(9)]
    pub(super) parts: Vec<Part>,
    /// Of folders; `None` where there are none, as from an earlier version.
    #[n(10)]
    listings: Option<Vec<PieceList>>,
}

/// A piece list or listing in wire form. Manifests name it by its hash.
#[derive(Encode, Decode)]
#[cbor(transparent)]
struct PieceList(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>);

/// A file that goes along.
#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct Part {
    #[n(0)]
    pub(super) name: String,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) bytes: Vec<u8>,
}

/// A file that a user shares.
#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct Share {
    #[n(0)]
    user: Uid,
    #[n(1)]
    group: Gid,
    #[n(2)]
    file: Fid,
    #[n(3)]
    group_name: GroupName,
    #[n(4)]
    pub(super) manifest: Manifest,
    #[cbor(n(5), with = "path_bytes")]
    pub(super) path: PathBuf,
    /// Of which file the content is known.
    #[n(6)]
    known: KnownFile,
}

/// A file whose content is known.
#[derive(Clone, Copy, Encode, Decode)]
struct KnownFile {
    #[n(0)]
    size: u64,
    /// Nanoseconds since 1970, as the next one.
    #[n(1)]
    modified: i64,
    #[n(2)]
    changed: Option<i64>,
    #[n(3)]
    inode: u64,
    #[n(4)]
    device: u64,
}

/// A download.
#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct Download {
    #[n(0)]
    user: Uid,
    #[n(1)]
    group: Gid,
    #[n(2)]
    file: Fid,
    #[n(3)]
    group_name: GroupName,
    #[n(4)]
    pub(super) manifest: Manifest,
    #[cbor(n(5), with = "path_bytes")]
    pub(super) path: PathBuf,
    #[n(6)]
    share: bool,
    #[n(7)]
    pub(super) state: State,
    /// Why it failed.
    #[n(8)]
    reason: Option<String>,
    /// Bytes that were verified when it last stopped.
    #[n(9)]
    pub(super) verified: u64,
    /// Its priority by its name.
    #[n(10)]
    priority: Option<String>,
    /// Its place among those of its priority.
    #[n(11)]
    position: Option<i64>,
    /// Its own limit in bytes per second.
    #[n(12)]
    limit: Option<u64>,
    /// How a folder is taken, as it is kept in the store.
    #[n(13)]
    folder_options: Option<String>,
}

/// How far a download came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(super) enum State {
    #[n(0)]
    Running,
    #[n(1)]
    Paused,
    #[n(2)]
    Complete,
    #[n(3)]
    Failed,
}

impl State {
    /// Whether its file is in its place.
    pub(super) fn is_over(self) -> bool {
        self == Self::Complete
    }
}

impl Content {
    pub(super) fn new(
        made: u64,
        identity: Vec<u8>,
        trackers: String,
        (known, kept): (Option<Vec<u8>>, Option<Vec<u8>>),
        (whole, listings): (Whole, Listings),
    ) -> Self {
        Self {
            made,
            identity,
            trackers,
            known,
            kept,
            settings: whole.settings,
            piece_lists: whole.piece_lists.into_values().map(PieceList).collect(),
            shares: whole.shares.into_iter().map(Share::of).collect(),
            downloads: whole.downloads.into_iter().map(Download::of).collect(),
            parts: Vec::new(),
            listings: Some(listings.into_values().map(PieceList).collect::<Vec<_>>())
                .filter(|listings| !listings.is_empty()),
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        // Writing into memory cannot fail.
        minicbor::to_vec(self).unwrap_or_default()
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        minicbor::decode(bytes).ok()
    }

    /// Refuses what no client wrote; says what is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        let lists = self.piece_lists();
        let shares = self.shares.iter().map(|share| (&share.manifest, &share.path));
        let downloads = self.downloads.iter().map(|download| (&download.manifest, &download.path));
        for (manifest, path) in shares.chain(downloads) {
            let wrong = |what: String| format!("{}: {what}", text::printable(manifest.name.as_str()));
            manifest.validate().map_err(|error| wrong(error.to_string()))?;
            let list = lists.get(&manifest.piece_list.0).ok_or_else(|| wrong("no piece list".to_owned()))?;
            manifest.read_piece_list(list).map_err(|error| wrong(error.to_string()))?;
            let bytes = path.as_os_str().as_bytes();
            if !path.is_absolute() || bytes.len() > MAX_PATH || bytes.contains(&0) {
                return Err(wrong("its path is none".to_owned()));
            }
        }
        Ok(())
    }

    /// The piece lists by their hashes.
    pub(super) fn piece_lists(&self) -> BTreeMap<[u8; 32], &[u8]> {
        self.piece_lists.iter().map(|list| (shoal_common::Blake3::of(&list.0).0, &*list.0)).collect()
    }

    /// The listings of folders by their hashes.
    pub(super) fn listings(&self) -> Listings {
        let all = self.listings.iter().flatten();
        all.map(|listing| (shoal_common::Blake3::of(&listing.0), listing.0.clone())).collect()
    }

    /// The manifests of all shares and downloads.
    pub(super) fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        let shares = self.shares.iter().map(|share| &share.manifest);
        shares.chain(self.downloads.iter().map(|download| &download.manifest))
    }

    /// The rows of the database, which are taken out.
    pub(super) fn rows(&mut self) -> Whole {
        let lists = std::mem::take(&mut self.piece_lists).into_iter();
        let settings = std::mem::take(&mut self.settings);
        Whole {
            shares: std::mem::take(&mut self.shares).into_iter().map(Share::record).collect(),
            downloads: std::mem::take(&mut self.downloads).into_iter().map(Download::record).collect(),
            piece_lists: lists.map(|list| (shoal_common::Blake3::of(&list.0).0, list.0)).collect(),
            // Another version may have put more in.
            settings: settings.into_iter().filter(|(name, _)| super::is_carried(name)).collect(),
        }
    }
}

/// What a share and a download are of, alike.
macro_rules! of_a_file {
    ($form:ty) => {
        impl $form {
            pub(super) fn key(&self) -> FileKey {
                FileKey { group: self.group, file: self.file }
            }

            pub(super) fn name(&self) -> FileRef {
                FileRef { group: self.group_name.clone(), file: self.manifest.name.clone() }
            }
        }
    };
}

of_a_file!(Share);
of_a_file!(Download);

impl Share {
    fn of(record: ShareRecord) -> Self {
        let ShareRecord { user, key, group, manifest, path, identity } = record;
        let known = KnownFile::of(&identity);
        Self { user, group: key.group, file: key.file, group_name: group, manifest, path, known }
    }

    fn record(self) -> ShareRecord {
        let (key, identity) = (self.key(), self.identity());
        let Self { user, group_name: group, manifest, path, .. } = self;
        ShareRecord { user, key, group, manifest, path, identity }
    }

    pub(super) fn identity(&self) -> FileIdentity {
        self.known.identity()
    }

    /// It is there now, as that file.
    pub(super) fn moved(&mut self, path: PathBuf, identity: &FileIdentity) {
        (self.path, self.known) = (path, KnownFile::of(identity));
    }
}

impl KnownFile {
    fn of(identity: &FileIdentity) -> Self {
        Self {
            size: identity.size,
            modified: time_column(identity.modified),
            changed: identity.changed.map(time_column),
            inode: identity.inode,
            device: identity.device,
        }
    }

    fn identity(self) -> FileIdentity {
        FileIdentity {
            size: self.size,
            modified: time(self.modified),
            changed: self.changed.map(time),
            device: self.device,
            inode: self.inode,
        }
    }
}

impl Download {
    fn of(record: DownloadRecord) -> Self {
        let DownloadRecord { rank, limit, ref take, .. } = record;
        let folder_options = serde_json::to_string(&take.options).ok().filter(|_| !take.options.is_plain());
        let DownloadRecord { user, key, group, manifest, path, share, state, verified, .. } = record;
        let (state, reason) = match state {
            DownloadState::Running => (State::Running, None),
            DownloadState::Paused => (State::Paused, None),
            DownloadState::Complete => (State::Complete, None),
            DownloadState::Failed(reason) => (State::Failed, Some(reason)),
        };
        let (file, group, group_name) = (key.file, key.group, group);
        let (priority, position) = (Some(rank.priority.name().to_owned()), Some(rank.position));
        Self {
            user,
            group,
            file,
            group_name,
            manifest,
            path,
            share,
            state,
            reason,
            verified,
            priority,
            position,
            limit,
            folder_options,
        }
    }

    fn record(self) -> DownloadRecord {
        let key = self.key();
        let Self { user, group_name, manifest, path, share, state, reason, verified, limit, .. } = self;
        let known = Priority::ALL.into_iter().find(|one| self.priority.as_deref() == Some(one.name()));
        let rank = Rank { priority: known.unwrap_or_default(), position: self.position.unwrap_or_default() };
        let state = match state {
            State::Running => DownloadState::Running,
            State::Paused => DownloadState::Paused,
            State::Complete => DownloadState::Complete,
            State::Failed => DownloadState::Failed(text::error_line(&reason.unwrap_or_default())),
        };
        // What lies on this machine is not replaced because another one allowed that.
        let overwrite = false;
        let options =
            self.folder_options.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        // What it comes to is found out when it goes on.
        let take = Take { options, part: None };
        DownloadRecord {
            user,
            key,
            group: group_name,
            manifest,
            path,
            overwrite,
            share,
            state,
            verified,
            rank,
            limit,
            take,
        }
    }
}

/// A path as bytes.
mod path_bytes {
    use minicbor::encode::Write;
    use minicbor::{Decoder, Encoder};

    use super::{OsStr, OsStrExt, Path, PathBuf};

    pub(super) fn encode<C, W: Write>(
        path: &Path,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(path.as_os_str().as_bytes())?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<PathBuf, minicbor::decode::Error> {
        Ok(OsStr::from_bytes(d.bytes()?).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shoal_common::{FileDigest, FileName, Layout, Sha1};

    fn sample() -> Content {
        let digest = FileDigest { sha1: Sha1::of(b"x"), blake3: shoal_common::Blake3::of(b"x") };
        let (name, layout) = (FileName::create("a.bin").unwrap(), Layout::for_size(100).unwrap());
        let (manifest, list) = Manifest::new(name, layout, &[Sha1([1; 20])], digest, vec![]);
        let key = FileKey { group: Gid([1; 16]), file: Fid([2; 16]) };
        let (user, group) = (Uid([3; 16]), GroupName::refer("films").unwrap());
        let identity = FileIdentity {
            size: 100,
            modified: time(5),
            changed: Some(time(-6)),
            device: 7,
            inode: u64::MAX,
        };
        let path = PathBuf::from("/old/a.bin");
        let download = |state, overwrite| DownloadRecord {
            user,
            key,
            group: group.clone(),
            manifest: manifest.clone(),
            path: path.clone(),
            overwrite,
            share: true,
            state,
            verified: 9,
            rank: Rank { priority: Priority::High, position: 3 },
            limit: Some(1_000),
            take: Take::default(),
        };
        let whole = Whole {
            shares: vec![ShareRecord {
                user,
                key,
                group: group.clone(),
                manifest: manifest.clone(),
                path: path.clone(),
                identity,
            }],
            downloads: vec![
                download(DownloadState::Failed("no room".to_owned()), true),
                download(DownloadState::Running, false),
            ],
            piece_lists: [(manifest.piece_list.0, list)].into(),
            settings: vec![("limit_up".to_owned(), "5".to_owned())],
        };
        let mut content = Content::new(
            7,
            b"key".to_vec(),
            "127.0.0.1 9001".to_owned(),
            (Some(vec![1]), None),
            (whole, Listings::new()),
        );
        content.parts.push(Part { name: "up.json".to_owned(), bytes: b"{}".to_vec() });
        content
    }

    #[test]
    fn what_was_written_reads_back_and_allows_nothing_to_be_replaced() {
        let (mut content, bytes) = (sample(), sample().bytes());
        let mut read = Content::read(&bytes).unwrap();
        read.check().unwrap();
        assert_eq!((&read.identity, &read.known, &read.kept), (&content.identity, &content.known, &None));
        assert_eq!((read.made, read.trackers.as_str(), read.parts.len()), (7, "127.0.0.1 9001", 1));
        let (expected, mut rows) = (content.rows(), read.rows());
        assert_eq!(rows, expected);
        assert!(rows.downloads.iter_mut().all(|download| !download.overwrite));
        for cut in 0..bytes.len() {
            assert!(Content::read(&bytes[..cut]).is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn golden_bytes() {
        let digest = shoal_common::Blake3::of(&sample().bytes());
        assert_eq!(digest.to_string(), "4433d532f805a7f71fcfd1ecb11aa73ae405b39e55abc26682d7cbdd8bf1bb11");
    }

    #[test]
    fn what_no_client_wrote_is_refused() {
        let refused = |change: &dyn Fn(&mut Content)| {
            let mut content = sample();
            change(&mut content);
            content.check().unwrap_err()
        };
        for path in ["relative", "", "/a\0b", &format!("/{}", "x".repeat(MAX_PATH))] {
            assert!(refused(&|content| content.shares[0].path = path.into()).contains("path"), "{path:.20}");
            assert!(
                refused(&|content| content.downloads[1].path = path.into()).contains("path"),
                "{path:.20}"
            );
        }
        assert!(refused(&|content| content.piece_lists.clear()).contains("no piece list"));
        refused(&|content| content.piece_lists[0].0.push(1));
        refused(&|content| content.shares[0].manifest.size = u64::MAX);
        refused(&|content| content.downloads[0].manifest.piece_length = 3);
        // Settings that hold elsewhere, or run something, do not come along.
        let mut content = sample();
        for name in ["download_folder", "on_complete", "anything"] {
            content.settings.push((name.to_owned(), "/x".to_owned()));
        }
        assert_eq!(content.rows().settings, [("limit_up".to_owned(), "5".to_owned())]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), at in 0_usize..400) {
            let _ = Content::read(&bytes).map(|content| content.check());
            let whole = sample().bytes();
            let at = at % whole.len();
            bytes.splice(..0, whole[..at].iter().copied());
            let _ = Content::read(&bytes).map(|mut content| (content.check(), content.rows()));
        }
    }
}
