//! Where the chunks of one PUT go. [`Plan`] says which copy is next and where; this gives it to the server, and notes what the
//! servers say. A chunk is placed once enough servers said that it is durable; the others are not waited for.

mod plan;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use shoal_common::PeerId;
use shoal_common::storage::ChunkId;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::nodes::Nodes;
use crate::connection::RequestError;
use plan::Plan;

/// A server that was given a chunk and said nothing at all for so long is slow: another gets the chunk too, and it gets no
/// more until it speaks.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// A server that does not confirm within this time that the trackers know is not waited for.
const REPORTED_WITHIN: Duration = Duration::from_secs(2);
/// A chunk is given up when no server answers for this long.
const HOPELESS: Duration = Duration::from_secs(30);

/// The servers of one PUT, in the order of the manifest.
pub(super) struct Placing {
    nodes: Nodes,
    servers: Vec<PeerId>,
    shift: u16,
    copies: usize,
    /// Whether chunks may be there already.
    resumed: bool,
    standings: Mutex<HashMap<usize, Standing>>,
}

/// How a server that was given chunks stands by its last word.
#[derive(Debug, Clone)]
enum Standing {
    /// It stored the last chunk it spoke of.
    Holds,
    /// It gets no more for now, for this reason.
    Out(String),
}

/// A chunk that is to be placed.
pub(super) struct SealedChunk {
    /// Its number, from 0.
    pub(super) index: u32,
    /// Its id.
    pub(super) id: ChunkId,
    /// Its bytes.
    pub(super) bytes: Bytes,
    /// The memory that it takes, given back when the chunk is dropped.
    pub(super) _memory: OwnedSemaphorePermit,
}

/// How a chunk ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    /// Its number, from 0.
    pub(super) index: u32,
    /// Its id.
    pub(super) id: ChunkId,
    /// Its length in bytes.
    pub(super) length: usize,
    /// Copies that are durable.
    pub(super) copies: usize,
    /// Whether all of them were there already.
    pub(super) found: bool,
}

/// Why chunks were not placed.
pub(super) enum NotPlaced<E> {
    /// A chunk could not be sealed.
    Sealing(E),
    /// A chunk, by its number, found too few servers; what each of them said.
    Nowhere(u32, String),
}

/// What a server said to a chunk.
enum Said {
    Durable { found: bool },
    No(String),
}

/// A chunk on its way.
struct OnWay {
    chunk: SealedChunk,
    /// Since when servers have been asked.
    asked: HashMap<usize, Instant>,
    heard: Instant,
    found: bool,
    /// Ends what is still on the way when the chunk is placed.
    end: CancellationToken,
    _end: DropGuard,
}

impl Placing {
    pub(super) fn new(nodes: Nodes, servers: Vec<PeerId>, shift: u16, copies: usize, resumed: bool) -> Self {
        Self { nodes, servers, shift, copies, resumed, standings: Mutex::default() }
    }

    /// Copies of a chunk that must be durable before it counts.
    pub(super) fn needed(&self) -> usize {
        self.copies.min(2)
    }

    /// Places `count` chunks as they are sealed, and says of each when it is placed. Dropping the future leaves open where those
    /// on the way are.
    ///
    /// # Errors
    /// When a chunk cannot be sealed, or fewer servers than needed took one.
    pub(super) async fn place_all<E>(
        &self,
        count: u32,
        sealed: impl Stream<Item = Result<SealedChunk, E>>,
        mut placed: impl FnMut(Placed),
    ) -> Result<(), NotPlaced<E>> {
        let mut plan = Plan::new(count, self.servers.len(), self.shift, self.copies);
        let mut sealed = std::pin::pin!(sealed);
        let mut on_way: HashMap<u32, OnWay> = HashMap::new();
        let (mut answers, mut rng, mut all_sealed) = (FuturesUnordered::new(), Rng::new(), false);
        loop {
            while let Some((index, server)) = plan.next(&mut rng) {
                let Some(entry) = on_way.get_mut(&index) else { break };
                entry.asked.insert(server, Instant::now());
                let (id, bytes, end) = (entry.chunk.id, entry.chunk.bytes.clone(), entry.end.clone());
                answers.push(async move {
                    let said = end.run_until_cancelled_owned(self.give(server, id, bytes)).await;
                    (index, server, said)
                });
            }
            let done: Vec<(u32, usize)> =
                on_way.keys().filter_map(|&index| Some((index, plan.placed(index)?))).collect();
            for (index, copies) in done {
                plan.remove(index);
                if let Some(OnWay { chunk, found, .. }) = on_way.remove(&index) {
                    placed(Placed { index, id: chunk.id, length: chunk.bytes.len(), copies, found });
                }
            }
            let lost = on_way
                .iter()
                .find(|(index, entry)| plan.is_hopeless(**index) || entry.heard.elapsed() > HOPELESS);
            if let Some((&index, _)) = lost {
                return Err(NotPlaced::Nowhere(index, self.reasons().await));
            }
            if all_sealed && on_way.is_empty() {
                return Ok(());
            }
            tokio::select! {
                next = sealed.next(), if !all_sealed => match next {
                    Some(Ok(chunk)) => {
                        plan.add(chunk.index);
                        let end = CancellationToken::new();
                        let (asked, heard, _end) = (HashMap::new(), Instant::now(), end.clone().drop_guard());
                        on_way.insert(chunk.index, OnWay { chunk, asked, heard, found: true, end, _end });
                    }
                    Some(Err(error)) => return Err(NotPlaced::Sealing(error)),
                    None => all_sealed = true,
                },
                Some((index, server, said)) = answers.next() => {
                    if let (Some(entry), Some(said)) = (on_way.get_mut(&index), said) {
                        self.note(&mut plan, entry, server, said);
                    }
                }
                () = sleep(PATIENCE / 3) => self.find_silent(&mut plan, &on_way).await,
            }
        }
    }

