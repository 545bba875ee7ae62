//! Storage nodes made by hand, which carry orders out at once, and the trackers of their tests.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shoal_common::join::NodeSecret;
use shoal_common::storage::ChunkId;
use shoal_common::tokens::{self, CopyOrder};
use shoal_common::tracker_api::storage::{
    NodeAnswer, NodeCall, NodeEntry, NodeReport, Order, OwnedChunk, StoreAnswer, StoreCall,
};
use shoal_common::tracker_api::{Answer, Call, REVISION};
use shoal_common::{NodeName, PeerId, Uid};
use shoal_net::Identity;
use shoal_net::bulk::{BulkLimits, Listener};
use shoal_tracker::storage::Rules;
use shoal_tracker::tracker::{Tracker, TrackerConfig};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use super::{Client, config, until};

pub const CAPACITY: u64 = 1 << 30;

/// A storage node: what it holds, and a task for each tracker that reports it and does what is ordered.
pub struct Server {
    pub identity: Identity,
    pub port: u16,
    pub held: Arc<Mutex<HashSet<OwnedChunk>>>,
    /// What it copied by order.
    pub copied: Arc<Mutex<Vec<OwnedChunk>>>,
    _running: DropGuard,
}

impl Server {
    pub fn start(name: &str, trackers: &[u16]) -> Self {
        Self::start_as(name, trackers, Identity::generate(), 0, HashSet::new())
    }

    pub fn start_as(
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

    pub fn peer(&self) -> PeerId {
        self.identity.peer_id()
    }

    pub fn holds(&self, key: OwnedChunk) -> bool {
        self.held.lock().unwrap().contains(&key)
    }

    pub fn store(&self, key: OwnedChunk) {
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
    client.ok(Call::Hello { listen: format!("0.0.0.0:{port}"), revision: Some(REVISION) }).await;
    let proof = Some(secret().prove(own, client.tracker));
    client.ok(Call::Node(NodeCall::Register { name, proof })).await;
    let mut reported: Option<HashSet<OwnedChunk>> = None;
    loop {
        let now = held.lock().unwrap().clone();
        let before = reported.take();
        let reset = before.is_none();
        let before = before.unwrap_or_default();
        let report = NodeReport {
            reset,
            held: now.difference(&before).copied().collect(),
            gone: before.difference(&now).copied().collect(),
            capacity: CAPACITY,
            free: CAPACITY / 2,
            ..NodeReport::default()
        };
        reported = Some(now);
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
pub fn secret() -> NodeSecret {
    NodeSecret::new(b"0123456789abcdef").unwrap()
}

pub async fn start(dir: &std::path::Path, ports: &[u16], number: u8, rules: Rules) -> Tracker {
    start_with(dir, ports, number, rules, Some(secret())).await
}

pub async fn start_with(
    dir: &std::path::Path,
    ports: &[u16],
    number: u8,
    rules: Rules,
    node_secret: Option<NodeSecret>,
) -> Tracker {
    Tracker::start(TrackerConfig { rules, node_secret, ..config(dir, ports, number) }).await.unwrap()
}

pub const QUICK: Rules = Rules { grace_ms: 300, repair_after_ms: 1_500 };

pub fn chunk(owner: Uid, number: u8) -> OwnedChunk {
    OwnedChunk { owner, chunk: ChunkId([number; 32]) }
}

pub async fn nodes(client: &mut Client) -> Vec<NodeEntry> {
    match client.ok(Call::Store(StoreCall::Nodes)).await {
        Answer::Store(StoreAnswer::Nodes(nodes)) => nodes,
        other => panic!("{other:?}"),
    }
}

/// Waits until a tracker itself knows of so many that are up.
pub async fn up_at(tracker: &Tracker, count: usize) {
    until("up there", async || tracker.store_status().nodes.iter().filter(|node| node.up).count() == count)
        .await;
}
