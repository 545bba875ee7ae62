//! Passes on what two clients say that cannot connect, where this tracker's operator allows it (`--relay`). The clients' TLS runs from
//! end to end through it: this tracker sees how much goes through, and between whom, and nothing else.
//!
//! Two tokens name a meeting, one for each end, and are told to the ends alone. Everything is bounded: meetings that wait, connections
//! of one client and in all, and bytes per second of a client, of a user and in all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shoal_common::bucket::{Allowance, Bucket, Buckets};
use shoal_common::tracker_api::ways::{Meeting, RELAY_TOKEN};
use shoal_common::{PeerId, Uid};
use shoal_net::RelayEnd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a meeting waits for its ends: they come at once.
const MEET_WITHIN: Duration = Duration::from_secs(8);
/// How often meetings that nobody came to are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(2);
/// Meetings that wait at most, in all and of one client.
const MAX_WAITING: usize = 1_024;
const MAX_WAITING_OF_CLIENT: usize = 16;
/// Connections at most, in all and of one client.
const MAX_CONNECTIONS: usize = 1_024;
const MAX_OF_CLIENT: usize = 16;
const MAX_OF_USER: usize = 64;
/// A connection over which nothing comes for so long ends: clients say something every 30 s.
const IDLE: Duration = Duration::from_secs(100);
/// Bytes that are passed on at once, at most. Under a low rate it is what that rate lets go at once, so that neither end takes the other for
/// dead.
const CHUNK: usize = 64 * 1024;
/// The least of it.
const LEAST_CHUNK: usize = 4 * 1024;
/// Bytes of one unit of the budgets.
const UNIT: u64 = 1_024;
/// The part of a second whose bytes may go at once.
const BURST: u64 = 4;
/// Clients and users whose budgets and counts are remembered.
const MAX_REMEMBERED: usize = 4_096;
/// Ends that wait to be taken.
pub(crate) const MAX_ARRIVED: usize = 64;
/// What both ends are told when both are there.
const READY: &[u8] = &[1];

/// What an operator allows, in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayTerms {
    /// Of all together.
    pub all: u64,
    /// Of one client, and of one user with all their clients.
    pub peer: u64,
}

/// What was relayed since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Bytes that went through.
    pub bytes: u64,
    /// Connections at present.
    pub connections: u64,
    /// Bytes by user, those with most first, ten at most. Of very many, some are missing.
    pub users: Vec<(Uid, u64)>,
    /// The same by client.
    pub peers: Vec<(PeerId, u64)>,
}

/// A client at one end, and its user.
pub type End = (PeerId, Uid);

/// A handle; all clones are one.
#[derive(Clone)]
pub struct Relay(Arc<RelayState>);

struct RelayState {
    number: u8,
    terms: RelayTerms,
    table: Mutex<RelayTable>,
    budgets: Mutex<RelayBudgets>,
    bytes: AtomicU64,
    tasks: TaskTracker,
    closing: CancellationToken,
}

#[derive(Default)]
struct RelayTable {
    /// By the token of each end.
    waiting: HashMap<[u8; RELAY_TOKEN], Waiting>,
    connections: HashMap<PeerId, usize>,
    /// The same by user.
    users: HashMap<Uid, usize>,
    open: usize,
}

/// An end that is waited for.
struct Waiting {
    who: End,
    other: [u8; RELAY_TOKEN],
    since: Instant,
    /// Its connection, once it is there.
    arrived: Option<RelayEnd>,
}

struct RelayBudgets {
    all: Bucket,
    peers: Buckets<PeerId>,
    users: Buckets<Uid>,
    of_peers: HashMap<PeerId, u64>,
    of_users: HashMap<Uid, u64>,
}

impl RelayTable {
    /// Counts a connection between these ends; false where one of them, or all, have too many.
    fn enter(&mut self, ends: [End; 2]) -> bool {
        let many = |(peer, user): End| {
            self.connections.get(&peer).is_some_and(|open| *open >= MAX_OF_CLIENT)
                || self.users.get(&user).is_some_and(|open| *open >= MAX_OF_USER)
        };
        if self.open >= MAX_CONNECTIONS || ends.into_iter().any(many) {
            return false;
        }
        self.open += 1;
        for (peer, user) in ends {
            *self.connections.entry(peer).or_default() += 1;
            *self.users.entry(user).or_default() += 1;
        }
        true
    }

