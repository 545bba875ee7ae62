//! A tracker whose database was damaged while it was down starts all the same, sets the database aside and serves.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{Client, free_ports, start, until};
use rusqlite::Connection;
use shoal_tracker::tracker::Tracker;

/// Each table and index with its first page in the file, counted from 1.
fn roots(database: &Path) -> Vec<(String, u64)> {
    let db = Connection::open(database).unwrap();
    let mut query = db.prepare("SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 0").unwrap();
    let found = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    found.map(|root| root.unwrap()).collect()
}

fn page_bytes(database: &Path) -> u64 {
    Connection::open(database).unwrap().query_row("PRAGMA page_size", [], |row| row.get(0)).unwrap()
}

/// Carries a running tracker's log over into its database, as SQLite does by itself when the log has grown.
fn carry_over(database: &Path) {
    let db = Connection::open(database).unwrap();
    let blocked: bool = db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0)).unwrap();
    assert!(!blocked);
}

fn set_aside(data: &Path) -> usize {
    let names =
        std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.contains(".damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm"))
        .count()
}

/// A new user is served, after the one that met the damage was refused.
async fn check_serves(tracker: &Tracker, port: u16) {
    let mut attempt = 0;
    until("a user comes in", async || {
        attempt += 1;
        let name = format!("late{attempt}");
        let mut client = Client::connect(port).await;
        let came = client.try_enter(&name).await.is_ok();
        client.close().await;
        came
    })
    .await;
    assert!(tracker.status().await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_starts_and_serves_whatever_page_of_its_database_is_damaged() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(1));
    let tracker = start(dir.path(), &ports, 1).await;
    let mut client = Client::connect(ports[0]).await;
    client.enter("early").await;
    client.create_group("group").await;
    client.close().await;
    tracker.shutdown().await;
    let whole = dir.path().join("1");
    let page = page_bytes(&whole.join("tracker.db"));
    let roots = roots(&whole.join("tracker.db"));
    assert!(roots.len() > 8, "{roots:?}");
    let mut noticed = 0;
    for (name, root) in roots {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("1");
        std::fs::create_dir(&data).unwrap();
        for file in ["tracker.db", "tracker.start", "identity.key"] {
            std::fs::copy(whole.join(file), data.join(file)).unwrap();
        }
        let file = File::options().write(true).open(data.join("tracker.db")).unwrap();
        file.write_all_at(&vec![0xff; usize::try_from(page).unwrap()], (root - 1) * page).unwrap();
        println!("the first page of {name} is damaged");
        let tracker = start(dir.path(), &ports, 1).await;
        check_serves(&tracker, ports[0]).await;
        tracker.shutdown().await;
        noticed += set_aside(&data);
    }
    assert!(noticed > 4, "{noticed}");
}

/// What is left when a file was copied over the database of a tracker that ran on and was killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_starts_and_serves_though_its_log_belongs_to_another_database() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(1));
    let tracker = start(dir.path(), &ports, 1).await;
    let (running, killed) = (dir.path().join("1"), dir.path().join("killed"));
    std::fs::create_dir_all(killed.join("1")).unwrap();
    tracker.back_up(dir.path().join("backup.db")).await.unwrap();
    let mut client = Client::connect(ports[0]).await;
    client.enter("alice").await;
    for number in 0..300 {
        client.create_group(&format!("group{number}")).await;
        if number == 200 {
            // The log starts again, so that what it holds in the end is not all that came after the backup.
            carry_over(&running.join("tracker.db"));
        }
    }
    client.close().await;
    for file in ["tracker.db-wal", "tracker.start", "identity.key"] {
        std::fs::copy(running.join(file), killed.join("1").join(file)).unwrap();
    }
    std::fs::copy(dir.path().join("backup.db"), killed.join("1/tracker.db")).unwrap();
    tracker.shutdown().await;

    let tracker = start(&killed, &ports, 1).await;
    check_serves(&tracker, ports[0]).await;
    tracker.shutdown().await;
    assert_eq!(set_aside(&killed.join("1")), 1);
}
