//! Trackers with a cluster key link only with those that hold it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use common::{Client, config, free_ports, in_sync, until};
use shoal_tracker::cluster_key::ClusterKey;
use shoal_tracker::tracker::{Tracker, TrackerConfig};

async fn start(dir: &Path, ports: &[u16], number: u8, key: Option<&str>) -> Tracker {
    let cluster_key = key.map(|key| {
        let path = dir.join(format!("key-{number}"));
        std::fs::write(&path, key).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        ClusterKey::read(&path).unwrap()
    });
    Tracker::start(TrackerConfig { cluster_key, ..config(dir, ports, number) }).await.unwrap()
}

async fn linked(tracker: &Tracker, with: u8) -> bool {
    tracker.status().await.unwrap().members.iter().any(|member| member.no.0 == with && member.connected)
}

const KEY: &str = "a key of the whole cluster";

#[tokio::test(flavor = "multi_thread")]
async fn only_trackers_with_the_key_are_told_anything() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(4));
    let one = start(dir.path(), &ports, 1, Some(KEY)).await;
    let two = start(dir.path(), &ports, 2, Some(KEY)).await;
    let keyless = start(dir.path(), &ports, 3, None).await;
    let other = start(dir.path(), &ports, 4, Some("another key of another cluster")).await;
    in_sync(&one, 1).await;
    in_sync(&two, 1).await;
    let mut client = Client::connect(ports[0]).await;
    client.enter("alice").await;
    // Long enough for several dials each way.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (tracker, stranger) in
        [(&one, 3), (&one, 4), (&two, 3), (&two, 4), (&keyless, 1), (&other, 2), (&other, 3)]
    {
        assert!(!linked(tracker, stranger).await, "{} with {stranger}", tracker.number());
    }
    assert_eq!(keyless.report().await.unwrap().users, 0);
    // Given the key, it is one of them.
    keyless.shutdown().await;
    let third = start(dir.path(), &ports, 3, Some(KEY)).await;
    until("she is known there", async || third.report().await.unwrap().users == 1).await;
    for tracker in [one, two, third, other] {
        tracker.shutdown().await;
    }
}
