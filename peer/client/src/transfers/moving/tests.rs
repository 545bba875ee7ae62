//! A crash at each point of a move.

use std::time::{Duration, SystemTime};

use shoal_common::{Blake3, Fid, FileDigest, FileName, Gid, GroupName, Layout, Manifest, Sha1, Uid};

use super::*;
use crate::priority::Rank;
use crate::store::ShareRecord;
use shoal_swarm::FileKey;

const USER: Uid = Uid([1; 16]);
const CONTENT: &[u8] = b"ten bytes.";

/// A finished download that is shared, and the paths of its move.
struct Crashed {
    store: Store,
    row: MoveRecord,
    copy: PathBuf,
    _dir: tempfile::TempDir,
}

impl Crashed {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let store = Store::open(&path("client.db")).unwrap();
        fs::write(path("source"), CONTENT).unwrap();
        let before = FileIdentity::of(&path("source")).unwrap();
        let digest = FileDigest { sha1: Sha1::of(CONTENT), blake3: Blake3::of(CONTENT) };
        let layout = Layout::for_size(CONTENT.len() as u64).unwrap();
        let name = FileName::create("a").unwrap();
        let (manifest, list) = Manifest::new(name, layout, &[digest.sha1], digest, vec![]);
        let key = FileKey { group: Gid([1; 16]), file: Fid([2; 16]) };
        let group = GroupName::create("g").unwrap();
        let download = DownloadRecord {
            verified: 10,
            user: USER,
            key,
            group: group.clone(),
            manifest: manifest.clone(),
            path: path("source"),
            overwrite: false,
            share: true,
            state: DownloadState::Complete,
            rank: Rank::default(),
            limit: None,
            take: crate::taking::Take::default(),
        };
        store.put_download(download, list.clone()).await.unwrap();
        let share = ShareRecord { user: USER, key, group, manifest, path: path("source"), identity: before };
        store.put_share(share, list).await.unwrap();
        let row =
            MoveRecord { source: path("source"), target: path("target"), copy: None, identity: Some(before) };
        Self { store, row, copy: path(".shoal-move-1"), _dir: dir }
    }

    /// A copy with the times of the file, known or not.
    fn copied(&mut self, known: bool) {
        fs::write(&self.copy, CONTENT).unwrap();
        let modified = fs::metadata(&self.row.source).unwrap().modified().unwrap();
        File::options().write(true).open(&self.copy).unwrap().set_modified(modified).unwrap();
        self.row.copy = Some(self.copy.clone());
        self.row.identity = known.then(|| FileIdentity::of(&self.copy).unwrap());
    }

    /// The client starts again. Gives which of source, target and copy are there, and whether the download and the share are at the
    /// target.
    async fn start(&self) -> ([bool; 3], [bool; 2]) {
        recover(&self.store).await.unwrap();
        let there = [&self.row.source, &self.row.target, &self.copy].map(|path| path.exists());
        let download = self.store.downloads(USER).await.unwrap().remove(0);
        let share = self.store.shares(USER).await.unwrap().remove(0);
        let places = [download.path == self.row.target, share.path == self.row.target];
        if places[1] && self.row.copy.is_some() {
            let now = FileIdentity::of(&self.row.target).unwrap();
            assert!(share.identity.is_still(&now), "what was compared is not read again");
        }
        (there, places)
    }

    async fn is_over(&self) -> bool {
        self.store.moves().await.unwrap().is_empty()
    }
}

#[tokio::test]
async fn before_anything_was_done_nothing_is() {
    let crashed = Crashed::new().await;
    crashed.store.put_move(crashed.row.clone()).await.unwrap();
    assert_eq!(crashed.start().await, ([true, false, false], [false, false]));
    assert!(crashed.is_over().await);
}

#[tokio::test]
async fn a_renamed_file_is_recorded_at_its_new_place() {
    let crashed = Crashed::new().await;
    crashed.store.put_move(crashed.row.clone()).await.unwrap();
    fs::rename(&crashed.row.source, &crashed.row.target).unwrap();
    assert_eq!(crashed.start().await, ([false, true, false], [true, true]));
    assert!(crashed.is_over().await);
}

