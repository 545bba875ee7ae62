//! The encrypted store through real trackers, with hand-made storage nodes that carry orders out at once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod common;

use std::collections::HashSet;
use std::time::Duration;

use common::server::{QUICK, Server, chunk, nodes, secret, start, up_at};
use common::{Client, PATIENCE, free_ports, in_sync, until};
use shoal_common::storage::{ChunkId, ChunkRef, PointerKey, StoreManifest};
use shoal_common::tokens::{self, StorageTicket};
use shoal_common::tracker_api::storage::{
    NodeCall, OwnedChunk, StoreAnswer, StoreCall, StoreStatus, StoredEntry,
};
use shoal_common::tracker_api::{Answer, Call, REVISION, RefusalKind};
use shoal_common::{NodeName, PeerId, RequestId, Uid};
use shoal_net::Identity;
use shoal_tracker::storage::Rules;

fn manifest(servers: &[&Server], copies: u8, chunks: std::ops::Range<u8>) -> StoreManifest {
    StoreManifest {
        copies,
        servers: servers.iter().map(|server| server.peer()).collect(),
        shift: 1,
        chunks: chunks.map(|n| ChunkRef { id: ChunkId([n; 32]), sealed: 1 << 20 }).collect(),
    }
}

/// Stores the chunks at the servers where the rule wants them but for one that is away, and names the file.
async fn put(
    client: &mut Client,
    owner: Uid,
    servers: &[&Server],
    manifest: &StoreManifest,
    key: u8,
    away: usize,
) {
    for (number, found) in manifest.chunks.iter().zip(0..) {
        for server in manifest.placement(found).take(usize::from(manifest.copies)).filter(|&at| at != away) {
            servers[server].store(OwnedChunk { owner, chunk: number.id });
        }
    }
    name(client, manifest, key).await;
}

async fn name(client: &mut Client, manifest: &StoreManifest, key: u8) {
    let (key, sealed) = (PointerKey([key; 32]), b"sealed".to_vec());
    let call = StoreCall::Put { request: RequestId::random(), key, manifest: manifest.encode(), sealed };
    assert_eq!(client.ok(Call::Store(call)).await, Answer::Store(StoreAnswer::Ok));
}

async fn status(client: &mut Client) -> StoreStatus {
    match client.ok(Call::Store(StoreCall::Status)).await {
        Answer::Store(StoreAnswer::Status(status)) => *status,
        other => panic!("{other:?}"),
    }
}

async fn list(client: &mut Client) -> Vec<StoredEntry> {
    match client.ok(Call::Store(StoreCall::List { after: None })).await {
        Answer::Store(StoreAnswer::Files { files, more: false }) => files,
        other => panic!("{other:?}"),
    }
}

