//! The swarm half of the client: serves pieces of shared files to other members' peers, and is the source of pieces
//! that the engine downloads from. `app` tells it what to serve and asks it for sources; it knows nothing of trackers
//! but what the [`TicketBook`] says, and never decides what is downloaded.
//!
//! Serving: [`connection_limits`] say who is let in, [`serve`] carries one connection, [`uploads`] knows the files, [`shoal_policy`] decides who
//! gets what. Fetching: [`fetch`].

mod fetch;
mod have_log;
mod knocks;
mod price;
mod refusal;
mod serve;
mod served;
mod uploads;
mod way;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use shoal_common::peer_wire::CopyTrouble;
use shoal_common::{Layout, PeerId};
use shoal_console::descriptors;
use shoal_net::bulk::{BulkLimits, BulkStream, Listener};
use shoal_net::{Budgets, ConnectionLimits, Full, Identity, Limit, LimitScope, NetError, Payer};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::fetch::{Liveness, PeerSource, Trouble};
use self::fetch::{Peers, Target};
use self::knocks::Judge;
use self::serve::Requester;
pub use self::served::{Body, Served};
use self::uploads::Uploads;
pub use self::way::Way;
use shoal_common::budget::Budget;
use shoal_session::tickets::TicketBook;
use shoal_session::ways::Ways;

/// How often a requester says something, so that the server knows it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long [`Swarm::shutdown`] waits for tasks; all of them end at once when asked to, but for a read from a slow disk.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Connections to us at most: each costs a socket and half a megabyte of buffers.
const MAX_CONNECTIONS: usize = 256;
/// One in so many places is for strangers, who have not shown a ticket yet, and for them alone. Anyone can make a key and
/// complete a handshake, so what strangers can take is bounded apart from what members have.
const STRANGERS_PER: usize = 8;
/// One in so many of the strangers' places may be taken from one address. A member needs its place for one round trip.
const STRANGERS_PER_ADDRESS: usize = 2;
/// Connections of one peer: its four, and two that are on their way out.
const MAX_PER_PEER: usize = 6;

/// Clients that are dialled at a time because they asked for it.
const MAX_DIALS: usize = 16;

pub use shoal_policy::FileKey;

/// Under which key the holders of a folder serve its listing, to the same members.
#[must_use]
pub fn listing_key(folder: FileKey) -> FileKey {
    FileKey { group: folder.group, file: folder.file.of_listing() }
}

/// How a swarm begins.
#[derive(Debug, Clone)]
pub struct SwarmConfig {
    /// Who we are.
    pub identity: Identity,
    /// Where other peers reach us; port 0 takes any.
    pub listen: SocketAddr,
    /// How many peers are served at a time, all files together; 0 is taken as 1.
    pub upload_slots: usize,
}

/// What happens in the swarm that others should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwarmEvent {
    /// A served file may not be what was shared any more: it is withheld until its owner has looked at it.
    FileChanged(FileKey),
    /// A served file cannot be read, and what the system says: it is withheld until its owner has looked at it.
    FileUnreadable(FileKey, String),
}

/// What was uploaded since the swarm started, in bytes of whole pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uploaded {
    /// Altogether.
    pub total: u64,
    /// Of each file. Of very many, some may be missing here.
    pub files: HashMap<FileKey, u64>,
    /// To each peer. Of very many, some may be missing here.
    pub peers: HashMap<PeerId, u64>,
}

/// The swarm. Cheap to clone; it lives until [`Swarm::shutdown`].
#[derive(Debug, Clone)]
pub struct Swarm {
    shared: Arc<SwarmShared>,
}

