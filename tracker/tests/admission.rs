//! Which storage nodes belong to a cluster: those that know its secret, and those that an operator admits.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod common;

use common::server::{QUICK, Server, chunk, nodes, start, start_with, up_at};
use common::{Client, free_ports, in_sync, until};
use shoal_common::join::NodeSecret;
use shoal_common::tracker_api::storage::{NodeCall, NodeReport};
use shoal_common::tracker_api::{Call, REVISION, RefusalKind};
use shoal_common::{NodeName, Uid};
use shoal_net::Identity;
use shoal_net::bulk::{BulkLimits, Listener};
use shoal_tracker::storage::Admitted;
use shoal_tracker::tracker::Tracker;
use tokio::net::{TcpListener, TcpStream};

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_waits_until_an_operator_admits_it_and_stays_admitted_everywhere() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let one = start_with(dir.path(), &ports, 1, QUICK, None).await;
    let two = start_with(dir.path(), &ports, 2, QUICK, None).await;
    in_sync(&one, 1).await;
    let server = Server::start("DFS1", &ports);
    let waits =
        async |tracker: &Tracker| tracker.storage().applicants().iter().any(|one| one.peer == server.peer());
    until("it waits at both", async || waits(&one).await && waits(&two).await).await;
    let mut client = Client::connect(ports[1]).await;
    assert_eq!(nodes(&mut client).await, [], "it is not listed");
    assert!(one.storage().admit("DFS9").await.unwrap_err().to_string().contains("no node DFS9 waits"));
    let Admitted::Now(admitted) = one.storage().admit("dfs1").await.unwrap() else { panic!("it waits") };
    assert_eq!(admitted.peer, server.peer());
    up_at(&one, 1).await;
    up_at(&two, 1).await;
    until("none waits", async || !waits(&one).await && !waits(&two).await).await;
    // The tracker that is started again knows it, without any secret.
    one.shutdown().await;
    let one = start_with(dir.path(), &ports, 1, QUICK, None).await;
    up_at(&one, 1).await;
    // Taken out at the other tracker, it is out here as well, and waits again.
    two.storage().expel(&server.peer().to_string()).await.unwrap();
    up_at(&one, 0).await;
    until("it waits again", async || waits(&one).await && waits(&two).await).await;
    assert_eq!(nodes(&mut client).await, []);
    one.shutdown().await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expelled_node_that_knows_the_secret_waits_until_it_is_admitted() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let one = start(dir.path(), &ports, 1, QUICK).await;
    let two = start(dir.path(), &ports, 2, QUICK).await;
    in_sync(&one, 1).await;
    let (server, other) = (Server::start("DFS1", &ports), Server::start("DFS2", &ports));
    up_at(&one, 2).await;
    up_at(&two, 2).await;
    one.storage().expel("DFS1").await.unwrap();
    let waits =
        async |tracker: &Tracker| tracker.storage().applicants().iter().any(|one| one.peer == server.peer());
    until("it waits at both", async || waits(&one).await && waits(&two).await).await;
    up_at(&one, 1).await;
    up_at(&two, 1).await;
    // Also at a tracker that is started again.
    two.shutdown().await;
    let two = start(dir.path(), &ports, 2, QUICK).await;
    until("it waits again", async || waits(&two).await).await;
    up_at(&two, 1).await;
    assert_eq!(two.store_status().nodes[0].peer, other.peer());
    one.storage().admit("DFS1").await.unwrap();
    up_at(&one, 2).await;
    up_at(&two, 2).await;
    one.shutdown().await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_crowd_of_strangers_little_is_remembered_and_nobody_is_kept_out() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(1));
    let one = start(dir.path(), &ports, 1, QUICK).await;
    let mut strangers = Vec::new();
    for number in 0..40 {
        let mut stranger = Client::connect(ports[0]).await;
        stranger
            .ok(Call::Hello { listen: format!("0.0.0.0:{}", 1_000 + number), revision: Some(REVISION) })
            .await;
        let wrong = NodeSecret::new(b"another secret of some length").unwrap();
        let proof = (number % 2 == 0).then(|| wrong.prove(stranger.identity.peer_id(), stranger.tracker));
        let register = Call::Node(NodeCall::Register { name: NodeName::create("DFS1").unwrap(), proof });
        let refused = stranger.refused(register).await;
        assert_eq!(refused.kind, RefusalKind::NotAllowed);
        assert!(refused.text.contains("admit"), "{}", refused.text);
        let report = NodeReport { reset: true, held: vec![chunk(Uid([1; 16]), 1)], ..NodeReport::default() };
        let report = Call::Node(NodeCall::Report(Box::new(report)));
        assert_eq!(stranger.refused(report).await.kind, RefusalKind::NotLoggedIn);
        strangers.push(stranger);
    }
    assert_eq!(one.storage().applicants().len(), 16);
    assert!(
        one.storage()
            .admit("DFS1")
            .await
            .unwrap_err()
            .to_string()
            .contains("several nodes call themselves DFS1")
    );
    // The list holds strangers only: a name in it may be anybody's.
    assert!(one.storage().is_crowded());
    assert!(one.storage().admit("DFS9").await.unwrap_err().to_string().contains("admit KEY"));
    let server = Server::start("DFS1", &ports);
    up_at(&one, 1).await;
    assert_eq!(one.store_status().nodes[0].peer, server.peer());
    one.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_strangers_crowd_out_is_admitted_by_its_key() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(1));
    let one = start_with(dir.path(), &ports, 1, QUICK, None).await;
    let register = Call::Node(NodeCall::Register { name: NodeName::create("DFS1").unwrap(), proof: None });
    let mut strangers = Vec::new();
    for _ in 0..16 {
        let mut stranger = Client::connect(ports[0]).await;
        stranger.refused(register.clone()).await;
        strangers.push(stranger);
    }
    let server = Server::start("DFS1", &ports);
    until("it is turned away", async || one.storage().is_crowded()).await;
    assert!(one.storage().applicants().iter().all(|other| other.peer != server.peer()));
    let key = server.peer().to_string();
    assert_eq!(one.storage().admit(&key).await.unwrap(), Admitted::OnceItAsks(server.peer()));
    up_at(&one, 1).await;
    assert!(one.storage().admit(&key).await.unwrap_err().to_string().contains("admitted already"));
    // That it was waited for does not bring it back.
    one.storage().expel(&key).await.unwrap();
    let mut again = Client::connect_as(server.identity.clone(), ports[0]).await;
    assert_eq!(again.refused(register.clone()).await.kind, RefusalKind::NotAllowed);
    up_at(&one, 0).await;
    // And an operator can take that back in time.
    let other = Identity::generate();
    let key = other.peer_id().to_string();
    one.storage().admit(&key).await.unwrap();
    assert!(one.storage().expel(&key).await.unwrap_err().to_string().contains("there is no storage node"));
    let mut other = Client::connect_as(other, ports[0]).await;
    assert_eq!(other.refused(register).await.kind, RefusalKind::NotAllowed);
    one.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_expelled_while_it_registers_stays_out() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(1));
    let one = start_with(dir.path(), &ports, 1, QUICK, None).await;
    let identity = Identity::generate();
    let key = identity.peer_id().to_string();
    let mut listener =
        Listener::bind("127.0.0.1:0".parse().unwrap(), &identity, BulkLimits::default()).unwrap();
    let behind = listener.local_addr();
    let accepting = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    // The tracker's call back is held here for as long as the operator thinks.
    let held = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut node = Client::connect_as(identity, ports[0]).await;
    node.ok(Call::Hello { listen: held.local_addr().unwrap().to_string(), revision: Some(REVISION) }).await;
    let register = Call::Node(NodeCall::Register { name: NodeName::create("DFS1").unwrap(), proof: None });
    assert_eq!(node.refused(register.clone()).await.kind, RefusalKind::NotAllowed);
    one.storage().admit(&key).await.unwrap();
    let registering = tokio::spawn(async move { node.refused(register).await });
    let (mut from, _) = held.accept().await.unwrap();
    one.storage().expel(&key).await.unwrap();
    let mut to = TcpStream::connect(behind).await.unwrap();
    let relay = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
    let refusal = registering.await.unwrap();
    assert!(refusal.kind == RefusalKind::NotAllowed && refusal.text.contains("taken out"), "{refusal:?}");
    let mut client = Client::connect(ports[0]).await;
    assert_eq!(nodes(&mut client).await, []);
    relay.abort();
    accepting.abort();
    one.shutdown().await;
}
