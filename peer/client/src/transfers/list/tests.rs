//! Names, runs and failures.

use super::*;
use crate::transfers::RowState;
use shoal_common::{Blake3, Fid, FileDigest, FileName, Gid, GroupName, Layout, Manifest, Sha1, Uid};

fn record(n: u8, name: &str, state: DownloadState) -> DownloadRecord {
    let digest = FileDigest { sha1: Sha1([n; 20]), blake3: Blake3([n; 32]) };
    let layout = Layout::for_size(10).unwrap();
    let manifest = Manifest::new(FileName::create(name).unwrap(), layout, &[Sha1([n; 20])], digest, vec![]).0;
    DownloadRecord {
        verified: 0,
        user: Uid([1; 16]),
        key: FileKey { group: Gid([1; 16]), file: Fid([n; 16]) },
        group: GroupName::create("g").unwrap(),
        manifest,
        path: format!("/tmp/{name}").into(),
        overwrite: false,
        share: true,
        state,
        rank: Rank { position: i64::from(n), ..Rank::default() },
        limit: None,
        take: crate::taking::Take::default(),
    }
}

fn nobody() -> Waiting {
    Waiting::new(Vec::new(), None)
}

#[test]
fn the_last_of_one_name_is_meant() {
    let mut list = List::default();
    let (old, new) = (record(1, "a", DownloadState::Complete), record(2, "a", DownloadState::Paused));
    list.replace(vec![old.clone(), record(3, "b", DownloadState::Running)]);
    list.put(new.clone());
    let file = file_ref(&old);
    assert_eq!(list.named(&file), Some(new.clone()));
    let taken = Some((new.path.clone(), file));
    assert_eq!(list.going_to(&new.path, FileKey { file: Fid([9; 16]), ..new.key }), taken);
    assert_eq!(list.going_to(&new.path, new.key), None);
    list.remove(new.key);
    assert_eq!(list.find(old.key), Some(old.clone()));
    assert!(!list.unshare(old.key), "it is complete");
}

#[test]
fn what_is_beside_a_download_is_no_destination_of_another() {
    let key = record(9, "z", DownloadState::Paused).key;
    let mut list = List::default();
    let taken = |list: &List, path: &str| list.going_to(Path::new(path), key).map(|(path, _)| path);
    list.put(record(1, "x", DownloadState::Paused));
    for beside in ["/tmp/x.part", "/tmp/x.pstate", "/tmp/x.pinfo"] {
        assert_eq!(taken(&list, beside), Some(beside.into()));
    }
    assert_eq!(taken(&list, "/tmp/x.parts"), None);
    for state in [DownloadState::Running, DownloadState::Complete] {
        list.replace(vec![record(2, "x.part", state)]);
        assert_eq!(taken(&list, "/tmp/x"), Some("/tmp/x.part".into()), "the other way round");
    }
    assert_eq!(taken(&list, "/tmp/x.part"), None, "it is complete");
}

#[test]
fn groups_go_by_the_names_that_they_have_now() {
    let mut list = List::default();
    let download = record(1, "a", DownloadState::Paused);
    list.put(download.clone());
    let now = GroupName::refer("g~0a1b2c").unwrap();
    list.rename(&[(Gid([99; 16]), GroupName::refer("other").unwrap()), (download.key.group, now.clone())]);
    let named = |group: &GroupName| {
        list.named(&FileRef { group: group.clone(), file: download.manifest.name.clone() })
    };
    assert_eq!(named(&download.group), None);
    assert_eq!(named(&now).map(|record| record.key), Some(download.key));
}

fn running(list: &mut List) -> Running {
    Running {
        number: list.next_run(),
        stop: watch::Sender::new(None),
        ended: CancellationToken::new(),
        now: Now::Begins,
        opened: watch::Sender::new(None),
        since: Instant::now(),
        had: 0,
        hurry: Arc::default(),
        limiter: Limiter::new(None),
        chosen: watch::Sender::new(shoal_engine::Chosen::all()),
    }
}

#[test]
fn a_run_that_is_not_listed_any_more_ends_no_other() {
    let (mut list, download) = (List::default(), record(1, "a", DownloadState::Running));
    list.replace(vec![download.clone()]);
    let old = running(&mut list);
    let (number, ended) = (old.number, old.ended.clone());
    list.began(download.key, old);
    // The session ends, and the next one lists the download again.
    list.replace(vec![]);
    list.replace(vec![download.clone()]);
    let lingering = list.lingering(download.key).unwrap();
    let new = running(&mut list);
    list.began(download.key, new);
    list.is_now(download.key, number, Now::Waits(Wait { lack: Lack::Space, words: "for the old".into() }));
    list.ended(download.key, Some(number), DownloadState::Failed("the old".into()));
    assert_eq!((list.waits(download.key, &nobody()), list.running_keys()), (None, vec![download.key]));
    assert_eq!(list.take_failures(), []);
    ended.cancel();
    assert!(lingering.is_cancelled(), "the new one waits for the end of the old");
}

#[test]
fn failures_are_told_once() {
    let mut list = List::default();
    let download = record(1, "a", DownloadState::Running);
    list.put(download.clone());
    list.ended(download.key, None, DownloadState::Failed("full".into()));
    assert_eq!(list.rows(&nobody(), |_| true)[0].state, RowState::Failed("full".into()));
    assert_eq!(list.take_failures(), [file_ref(&download)]);
    assert_eq!(list.take_failures(), []);
}
