//! Where the chunks of one PUT go: to the servers that the rule names, and to the next in order where one is away, full or
//! too slow. A chunk is placed once enough servers said that it is durable; nobody waits for the others.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use shoal_common::PeerId;
use shoal_common::storage::{ChunkId, placement};
use tokio::time::{Instant, sleep};

use super::nodes::Nodes;
use crate::connection::RequestError;

/// A server that was given a chunk and said nothing at all for so long is slow: another gets the chunk too, and it gets no
/// more until it speaks.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// Servers that do not say within this time that they told the trackers are not waited for.
const SETTLE_WITHIN: Duration = Duration::from_secs(2);
/// Nobody said anything for so long: the chunk is given up.
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
    /// It gets no more for now.
    Out(Out),
}

impl Standing {
    fn out(&self) -> Option<&Out> {
        match self {
            Self::Holds => None,
            Self::Out(out) => Some(out),
        }
    }
}

/// Why a server gets no more chunks for now.
#[derive(Debug, Clone)]
struct Out {
    reason: String,
    since: Instant,
}

/// How a chunk ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    /// Copies that are durable.
    pub(super) copies: usize,
    /// Whether all of them were there already.
    pub(super) found: bool,
}

/// What each server said.
pub(super) struct Nowhere(pub(super) String);

/// What a server said to a chunk.
enum Said {
    Durable { found: bool },
    No(String),
}

impl Placing {
    pub(super) fn new(nodes: Nodes, servers: Vec<PeerId>, shift: u16, copies: usize, resumed: bool) -> Self {
        Self { nodes, servers, shift, copies, resumed, standings: Mutex::default() }
    }

    /// Copies of a chunk that must be durable before it counts.
    pub(super) fn needed(&self) -> usize {
        self.copies.min(2)
    }

    /// Puts a chunk where it belongs. Dropping the future leaves open where it is.
    ///
    /// # Errors
    /// When fewer servers than needed took it.
    pub(super) async fn place(&self, index: u32, id: ChunkId, sealed: Bytes) -> Result<Placed, Nowhere> {
        let order: Vec<usize> = placement(index, self.shift, self.servers.len()).collect();
        // Those that are out come last: they may be back, and there may be no others.
        let (good, out): (Vec<usize>, Vec<usize>) =
            order.into_iter().partition(|&server| !self.is_out(server));
        let mut candidates = good.into_iter().chain(out);
        let mut asked: HashMap<usize, Instant> = HashMap::new();
        let mut answers = FuturesUnordered::new();
        let (mut placed, mut found) = (0, true);
        let mut heard = Instant::now();
        loop {
            // As many as there are to be; a slow one counts no more.
            let hopeful = asked.keys().filter(|&&server| !self.is_out(server)).count();
            let lacking = self.copies.saturating_sub(placed + hopeful);
            let next = (lacking > 0 && (placed < self.needed() || asked.len() + placed < self.copies))
                .then(|| candidates.next())
                .flatten();
            if let Some(server) = next {
                if placed >= self.needed() && self.is_out(server) {
                    continue;
                }
                asked.insert(server, Instant::now());
                let (id, sealed) = (id, sealed.clone());
                answers.push(async move { (server, self.give(server, id, sealed).await) });
                continue;
            }
            if placed >= self.copies || (placed >= self.needed() && hopeful == 0) {
                return Ok(Placed { copies: placed, found });
            }
            if answers.is_empty() || heard.elapsed() > HOPELESS {
                return Err(Nowhere(self.reasons().await));
            }
            tokio::select! {
                Some((server, said)) = answers.next() => {
                    heard = Instant::now();
                    asked.remove(&server);
                    match said {
                        Said::Durable { found: here } => {
                            placed += 1;
                            found &= here;
                            self.standings().insert(server, Standing::Holds);
                        }
                        Said::No(reason) => self.put_out(server, reason),
                    }
                }
                () = sleep(PATIENCE / 3) => {
                    for (&server, &since) in &asked {
                        if self.silence(server, since).await >= PATIENCE && !self.is_out(server) {
                            self.put_out(server, "it does not answer".to_owned());
                        }
                    }
                }
            }
        }
    }

    /// Has the servers that hold chunks tell the trackers so. One that does not say that it did is not waited for long: the
    /// chunks are durable, and it will tell.
    pub(super) async fn settle(&self) {
        let holders: Vec<usize> = {
            let holds = |(&server, standing): (&usize, &Standing)| standing.out().is_none().then_some(server);
            self.standings().iter().filter_map(holds).collect()
        };
        let settles = holders.into_iter().map(|server| async move {
            if let Ok(connection) = self.nodes.connection(self.servers[server]).await {
                let _ = connection.settle().await;
            }
        });
        let _ = tokio::time::timeout(SETTLE_WITHIN, futures::future::join_all(settles)).await;
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

    fn is_out(&self, server: usize) -> bool {
        self.standings().get(&server).is_some_and(|standing| standing.out().is_some())
    }

    fn put_out(&self, server: usize, reason: String) {
        self.standings().insert(server, Standing::Out(Out { reason, since: Instant::now() }));
    }

    async fn reasons(&self) -> String {
        let outs: Vec<(usize, Out)> = {
            let out = |(&server, standing): (&usize, &Standing)| Some((server, standing.out()?.clone()));
            self.standings().iter().filter_map(out).collect()
        };
        let mut reasons = Vec::new();
        for (server, out) in outs {
            tracing::debug!(server, reason = out.reason, for_ms = out.since.elapsed().as_millis(), "out");
            reasons.push(format!("{}: {}", self.nodes.name(self.servers[server]).await, out.reason));
        }
        reasons.sort();
        reasons.join("; ")
    }

    fn standings(&self) -> MutexGuard<'_, HashMap<usize, Standing>> {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
