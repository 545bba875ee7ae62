//! Who is online, where, and with which files: memory only, never written down.
//!
//! Each tracker owns the entries of its own clients and sends them to the others. An entry from another tracker is removed when
//! that tracker says so, or some seconds after the link with it broke. The service and the links call this; every method holds
//! the one lock for a few lines.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use minicbor::{Decode, Encode};
use shoal_common::limits::MAX_ANNOUNCED;
use shoal_common::tracker_api::{Completeness, Holding};
use shoal_common::{Fid, Gid, PeerId, RequestId, Uid};
use shoal_net::{is_local, is_of_this_machine};
use tokio::sync::watch;

use crate::leases::Leases;

/// Changes of own clients that one message to another tracker carries at most.
const MAX_DELTA: usize = 2_000;

/// An unproven address is no longer named when so many users found that nothing answers there.
const UNREACHED_BY: usize = 3;

/// Where a client accepts bulk connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// The address.
    pub address: SocketAddr,
    /// Whether its connection comes from that ip. Another ip may be its own, or a third party's.
    pub proven: bool,
}

/// A client that is logged in somewhere.
#[derive(Debug, Clone)]
struct OnlineClient {
    user: Uid,
    address: Listening,
    /// Users who found that nothing answers at its address, if that is unproven.
    unreached: HashSet<Uid>,
    /// The tracker that it is connected to; `None` for this one.
    tracker: Option<u8>,
    /// Which login this is; see [`Presence::online`].
    epoch: u64,
    holdings: HashMap<(Gid, Fid), Completeness>,
}

/// One change, as it travels between trackers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Change {
    /// A client is online; what it holds is not known yet.
    #[n(0)]
    Online {
        /// Its key.
        #[n(0)]
        peer: PeerId,
        /// Who is logged in there.
        #[n(1)]
        user: Uid,
        /// Where it accepts bulk connections.
        #[n(2)]
        address: String,
        /// Whether nothing shows that the address is the client's.
        #[n(3)]
        unproven: Option<bool>,
    },
    /// A client holds more or less of a file than before.
    #[n(1)]
    Holds {
        /// The client's key.
        #[n(0)]
        peer: PeerId,
        /// The file and how much of it.
        #[n(1)]
        holding: Holding,
    },
    /// A client is gone.
    #[n(2)]
    Offline {
        /// Its key.
        #[n(0)]
        peer: PeerId,
    },
    /// A user puts or gets stored files.
    #[n(3)]
    Lease {
        /// Who.
        #[n(0)]
        user: Uid,
        /// The lease's id.
        #[n(1)]
        id: RequestId,
        /// For how long it holds, in milliseconds; 0 where it ends.
        #[n(2)]
        life_ms: u32,
    },
}

/// Changes that one tracker sends another.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Delta {
    /// Whether everything that this tracker sent before is void.
    #[n(0)]
    pub reset: bool,
    /// What changed, in order.
    #[n(1)]
    pub changes: Vec<Change>,
}

/// A client that holds a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its key.
    pub peer: PeerId,
    /// Who is logged in there.
    pub user: Uid,
    /// Where it accepts bulk connections.
    pub address: Listening,
    /// How much it holds.
    pub completeness: Completeness,
}

#[derive(Default)]
struct PresenceTable {
    clients: HashMap<PeerId, OnlineClient>,
    by_file: HashMap<(Gid, Fid), HashSet<PeerId>>,
    /// For each linked tracker the changes to send; `None` if there were too many and a snapshot is due.
    unsent: HashMap<u8, Option<Vec<Change>>>,
    /// Linked trackers that sent a snapshot since their link stands.
    reported: HashSet<u8>,
    leases: Leases,
    epochs: u64,
}

/// A handle; all clones are one.
#[derive(Clone)]
pub struct Presence {
    table: Arc<Mutex<PresenceTable>>,
    changed: Arc<watch::Sender<()>>,
}

impl Default for Presence {
    fn default() -> Self {
        Self { table: Arc::default(), changed: Arc::new(watch::Sender::new(())) }
    }
}