#[derive(Debug)]
struct SwarmShared {
    local_addr: SocketAddr,
    tickets: TicketBook,
    uploads: Uploads,
    peers: Arc<Peers>,
    /// Another peer connected.
    reached: AtomicBool,
    targets: Mutex<HashMap<(FileKey, PeerId), Weak<Target>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Swarm {
    /// Listens, and serves peers that show a ticket that `tickets` finds good.
    ///
    /// # Errors
    /// When the address cannot be listened on; the error names it.
    pub async fn start(config: SwarmConfig, tickets: TicketBook) -> Result<Self, NetError> {
        Self::start_with(config, tickets, None).await
    }

    /// As [`start`](Self::start). With `ways`, peers that cannot simply be reached are reached with the trackers' help, and
    /// those that ask for it in that way are dialled and served.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(
        config: SwarmConfig,
        tickets: TicketBook,
        ways: Option<Ways>,
    ) -> Result<Self, NetError> {
        let SwarmConfig { identity, listen, upload_slots } = config;
        // The listener bounds handshakes and sockets, `connection_limits` what comes behind them.
        let budget = Budget::of(descriptors::limit());
        let limits = BulkLimits::default().within(budget.inbound, budget.pending);
        let listener = Listener::bind(listen, &identity, limits)?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let uploads = Uploads::new(upload_slots, tasks.clone(), stop.clone());
        let arranged = ways.clone().map(|ways| (ways, tickets.clone()));
        let peers = Peers::new(identity.clone(), arranged, budget.outbound, tasks.clone(), stop.clone());
        let local_addr = listener.local_addr();
        let targets = Mutex::default();
        let shared =
            SwarmShared { local_addr, tickets, uploads, peers, reached: false.into(), targets, tasks, stop };
        let swarm = Self { shared: Arc::new(shared) };
        let gate =
            Arc::new(Entrance { limits: connection_limits(budget.inbound), budgets: Budgets::default() });
        if let Some(ways) = ways {
            swarm.shared.tasks.spawn(swarm.clone().answer_knocks(ways, identity, gate.clone()));
        }
        swarm.shared.tasks.spawn(swarm.clone().accept(listener, gate));
        Ok(swarm)
    }

