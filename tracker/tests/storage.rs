//! The encrypted store through real trackers, with hand-made storage nodes that carry orders out at once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod common;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Client, PATIENCE, free_ports, in_sync, until};
use shoal_common::join::NodeSecret;
use shoal_common::storage::{ChunkId, ChunkRef, PointerKey, StoreManifest};
use shoal_common::tokens::{self, CopyOrder, StorageTicket};
use shoal_common::tracker_api::storage::{
    NodeAnswer, NodeCall, NodeEntry, NodeReport, Order, OwnedChunk, StoreAnswer, StoreCall, StoreStatus,
    StoredEntry,
};
use shoal_common::tracker_api::{Answer, Call, RefusalKind};
use shoal_common::{NodeName, PeerId, RequestId, Uid};
use shoal_net::Identity;
use shoal_net::bulk::{BulkLimits, Listener};
use shoal_tracker::node::{Node, NodeConfig};
use shoal_tracker::storage::Rules;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;
use tokio_util::task::AbortOnDropHandle;

const CAPACITY: u64 = 1 << 30;

/// A storage node: what it holds, and a task for each tracker that reports it and does what is ordered.
struct Server {
    identity: Identity,
    port: u16,
    held: Arc<Mutex<HashSet<OwnedChunk>>>,
    /// What it copied by order.
    copied: Arc<Mutex<Vec<OwnedChunk>>>,
    _running: DropGuard,
}

impl Server {
    fn start(name: &str, trackers: &[u16]) -> Self {
        Self::start_as(name, trackers, Identity::generate(), 0, HashSet::new())
    }