impl Presence {
    fn lock(&self) -> MutexGuard<'_, PresenceTable> {
        // A panic while the lock was held leaves at most a stale entry, which its client's next message corrects.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client of this tracker logged in, or another user did on the same client. The number returned names this login:
    /// an earlier connection of the same client, noticed late to be broken, must not take it offline.
    #[must_use]
    pub fn online(&self, peer: PeerId, user: Uid, address: Listening) -> u64 {
        let mut table = self.lock();
        table.epochs += 1;
        let epoch = table.epochs;
        table.set_online(peer, OnlineClient::new((user, address), None, epoch));
        table.queue(&online(peer, user, address));
        drop(table);
        self.changed.send_replace(());
        epoch
    }

    /// A client of this tracker logged out or its connection broke.
    pub fn offline(&self, peer: PeerId, epoch: u64) {
        let mut table = self.lock();
        if table.clients.get(&peer).is_some_and(|client| client.tracker.is_none() && client.epoch == epoch) {
            table.remove(peer);
            table.queue(&Change::Offline { peer });
        }
        drop(table);
        self.changed.send_replace(());
    }

    /// A client of this tracker announced what it holds. Entries over the limit are dropped.
    pub fn holds(&self, peer: PeerId, reset: bool, holdings: &[Holding]) {
        let mut table = self.lock();
        let Some(client) = table.clients.get(&peer).filter(|client| client.tracker.is_none()) else {
            return;
        };
        let void: Vec<(Gid, Fid)> =
            if reset { client.holdings.keys().copied().collect() } else { Vec::new() };
        for (group, file) in void {
            let holding = Holding { group, file, completeness: Completeness::None };
            table.set_holding(peer, holding);
            table.queue(&Change::Holds { peer, holding });
        }
        for &holding in holdings {
            if table.set_holding(peer, holding) {
                table.queue(&Change::Holds { peer, holding });
            }
        }
        drop(table);
        self.changed.send_replace(());
    }

    /// The clients on which a user is logged in, and where each listens.
    #[must_use]
    pub fn clients_of(&self, user: Uid) -> Vec<(PeerId, SocketAddr)> {
        let table = self.lock();
        let own = table.clients.iter().filter(|(_, client)| client.user == user);
        own.map(|(&peer, client)| (peer, client.address.address)).collect()
    }

    /// A user found that nothing answers at the addresses of these clients, which hold a file. It counts for those whose
    /// addresses are unproven.
    pub fn unreached(&self, user: Uid, (group, file): (Gid, Fid), peers: &[PeerId]) {
        let mut table = self.lock();
        for peer in peers {
            let Some(client) = table.clients.get_mut(peer) else { continue };
            let counts = !client.address.proven
                && client.user != user
                && client.holdings.contains_key(&(group, file))
                && client.unreached.len() < UNREACHED_BY;
            if counts {
                client.unreached.insert(user);
            }
        }
    }

    /// The clients that hold some of a file, but those at addresses where nothing answers.
    #[must_use]
    pub fn holders(&self, group: Gid, file: Fid) -> Vec<Holder> {
        let table = self.lock();
        let peers = table.by_file.get(&(group, file)).into_iter().flatten();
        peers
            .filter_map(|peer| {
                let client = table.clients.get(peer)?;
                let completeness = *client.holdings.get(&(group, file))?;
                if client.unreached.len() >= UNREACHED_BY {
                    return None;
                }
                Some(Holder { peer: *peer, user: client.user, address: client.address, completeness })
            })
            .collect()
    }

    /// A user's lease on stored files begins, is renewed, or ends (`life` zero); false when there are too many.
    #[must_use]
    pub fn lease(&self, user: Uid, id: RequestId, life: Duration) -> bool {
        let mut table = self.lock();
        let taken = table.leases.set(user, id, life, true, Instant::now());
        table.queue(&Change::Lease { user, id, life_ms: milliseconds(life) });
        drop(table);
        self.changed.send_replace(());
        taken
    }

