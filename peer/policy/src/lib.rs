//! Who is served next: the uploads of all files, as a value. Events go in with their time, actions come out; sockets,
//! disk and clock are the caller's.
//!
//! A seeder decides by its [`SuperSeeding`] state. A peer that holds a part of a file sends a requester elsewhere that would
//! wait long. For both,
//!
//! - the piece that was sent least goes first;
//! - at most `slots` peers are served at a time;
//! - while several users want something, each is served with as many peers at a time as the one that wants with fewest, and
//!   users take turns: the keys of one account get together what an account with one key gets;
//! - a requester that has waited for a second, and got nothing from other peers meanwhile, goes before the rest, so that no
//!   requester starves.
//!
//! A lone requester gets its pieces in the order in which it asks for them.

mod events;
mod scheduler;
mod super_seeding;
mod users;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use shoal_common::{Layout, PeerId, PieceIndex, Uid};

pub use self::events::{Action, ChannelId, Event, FileKey};

use self::scheduler::LEECHER_QUEUE;
use self::super_seeding::{Decision, RequesterId, SuperSeeding};
use self::users::User;

/// A requester that received nothing for this long is answered Busy, before its own timeout fires.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// When such a requester may ask again.
const BUSY: Duration = Duration::from_secs(1);
/// When a requester may ask again that is sent elsewhere because the queue here is long: the time of a few servings.
const ELSEWHERE: Duration = Duration::from_millis(250);
/// How long a peer that was answered Busy keeps its place in the queue.
const PLACE_KEPT: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct File {
    super_seeding: SuperSeeding,
    layout: Layout,
    seeding: bool,
    /// Its requesters, and the number of their channels.
    requesters: HashMap<PeerId, (RequesterId, usize)>,
    /// Peers that are being sent pieces of it, and how many pieces.
    active: BTreeMap<PeerId, usize>,
    /// Its channels with waiting requests.
    queued: BTreeSet<ChannelId>,
}

#[derive(Debug)]
struct Channel {
    peer: PeerId,
    key: FileKey,
    requester: RequesterId,
    /// Requests in order of arrival, with their numbers.
    waiting: VecDeque<(u64, PieceIndex)>,
    active: Vec<(PieceIndex, Instant)>,
    active_bytes: u64,
    /// Bytes per second at which pieces went out lately.
    rate: u64,
}

/// A peer, all its channels together.
#[derive(Debug)]
struct Peer {
    user: Uid,
    channels: usize,
    /// Requests that wait.
    waiting: usize,
    /// Pieces under way.
    active: usize,
    /// The number of its last serving, counted over all peers.
    last_served: u64,
    /// Since when it has waited without being served.
    waiting_since: Option<Instant>,
    /// When it last announced a piece that another peer gave it.
    served_elsewhere: Option<Instant>,
    /// Until when `waiting_since` counts although nothing waits.
    place_until: Option<Instant>,
}

/// The state of all uploads.
#[derive(Debug)]
pub struct Policy {
    slots: usize,
    files: BTreeMap<FileKey, File>,
    channels: BTreeMap<ChannelId, Channel>,
    /// The files with waiting requests.
    busy: BTreeSet<FileKey>,
    /// No waiting request could be served when that was tried last, and nothing has changed that since.
    stuck: bool,
    peers: BTreeMap<PeerId, Peer>,
    users: BTreeMap<Uid, User>,
    active_peers: usize,
    ready: VecDeque<Action>,
    arrivals: u64,
    servings: u64,
    rng: fastrand::Rng,
}

impl Policy {
    /// No uploads yet. At most `slots` peers, at least one, are served at a time.
    pub fn new(slots: usize, rng: fastrand::Rng) -> Self {
        Self {
            slots: slots.max(1),
            files: BTreeMap::new(),
            channels: BTreeMap::new(),
            busy: BTreeSet::new(),
            stuck: true,
            peers: BTreeMap::new(),
            users: BTreeMap::new(),
            active_peers: 0,
            ready: VecDeque::new(),
            arrivals: 0,
            servings: 0,
            rng,
        }
    }

