//! The storage nodes as this client reaches them: who is behind each line of `dfs.conf` by what the trackers say, and a
//! connection to each, logged in, made again when it broke.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shoal_common::PeerId;
use shoal_common::tracker_api::storage::NodeEntry;
use shoal_net::{Identity, bulk};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use crate::conf::ServerLine;
use crate::connection::{NodeConnection, RequestError};

/// How long a server may take to answer before it counts as not reached. It is tried again while it is needed.
const REACH_WITHIN: Duration = Duration::from_millis(1_500);
/// A server that was not reached is left alone for so long.
const LEFT_ALONE: Duration = Duration::from_secs(2);
/// Servers of one name that are tried at a line's address.
const MAX_PROBES: usize = 4;
/// Successors that are followed from one key to the next.
const MAX_SUCCESSORS: usize = 16;

/// A server of `dfs.conf` and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Its name there.
    pub name: String,
    /// `host:port` as there.
    pub at: String,
    /// Its key, where the trackers know it.
    pub peer: Option<PeerId>,
    /// Why it was not reached; none if it was.
    pub problem: Option<String>,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Nodes(Arc<NodesInner>);

#[derive(Debug)]
struct NodesInner {
    lines: Vec<ServerLine>,
    identity: Identity,
    tasks: TaskTracker,
    table: Mutex<NodeTable>,
}

#[derive(Debug, Default)]
struct NodeTable {
    entries: HashMap<PeerId, NodeEntry>,
    /// Who is behind each line.
    behind: Vec<Option<PeerId>>,
    routes: HashMap<PeerId, Arc<Route>>,
    ticket: Option<Vec<u8>>,
}

/// The way to one node.
#[derive(Debug)]
struct Route {
    address: SocketAddr,
    state: Mutex<RouteState>,
}

#[derive(Debug, Default)]
struct RouteState {
    connection: Option<NodeConnection>,
    granted: bool,
    failed: Option<(Instant, String)>,
}

impl Nodes {
    pub(super) fn new(lines: Vec<ServerLine>, identity: Identity, tasks: TaskTracker) -> Self {
        Self(Arc::new(NodesInner { lines, identity, tasks, table: Mutex::default() }))
    }

    /// Takes what the trackers know of the nodes.
    pub(super) async fn learn(&self, entries: &[NodeEntry]) {
        let mut behind = Vec::new();
        let mut addresses = HashMap::new();
        for line in &self.0.lines {
            let resolved = timeout(REACH_WITHIN, tokio::net::lookup_host((line.host.as_str(), line.port)));
            let resolved: Vec<SocketAddr> = match resolved.await {
                Ok(Ok(resolved)) => resolved.collect(),
                _ => Vec::new(),
            };
            let mut entry = find(line, &resolved, entries);
            if entry.is_none() && line.peer.is_none() {
                entry = self.probe(line, &resolved, entries).await;
            }
            if let (Some(entry), Some(&address)) = (entry, resolved.first()) {
                addresses.insert(entry.peer, address);
            }
            behind.push(entry.map(|entry| entry.peer));
        }
        let mut table = self.0.table.lock().await;
        for entry in entries {
            // What dfs.conf says is how this client reaches it; the trackers may know it by another address.
            let known = addresses.get(&entry.peer).copied().or_else(|| entry.address.parse().ok());
            let Some(address) = known else { continue };
            let route = table.routes.get(&entry.peer);
            if route.is_none_or(|route| route.address != address) {
                table.routes.insert(entry.peer, Arc::new(Route { address, state: Mutex::default() }));
            }
        }
        table.entries = entries.iter().map(|entry| (entry.peer, entry.clone())).collect();
        table.behind = behind;
    }

