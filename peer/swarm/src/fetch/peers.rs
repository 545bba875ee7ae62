//! The connections to each peer, shared by all files that are fetched from it, made when they are needed. One saturates most
//! networks; the second lets both ends use another core; on a long line that loses packets, up to four share the losses.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use shoal_common::PeerId;
use shoal_net::bulk::BulkStream;
use shoal_net::{Budgets, Identity, Payer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::arrivals::Arrivals;
use super::connection::Connection;
use super::ladder::{Dialled, Ladder};
use super::trouble::{Trouble, Unreached};
use crate::FileKey;
use crate::price;
use crate::way::{Route, Way};
use shoal_session::tickets::TicketBook;
use shoal_session::ways::Ways;

/// Connections to one peer at most.
pub(super) const CONNECTIONS: usize = 4;
/// Addresses of one peer that are tried.
const MAX_ADDRESSES: usize = 4;
/// How long connections outlive the last file: the next of many small files is often on its way, and two handshakes cost
/// more than it does.
const LINGER: Duration = Duration::from_secs(5);
/// How long a failure to connect counts for all files of a peer: those that waited for the same connection do not try
/// one after the other what just failed.
const FAILURE_COUNTS: Duration = Duration::from_millis(200);
/// A connection on which nothing came for so long is ended when there is reason to doubt it.
const DOUBTED_AFTER: Duration = Duration::from_secs(2);

/// Between tries of a better way than through a relay: at first, and at most.
const BETTER_AFTER: Duration = Duration::from_secs(3);
const BETTER_EVERY: Duration = Duration::from_secs(60);

/// The peers that are fetched from.
#[derive(Debug)]
pub(crate) struct Peers {
    identity: Identity,
    /// What trackers help with; none where there are no trackers.
    ways: Option<(Ways, TicketBook)>,
    arrivals: Arrivals,
    budgets: Budgets,
    peers: Mutex<HashMap<PeerId, Weak<PeerConnections>>>,
    /// Connections that may still be made.
    room: Arc<Semaphore>,
    most: usize,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The connections to one peer; they end soon after the last file that uses them lets go.
#[derive(Debug)]
pub(super) struct PeerConnections {
    peers: Arc<Peers>,
    peer: PeerId,
    location: watch::Sender<Location>,
    failure: Mutex<Option<(Instant, Unreached)>>,
    /// Locked while connecting, so that files that want the same connection make it once.
    connections: [tokio::sync::Mutex<Option<Arc<Connection>>>; CONNECTIONS],
}

/// Where a peer is. When this changes, what is being dialled begins again and connections to elsewhere end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Location {
    addresses: Vec<SocketAddr>,
    /// Counts the times at which all connections became doubtful.
    era: u64,
}

impl Location {
    /// Whether a connection that was come by in that way then still leads to the peer.
    fn holds(&self, route: Route, then: &Self) -> bool {
        let leads_there = match route {
            Route::To(address) => self.addresses.contains(&address),
            Route::Reversed | Route::Relayed => true,
        };
        self.era == then.era && leads_there
    }
}

impl Peers {
    pub(crate) fn new(
        identity: Identity,
        ways: Option<(Ways, TicketBook)>,
        connections: usize,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let most = connections.clamp(1, Semaphore::MAX_PERMITS);
        let room = Arc::new(Semaphore::new(most));
        Arc::new(Self {
            identity,
            ways,
            arrivals: Arrivals::default(),
            budgets: Budgets::default(),
            peers: Mutex::default(),
            room,
            most,
            tasks,
            stop,
        })
    }

    /// A peer dialled in order to serve; false if nobody waits for that.
    pub(crate) fn arrived(&self, stream: BulkStream) -> bool {
        self.arrivals.arrived(stream)
    }

    /// Room for a connection of that number to a peer; further ones must leave half of the room to others.
    fn room(&self, number: usize) -> Result<OwnedSemaphorePermit, Unreached> {
        let free = number == 0 || self.room.available_permits() > self.most / 2;
        let room = if free { self.room.clone().try_acquire_owned().ok() } else { None };
        room.ok_or_else(|| Unreached {
            reason: format!(
                "has to wait: {} connections are open, and no more may be (ulimit -n)",
                self.most
            ),
            trouble: Trouble::Connections,
        })
    }

    /// The connections to a peer, which is known to be at these addresses now.
    pub(super) fn connections(
        self: &Arc<Self>,
        peer: PeerId,
        addresses: &[SocketAddr],
    ) -> Arc<PeerConnections> {
        let addresses: Vec<SocketAddr> = addresses.iter().take(MAX_ADDRESSES).copied().collect();
        let mut peers = self.peers();
        if let Some(known) = peers.get(&peer).and_then(Weak::upgrade) {
            known.lead_to(|location| location.addresses = addresses);
            return known;
        }
        peers.retain(|_, known| known.strong_count() > 0);
        let connections = std::array::from_fn(|_| tokio::sync::Mutex::new(None));
        let location = watch::Sender::new(Location { addresses, era: 0 });
        let new = Arc::new(PeerConnections {
            peers: self.clone(),
            peer,
            location,
            failure: Mutex::default(),
            connections,
        });
        peers.insert(peer, Arc::downgrade(&new));
        new
    }

    /// Ends all connections; those that are being made begin again.
    pub(crate) fn redial(&self) {
        for peer in self.peers().values().filter_map(Weak::upgrade) {
            peer.lead_to(|location| location.era += 1);
        }
    }

    /// Ends the connections to a peer on which nothing comes.
    pub(crate) fn doubt(&self, peer: PeerId) {
        let Some(peer) = self.peers().get(&peer).and_then(Weak::upgrade) else { return };
        for connection in &peer.connections {
            // One that is locked is being made.
            if let Ok(connection) = connection.try_lock()
                && let Some(connection) = &*connection
            {
                connection.end_if_silent(DOUBTED_AFTER);
            }
        }
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<PeerId, Weak<PeerConnections>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PeerConnections {
    pub(super) fn peer(&self) -> PeerId {
        self.peer
    }

    fn lead_to(&self, change: impl FnOnce(&mut Location)) {
        let changed = self.location.send_if_modified(|location| {
            let before = location.clone();
            change(location);
            *location != before
        });
        if changed {
            *self.failure() = None;
        }
    }

    /// A file lets go of them.
    pub(super) fn release(self: Arc<Self>) {
        // While other files use them, they need no time of their own.
        if Arc::strong_count(&self) == 1 {
            let peers = self.peers.clone();
            let stop = peers.stop.clone();
            peers.tasks.spawn(async move {
                stop.run_until_cancelled(tokio::time::sleep(LINGER)).await;
                drop(self);
            });
        }
    }

    /// The connection of that number, made now, for that file, if there is none. Dropping the future is safe.
    ///
    /// # Errors
    /// Why no address answers as that peer.
    pub(super) async fn connection(
        self: &Arc<Self>,
        number: usize,
        key: FileKey,
    ) -> Result<Arc<Connection>, Unreached> {
        let mut slot = self.connections[number % CONNECTIONS].lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.has_ended()) {
            return Ok(connection.clone());
        }
        if let Some((at, failure)) = &*self.failure()
            && at.elapsed() < FAILURE_COUNTS
        {
            return Err(failure.clone());
        }
        // One that ended gives its room back.
        *slot = None;
        let mut room = Some(self.peers.room(number)?);
        let mut changes = self.location.subscribe();
        loop {
            let then = changes.borrow_and_update().clone();
            // One is enough of what costs a tracker.
            let ladder = self.ladder(key, &then.addresses, number == 0);
            let dialled = tokio::select! {
                dialled = ladder.climb() => dialled,
                // It is elsewhere by now.
                Ok(()) = changes.changed() => continue,
            };
            return match dialled {
                Ok((route, stream)) => {
                    let carried = Arc::new(self.carry(route, then, stream, room.take()));
                    if route == Route::Relayed {
                        self.look_for_better(number, key, &carried);
                    }
                    Ok(slot.insert(carried).clone())
                }
                Err(failure) => {
                    *self.failure() = Some((Instant::now(), failure.clone()));
                    Err(failure)
                }
            };
        }
    }

    fn ladder<'a>(&'a self, key: FileKey, addresses: &'a [SocketAddr], may_relay: bool) -> Ladder<'a> {
        let Peers { identity, ways, arrivals, .. } = &*self.peers;
        Ladder { identity, ways: ways.as_ref(), arrivals, peer: self.peer, key, addresses, may_relay }
    }

    fn way(&self, route: Route) -> Way {
        let is_near = |address: SocketAddr| {
            self.peers.ways.as_ref().is_some_and(|(ways, _)| ways.is_near(address.ip()))
        };
        match route {
            Route::To(address) if is_near(address) => Way::Lan,
            Route::To(_) => Way::Direct,
            Route::Reversed => Way::Reversed,
            Route::Relayed => Way::Relayed,
        }
    }

    /// Tries for as long as a connection runs through a relay whether another way stands by now, which then takes its place.
    fn look_for_better(self: &Arc<Self>, number: usize, key: FileKey, relayed: &Arc<Connection>) {
        let (this, relayed) = (Arc::downgrade(self), Arc::downgrade(relayed));
        let (tasks, stop) = (self.peers.tasks.clone(), self.peers.stop.clone());
        tasks.spawn(async move {
            let mut pause = BETTER_AFTER;
            loop {
                if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
                pause = (pause * 2).min(BETTER_EVERY);
                let (Some(this), Some(old)) = (this.upgrade(), relayed.upgrade()) else { return };
                let then = this.location.borrow().clone();
                let climbed = tokio::select! {
                    () = stop.cancelled() => return,
                    climbed = async { this.ladder(key, &then.addresses, false).climb().await } => climbed,
                };
                let Ok((route, stream)) = climbed else { continue };
                let mut slot = this.connections[number % CONNECTIONS].lock().await;
                if slot.as_ref().is_some_and(|now| Arc::ptr_eq(now, &old))
                    && let Ok(room) = this.peers.room(number)
                {
                    *slot = Some(Arc::new(this.carry(route, then, stream, Some(room))));
                    // Its files come again, and find the other one.
                    old.end();
                }
                return;
            }
        });
    }

    /// A connection that ends when it does not lead to the peer any more, and gives its room back then.
    fn carry(
        &self,
        route: Route,
        then: Location,
        (stream, round_trip): Dialled,
        room: Option<OwnedSemaphorePermit>,
    ) -> Connection {
        let (input, output) = stream.into_split();
        let end = self.peers.stop.child_token();
        let budget = self.peers.budgets.connection(Payer::All, price::SERVER);
        let (connection, task) =
            Connection::new(input, output, (round_trip, self.way(route)), budget, end.clone());
        let mut changes = self.location.subscribe();
        let elsewhere = async move {
            let leads_elsewhere = changes.wait_for(|now| !now.holds(route, &then)).await.is_ok();
            if leads_elsewhere {
                end.cancel();
            } else {
                // The last file let go of the peer, which ends its connections.
                std::future::pending().await
            }
        };
        self.peers.tasks.spawn(async move {
            let _room = room;
            let mut task = Box::pin(task);
            tokio::select! {
                () = &mut task => return,
                () = elsewhere => {}
            }
            // It tells those that wait for something on it.
            task.await;
        });
        connection
    }

    fn failure(&self) -> MutexGuard<'_, Option<(Instant, Unreached)>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
