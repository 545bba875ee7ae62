//! Carries out what the trackers order: copies from other nodes, and deletions. Orders are idempotent; one that is under
//! way already is not begun again, and one that fails is reported so that it is given again.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_common::PeerId;
use shoal_common::storage::MAX_SEALED_CHUNK;
use shoal_common::tracker_api::storage::{Order, OwnedChunk};
use shoal_net::Identity;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::chunks::{Change, Chunks};
use crate::lane::Lane;

/// Copies at a time: enough for the latency of a disk that syncs, and 32 MiB of memory.
const AT_ONCE: usize = 8;
/// Orders that are under way or wait; more are forgotten, and given again.
const MAX_ORDERS: usize = 1_000;
/// How long one copy may take.
const COPY_WITHIN: Duration = Duration::from_secs(60);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Copies(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    identity: Identity,
    chunks: Chunks,
    under_way: Mutex<HashSet<OwnedChunk>>,
    lanes: tokio::sync::Mutex<HashMap<PeerId, Lane>>,
    turns: Semaphore,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Copies {
    /// Nothing under way yet.
    #[must_use]
    pub(super) fn new(
        identity: Identity,
        chunks: Chunks,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self(Arc::new(Shared {
            identity,
            chunks,
            under_way: Mutex::default(),
            lanes: tokio::sync::Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
            tasks,
            stop,
        }))
    }

    /// Begins to carry out an order.
    pub(super) fn begin(&self, order: Order) {
        let chunk = match &order {
            Order::Copy { chunk, .. } | Order::Delete { chunk, .. } => *chunk,
        };
        let mut under_way = self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if under_way.len() >= MAX_ORDERS || !under_way.insert(chunk) {
            return;
        }
        drop(under_way);
        let shared = self.0.clone();
        self.0.tasks.spawn(async move {
            let done = shared.stop.clone().run_until_cancelled_owned(shared.carry_out(order)).await;
            shared.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&chunk);
            if let Some(Err(reason)) = done {
                tracing::warn!(owner = %chunk.owner, chunk = %chunk.chunk, reason, "an order could not be carried out");
                shared.chunks.tell(Change::Failed(chunk));
            }
        });
    }
}

impl Shared {
    async fn carry_out(&self, order: Order) -> Result<(), String> {
        let _turn = self.turns.acquire().await.map_err(|_| "shutting down")?;
        match order {
            Order::Delete { chunk, min_age_ms } => {
                let deleted = self.chunks.delete(chunk, Duration::from_millis(min_age_ms)).await;
                match deleted.map_err(|failure| failure.to_string())? {
                    true => tracing::info!(owner = %chunk.owner, chunk = %chunk.chunk, "deleted by order"),
                    false if self.chunks.holds(&chunk) => return Err("it was stored lately".to_owned()),
                    false => self.chunks.tell(Change::Gone(chunk)),
                }
                Ok(())
            }
            Order::Copy { chunk, sealed, from, address, order } => {
                if self.chunks.touch(&chunk) {
                    return Ok(());
                }
                let copy = self.copy(chunk, sealed, (from, &address), order);
                tokio::time::timeout(COPY_WITHIN, copy)
                    .await
                    .unwrap_or_else(|_| Err("it took too long".to_owned()))
            }
        }
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
        let lane = self.lane(from, address).await?;
        let fetched = lane.fetch(chunk.chunk, sealed, Some(order), Box::new(|_| {})).await;
        let bytes = fetched.map_err(|error| format!("{from}: {error}"))?;
        self.chunks.put(chunk, bytes.into()).await.map_err(|failure| failure.to_string())
    }

    async fn lane(&self, peer: PeerId, address: SocketAddr) -> Result<Lane, String> {
        let mut lanes = self.lanes.lock().await;
        lanes.retain(|_, lane| !lane.has_ended());
        if let Some(lane) = lanes.get(&peer) {
            return Ok(lane.clone());
        }
        let lane = Lane::connect(address, peer, &self.identity, &self.tasks).await;
        let lane = lane.map_err(|error| error.to_string())?;
        lanes.insert(peer, lane.clone());
        Ok(lane)
    }
}
