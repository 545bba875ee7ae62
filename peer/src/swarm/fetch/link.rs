//! The way to one peer, shared by all files that are fetched from it: at most two connections, made when they are
//! needed. One saturates most networks; the second lets both ends use another core.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use shoal_common::PeerId;
use shoal_net::Identity;
use shoal_net::bulk;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Connection;

/// Connections to one peer.
pub(super) const LANES: usize = 2;
/// Addresses of one peer that are tried.
const MAX_ADDRESSES: usize = 4;
/// How long connections outlive the last file: the next of many small files is often on its way, and two handshakes cost
/// more than it does.
const LINGER: Duration = Duration::from_secs(5);

/// The links that are in use.
#[derive(Debug)]
pub(in crate::swarm) struct Links {
    identity: Identity,
    links: Mutex<HashMap<PeerId, Weak<Link>>>,
    /// Connections that may still be made.
    room: Arc<Semaphore>,
    most: usize,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The way to one peer; its connections end soon after the last file that uses it lets go.
#[derive(Debug)]
pub(super) struct Link {
    links: Arc<Links>,
    peer: PeerId,
    addresses: Mutex<Vec<SocketAddr>>,
    /// Locked while connecting, so that files that want the same connection make it once.
    lanes: [tokio::sync::Mutex<Option<Arc<Connection>>>; LANES],
}

impl Links {
    pub(in crate::swarm) fn new(
        identity: Identity,
        connections: usize,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let most = connections.clamp(1, Semaphore::MAX_PERMITS);
        let room = Arc::new(Semaphore::new(most));
        Arc::new(Self { identity, links: Mutex::default(), room, most, tasks, stop })
    }

    /// Room for a connection of that number to a peer; a second one must leave half of the room to others.
    fn room(&self, lane: usize) -> Result<OwnedSemaphorePermit, String> {
        let free = lane == 0 || self.room.available_permits() > self.most / 2;
        let room = if free { self.room.clone().try_acquire_owned().ok() } else { None };
        room.ok_or_else(|| format!("{} connections are open, and no more may be (ulimit -n)", self.most))
    }

    /// The link to a peer, which is known to be at these addresses now.
    pub(super) fn link(self: &Arc<Self>, peer: PeerId, addresses: &[SocketAddr]) -> Arc<Link> {
        let addresses: Vec<SocketAddr> = addresses.iter().take(MAX_ADDRESSES).copied().collect();
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(&peer).and_then(Weak::upgrade) {
            *link.addresses() = addresses;
            return link;
        }
        links.retain(|_, link| link.strong_count() > 0);
        let lanes = std::array::from_fn(|_| tokio::sync::Mutex::new(None));
        let link = Arc::new(Link { links: self.clone(), peer, addresses: Mutex::new(addresses), lanes });
        links.insert(peer, Arc::downgrade(&link));
        link
    }
}

impl Link {
    pub(super) fn peer(&self) -> PeerId {
        self.peer
    }

    /// A file lets go of it.
    pub(super) fn release(self: Arc<Self>) {
        // While others use it, it needs no time of its own.
        if Arc::strong_count(&self) == 1 {
            let links = self.links.clone();
            let stop = links.stop.clone();
            links.tasks.spawn(async move {
                stop.run_until_cancelled(tokio::time::sleep(LINGER)).await;
                drop(self);
            });
        }
    }

    /// The connection of that number, made now if there is none. Dropping the future is safe.
    ///
    /// # Errors
    /// Why no address answers as that peer, in words.
    pub(super) async fn connection(&self, lane: usize) -> Result<Arc<Connection>, String> {
        let number = lane;
        let mut lane = self.lanes[number % LANES].lock().await;
        if let Some(connection) = lane.as_ref().filter(|connection| !connection.has_ended()) {
            return Ok(connection.clone());
        }
        // One that ended gives its room back.
        *lane = None;
        let room = self.links.room(number)?;
        let addresses = self.addresses().clone();
        let mut reason = String::from("no address is known");
        for address in addresses {
            match bulk::connect(address, self.peer, &self.links.identity).await {
                Ok(stream) => {
                    let (input, output) = stream.into_split();
                    let (connection, task) = Connection::new(input, output, self.links.stop.child_token());
                    self.links.tasks.spawn(async move {
                        task.await;
                        drop(room);
                    });
                    return Ok(lane.insert(Arc::new(connection)).clone());
                }
                Err(error) => reason = error.to_string(),
            }
        }
        Err(reason)
    }

    fn addresses(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