    /// Where we listen, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local_addr
    }

    /// Serves a file from now on. A file that is served already goes on from its new body: the finished file instead of
    /// the partial one, for those who have it open too. A part is served only while the whole is not.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn serve(&self, key: FileKey, served: Served) {
        self.shared.uploads.serve(key, served);
    }

    /// Stops serving a file. Requests under way end, and those that have it open are sent the reason.
    pub fn stop(&self, key: FileKey) {
        self.shared.uploads.stop(key);
        self.shared.uploads.stop(listing_key(key));
    }

    /// Serves the listing of a folder, until that is stopped.
    ///
    /// # Panics
    /// As [`Swarm::serve`].
    pub fn serve_listing(&self, folder: FileKey, served: Served) {
        self.shared.uploads.serve(listing_key(folder), served);
    }

    /// Stops offering the parts of a download. The whole file, if it is served too, is still served.
    pub fn stop_part(&self, key: FileKey) {
        self.shared.uploads.stop_part(key);
        if !self.serves(key) {
            self.shared.uploads.stop(listing_key(key));
        }
    }

    /// Stops serving a shared file for now. Those that ask for it are sent the reason. False if it is being downloaded:
    /// what is there of it is still served.
    pub fn withhold(&self, key: FileKey, trouble: CopyTrouble) -> bool {
        self.shared.uploads.withhold(key, trouble)
    }

    /// Whether another peer connected to this one since it started.
    #[must_use]
    pub fn was_reached(&self) -> bool {
        self.shared.reached.load(Ordering::Relaxed)
    }

    /// Whether a file is served.
    #[must_use]
    pub fn serves(&self, key: FileKey) -> bool {
        self.shared.uploads.serves(key)
    }

    /// Limits all uploads together to so many bytes per second; `None` or 0 is no limit.
    pub fn set_upload_limit(&self, bytes_per_second: Option<u64>) {
        self.shared.uploads.limiter().set_rate(bytes_per_second);
    }

    /// A source for the engine: the file `key` at `peer`, reached at one of the addresses. It connects by itself, and is
    /// over when that fails or the connection ends: see [`PeerSource::liveness`]. Connections to the peer at other
    /// addresses end, also those of its other files. While the file is served here too, what we hold is announced to the peer.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn source(&self, key: FileKey, peer: PeerId, addresses: &[SocketAddr], layout: Layout) -> PeerSource {
        let (source, target) = PeerSource::start(fetch::Start {
            key,
            peer,
            addresses,
            layout,
            peers: &self.shared.peers,
            tickets: self.shared.tickets.clone(),
            uploads: self.shared.uploads.clone(),
            tasks: &self.shared.tasks,
            stop: self.shared.stop.child_token(),
        });
        let mut targets = self.targets();
        targets.retain(|_, target| target.strong_count() > 0);
        targets.insert((key, peer), Arc::downgrade(&target));
        source
    }

    /// There is reason to doubt that connections to this peer are still alive: those on which nothing comes end.
    pub fn doubt(&self, peer: PeerId) {
        self.shared.peers.doubt(peer);
    }

    /// Ends all connections on which we fetch; those that are being made begin again. After a sleep of this machine it is
    /// unknown which of them are dead.
    pub fn redial(&self) {
        self.shared.peers.redial();
    }

    /// How much of a file a peer holds, in percent; `None` unless it is connected for that file, in either direction.
    #[must_use]
    pub fn peer_percent(&self, key: FileKey, peer: PeerId) -> Option<u8> {
        let target = self.targets().get(&(key, peer)).and_then(Weak::upgrade);
        target.and_then(|target| target.percent()).or_else(|| self.shared.uploads.percent(key, peer))
    }

    /// Over which way this client asks a peer for a file; `None` unless it is connected.
    #[must_use]
    pub fn peer_way(&self, key: FileKey, peer: PeerId) -> Option<Way> {
        self.targets().get(&(key, peer)).and_then(Weak::upgrade).and_then(|target| target.way())
    }

    /// What was uploaded so far.
    #[must_use]
    pub fn uploaded(&self) -> Uploaded {
        self.shared.uploads.uploaded()
    }

    /// What happens from now on. A listener that is too slow misses some.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<SwarmEvent> {
        self.shared.uploads.events()
    }

    /// Ends everything, and waits for it within a deadline of 5 s.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(SHUTDOWN, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.shared.tasks.len(), "the swarm's tasks did not end in time");
        }
    }

    /// Lets connections in until the end.
    async fn accept(self, mut listener: Listener, entrance: Arc<Entrance>) {
        while let Some(Ok((stream, from))) = self.shared.stop.run_until_cancelled(listener.accept()).await {
            self.shared.reached.store(true, Ordering::Relaxed);
            if stream.is_reversed() {
                let peer = stream.peer();
                if !self.shared.peers.arrived(stream) {
                    tracing::debug!(%peer, "a peer came to serve what nobody waits for");
                }
            } else {
                self.admit(stream, from.ip(), &entrance);
            }
        }
        listener.close().await;
    }

    /// Serves a connection, if there may be one more.
    fn admit(&self, stream: BulkStream, from: IpAddr, entrance: &Entrance) {
        let (peer, end) = (stream.peer(), self.shared.stop.child_token());
        match entrance.limits.admit(from, peer, end.clone()) {
            Ok(place) => {
                let place = Arc::new(place);
                let (uploads, tickets) = (self.shared.uploads.clone(), self.shared.tickets.clone());
                let budget = entrance.budgets.connection(Payer::address(from), price::STRANGER);
                let requester = Requester { peer, uploads, tickets, place, budget, end };
                self.shared.tasks.spawn(serve_one(requester, stream));
            }
            Err(refused) => tracing::debug!(%peer, %refused, "turned away"),
        }
    }

    /// Dials clients that ask for it, and serves them, until the end.
    async fn answer_knocks(self, ways: Ways, identity: Identity, entrance: Arc<Entrance>) {
        let Some(mut knocks) = ways.knocks() else { return };
        let stop = self.shared.stop.clone();
        let (tickets, uploads) = (self.shared.tickets.clone(), self.shared.uploads.clone());
        let serves = Box::new(move |group| uploads.serves_any_of(group));
        let mut judge = Judge::new(ways.clone(), tickets, serves, self.local_addr().ip());
        let mut dials = JoinSet::new();
        loop {
            let knocked = tokio::select! {
                () = stop.cancelled() => return,
                Some(dialled) = dials.join_next() => {
                    if let Ok(Some((stream, from))) = dialled {
                        self.admit(stream, from, &entrance);
                    }
                    continue;
                }
                Some(knocked) = knocks.recv(), if dials.len() < MAX_DIALS => knocked,
            };
            match judge.judge(knocked).await {
                Ok(asked) => {
                    let (ways, identity) = (ways.clone(), identity.clone());
                    dials.spawn(async move { asked.connect(&ways, &identity).await });
                }
                Err(why) => tracing::debug!(%why, "a request to connect is not heard"),
            }
        }
    }

    fn targets(&self) -> MutexGuard<'_, HashMap<(FileKey, PeerId), Weak<Target>>> {
        self.shared.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What those who are served have to pass.
struct Entrance {
    limits: ConnectionLimits,
    budgets: Budgets,
}

/// Which connections to us there may be, in a process that may have so many. A user's keys count together, so that one
/// account keeps no others out.
fn connection_limits(inbound: usize) -> ConnectionLimits {
    // The listener counts a connection until it is closed, which takes a moment after it gave way.
    let most = MAX_CONNECTIONS.min(inbound - inbound / 8).max(2);
    let strangers = (most / STRANGERS_PER).max(1);
    let at_address = (strangers / STRANGERS_PER_ADDRESS).max(1);
    ConnectionLimits::new(vec![
        Limit::new(LimitScope::Peer, MAX_PER_PEER, Full::OldestGivesWay),
        Limit::new(LimitScope::StrangersAtAddress, at_address, Full::OldestGivesWay),
        Limit::new(LimitScope::Strangers, strangers, Full::LargestStrangersGiveWay),
        Limit::new(LimitScope::Members, most - strangers, Full::LargestUserGivesWay),
    ])
}