    /// Whether there is nothing to do until the next event other than a tick.
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.busy.is_empty()
    }

    /// How many pieces of a file a requester said it holds; `None` if it does not have the file open.
    pub fn holds(&self, key: FileKey, peer: PeerId) -> Option<u32> {
        let file = self.files.get(&key)?;
        let (requester, _) = file.requesters.get(&peer)?;
        file.super_seeding.holds(*requester)
    }

    /// Takes an event. Events of channels that are not open are ignored.
    pub fn handle(&mut self, event: Event, now: Instant) {
        self.stuck &= matches!(event, Event::Opened { .. } | Event::Have { .. } | Event::Request { .. });
        match event {
            Event::Opened { channel, user, peer, key, layout, seeding } => {
                self.open(channel, (user, peer), key, layout, seeding)
            }
            Event::Completed { key } => {
                if let Some(file) = self.files.get_mut(&key) {
                    file.seeding = true;
                }
            }
            Event::Have { channel, pieces } => {
                if let Some((channel, file)) = self.channel(channel) {
                    let (peer, requester) = (channel.peer, channel.requester);
                    let elsewhere =
                        pieces.iter().filter(|&&piece| file.super_seeding.have(requester, piece)).count();
                    if elsewhere > 0
                        && let Some(peer) = self.peers.get_mut(&peer)
                    {
                        peer.served_elsewhere = Some(now);
                    }
                }
            }
            Event::Request { channel, piece } => self.request(channel, piece, now),
            Event::Cancel { channel, piece } => self.cancel(channel, piece),
            Event::Sent { channel, piece } => self.ended(channel, piece, true, now),
            Event::Aborted { channel, piece } => self.ended(channel, piece, false, now),
            Event::Closed { channel } => self.close(channel, now),
            Event::Tick => self.tick(now),
        }
    }

    /// The next action; call it until there is none.
    pub fn next(&mut self, now: Instant) -> Option<Action> {
        self.ready.pop_front().or_else(|| self.pick(now))
    }

    fn channel(&mut self, id: ChannelId) -> Option<(&mut Channel, &mut File)> {
        let channel = self.channels.get_mut(&id)?;
        let file = self.files.get_mut(&channel.key)?;
        Some((channel, file))
    }

    fn open(
        &mut self,
        id: ChannelId,
        (user, peer): (Uid, PeerId),
        key: FileKey,
        layout: Layout,
        seeding: bool,
    ) {
        let rng = &mut self.rng;
        let file = self.files.entry(key).or_insert_with(|| File {
            super_seeding: SuperSeeding::new(layout.clone(), rng.fork()),
            layout,
            seeding,
            requesters: HashMap::new(),
            active: BTreeMap::new(),
            queued: BTreeSet::new(),
        });
        let (requester, channels) =
            file.requesters.entry(peer).or_insert_with(|| (file.super_seeding.join(user), 0));
        *channels += 1;
        let channel = Channel {
            peer,
            key,
            requester: *requester,
            waiting: VecDeque::new(),
            active: Vec::new(),
            active_bytes: 0,
            rate: 0,
        };
        self.channels.insert(id, channel);
        let last_served = self.servings;
        let peer = self.peers.entry(peer).or_insert_with(|| Peer {
            user,
            channels: 0,
            waiting: 0,
            active: 0,
            last_served,
            waiting_since: None,
            served_elsewhere: None,
            place_until: None,
        });
        if peer.channels == 0 {
            let new = User { peers: 0, wanting: 0, active: 0, last_served, served_at: None };
            self.users.entry(user).or_insert(new).peers += 1;
        }
        peer.channels += 1;
    }

    fn request(&mut self, id: ChannelId, piece: PieceIndex, now: Instant) {
        let arrival = self.arrivals;
        let patient = self.is_patient(id, now);
        let overrun = self.file_of(id).is_some_and(|file| self.is_overrun(id, file, LEECHER_QUEUE));
        let Some((channel, file)) = self.channel(id) else { return };
        let decision = match file.seeding {
            true => file.super_seeding.ask(channel.requester, piece, now),
            false => Decision::Serve,
        };
        if let Decision::NotNow { after, instead } = decision {
            self.ready.push_back(Action::NotNow { channel: id, piece, after, instead });
            return;
        }
        if patient && overrun && channel.is_idle() {
            return self.send_elsewhere(id, piece, now);
        }
        channel.waiting.push_back((arrival, piece));
        file.queued.insert(id);
        let (peer, key) = (channel.peer, channel.key);
        self.arrivals += 1;
        self.busy.insert(key);
        self.change(peer, |peer| {
            peer.waiting += 1;
            peer.waiting_since.get_or_insert(now);
            peer.place_until = None;
        });
        self.stuck = self.stuck && !self.channels.get(&id).is_some_and(|channel| self.could_serve(channel));
    }

    fn file_of(&self, id: ChannelId) -> Option<&File> {
        self.files.get(&self.channels.get(&id)?.key)
    }

    /// Refuses a request that other peers will serve sooner. The requester's place in the queue counts from now on.
    fn send_elsewhere(&mut self, id: ChannelId, piece: PieceIndex, now: Instant) {
        self.ready.push_back(Action::Busy { channel: id, piece, after: ELSEWHERE });
        let Some(peer) = self.channels.get(&id).map(|channel| channel.peer) else { return };
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.waiting_since.get_or_insert(now);
        }
        self.lapse(peer, now);
    }

    fn cancel(&mut self, id: ChannelId, piece: PieceIndex) {
        let Some((channel, file)) = self.channel(id) else { return };
        if let Some(at) = channel.waiting.iter().position(|&(_, waiting)| waiting == piece) {
            channel.waiting.remove(at);
            file.super_seeding.withdraw(channel.requester, piece);
            self.unqueue(id, 1);
            self.ready.push_back(Action::NotNow { channel: id, piece, after: Duration::ZERO, instead: None });
        } else if channel.active.iter().any(|&(active, _)| active == piece) {
            self.ready.push_back(Action::Stop { channel: id, piece });
        }
    }

    fn ended(&mut self, id: ChannelId, piece: PieceIndex, whole: bool, now: Instant) {
        let Some((channel, file)) = self.channel(id) else { return };
        let Some(at) = channel.active.iter().position(|&(active, _)| active == piece) else { return };
        let (_, since) = channel.active.remove(at);
        let took = now.saturating_duration_since(since);
        let length = u64::from(file.layout.length(piece));
        channel.active_bytes -= length;
        if whole {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
            let rate = (length + channel.active_bytes).saturating_mul(1_000_000) / micros;
            channel.rate = (channel.rate * 3 + rate) / 4;
            file.super_seeding.sent(channel.requester, piece, took, now);
        } else {
            file.super_seeding.unsent(channel.requester, piece);
        }
        let (peer, key) = (channel.peer, channel.key);
        self.release(peer, key, 1);
    }

    fn close(&mut self, id: ChannelId, now: Instant) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let waiting = std::mem::take(&mut channel.waiting);
        self.unqueue(id, waiting.len());
        let Some(channel) = self.channels.remove(&id) else { return };
        self.release(channel.peer, channel.key, channel.active.len());
        if let Some(file) = self.files.get_mut(&channel.key) {
            channel.active.iter().for_each(|&(piece, _)| file.super_seeding.unsent(channel.requester, piece));
            waiting.iter().for_each(|&(_, piece)| file.super_seeding.withdraw(channel.requester, piece));
            if let Some((requester, channels)) = file.requesters.get_mut(&channel.peer) {
                *channels -= 1;
                if *channels == 0 {
                    file.super_seeding.leave(*requester);
                    file.requesters.remove(&channel.peer);
                }
            }
            if file.requesters.is_empty() {
                self.files.remove(&channel.key);
            }
        }
        if let Some(peer) = self.peers.get_mut(&channel.peer) {
            peer.channels -= 1;
            if peer.channels == 0 {
                let user = peer.user;
                self.peers.remove(&channel.peer);
                self.peer_left(user);
            }
        }
        self.ready.retain(|action| action.channel() != id);
        self.lapse(channel.peer, now);
    }

    /// Frees the slots of `pieces` pieces that are no longer under way.
    fn release(&mut self, id: PeerId, key: FileKey, pieces: usize) {
        if pieces == 0 {
            return;
        }
        self.change(id, |peer| peer.active -= pieces);
        if let Some(file) = self.files.get_mut(&key)
            && let Some(active) = file.active.get_mut(&id)
        {
            *active -= pieces;
            if *active == 0 {
                file.active.remove(&id);
            }
        }
    }

    /// Notes that `requests` of a channel wait no longer.
    fn unqueue(&mut self, id: ChannelId, requests: usize) {
        let Some(peer) = self.channels.get(&id).map(|channel| channel.peer) else { return };
        self.change(peer, |peer| peer.waiting -= requests);
        let Some(channel) = self.channels.get(&id) else { return };
        if channel.waiting.is_empty()
            && let Some(file) = self.files.get_mut(&channel.key)
        {
            file.queued.remove(&id);
            if file.queued.is_empty() {
                self.busy.remove(&channel.key);
            }
        }
    }

    /// Lets a peer's place in the queue lapse some time after it stopped waiting.
    fn lapse(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.waiting > 0 || peer.waiting_since.is_none() {
            return;
        }
        let until = *peer.place_until.get_or_insert(now + PLACE_KEPT);
        if now >= until {
            peer.waiting_since = None;
            peer.place_until = None;
        }
    }

    fn tick(&mut self, now: Instant) {
        self.files.values_mut().for_each(|file| file.super_seeding.expire(now));
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        ids.into_iter().for_each(|id| self.lapse(id, now));
        let late: HashSet<PeerId> = self
            .peers
            .iter()
            .filter(|(_, peer)| {
                let waited = peer.waiting_since.map(|since| now.saturating_duration_since(since));
                peer.active == 0 && waited.is_some_and(|waited| waited >= LONGEST_WAIT)
            })
            .map(|(&id, _)| id)
            .collect();
        let queued = self.busy.iter().filter_map(|key| self.files.get(key)).flat_map(|file| &file.queued);
        for id in queued.copied().collect::<Vec<_>>() {
            self.refuse_late(id, &late);
        }
        let starves = |id: &PeerId| self.user_of(*id).is_some_and(|user| user.active == 0);
        if late.iter().any(starves) {
            self.stop_slow(now);
        }
        late.into_iter().for_each(|id| self.lapse(id, now));
    }

    /// Answers the waiting requests on a late peer's channel with Busy.
    fn refuse_late(&mut self, id: ChannelId, late: &HashSet<PeerId>) {
        let Some((channel, file)) = self.channel(id) else { return };
        if !late.contains(&channel.peer) {
            return;
        }
        let waiting = std::mem::take(&mut channel.waiting);
        waiting.iter().for_each(|&(_, piece)| file.super_seeding.withdraw(channel.requester, piece));
        self.unqueue(id, waiting.len());
        let busy = waiting.into_iter().map(|(_, piece)| Action::Busy { channel: id, piece, after: BUSY });
        self.ready.extend(busy);
    }
}

#[cfg(test)]
mod tests;