    /// Whether a user has a lease, with this tracker or another.
    #[must_use]
    pub fn has_lease(&self, user: Uid) -> bool {
        self.lock().leases.holds(user, Instant::now())
    }

    /// Whether the tracker of that number is linked and sent everything that it knows.
    #[must_use]
    pub fn has_reported(&self, tracker: u8) -> bool {
        self.lock().reported.contains(&tracker)
    }

    /// How many clients are online, in the whole cluster.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().clients.len()
    }

    /// Starts to collect what is to be sent to the tracker of that number: at first everything.
    pub fn link_up(&self, tracker: u8) {
        self.lock().unsent.insert(tracker, None);
        self.changed.send_replace(());
    }

    /// Stops collecting for a tracker.
    pub fn link_down(&self, tracker: u8) {
        let mut table = self.lock();
        table.unsent.remove(&tracker);
        table.reported.remove(&tracker);
    }

    /// Forgets the clients of a tracker. To be called some seconds after the link with it broke, if it did not come back.
    pub fn forget(&self, tracker: u8) {
        let mut table = self.lock();
        let gone: Vec<PeerId> =
            table.clients.iter().filter(|(_, c)| c.tracker == Some(tracker)).map(|(peer, _)| *peer).collect();
        for peer in gone {
            table.remove(peer);
        }
    }

    /// Fires when [`Presence::take_unsent`] may have something, at first at once.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<()> {
        let mut changed = self.changed.subscribe();
        changed.mark_changed();
        changed
    }

    /// What is to be sent to the tracker of that number, in messages of bounded size.
    #[must_use]
    pub fn take_unsent(&self, tracker: u8) -> Vec<Delta> {
        let mut table = self.lock();
        let Some(unsent) = table.unsent.get_mut(&tracker) else { return Vec::new() };
        let (reset, changes) = match unsent.replace(Vec::new()) {
            Some(changes) => (false, changes),
            None => (true, table.snapshot()),
        };
        if !reset && changes.is_empty() {
            return Vec::new();
        }
        let mut deltas: Vec<Delta> =
            changes.chunks(MAX_DELTA).map(|part| Delta { reset: false, changes: part.to_vec() }).collect();
        match deltas.first_mut() {
            Some(first) => first.reset = reset,
            None => deltas.push(Delta { reset, changes: Vec::new() }),
        }
        deltas
    }

    /// Applies what another tracker sent.
    pub fn apply(&self, tracker: u8, delta: Delta) {
        if delta.reset {
            self.forget(tracker);
        }
        let mut table = self.lock();
        if delta.reset {
            table.reported.insert(tracker);
        }
        for change in delta.changes.into_iter().take(MAX_DELTA) {
            match change {
                Change::Online { peer, user, address, unproven } => {
                    let Ok(address) = address.parse() else { continue };
                    let address = Listening { address, proven: unproven != Some(true) };
                    table.set_online(peer, OnlineClient::new((user, address), Some(tracker), 0));
                }
                Change::Holds { peer, holding } => {
                    if table.clients.get(&peer).is_some_and(|client| client.tracker == Some(tracker)) {
                        table.set_holding(peer, holding);
                    }
                }
                Change::Offline { peer } => {
                    if table.clients.get(&peer).is_some_and(|client| client.tracker == Some(tracker)) {
                        table.remove(peer);
                    }
                }
                Change::Lease { user, id, life_ms } => {
                    let life = Duration::from_millis(life_ms.into());
                    // One that does not fit is not lost: its owner renews it.
                    let _ = table.leases.set(user, id, life, false, Instant::now());
                }
            }
        }
    }
}

impl OnlineClient {
    fn new((user, address): (Uid, Listening), tracker: Option<u8>, epoch: u64) -> Self {
        Self { user, address, unreached: HashSet::new(), tracker, epoch, holdings: HashMap::new() }
    }
}