/// Serves one connection until it ends.
async fn serve_one(requester: Requester, stream: BulkStream) {
    let (peer, end) = (requester.peer, requester.end.clone());
    let _ends = end.drop_guard();
    let (input, output) = stream.into_split();
    let reason = serve::serve(requester, input, output).await;
    tracing::debug!(%peer, reason, "a connection from a requester ended");
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use shoal_common::Uid;
    use shoal_net::Place;

    use super::*;

    const MANY: usize = 4_096;
    const MAX_STRANGERS: usize = MAX_CONNECTIONS / STRANGERS_PER;
    const MAX_MEMBERS: usize = MAX_CONNECTIONS - MAX_STRANGERS;

    fn admit(limits: &ConnectionLimits, peer: u16, host: u8) -> (Place, CancellationToken) {
        let end = CancellationToken::new();
        let mut id = [0; 32];
        id[..2].copy_from_slice(&peer.to_le_bytes());
        let place = limits.admit(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)), PeerId(id), end.clone());
        (place.unwrap(), end)
    }

    fn admit_member(limits: &ConnectionLimits, user: u8, peer: u16) -> Option<(Place, CancellationToken)> {
        let member = admit(limits, peer, 1);
        member.0.recognise(Uid([user; 16])).ok().map(|()| member)
    }

    fn left(all: &[(Place, CancellationToken)]) -> usize {
        all.iter().filter(|(_, end)| !end.is_cancelled()).count()
    }

    #[test]
    fn a_peers_oldest_connection_gives_way() {
        let limits = connection_limits(MANY);
        let all: Vec<_> = (0..=MAX_PER_PEER).map(|_| admit(&limits, 1, 1)).collect();
        let ended: Vec<bool> = all.iter().map(|(_, end)| end.is_cancelled()).collect();
        assert_eq!(ended, [true, false, false, false, false, false, false]);
    }

    #[test]
    fn strangers_take_each_others_places_and_not_members() {
        let limits = connection_limits(MANY);
        let members: Vec<_> =
            (0..100).map(|peer| admit_member(&limits, u8::try_from(peer).unwrap(), peer).unwrap()).collect();
        let strangers: Vec<_> = (100..250).map(|peer| admit(&limits, peer, 1)).collect();
        let others: Vec<_> = (300..305).map(|peer| admit(&limits, peer, 2)).collect();
        let more: Vec<_> = (400..550).map(|peer| admit(&limits, peer, 1)).collect();
        assert_eq!(left(&members), 100);
        assert_eq!(left(&strangers) + left(&more), MAX_STRANGERS / STRANGERS_PER_ADDRESS, "from one address");
        assert_eq!(left(&others), 5, "those from elsewhere stay");
    }

    #[test]
    fn one_account_with_many_keys_leaves_every_other_account_a_place() {
        let limits = connection_limits(MANY);
        let crowd: Vec<_> = (0..512).filter_map(|peer| admit_member(&limits, 1, peer)).collect();
        assert_eq!(left(&crowd), MAX_MEMBERS, "all while no others want any");
        let others: Vec<_> =
            (2..100).map(|user| admit_member(&limits, user, 1_000 + u16::from(user)).unwrap()).collect();
        let again: Vec<_> = (0..512).filter_map(|peer| admit_member(&limits, 1, peer)).collect();
        assert_eq!(left(&others), 98);
        assert_eq!(left(&crowd) + left(&again), MAX_MEMBERS - 98);
    }

    #[test]
    fn when_all_is_taken_those_who_have_two_share_with_those_who_have_none() {
        let limits = connection_limits(MANY);
        let half = u8::try_from(MAX_MEMBERS / 2).unwrap();
        let member = |user: u8| admit_member(&limits, user, user.into()).unwrap();
        let first: Vec<_> = (0..half).flat_map(|user| [user, user]).map(member).collect();
        let late: Vec<_> = (half..2 * half).map(member).collect();
        assert_eq!((left(&first), left(&late)), (half.into(), half.into()), "each has one");
        assert!(admit_member(&limits, 0, 0).is_none());
    }

    #[test]
    fn a_process_with_few_descriptors_keeps_places_for_strangers_and_members() {
        let limits = connection_limits(8);
        let crowd: Vec<_> = (0..50).filter_map(|peer| admit_member(&limits, 1, peer)).collect();
        assert_eq!(left(&crowd), 6);
        let other = admit_member(&limits, 2, 99).unwrap();
        let stranger = admit(&limits, 100, 1);
        assert_eq!((left(&crowd), left(&[other, stranger])), (5, 2));
    }
}