    /// Who answers at a line's address, where the trackers reach its server at another one: a server of that name is it if
    /// it proves its key there. The name alone decides nothing.
    async fn probe<'a>(
        &self,
        line: &ServerLine,
        resolved: &[SocketAddr],
        entries: &'a [NodeEntry],
    ) -> Option<&'a NodeEntry> {
        let address = *resolved.first()?;
        let named = entries.iter().filter(|entry| entry.successor.is_none() && entry.name == line.name);
        for entry in named.take(MAX_PROBES) {
            let connect = bulk::connect(address, entry.peer, &self.0.identity);
            if matches!(timeout(REACH_WITHIN, connect).await, Ok(Ok(_))) {
                return Some(entry);
            }
        }
        None
    }

    /// Tries to reach the servers of `dfs.conf`, all at once.
    pub(super) async fn ping(&self) -> Vec<NodeState> {
        let behind = self.0.table.lock().await.behind.clone();
        let pings = self.0.lines.iter().zip(behind).map(|(line, peer)| async move {
            let problem = match peer {
                Some(peer) => self.connection(peer).await.err(),
                None if line.peer.is_some() => {
                    Some("no tracker knows a server with the key that dfs.conf names for it".to_owned())
                }
                None => {
                    Some("no tracker knows it; is it running with these trackers, and admitted?".to_owned())
                }
            };
            let at = if line.host.contains(':') {
                format!("[{}]:{}", line.host, line.port)
            } else {
                format!("{}:{}", line.host, line.port)
            };
            NodeState { name: line.name.to_string(), at, peer, problem }
        });
        futures::future::join_all(pings).await
    }

    /// Logs in at all servers that were reached; the names in `dfs.conf` of those that accept.
    pub(super) async fn show(&self, ticket: Vec<u8>) -> Vec<String> {
        let (behind, routes) = {
            let mut table = self.0.table.lock().await;
            table.ticket = Some(ticket.clone());
            (table.behind.clone(), table.routes.clone())
        };
        let shows = routes.into_iter().map(|(peer, route)| {
            let ticket = ticket.clone();
            async move {
                let mut state = route.state.lock().await;
                state.granted = false;
                let granted = state.enter(Some(ticket)).await.is_ok() && state.granted;
                granted.then_some(peer)
            }
        });
        let granted: Vec<PeerId> = futures::future::join_all(shows).await.into_iter().flatten().collect();
        let accepts = |peer: &Option<PeerId>| peer.is_some_and(|peer| granted.contains(&peer));
        let names = self.0.lines.iter().zip(&behind).filter(|(_, peer)| accepts(peer));
        names.map(|(line, _)| line.name.to_string()).collect()
    }

    /// The keys of the servers of `dfs.conf` that the trackers know, in its order, each once.
    pub(super) async fn peers(&self) -> Vec<PeerId> {
        let mut peers: Vec<PeerId> = Vec::new();
        for peer in self.0.table.lock().await.behind.iter().flatten() {
            if !peers.contains(peer) {
                peers.push(*peer);
            }
        }
        peers
    }

    /// The node that took that one's place; that one itself if none did.
    pub(super) async fn present(&self, peer: PeerId) -> PeerId {
        let table = self.0.table.lock().await;
        let mut at = peer;
        for _ in 0..MAX_SUCCESSORS {
            match table.entries.get(&at).and_then(|entry| entry.successor) {
                Some(successor) => at = successor,
                None => break,
            }
        }
        at
    }

    /// What a node is called: in `dfs.conf`, else by its operator.
    pub(super) async fn name(&self, peer: PeerId) -> String {
        let table = self.0.table.lock().await;
        let line = self.0.lines.iter().zip(&table.behind).find(|(_, behind)| **behind == Some(peer));
        match (line, table.entries.get(&peer)) {
            (Some((line, _)), _) => line.name.to_string(),
            (None, Some(entry)) => entry.name.to_string(),
            (None, None) => peer.to_string(),
        }
    }

    /// A connection to a node, logged in if we are; made now if there is none. Dropping the future is safe.
    ///
    /// # Errors
    /// Why there is none, in words; for a moment also without trying again.
    pub(super) async fn connection(&self, peer: PeerId) -> Result<NodeConnection, String> {
        let (route, ticket) = {
            let table = self.0.table.lock().await;
            (table.routes.get(&peer).cloned(), table.ticket.clone())
        };
        let route = route.ok_or_else(|| "no tracker knows where it is".to_owned())?;
        let mut state = route.state.lock().await;
        if let Some((at, reason)) = &state.failed
            && at.elapsed() < LEFT_ALONE
        {
            return Err(reason.clone());
        }
        if state.connection.as_ref().is_none_or(NodeConnection::has_ended) {
            state.granted = false;
            let connect = NodeConnection::connect(route.address, peer, &self.0.identity, &self.0.tasks);
            match timeout(REACH_WITHIN, connect).await {
                Ok(Ok(connection)) => state.connection = Some(connection),
                Ok(Err(error)) => return Err(state.fail(error.to_string())),
                Err(_) => return Err(state.fail(format!("{} does not answer", route.address))),
            }
        }
        match state.enter(ticket).await {
            Ok(connection) => Ok(connection),
            Err(reason) => Err(state.fail(reason)),
        }
    }

    /// Ends all connections.
    pub(super) async fn close(&self) {
        self.0.table.lock().await.routes.clear();
    }
}

impl RouteState {
    /// Shows the ticket unless it was accepted already.
    async fn enter(&mut self, ticket: Option<Vec<u8>>) -> Result<NodeConnection, String> {
        let connection = self.connection.clone().ok_or_else(|| "it was not reached".to_owned())?;
        if let (false, Some(ticket)) = (self.granted, ticket) {
            match timeout(2 * REACH_WITHIN, connection.show(ticket)).await {
                Ok(Ok(_)) => self.granted = true,
                Ok(Err(RequestError::Refused { .. })) => {
                    return Err("it does not accept the login".to_owned());
                }
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err("it does not answer".to_owned()),
            }
        }
        Ok(connection)
    }

    fn fail(&mut self, reason: String) -> String {
        self.connection = None;
        self.failed = Some((Instant::now(), reason.clone()));
        reason
    }
}

/// Who is behind a line: the server of its key, if it says one, else the one that the trackers reach at its address. A
/// node whose place another took does not count.
fn find<'a>(line: &ServerLine, resolved: &[SocketAddr], entries: &'a [NodeEntry]) -> Option<&'a NodeEntry> {
    let here = |entry: &&NodeEntry| {
        entry.address.parse().is_ok_and(|address: SocketAddr| resolved.contains(&address))
    };
    let present = || entries.iter().filter(|entry| entry.successor.is_none());
    let best = |found: &mut dyn Iterator<Item = &'a NodeEntry>| {
        found.max_by_key(|entry| (entry.up, std::cmp::Reverse(entry.silent_ms.unwrap_or(u64::MAX))))
    };
    match line.peer {
        Some(peer) => present().find(|entry| entry.peer == peer),
        None => best(&mut present().filter(here)),
    }
}