    fn leave(&mut self, ends: [End; 2]) {
        self.open = self.open.saturating_sub(1);
        for (peer, user) in ends {
            one_less(&mut self.connections, peer);
            one_less(&mut self.users, user);
        }
    }
}

fn one_less<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// Completes when nothing was passed on either way for [`IDLE`].
async fn quiet(mut carried: watch::Receiver<u64>) {
    while timeout(IDLE, carried.changed()).await.is_ok_and(|more| more.is_ok()) {}
}

impl Relay {
    /// Relays at the tracker of that number, with the ends that come.
    #[must_use]
    pub fn start(
        number: u8,
        terms: RelayTerms,
        mut ends: mpsc::Receiver<RelayEnd>,
        tasks: &TaskTracker,
        closing: CancellationToken,
    ) -> Self {
        let budgets = RelayBudgets {
            all: Bucket::full(Instant::now()),
            peers: Buckets::new(MAX_REMEMBERED),
            users: Buckets::new(MAX_REMEMBERED),
            of_peers: HashMap::new(),
            of_users: HashMap::new(),
        };
        let relay = Self(Arc::new(RelayState {
            number,
            terms,
            table: Mutex::default(),
            budgets: Mutex::new(budgets),
            bytes: AtomicU64::new(0),
            tasks: tasks.clone(),
            closing: closing.clone(),
        }));
        let this = relay.clone();
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = closing.cancelled() => return,
                    Some(end) = ends.recv() => this.arrived(end),
                    () = tokio::time::sleep(FORGET_EVERY) => this.forget(),
                }
            }
        });
        relay
    }

    /// Arranges a meeting of two clients; gives where each goes. None where one of them, or all, have too many.
    #[must_use]
    pub fn arrange(&self, one: End, other: End) -> Option<(Meeting, Meeting)> {
        let (mut first, mut second) = ([0; RELAY_TOKEN], [0; RELAY_TOKEN]);
        getrandom::fill(&mut first).ok()?;
        getrandom::fill(&mut second).ok()?;
        self.forget();
        let mut table = self.table();
        let too_many = |peer: PeerId| {
            let waiting = table.waiting.values().filter(|waiting| waiting.who.0 == peer).count();
            let open = table.connections.get(&peer).copied().unwrap_or(0);
            waiting >= MAX_WAITING_OF_CLIENT || open >= MAX_OF_CLIENT
        };
        // Only who asks is counted among those that wait: nobody fills another one's places.
        let asked = table.connections.get(&other.0).is_some_and(|open| *open >= MAX_OF_CLIENT);
        if table.waiting.len() >= 2 * MAX_WAITING || table.open >= MAX_CONNECTIONS || too_many(one.0) || asked
        {
            return None;
        }
        let since = Instant::now();
        table.waiting.insert(first, Waiting { who: one, other: second, since, arrived: None });
        table.waiting.insert(second, Waiting { who: other, other: first, since, arrived: None });
        let at = |token| Meeting { tracker: self.0.number, token };
        Some((at(first), at(second)))
    }

    /// What was relayed so far.
    #[must_use]
    pub fn relayed(&self) -> Relayed {
        let connections = self.table().open as u64;
        let budgets = self.budgets();
        let (users, peers) = (most(&budgets.of_users), most(&budgets.of_peers));
        Relayed { bytes: self.0.bytes.load(Ordering::Relaxed), connections, users, peers }
    }

    /// One end is there. One with no token of a meeting is closed.
    fn arrived(&self, end: RelayEnd) {
        let mut table = self.table();
        let Some(waiting) = table.waiting.get(&end.token) else { return };
        let (who, other_token) = (waiting.who, waiting.other);
        let other =
            table.waiting.get_mut(&other_token).and_then(|other| Some((other.who, other.arrived.take()?)));
        let Some((other_who, other)) = other else {
            // A token is good once: a second connection with it does not push the first one out.
            if let Some(waiting) = table.waiting.get_mut(&end.token)
                && waiting.arrived.is_none()
            {
                waiting.arrived = Some(end);
            }
            return;
        };
        table.waiting.remove(&end.token);
        table.waiting.remove(&other_token);
        // Many may have been arranged while none was open.
        if !table.enter([who, other_who]) {
            return;
        }
        drop(table);
        let (relay, closing) = (self.clone(), self.0.closing.clone());
        self.0.tasks.spawn(async move {
            let ends = [who, other_who];
            let carried = closing.run_until_cancelled(relay.splice(end, other, ends)).await.unwrap_or(0);
            tracing::debug!(one = %who.0, other = %other_who.0, bytes = carried, "a relayed connection ended");
            relay.left(ends);
        });
    }

    fn left(&self, ends: [End; 2]) {
        self.table().leave(ends);
    }

    /// Passes on both ways until either ends; gives how many bytes.
    async fn splice(&self, one: RelayEnd, other: RelayEnd, ends: [End; 2]) -> u64 {
        let ((one_in, mut one_out), (other_in, mut other_out)) =
            (one.tcp.into_split(), other.tcp.into_split());
        if one_out.write_all(READY).await.is_err() || other_out.write_all(READY).await.is_err() {
            return 0;
        }
        let carried = watch::Sender::new(0);
        tokio::select! {
            () = self.pass(one_in, other_out, ends, &carried) => {}
            () = self.pass(other_in, one_out, ends, &carried) => {}
            () = quiet(carried.subscribe()) => {}
        }
        *carried.borrow()
    }

    /// Passes on one way, as fast as the budgets allow.
    async fn pass(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        ends: [End; 2],
        carried: &watch::Sender<u64>,
    ) {
        let at_once = usize::try_from(self.0.terms.peer / BURST).unwrap_or(CHUNK).clamp(LEAST_CHUNK, CHUNK);
        let mut buffer = vec![0; at_once];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            tokio::time::sleep(self.charge(length as u64, ends)).await;
            let written = timeout(IDLE, to.write_all(&buffer[..length])).await;
            if !matches!(written, Ok(Ok(()))) {
                return;
            }
            carried.send_modify(|bytes| *bytes += length as u64);
        }
        // What was said is still heard.
        let _ = timeout(IDLE, to.shutdown()).await;
    }

    /// Takes so many bytes out of all budgets; gives how long that is to be waited for.
    fn charge(&self, bytes: u64, ends: [End; 2]) -> Duration {
        let now = Instant::now();
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let (of_all, of_one) = (allowance(self.0.terms.all), allowance(self.0.terms.peer));
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut budgets = self.budgets();
        let mut wait = budgets.all.charge(units, of_all, now);
        let [(one, one_user), (other, other_user)] = ends;
        for peer in [one, other] {
            let mut bucket = budgets.peers.of(peer, now);
            wait = wait.max(bucket.charge(units, of_one, now));
            budgets.peers.set(peer, bucket, now);
            count(&mut budgets.of_peers, peer, bytes);
        }
        // One user at both ends pays once.
        for user in [Some(one_user), Some(other_user).filter(|user| *user != one_user)].into_iter().flatten()
        {
            let mut bucket = budgets.users.of(user, now);
            wait = wait.max(bucket.charge(units, of_one, now));
            budgets.users.set(user, bucket, now);
            count(&mut budgets.of_users, user, bytes);
        }
        wait
    }

    fn forget(&self) {
        self.table().waiting.retain(|_, waiting| waiting.since.elapsed() < MEET_WITHIN);
    }

    fn table(&self) -> MutexGuard<'_, RelayTable> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn budgets(&self) -> MutexGuard<'_, RelayBudgets> {
        self.0.budgets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many bytes per second, a part of which may go at once.
fn allowance(rate: u64) -> Allowance {
    let units = (rate / UNIT).max(1);
    let burst = (units / BURST).max(2 * CHUNK as u64 / UNIT);
    Allowance {
        burst: u32::try_from(burst).unwrap_or(u32::MAX),
        refill: Duration::from_secs(1) / u32::try_from(units).unwrap_or(u32::MAX),
    }
}

fn count<K: Copy + Eq + std::hash::Hash>(counts: &mut HashMap<K, u64>, key: K, bytes: u64) {
    if counts.len() < MAX_REMEMBERED || counts.contains_key(&key) {
        *counts.entry(key).or_default() += bytes;
    }
}

fn most<K: Copy + Ord>(counts: &HashMap<K, u64>) -> Vec<(K, u64)> {
    let mut all: Vec<(K, u64)> = counts.iter().map(|(key, bytes)| (*key, *bytes)).collect();
    all.sort_unstable_by_key(|&(key, bytes)| (std::cmp::Reverse(bytes), key));
    all.truncate(10);
    all
}
