//! A peer that is not a tracker gets nothing on the trackers' protocol, and garbage disturbs no one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod common;

use std::time::Duration;

use common::{Client, free_ports, in_sync, start};
use shoal_common::tracker_api::{Answer, CLIENT_PROTOCOL, Call};
use shoal_net::{Control, ControlConfig, ControlLimits, Identity, Protocol};
use tokio::io::AsyncWriteExt;

async fn stranger(port: u16, protocol: &'static str) -> (Control, shoal_net::Channel) {
    let config = ControlConfig {
        identity: Identity::generate(),
        listen: None,
        protocols: vec![Protocol("/shoal/tracker/1")],
        limits: ControlLimits::default(),
    };
    let (control, _) = Control::start(config).await.unwrap();
    let tracker = control.dial("127.0.0.1", port, None).await.unwrap();
    let channel = control.open(tracker, Protocol(protocol)).await.unwrap();
    (control, channel)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_claims_to_be_a_tracker_gets_no_record() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let (one, two) = (start(dir.path(), &ports, 1).await, start(dir.path(), &ports, 2).await);
    in_sync(&one, 1).await;
    Client::connect(ports[0]).await.enter("alice").await;
    // {number: 2}, then a Hello-like frame, then garbage: as the other tracker would begin.
    for messages in
        [vec![vec![0xa1, 0, 2]], vec![vec![0xa1, 0, 2], vec![0, 0x82, 3, 0x80]], vec![vec![0xff; 1000]]]
    {
        let (control, mut channel) = stranger(ports[0], "/shoal/tracker/1").await;
        for message in &messages {
            // The tracker may have closed the channel already.
            let _ = channel.send(message).await;
        }
        let answer = tokio::time::timeout(Duration::from_secs(2), channel.recv()).await;
        assert!(!matches!(answer, Ok(Ok(Some(_)))), "{answer:?}");
        control.shutdown().await;
    }
    in_sync(&one, 1).await;
    one.shutdown().await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_its_own_connection_only() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(1));
    let one = start(dir.path(), &ports, 1).await;
    let mut alice = Client::connect(ports[0]).await;
    let mut sockets = Vec::new();
    for _ in 0..50 {
        let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", ports[0])).await.unwrap();
        socket.write_all(&[0x55; 2_000]).await.unwrap();
        sockets.push(socket);
    }
    for message in [vec![], vec![0xff; 10_000], vec![0xa2, 0, 1, 1, 0x82, 0x18, 99, 0x80]] {
        let (control, mut channel) = stranger(ports[0], CLIENT_PROTOCOL).await;
        let _ = channel.send(&message).await;
        let answer = tokio::time::timeout(Duration::from_secs(5), channel.recv()).await.unwrap();
        assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
        control.shutdown().await;
    }
    // A message over a stranger's limit ends the connection too.
    let (control, mut channel) = stranger(ports[0], CLIENT_PROTOCOL).await;
    let _ = channel.send(&vec![0; 100_000]).await;
    let answer = tokio::time::timeout(Duration::from_secs(5), channel.recv()).await.unwrap();
    assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
    control.shutdown().await;
    assert!(matches!(alice.ok(Call::ListGroups { after: None }).await, Answer::Groups { .. }));
    one.shutdown().await;
}
