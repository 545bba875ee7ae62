//! What operators use: the real binary's status and metrics, and a backup that is put back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use common::{Client, config, free_ports, in_sync, start, until};
use shoal_common::tracker_api::RefusalKind;
use shoal_tracker::status::Report;
use shoal_tracker::tracker::{Tracker, TrackerConfig};

fn ask(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tracker")).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

fn scrape(at: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_metrics_tell_how_the_cluster_is() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let metrics = Some("127.0.0.1:0".parse().unwrap());
    let one = TrackerConfig { metrics, ..config(dir.path(), &ports, 1) };
    let one = Tracker::start(one).await.unwrap();
    let two = start(dir.path(), &ports, 2).await;
    in_sync(&one, 1).await;
    let mut client = Client::connect(ports[1]).await;
    client.enter("alice").await;
    until("she is seen", async || one.online() == 1).await;
    in_sync(&one, 1).await;

    let at = format!("127.0.0.1:{}", ports[0]);
    let (done, text) = ask(&["--status", &at]);
    assert!(done && text.contains("tracker 2") && text.contains("up, in sync"), "{text}");
    assert!(text.contains("users 1, groups 0, files 0, peers online 1"), "{text}");
    let (done, json) = ask(&["--status", &at, "--json"]);
    let report: Report = serde_json::from_str(&json).unwrap();
    assert!(done && report.members[1].in_sync && report.members[0].own, "{json}");
    assert_eq!((report.tracker, report.users, report.peers_online, report.alarms), (1, 1, 1, 0));
    assert!(report.records > 3 && report.database_bytes > 0);

    let page = scrape(one.metrics_addr().unwrap(), "/metrics");
    for line in ["shoal_users 1", "shoal_tracker_in_sync{tracker=\"2\"} 1", "# EOF"] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
    // The same for people: counts and health, and no names.
    let page = scrape(one.metrics_addr().unwrap(), "/");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("text/html"), "{page}");
    assert!(page.contains("<h1>Figures</h1>") && !page.contains("alice"), "{page}");
    assert!(scrape(one.metrics_addr().unwrap(), "/other").starts_with("HTTP/1.1 404"));
    one.shutdown().await;
    two.shutdown().await;
    let (done, text) = ask(&["--status", &at]);
    assert!(!done && text.contains("nothing listens there"), "{text}");
    assert!(
        text.contains("is the tracker running, and is this the address in its tracker_info line?"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_put_back_brings_its_users_and_the_others_bring_the_rest() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let (one, two) = (start(dir.path(), &ports, 1).await, start(dir.path(), &ports, 2).await);
    in_sync(&one, 1).await;
    let mut client = Client::connect(ports[0]).await;
    client.create_user("early", "secret").await;
    let backup = dir.path().join("backup.db");
    one.back_up(backup.clone()).await.unwrap();
    one.allow_deletions().await.unwrap();
    client.create_user("late", "secret").await;
    in_sync(&one, 1).await;
    in_sync(&two, 1).await;
    one.shutdown().await;

    // As docs/operating.md says: the database goes, with its log, and the backup takes its place.
    for file in ["tracker.db", "tracker.db-wal", "tracker.db-shm"] {
        let _ = std::fs::remove_file(dir.path().join("1").join(file));
    }
    std::fs::copy(&backup, dir.path().join("1").join("tracker.db")).unwrap();
    let one = start(dir.path(), &ports, 1).await;
    in_sync(&one, 1).await;
    in_sync(&two, 1).await;
    let mut client = Client::connect(ports[0]).await;
    client.login("early", "secret").await.unwrap();
    let mut client = Client::connect(ports[0]).await;
    client.login("late", "secret").await.unwrap();
    let mut client = Client::connect(ports[0]).await;
    assert_eq!(client.login("never", "secret").await.unwrap_err().kind, RefusalKind::WrongPassword);
    // What an operator allowed before does not cover it.
    until("deletions rest", async || {
        let held = one.store_status().deletions_held.unwrap_or_default();
        held.contains("tracker 1 started without what it held before")
    })
    .await;
    one.shutdown().await;
    two.shutdown().await;
}