    fn start_as(
        name: &str,
        trackers: &[u16],
        identity: Identity,
        port: u16,
        held: HashSet<OwnedChunk>,
    ) -> Self {
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        let mut listener = Listener::bind(address, &identity, BulkLimits::default()).unwrap();
        let port = listener.local_addr().port();
        let running = CancellationToken::new();
        let (held, copied) = (Arc::new(Mutex::new(held)), Arc::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok(stream) = listener.accept().await {
                drop(stream)
            }
        });
        for &tracker in trackers {
            let (identity, name) = (identity.clone(), NodeName::create(name).unwrap());
            let (held, copied) = (Arc::clone(&held), Arc::clone(&copied));
            tasks.spawn(async move {
                loop {
                    // A tracker that goes away panics the hand-made client; the next try meets it again.
                    let (identity, name) = (identity.clone(), name.clone());
                    let (held, copied) = (Arc::clone(&held), Arc::clone(&copied));
                    let serving = tokio::spawn(serve(identity, name, port, tracker, held, copied));
                    let _ = AbortOnDropHandle::new(serving).await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
        let token = running.clone();
        tokio::spawn(async move {
            token.cancelled().await;
            tasks.shutdown().await;
        });
        Self { identity, port, held, copied, _running: running.drop_guard() }
    }

    fn peer(&self) -> PeerId {
        self.identity.peer_id()
    }

    fn holds(&self, key: OwnedChunk) -> bool {
        self.held.lock().unwrap().contains(&key)
    }

    fn store(&self, key: OwnedChunk) {
        self.held.lock().unwrap().insert(key);
    }
}

async fn serve(
    identity: Identity,
    name: NodeName,
    port: u16,
    tracker: u16,
    held: Arc<Mutex<HashSet<OwnedChunk>>>,
    copied: Arc<Mutex<Vec<OwnedChunk>>>,
) {
    let own = identity.peer_id();
    let mut client = Client::connect_as(identity, tracker).await;
    client.ok(Call::Hello { listen: format!("0.0.0.0:{port}") }).await;
    let proof = Some(secret().prove(own, client.tracker));
    client.ok(Call::Node(NodeCall::Register { name, proof })).await;
    let mut told: Option<HashSet<OwnedChunk>> = None;
    loop {
        let now = held.lock().unwrap().clone();
        let before = told.take();
        let anew = before.is_none();
        let before = before.unwrap_or_default();
        let report = NodeReport {
            anew,
            held: now.difference(&before).copied().collect(),
            gone: before.difference(&now).copied().collect(),
            capacity: CAPACITY,
            free: CAPACITY / 2,
            ..NodeReport::default()
        };
        told = Some(now);
        let answer = client.ok(Call::Node(NodeCall::Report(Box::new(report)))).await;
        let Answer::Node(NodeAnswer::Orders { orders, ticket_keys, .. }) = answer else {
            panic!("{answer:?}")
        };
        for order in orders {
            match order {
                Order::Copy { chunk, from, order, .. } => {
                    let order: CopyOrder = tokens::open(&order, |key| ticket_keys.contains(key)).unwrap();
                    assert_eq!((order.owner, order.chunk), (chunk.owner, chunk.chunk));
                    assert_eq!((order.from, order.to), (from, own));
                    if held.lock().unwrap().insert(chunk) {
                        copied.lock().unwrap().push(chunk);
                    }
                }
                Order::Delete { chunk, .. } => drop(held.lock().unwrap().remove(&chunk)),
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What admits the hand-made nodes.
fn secret() -> NodeSecret {
    NodeSecret::new(b"0123456789abcdef").unwrap()
}

async fn start(dir: &std::path::Path, ports: &[u16], number: u8, rules: Rules) -> Node {
    start_with(dir, ports, number, rules, Some(secret())).await
}

async fn start_with(
    dir: &std::path::Path,
    ports: &[u16],
    number: u8,
    rules: Rules,
    node_secret: Option<NodeSecret>,
) -> Node {
    let config = NodeConfig {
        info: common::info(ports),
        info_path: "tracker_info.txt".into(),
        number,
        dir: dir.join(number.to_string()),
        rules,
        metrics: None,
        cluster_key: None,
        node_secret,
    };
    Node::start(config).await.unwrap()
}

const QUICK: Rules = Rules { grace_ms: 300, repair_after_ms: 1_500 };

fn chunk(owner: Uid, number: u8) -> OwnedChunk {
    OwnedChunk { owner, chunk: ChunkId([number; 32]) }
}

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

async fn nodes(client: &mut Client) -> Vec<NodeEntry> {
    match client.ok(Call::Store(StoreCall::Nodes)).await {
        Answer::Store(StoreAnswer::Nodes(nodes)) => nodes,
        other => panic!("{other:?}"),
    }
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

/// Waits until a tracker itself knows of so many that are up.
async fn up_at(tracker: &Node, count: usize) {
    until("up there", async || tracker.store_status().nodes.iter().filter(|node| node.up).count() == count)
        .await;
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

    // A tenth of what is there goes by itself, but not while somebody of that user puts or gets, elsewhere even.
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
    assert_eq!(entry.heir, Some(new.peer()));
    until("the heir has its part", async || new.held.lock().unwrap().len() == 4).await;
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
    liar.ok(Call::Hello { listen: format!("127.0.0.1:{}", server.port) }).await;
    let proof = Some(secret().prove(liar.identity.peer_id(), liar.tracker));
    let register = Call::Node(NodeCall::Register { name: NodeName::create("DFS1").unwrap(), proof });
    assert_eq!(liar.refused(register).await.kind, RefusalKind::NotAllowed);
    let report = Call::Node(NodeCall::Report(Box::default()));
    assert_eq!(liar.refused(report).await.kind, RefusalKind::NotLoggedIn);
    assert_eq!(nodes(&mut liar).await.len(), 1);
    one.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_waits_until_an_operator_admits_it_and_stays_admitted_everywhere() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let one = start_with(dir.path(), &ports, 1, QUICK, None).await;
    let two = start_with(dir.path(), &ports, 2, QUICK, None).await;
    in_sync(&one, 1).await;
    let server = Server::start("DFS1", &ports);
    let waits = async |node: &Node| node.storage().applicants().iter().any(|one| one.peer == server.peer());
    until("it waits at both", async || waits(&one).await && waits(&two).await).await;
    let mut client = Client::connect(ports[1]).await;
    assert_eq!(nodes(&mut client).await, [], "nothing is told of it");
    assert!(one.storage().admit("DFS9").await.unwrap_err().contains("no node DFS9 waits"));
    let admitted = one.storage().admit("dfs1").await.unwrap();
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
async fn of_a_crowd_of_strangers_little_is_remembered_and_nobody_is_kept_out() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(1));
    let one = start(dir.path(), &ports, 1, QUICK).await;
    let mut strangers = Vec::new();
    for number in 0..40 {
        let mut stranger = Client::connect(ports[0]).await;
        stranger.ok(Call::Hello { listen: format!("0.0.0.0:{}", 1_000 + number) }).await;
        let wrong = NodeSecret::new(b"another secret of some length").unwrap();
        let proof = (number % 2 == 0).then(|| wrong.prove(stranger.identity.peer_id(), stranger.tracker));
        let register = Call::Node(NodeCall::Register { name: NodeName::create("DFS1").unwrap(), proof });
        let refused = stranger.refused(register).await;
        assert_eq!(refused.kind, RefusalKind::NotAllowed);
        assert!(refused.text.contains("admit"), "{}", refused.text);
        let report = NodeReport { anew: true, held: vec![chunk(Uid([1; 16]), 1)], ..NodeReport::default() };
        let report = Call::Node(NodeCall::Report(Box::new(report)));
        assert_eq!(stranger.refused(report).await.kind, RefusalKind::NotLoggedIn);
        strangers.push(stranger);
    }
    assert_eq!(one.storage().applicants().len(), 16);
    assert!(one.storage().admit("DFS1").await.unwrap_err().contains("several nodes call themselves DFS1"));
    let server = Server::start("DFS1", &ports);
    up_at(&one, 1).await;
    assert_eq!(one.store_status().nodes[0].peer, server.peer());
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
