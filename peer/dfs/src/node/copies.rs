//! Carries out the copies from other nodes that the trackers order. Orders are idempotent. An order that
//! is under way is not begun again. A failed one is reported, so that it is given again. Each tracker has slots of its own,
//! so that a tracker whose orders lead nowhere does not hold up another.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_common::PeerId;
use shoal_common::storage::MAX_SEALED_CHUNK;
use shoal_common::tracker_api::storage::{Order, OwnedChunk};
use shoal_net::Identity;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::counters::{Count, Counters};
use crate::chunks::{Change, Chunks};
use crate::connection::NodeConnection;

/// Copies at a time for each tracker: enough for the latency of a disk that syncs, and 32 MiB of memory.
const AT_ONCE: usize = 8;
/// Orders of one tracker that are under way or wait; more are forgotten, and given again.
const MAX_ORDERS: usize = 1_000;
/// How long one copy may take.
const COPY_WITHIN: Duration = Duration::from_secs(60);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Copies(Arc<Copier>);

#[derive(Debug)]
struct Copier {
    identity: Identity,
    chunks: Chunks,
    counters: Counters,
    /// By the tracker's number.
    under_way: Mutex<HashMap<u8, UnderWay>>,
    connections: tokio::sync::Mutex<HashMap<(PeerId, SocketAddr), NodeConnection>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The orders of one tracker.
#[derive(Debug)]
struct UnderWay {
    chunks: HashSet<OwnedChunk>,
    slots: Arc<Semaphore>,
}

impl Default for UnderWay {
    fn default() -> Self {
        Self { chunks: HashSet::new(), slots: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Copies {
    /// Nothing under way yet.
    #[must_use]
    pub(super) fn new(
        identity: Identity,
        chunks: Chunks,
        counters: Counters,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self(Arc::new(Copier {
            identity,
            chunks,
            counters,
            under_way: Mutex::default(),
            connections: tokio::sync::Mutex::default(),
            tasks,
            stop,
        }))
    }

    /// Begins to carry out an order of the tracker of that number, unless it is another kind of order.
    pub(super) fn begin(&self, tracker: u8, order: Order) {
        let Order::Copy { chunk, sealed, from, address, order } = order else { return };
        let slots = {
            let mut under_way = self.0.under_way();
            let of_tracker = under_way.entry(tracker).or_default();
            if of_tracker.chunks.len() >= MAX_ORDERS || !of_tracker.chunks.insert(chunk) {
                return;
            }
            of_tracker.slots.clone()
        };
        let copier = self.0.clone();
        self.0.tasks.spawn(async move {
            let carried = async {
                let _slot = slots.acquire().await.map_err(|_| "shutting down")?;
                copier.carry_out(chunk, sealed, (from, &address), order).await
            };
            let done = copier.stop.clone().run_until_cancelled_owned(carried).await;
            if let Some(of_tracker) = copier.under_way().get_mut(&tracker) {
                of_tracker.chunks.remove(&chunk);
            }
            if matches!(done, Some(Ok(()))) {
                copier.counters.add(Count::Copied, 1);
            }
            if let Some(Err(reason)) = done {
                copier.counters.add(Count::CopiesFailed, 1);
                tracing::warn!(tracker, owner = %chunk.owner, chunk = %chunk.chunk, reason, "a copy was not made");
                copier.chunks.report(Change::Failed(chunk));
            }
        });
    }
}

impl Copies {
    /// Copies that are under way or wait.
    pub(super) fn under_way(&self) -> usize {
        self.0.under_way().values().map(|of_tracker| of_tracker.chunks.len()).sum()
    }
}

impl Copier {
    async fn carry_out(
        &self,
        chunk: OwnedChunk,
        sealed: u32,
        from: (PeerId, &str),
        order: Vec<u8>,
    ) -> Result<(), String> {
        // What is here already is not written again, whatever comes from elsewhere; from the bin it needs no transfer.
        if self.chunks.keep(&[chunk]).await.map_err(|failure| failure.to_string())? == [true] {
            return Ok(());
        }
        let copy = tokio::time::timeout(COPY_WITHIN, self.copy(chunk, sealed, from, order));
        copy.await.unwrap_or_else(|_| Err("it took too long".to_owned()))
    }

    async fn copy(
        &self,
        chunk: OwnedChunk,
        sealed: u32,
        (from, address): (PeerId, &str),
        order: Vec<u8>,
    ) -> Result<(), String> {
        if !(1..=MAX_SEALED_CHUNK).contains(&sealed) {
            return Err("the order names an impossible length".to_owned());
        }
        let address = address.parse().map_err(|_| "the order names no address".to_owned())?;
        let connection = self.connection(from, address).await?;
        let fetched = connection.fetch(chunk.chunk, sealed, Some(order), None).await;
        let bytes = fetched.map_err(|error| format!("{from}: {error}"))?;
        self.chunks.put(chunk, bytes.into()).await.map_err(|failure| failure.to_string())
    }

    async fn connection(&self, peer: PeerId, address: SocketAddr) -> Result<NodeConnection, String> {
        let mut connections = self.connections.lock().await;
        connections.retain(|_, connection| !connection.has_ended());
        if let Some(connection) = connections.get(&(peer, address)) {
            return Ok(connection.clone());
        }
        // Others do not wait while an address that a tracker named does not answer.
        drop(connections);
        let connection = NodeConnection::connect(address, peer, &self.identity, &self.tasks).await;
        let connection = connection.map_err(|error| error.to_string())?;
        self.connections.lock().await.insert((peer, address), connection.clone());
        Ok(connection)
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<u8, UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