fn online(peer: PeerId, user: Uid, Listening { address, proven }: Listening) -> Change {
    Change::Online { peer, user, address: address.to_string(), unproven: (!proven).then_some(true) }
}

fn milliseconds(life: Duration) -> u32 {
    u32::try_from(life.as_millis()).unwrap_or(u32::MAX)
}

impl PresenceTable {
    fn set_online(&mut self, peer: PeerId, client: OnlineClient) {
        self.remove(peer);
        self.clients.insert(peer, client);
    }

    /// True if it changed anything.
    fn set_holding(&mut self, peer: PeerId, holding: Holding) -> bool {
        let key = (holding.group, holding.file);
        let Some(client) = self.clients.get_mut(&peer) else { return false };
        if holding.completeness == Completeness::None {
            let held = client.holdings.remove(&key).is_some();
            self.unlist(key, peer);
            return held;
        }
        if client.holdings.len() >= MAX_ANNOUNCED && !client.holdings.contains_key(&key) {
            return false;
        }
        self.by_file.entry(key).or_default().insert(peer);
        client.holdings.insert(key, holding.completeness) != Some(holding.completeness)
    }

    fn remove(&mut self, peer: PeerId) {
        let Some(client) = self.clients.remove(&peer) else { return };
        for key in client.holdings.into_keys() {
            self.unlist(key, peer);
        }
    }

    fn unlist(&mut self, key: (Gid, Fid), peer: PeerId) {
        if let Some(peers) = self.by_file.get_mut(&key) {
            peers.remove(&peer);
            if peers.is_empty() {
                self.by_file.remove(&key);
            }
        }
    }

    fn queue(&mut self, change: &Change) {
        for unsent in self.unsent.values_mut() {
            match unsent {
                Some(changes) if changes.len() < MAX_ANNOUNCED => changes.push(change.clone()),
                _ => *unsent = None,
            }
        }
    }

    fn snapshot(&self) -> Vec<Change> {
        let own = self.clients.iter().filter(|(_, client)| client.tracker.is_none());
        let clients = own.flat_map(|(&peer, client)| {
            let online = online(peer, client.user, client.address);
            let holds = client.holdings.iter().map(move |(&(group, file), &completeness)| Change::Holds {
                peer,
                holding: Holding { group, file, completeness },
            });
            std::iter::once(online).chain(holds)
        });
        // Leases come first, so that the first part of a snapshot has them all.
        let leases = self.leases.own(Instant::now()).into_iter();
        let leases = leases.map(|(user, id, life)| Change::Lease { user, id, life_ms: milliseconds(life) });
        leases.chain(clients).collect()
    }
}

/// Where others reach a client that says it listens at `listen` and is seen to come from `seen`. That is proven if it comes from
/// the same ip, or both are this machine's.
///
/// # Errors
/// When `listen` is no `ip:port`, or one that cannot be dialled.
pub fn reachable_address(listen: &str, seen: IpAddr) -> Result<Listening, String> {
    let address: SocketAddr = listen.parse().map_err(|_| format!("{listen:?} is not an ip:port"))?;
    let (ip, seen) = (address.ip().to_canonical(), seen.to_canonical());
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    if address.port() == 0 || ip.is_multicast() || broadcast {
        return Err(format!("{address} cannot be reached by other peers"));
    }
    if ip.is_unspecified() {
        return Ok(Listening { address: SocketAddr::new(seen, address.port()), proven: true });
    }
    let proven = ip == seen || (is_of_this_machine(seen) && is_of_this_machine(ip));
    Ok(Listening { address: SocketAddr::new(ip, address.port()), proven })
}

/// Where others reach a client that listens at an address of its own network and comes from another one: at its router, if that
/// leads there. That ip is proven.
#[must_use]
pub fn behind_router(own: Listening, seen: IpAddr) -> Listening {
    if own.proven || !is_local(own.address.ip()) || is_local(seen) {
        return own;
    }
    Listening { address: SocketAddr::new(seen.to_canonical(), own.address.port()), proven: true }
}

#[cfg(test)]
mod tests;