    /// Notes what a server said to a chunk.
    fn note(&self, plan: &mut Plan, entry: &mut OnWay, server: usize, said: Said) {
        entry.heard = Instant::now();
        entry.asked.remove(&server);
        let standing = match said {
            Said::Durable { found } => {
                entry.found &= found;
                plan.durable(entry.chunk.index, server);
                Standing::Holds
            }
            Said::No(reason) => {
                plan.refused(entry.chunk.index, server);
                Standing::Out(reason)
            }
        };
        self.standings().insert(server, standing);
    }

    /// Gives nothing more to servers that owe an answer and are silent.
    async fn find_silent(&self, plan: &mut Plan, on_way: &HashMap<u32, OnWay>) {
        for (&server, &since) in on_way.values().flat_map(|entry| &entry.asked) {
            if !plan.is_out(server) && self.silence(server, since).await >= PATIENCE {
                plan.set_out(server, true);
                self.standings().insert(server, Standing::Out("it does not answer".to_owned()));
            }
        }
    }

    /// Waits until the servers that hold chunks have reported them to the trackers, for two seconds at most: the chunks are
    /// durable, and will be reported.
    pub(super) async fn wait_reported(&self) {
        let holders: Vec<usize> = {
            let holds = |(&server, standing): (&usize, &Standing)| {
                matches!(standing, Standing::Holds).then_some(server)
            };
            self.standings().iter().filter_map(holds).collect()
        };
        let waits = holders.into_iter().map(|server| async move {
            if let Ok(connection) = self.nodes.connection(self.servers[server]).await {
                let _ = connection.wait_reported().await;
            }
        });
        let _ = tokio::time::timeout(REPORTED_WITHIN, futures::future::join_all(waits)).await;
    }

    async fn give(&self, server: usize, id: ChunkId, sealed: Bytes) -> Said {
        let connection = match self.nodes.connection(self.servers[server]).await {
            Ok(connection) => connection,
            Err(reason) => return Said::No(reason),
        };
        if self.resumed
            && let Ok(held) = connection.holds(vec![id]).await
            && held == [true]
        {
            return Said::Durable { found: true };
        }
        match connection.put(id, sealed).await {
            Ok(()) => Said::Durable { found: false },
            Err(RequestError::Failed(failure)) => Said::No(failure.to_string()),
            Err(error) => Said::No(error.to_string()),
        }
    }

    /// How long a server that was asked at `since` has said nothing.
    async fn silence(&self, server: usize, since: Instant) -> Duration {
        let own = since.elapsed();
        if own < PATIENCE {
            return own;
        }
        match tokio::time::timeout(Duration::from_millis(10), self.nodes.connection(self.servers[server]))
            .await
        {
            Ok(Ok(connection)) => own.min(connection.silent_for()),
            _ => own,
        }
    }

    async fn reasons(&self) -> String {
        let standings = self.standings().clone();
        let mut reasons = Vec::new();
        for (server, standing) in standings {
            if let Standing::Out(reason) = standing {
                reasons.push(format!("{}: {reason}", self.nodes.name(self.servers[server]).await));
            }
        }
        reasons.sort();
        reasons.join("; ")
    }

    fn standings(&self) -> MutexGuard<'_, HashMap<usize, Standing>> {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