/// Waits until that many of the nodes are up at the client's tracker.
async fn up(client: &mut Client, count: usize) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while nodes(client).await.iter().filter(|node| node.up).count() != count {
        assert!(std::time::Instant::now() < deadline, "{:?}", nodes(client).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for a state of the store as the client's tracker sees it.
async fn when(what: &str, client: &mut Client, condition: impl Fn(&StoreStatus) -> bool) -> StoreStatus {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let status = status(client).await;
        if condition(&status) {
            return status;
        }
        assert!(std::time::Instant::now() < deadline, "{what}: {status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_server_held_is_copied_again_and_nothing_else() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let (one, two) = (start(dir.path(), &ports, 1, QUICK).await, start(dir.path(), &ports, 2, QUICK).await);
    in_sync(&one, 1).await;
    in_sync(&two, 1).await;
    let mut servers: Vec<Server> = (1..=4).map(|n| Server::start(&format!("DFS{n}"), &ports)).collect();
    let mut client = Client::connect(ports[1]).await;
    let owner = client.enter("alice").await.user;
    up(&mut client, 4).await;
    up_at(&one, 4).await;
    let all: Vec<&Server> = servers.iter().collect();
    let plan = manifest(&all, 2, 0..8);
    // Put while the third server is away: repair fills its part in.
    put(&mut client, owner, &all, &plan, 1, 2).await;
    when("filled in", &mut client, |status| status.missing_copies == 0).await;
    assert!(servers[2].held.lock().unwrap().len() == 4, "{:?}", servers[2].held);
    let health = list(&mut client).await[0].health;
    assert_eq!((health.wanted, health.copies, health.chunks, health.missing), (2, 2, 8, 0));

    let copied =
        |servers: &[Server]| servers.iter().map(|server| server.copied.lock().unwrap().len()).sum::<usize>();
    let before = copied(&servers);
    let lost = servers.remove(0);
    let (held, identity, port) = (lost.held.lock().unwrap().clone(), lost.identity.clone(), lost.port);
    drop(lost);
    up(&mut client, 3).await;
    let on_others = |status: &StoreStatus| {
        status.nodes.iter().filter(|node| node.up).map(|node| node.chunks).sum::<u64>()
    };
    when("copied again", &mut client, |status| status.missing_copies == 0 && on_others(status) == 16).await;
    assert_eq!(copied(&servers) - before, 4, "only what was lost moves");

    // It comes back: used again, nothing is copied; what is too much goes once an operator allowed it.
    servers.insert(0, Server::start_as("DFS1", &ports, identity, port, held));
    up(&mut client, 4).await;
    up_at(&one, 4).await;
    let status = when("too many copies", &mut client, |status| status.unnamed == 4).await;
    assert!(status.deletions_held.is_some(), "both trackers began blank");
    // What is allowed is what the tracker that gives the orders knows at that moment.
    until("seen by both", async || [&one, &two].iter().all(|node| node.store_status().unnamed == 4)).await;
    one.allow_deletions().await.unwrap();
    when("gone", &mut client, |status| status.nodes.iter().map(|node| node.chunks).sum::<u64>() == 16).await;
    assert_eq!(copied(&servers) - before, 4);
    for (chunk, number) in plan.chunks.iter().zip(0..) {
        let key = OwnedChunk { owner, chunk: chunk.id };
        for at in plan.placement(number).take(2) {
            assert!(servers[at].holds(key), "chunk {number} is where the rule wants it");
        }
    }
    one.shutdown().await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_nothing_names_go_by_the_rules_only() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let (one, two) = (start(dir.path(), &ports, 1, QUICK).await, start(dir.path(), &ports, 2, QUICK).await);
    in_sync(&one, 1).await;
    let servers: Vec<Server> = (1..=2).map(|n| Server::start(&format!("DFS{n}"), &ports)).collect();
    let (mut client, mut other) = (Client::connect(ports[0]).await, Client::connect(ports[1]).await);
    let owner = client.enter("alice").await.user;
    other.login("alice", "secret").await.unwrap();
    up(&mut client, 2).await;
    let all: Vec<&Server> = servers.iter().collect();
    put(&mut client, owner, &all, &manifest(&all, 2, 0..40), 1, 9).await;
    when("in place", &mut client, |status| status.missing_copies == 0 && status.unnamed == 0).await;
    one.allow_deletions().await.unwrap();

    // A tenth of what is there is deleted by itself, but not while a client of that user puts or gets, even elsewhere.
    let lease = RequestId::random();
    other.ok(Call::Store(StoreCall::Lease { id: lease, end: false })).await;
    servers[0].store(chunk(owner, 100));
    servers[0].store(chunk(Uid([9; 16]), 101));
    until("the stranger's chunk is gone", async || !servers[0].holds(chunk(Uid([9; 16]), 101))).await;
    assert!(servers[0].holds(chunk(owner, 100)));
    other.ok(Call::Store(StoreCall::Lease { id: lease, end: true })).await;
    until("the unnamed chunk is gone", async || !servers[0].holds(chunk(owner, 100))).await;

    // More than a tenth waits for the operator.
    (100..110).for_each(|n| servers[1].store(chunk(owner, n)));
    let of_it = |why: &String| why.contains("DFS2");
    when("held", &mut other, |status| status.deletions_held.as_ref().is_some_and(of_it)).await;
    when("held", &mut client, |status| status.deletions_held.as_ref().is_some_and(of_it)).await;

    // With a tracker away nothing is deleted, whatever was allowed.
    two.shutdown().await;
    when("alone", &mut client, |status| {
        status.deletions_held.as_ref().is_some_and(|why| why.contains("tracker 2"))
    })
    .await;
    one.allow_deletions().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!((100..110).all(|n| servers[1].holds(chunk(owner, n))));
    until("seen by the one that gives the orders", async || one.store_status().unnamed == 10).await;
    let two = start(dir.path(), &ports, 2, QUICK).await;
    until("deleted", async || (100..110).all(|n| !servers[1].holds(chunk(owner, n)))).await;
    assert!((0..40).all(|n| servers[0].holds(chunk(owner, n)) && servers[1].holds(chunk(owner, n))));
    one.shutdown().await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_under_a_new_key_takes_its_place() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(1));
    let rules = Rules { repair_after_ms: 3_600_000, ..QUICK };
    let one = start(dir.path(), &ports, 1, rules).await;
    let mut servers: Vec<Server> = (1..=3).map(|n| Server::start(&format!("DFS{n}"), &ports)).collect();
    let mut client = Client::connect(ports[0]).await;
    let owner = client.enter("alice").await.user;
    up(&mut client, 3).await;
    let all: Vec<&Server> = servers.iter().collect();
    put(&mut client, owner, &all, &manifest(&all, 2, 0..6), 1, 9).await;
    when("in place", &mut client, |status| status.missing_copies == 0).await;
    let old = servers.remove(1);
    let (port, old_peer) = (old.port, old.peer());
    drop(old);
    up(&mut client, 2).await;
    let new = Server::start_as("DFS2", &ports, Identity::generate(), port, HashSet::new());
    up(&mut client, 3).await;
    let entry = nodes(&mut client).await.into_iter().find(|node| node.peer == old_peer).unwrap();
    assert_eq!(entry.successor, Some(new.peer()));
    until("the successor has its part", async || new.held.lock().unwrap().len() == 4).await;
    when("in place again", &mut client, |status| status.missing_copies == 0).await;
    one.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_files_are_their_owners_alone() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let (one, two) = (start(dir.path(), &ports, 1, QUICK).await, start(dir.path(), &ports, 2, QUICK).await);
    in_sync(&one, 1).await;
    let servers: Vec<Server> = (1..=2).map(|n| Server::start(&format!("DFS{n}"), &ports)).collect();
    let (mut alice, mut bob) = (Client::connect(ports[0]).await, Client::connect(ports[1]).await);
    assert_eq!(alice.refused(Call::Store(StoreCall::Ticket)).await.kind, RefusalKind::NotLoggedIn);
    let session = alice.enter("alice").await;
    bob.enter("bob").await;
    up(&mut alice, 2).await;
    let all: Vec<&Server> = servers.iter().collect();
    let plan = manifest(&all, 2, 0..4);
    put(&mut alice, session.user, &all, &plan, 1, 9).await;

    let get = |key: u8| Call::Store(StoreCall::Get { key: PointerKey([key; 32]) });
    assert_eq!(bob.refused(get(1)).await.kind, RefusalKind::NotFound);
    assert_eq!(list(&mut bob).await, []);
    let Answer::Store(StoreAnswer::File(file)) = alice.ok(get(1)).await else { panic!("no file") };
    assert_eq!(StoreManifest::read(&file.manifest).unwrap(), plan);
    assert_eq!(file.sealed, b"sealed");

    // A stranger's manifest that names Alice's chunks has none of them copied anywhere.
    name(&mut bob, &plan, 1).await;
    assert_eq!(list(&mut bob).await[0].health.missing, 4);

    let Answer::Store(StoreAnswer::Ticket { ticket, .. }) = alice.ok(Call::Store(StoreCall::Ticket)).await
    else {
        panic!("no ticket")
    };
    let ticket: StorageTicket = tokens::open(&ticket, |key| session.ticket_keys.contains(key)).unwrap();
    assert_eq!((ticket.user, ticket.peer), (session.user, alice.identity.peer_id()));

    let unknown = StoreManifest { servers: vec![PeerId([7; 32]), PeerId([8; 32])], ..plan.clone() };
    let call = StoreCall::Put {
        request: RequestId::random(),
        key: PointerKey([2; 32]),
        manifest: unknown.encode(),
        sealed: vec![],
    };
    assert_eq!(alice.refused(Call::Store(call)).await.kind, RefusalKind::NotFound);
    let bad = StoreCall::Put {
        request: RequestId::random(),
        key: PointerKey([2; 32]),
        manifest: vec![0xff; 100],
        sealed: vec![],
    };
    assert_eq!(alice.refused(Call::Store(bad)).await.kind, RefusalKind::Malformed);

    let remove = StoreCall::Remove { request: RequestId::random(), key: PointerKey([1; 32]) };
    let removed = alice.ok(Call::Store(remove.clone())).await;
    assert_eq!(removed, Answer::Store(StoreAnswer::Removed { existed: true, leased: false }));
    assert_eq!(
        alice.ok(Call::Store(remove)).await,
        Answer::Store(StoreAnswer::Removed { existed: false, leased: false })
    );
    assert_eq!(list(&mut alice).await, []);
    assert_eq!(list(&mut bob).await.len(), 1);
    one.shutdown().await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_where_it_says_is_not_taken() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(1));
    let one = start(dir.path(), &ports, 1, QUICK).await;
    let server = Server::start("DFS1", &ports);
    let mut liar = Client::connect(ports[0]).await;
    up(&mut liar, 1).await;
    liar.ok(Call::Hello { listen: format!("127.0.0.1:{}", server.port), revision: Some(REVISION) }).await;
    let proof = Some(secret().prove(liar.identity.peer_id(), liar.tracker));
    let register = Call::Node(NodeCall::Register { name: NodeName::create("DFS1").unwrap(), proof });
    assert_eq!(liar.refused(register).await.kind, RefusalKind::NotAllowed);
    let report = Call::Node(NodeCall::Report(Box::default()));
    assert_eq!(liar.refused(report).await.kind, RefusalKind::NotLoggedIn);
    assert_eq!(nodes(&mut liar).await.len(), 1);
    one.shutdown().await;
}

/// Registers a node that says it is there; gives the answer, or the refusal's text.
async fn register_at(client: &mut Client, listen: &str) -> Result<Answer, String> {
    client.ok(Call::Hello { listen: listen.into(), revision: Some(REVISION) }).await;
    let proof = Some(secret().prove(client.identity.peer_id(), client.tracker));
    let register = Call::Node(NodeCall::Register { name: NodeName::create("DFS9").unwrap(), proof });
    client.call(register).await.map_err(|refusal| refusal.text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_node_learns_nothing_of_what_is_at_an_address() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(1));
    let one = start(dir.path(), &ports, 1, QUICK).await;
    let mut liar = Client::connect(ports[0]).await;
    // Something that speaks TLS under another key, something that hangs up, and nothing at all.
    let other = Server::start("DFS1", &ports);
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = deaf.local_addr().unwrap().port();
    let hangs_up = tokio::spawn(async move {
        while let Ok((tcp, _)) = deaf.accept().await {
            drop(tcp)
        }
    });
    let closed = free_ports(1)[0];
    let mut texts = Vec::new();
    for port in [other.port, open, closed] {
        let text = register_at(&mut liar, &format!("127.0.0.1:{port}")).await.unwrap_err();
        texts.push(text.replace(&format!(":{port},"), ":PORT,"));
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    hangs_up.abort();
    // Its budget for this ends.
    let mut waits = false;
    for _ in 0..300 {
        waits |=
            register_at(&mut liar, &format!("127.0.0.1:{closed}")).await.unwrap_err().contains("too many");
    }
    assert!(waits);
    one.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_a_node_does_not_come_from_is_not_dialled_and_takes_no_place() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(1));
    let one = start(dir.path(), &ports, 1, QUICK).await;
    let mut first = Client::connect(ports[0]).await;
    // An address of documentation (RFC 5737): to dial it would take until a timeout, or fail.
    let begun = std::time::Instant::now();
    register_at(&mut first, "192.0.2.1:7001").await.unwrap();
    let mut second = Client::connect(ports[0]).await;
    let refused = register_at(&mut second, "192.0.2.1:7001").await.unwrap_err();
    assert!(refused.contains("is not reached at 192.0.2.1:7001"), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(nodes(&mut first).await.len(), 1);
    one.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tracker_says_by_itself_what_may_be_deleted() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let (one, two) = (start(dir.path(), &ports, 1, QUICK).await, start(dir.path(), &ports, 2, QUICK).await);
    in_sync(&one, 1).await;
    // A server for each tracker alone: it hears of no other's orders.
    let garbage: HashSet<OwnedChunk> = [chunk(Uid([9; 16]), 1)].into();
    let servers: Vec<Server> = [(1, &ports[..1]), (2, &ports[1..])]
        .into_iter()
        .map(|(n, of)| Server::start_as(&format!("DFS{n}"), of, Identity::generate(), 0, garbage.clone()))
        .collect();
    let seen = async || [&one, &two].iter().all(|tracker| tracker.store_status().unnamed == 1);
    until("both see the garbage", seen).await;
    // All of a node's chunks are more than a tenth: nothing goes before an operator speaks.
    assert!(servers.iter().all(|server| server.held.lock().unwrap().len() == 1));
    one.allow_deletions().await.unwrap();
    until("both order it away", async || servers.iter().all(|server| server.held.lock().unwrap().is_empty()))
        .await;
    one.shutdown().await;
    two.shutdown().await;
}
