//! No key and nonce ever seal two contents, whatever happens to a file while it is stored.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use shoal_common::Password;
use shoal_common::{TrackerInfo, UserName};
use shoal_dfs::client::{Client, Progress, Step, StoreError};
use shoal_dfs::conf::Conf;
use shoal_dfs::seal::observe;
use shoal_tests::Store;
use tokio::sync::watch;

/// Bytes of each content: six chunks and a bit.
const SIZE: usize = 25_000_000;

/// Writes another content of the same length, and keeps the time of change as it was.
fn write(path: &Path, content: u8, time: SystemTime) {
    std::fs::write(path, vec![content; SIZE]).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// One PUT: `change` happens once the file was hashed, if it is `at` that step, or when the first part of it was stored. The put
/// is dropped then if `cut`. Says whether the change was made, because a put can end before it, and how the put ended.
async fn put(
    client: &Client,
    path: &Path,
    (at, change): (Step, impl Fn() + Send + Sync + 'static),
    cut: bool,
) -> (bool, Option<Result<(), StoreError>>) {
    let changed = AtomicBool::new(false);
    let report = watch::Sender::new(Progress::default());
    let mut watched = report.subscribe();
    let reached = |progress: &Progress| match at {
        Step::Hashing => {
            progress.step != Step::Hashing || progress.done == progress.total && progress.total > 0
        }
        _ => progress.step == Step::Storing && progress.done > 0,
    };
    let changes = async {
        watched.wait_for(reached).await.unwrap();
        change();
        changed.store(true, Ordering::Relaxed);
        watched
            .wait_for(|progress| cut && progress.step == Step::Storing && progress.done > 0)
            .await
            .unwrap();
    };
    let ended = tokio::select! {
        // The change first: the put goes on only after it.
        biased;
        () = changes => None,
        done = client.put(path, Some(2), &report) => Some(done.map(drop)),
    };
    (changed.load(Ordering::Relaxed), ended)
}

#[test]
fn no_key_and_nonce_seal_two_contents_whatever_happens_to_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 2);
    let conf = std::fs::read_to_string(dir.path().join("dfs.conf")).unwrap();
    let conf = Conf::parse(&conf, dir.path()).unwrap();
    let trackers = std::fs::read_to_string(store.trackers.info()).unwrap();
    let trackers = TrackerInfo::parse(&trackers).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::start(&conf, trackers, dir.path().join("state")).await.unwrap();
        client.ping().await.unwrap();
        client.login(UserName::refer("ann").unwrap(), Password::new("secret".to_owned())).await.unwrap();
        let path = dir.path().join("f");
        let time = SystemTime::now();
        let then = |content: u8| {
            let path = path.clone();
            move || write(&path, content, time)
        };
        // What was hashed is not what is read again: it is not stored, and said so.
        for at in [Step::Hashing, Step::Storing] {
            let ended = loop {
                write(&path, 1, time);
                match put(&client, &path, (at, then(2)), false).await {
                    (true, ended) => break ended,
                    (false, ended) => assert!(matches!(ended, Some(Ok(()))), "{ended:?}"),
                }
            };
            assert!(matches!(ended, Some(Err(StoreError::Changed(_)))), "{ended:?}");
        }
        // The same, but cut off before that is noticed; then the first content is back, and the put goes on.
        for _ in 0..2 {
            write(&path, 1, time);
            put(&client, &path, (Step::Storing, then(2)), true).await;
        }
        write(&path, 1, time);
        let (_, ended) = put(&client, &path, (Step::Hashing, || {}), false).await;
        assert!(matches!(ended, Some(Ok(()))), "{ended:?}");
        // Any order of contents, changes and cuts.
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..16 {
            let (first, second) = (random.u8(3..6), random.u8(3..6));
            write(&path, first, time);
            let at = if random.u8(..4) == 0 { Step::Hashing } else { Step::Storing };
            let (changed, ended) = put(&client, &path, (at, then(second)), random.bool()).await;
            // Also a file that was written again as it was has changed, for all that its times tell.
            let stored = matches!(ended, Some(Ok(())));
            assert!(!stored || !changed || first == second, "{ended:?}");
        }
        client.shutdown().await;
    });
    let mut contents = HashMap::new();
    let all = observe::all();
    assert!(all.len() > 12, "only {} chunks were sealed", all.len());
    for (key, nonce, content) in all {
        let first = *contents.entry((key, nonce)).or_insert(content);
        assert_eq!(first, content, "one key and nonce sealed two contents");
    }
}