#[tokio::test]
async fn a_copy_that_is_not_whole_or_not_compared_goes() {
    for known in [false, true] {
        let mut crashed = Crashed::new().await;
        crashed.copied(known);
        crashed.store.put_move(crashed.row.clone()).await.unwrap();
        assert_eq!(crashed.start().await, ([true, false, false], [false, false]));
        assert!(crashed.is_over().await);
    }
}

#[tokio::test]
async fn a_copy_that_is_in_place_takes_over_whether_that_was_recorded_or_not() {
    for recorded in [false, true] {
        let mut crashed = Crashed::new().await;
        crashed.copied(true);
        crashed.store.put_move(crashed.row.clone()).await.unwrap();
        fs::rename(&crashed.copy, &crashed.row.target).unwrap();
        if recorded {
            let of = |path: &Path| FileIdentity::of(path).unwrap();
            let (before, after) = (of(&crashed.row.source), of(&crashed.row.target));
            crashed.store.moved(&crashed.row.source, &crashed.row.target, before, after).await.unwrap();
        }
        assert_eq!(crashed.start().await, ([false, true, false], [true, true]));
        assert!(crashed.is_over().await);
    }
}

#[tokio::test]
async fn what_was_written_to_since_it_was_copied_stays() {
    let mut crashed = Crashed::new().await;
    crashed.copied(true);
    crashed.store.put_move(crashed.row.clone()).await.unwrap();
    fs::rename(&crashed.copy, &crashed.row.target).unwrap();
    fs::write(&crashed.row.source, b"new").unwrap();
    let later = SystemTime::now() + Duration::from_secs(5);
    File::options().write(true).open(&crashed.row.source).unwrap().set_modified(later).unwrap();
    recover(&crashed.store).await.unwrap();
    assert_eq!(fs::read(&crashed.row.source).unwrap(), b"new");
    assert_eq!(fs::read(&crashed.row.target).unwrap(), CONTENT);
}

#[tokio::test]
async fn another_file_at_the_target_is_not_taken_for_it() {
    let crashed = Crashed::new().await;
    crashed.store.put_move(crashed.row.clone()).await.unwrap();
    fs::write(&crashed.row.target, b"another...").unwrap();
    assert_eq!(crashed.start().await, ([true, true, false], [false, false]));
    assert_eq!(fs::read(&crashed.row.target).unwrap(), b"another...");
}

#[tokio::test]
async fn while_the_drives_are_away_the_move_is_kept() {
    let crashed = Crashed::new().await;
    crashed.store.put_move(crashed.row.clone()).await.unwrap();
    let away = crashed.row.source.with_file_name("away");
    fs::rename(&crashed.row.source, &away).unwrap();
    assert_eq!(crashed.start().await, ([false, false, false], [false, false]));
    assert!(!crashed.is_over().await);
    fs::rename(&away, &crashed.row.target).unwrap();
    assert_eq!(crashed.start().await, ([false, true, false], [true, true]));
    assert!(crashed.is_over().await);
}

#[tokio::test]
async fn while_the_copy_cannot_be_removed_the_move_is_kept() {
    let mut crashed = Crashed::new().await;
    crashed.copied(false);
    crashed.store.put_move(crashed.row.clone()).await.unwrap();
    fs::remove_file(&crashed.copy).unwrap();
    // A folder is not removed as a file is.
    fs::create_dir(&crashed.copy).unwrap();
    assert_eq!(crashed.start().await, ([true, false, true], [false, false]));
    assert!(!crashed.is_over().await, "nothing would remove the copy any more");
    fs::remove_dir(&crashed.copy).unwrap();
    fs::write(&crashed.copy, "ten").unwrap();
    assert_eq!(crashed.start().await, ([true, false, false], [false, false]));
    assert!(crashed.is_over().await);
}

#[test]
fn a_folder_is_refused_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("folder");
    fs::create_dir(&source).unwrap();
    assert!(matches!(look(&source, dir.path()), Err(MoveError::Folder(path)) if path == source));
}
