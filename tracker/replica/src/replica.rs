//! One tracker's part in the cluster: takes events, returns frames and acknowledgements. Owned by the
//! tracker's database thread. Everything durable is in [`Rows`]; the rest can be dropped and opened again at
//! any time.

mod attribution;
mod blobs;
mod handshake;
mod live;
mod maintenance;
mod peer_link;
mod refusals;
mod removal;
mod reputation;
mod restamp;
mod serve;
mod status;
mod sync;
mod writers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::election::VoteCount;
use crate::event::{Alarm, Bounds, Config, Event, Holder, Now, OpenError, Output, Reason, Warning, WriteId};
use crate::frame::{Entry, Frame, Hello, Live, MIN_VERSION, VERSION};
use crate::names::NameSpace;
use crate::row::{BlobHash, Row, TrackerNo, WriterId};
use crate::rows::Rows;
use crate::state::{ReplicaState, Trust};
use crate::vector::VersionVector;
use blobs::Blobs;
use live::PendingWrite;
use maintenance::Maintenance;
use peer_link::{LinkStage, PeerLink, entries, in_parts};
use refusals::Refusals;
use removal::{HeldRemoval, Removal};
use reputation::Reputation;
use restamp::Restamping;
use sync::{RunningSync, SyncKind};

/// The sync state machine. See the crate's documentation for the contract with its driver.
#[derive(Debug)]
pub struct Replica {
    pub(crate) state: ReplicaState,
    pub(crate) cluster: [u8; 16],
    pub(crate) bounds: Bounds,
    /// When the last event came.
    mono_ms: u64,
    pub(crate) links: BTreeMap<TrackerNo, PeerLink>,
    /// The last vectors of peers that were connected in this process.
    pub(crate) last_vectors: BTreeMap<TrackerNo, VersionVector>,
    /// Peers with which a sync was completed in this process.
    pub(crate) synced_peers: BTreeSet<TrackerNo>,
    pub(crate) sync: Option<RunningSync>,
    pub(crate) deferred: Vec<Deferred>,
    pub(crate) writes: BTreeMap<WriteId, PendingWrite>,
    pub(crate) blobs: Blobs,
    pub(crate) maintenance: Maintenance,
    /// By peer. Kept when a link ends, so that a new connection does not reset them.
    pub(crate) refusals: BTreeMap<TrackerNo, Refusals>,
    /// By peer. Kept when a link ends.
    pub(crate) reputations: BTreeMap<TrackerNo, Reputation>,
    /// The rows that a full sync left out, while the other peers are asked about them.
    pub(crate) removal: Option<Removal>,
    /// Removals that were not made, by the peer that caused them.
    pub(crate) held_removals: BTreeMap<TrackerNo, HeldRemoval>,
    /// Peers whose held removal is being tried again.
    pub(crate) retrying: BTreeSet<TrackerNo>,
    /// Since when a peer requires a full sync.
    pub(crate) full_sync_since: BTreeMap<TrackerNo, u64>,
    pub(crate) restamping: Option<Restamping>,
    /// This tracker must vote on names before the next sync begins.
    pub(crate) votes_due: bool,
    /// A peer has come to hold more rows, perhaps the votes that undecided names wait for.
    pub(crate) decision_due: bool,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) next_write: u64,
    pub(crate) next_sync: u64,
}

/// Something that is taken once its blobs are held.
#[derive(Debug)]
pub(crate) struct Deferred {
    pub(crate) peer: TrackerNo,
    pub(crate) hashes: BTreeSet<BlobHash>,
    pub(crate) what: DeferredItem,
}

/// What is taken then.
#[derive(Debug)]
pub(crate) enum DeferredItem {
    /// A peer's transaction.
    Live(Live),
    /// A row of a sync.
    Row { row: Row, trust: Trust },
    /// The end of a sync.
    End { vector: VersionVector, kind: SyncKind },
}

impl Replica {
    /// Opens the replica on a store: an empty one, or one that belonged to a replica of the same tracker.
    ///
    /// # Errors
    /// If the storage fails or is corrupt, belongs to another tracker, or `config` contradicts itself.
    pub fn open<R: Rows>(rows: &mut R, config: Config, now: Now) -> Result<Self, OpenError<R::Error>> {
        let mut replica = Self {
            state: ReplicaState::open(rows, &config)?,
            cluster: config.cluster,
            bounds: config.bounds,
            mono_ms: now.mono_ms,
            links: BTreeMap::new(),
            last_vectors: BTreeMap::new(),
            synced_peers: BTreeSet::new(),
            sync: None,
            deferred: Vec::new(),
            writes: BTreeMap::new(),
            blobs: Blobs::default(),
            maintenance: Maintenance::new(now),
            refusals: BTreeMap::new(),
            reputations: BTreeMap::new(),
            removal: None,
            held_removals: BTreeMap::new(),
            retrying: BTreeSet::new(),
            full_sync_since: BTreeMap::new(),
            restamping: None,
            votes_due: false,
            decision_due: false,
            outputs: VecDeque::new(),
            next_write: 0,
            next_sync: 0,
        };
        replica.votes_due = replica.may_vote();
        replica.look_for_missing(rows, now).map_err(OpenError::Store)?;
        Ok(replica)
    }

    /// Handles an event. The resulting actions are in [`poll_output`](Self::poll_output). Carry them out
    /// after the transaction has become durable.
    ///
    /// # Errors
    /// If the storage fails: roll back the transaction and drop this replica.
    pub fn handle<R: Rows>(&mut self, rows: &mut R, event: Event, now: Now) -> Result<(), R::Error> {
        self.state.look_at_clock(now);
        self.mono_ms = now.mono_ms;
        match event {
            Event::LinkUp { peer } => self.link_up(peer, now),
            Event::LinkDown { peer } => self.link_down(peer),
            Event::Frame { peer, frame } => self.on_frame(rows, peer, frame, now)?,
            Event::Tick => self.tick(rows, now)?,
        }
        self.follow_up(rows, now)
    }

    /// The next action, in order. Call it after each commit until it returns `None`. The actions of a
    /// rolled-back transaction are dropped with the replica.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Event::Tick`] is due next, on the clock of [`Now::mono_ms`]. Never `None` while a link is up.
    pub fn next_timeout(&self) -> Option<u64> {
        if self.votes_due || self.decision_due || self.restamping.is_some() {
            return Some(0);
        }
        let maintenance =
            [self.maintenance.digest_ms, self.maintenance.sweep_ms, self.maintenance.orphans_ms];
        let links = self.links.values().map(PeerLink::next_timeout);
        let retries = self.retries();
        let stall = self.stall_deadline();
        maintenance
            .into_iter()
            .chain(links)
            .chain(retries)
            .chain(stall)
            .chain(self.blobs.next_timeout())
            .min()
    }

    /// Who holds a name, if there is a claim to it or to one that looks like it. The holder's claim may be to such a name.
    ///
    /// # Errors
    /// If the storage fails.
    pub fn holder<R: Rows>(
        &self,
        rows: &R,
        space: NameSpace,
        name: &[u8],
    ) -> Result<Option<Holder>, R::Error> {
        let held = |writer, seq| is_held_elsewhere(&self.links, &self.last_vectors, writer, seq);
        let place = rows.place_for(space.claim_kind(), name);
        Ok(VoteCount::read(rows, space, place)?.definite_holder(&self.state, name, &held))
    }

    /// All claims to a name and to those that look like it: the holder's first, then by stamp.
    ///
    /// # Errors
    /// If the storage fails.
    pub fn claims<R: Rows>(&self, rows: &R, space: NameSpace, name: &[u8]) -> Result<Vec<Row>, R::Error> {
        let place = rows.place_for(space.claim_kind(), name);
        Ok(VoteCount::read(rows, space, place)?.into_claims(&self.state.configured, name))
    }

    /// For each writer, the number up to which all rows are held here.
    pub fn vector(&self) -> &VersionVector {
        &self.state.vector
    }

    /// Whether this tracker votes on names: once it has synced with every other configured tracker since its
    /// start.
    pub fn may_vote(&self) -> bool {
        self.state.configured.iter().all(|no| *no == self.state.me || self.synced_peers.contains(no))
    }

    fn link_up(&mut self, peer: TrackerNo, now: Now) {
        self.link_down(peer);
        if peer == self.state.me || !self.state.configured.contains(&peer) {
            self.outputs.push_back(Output::Disconnect { peer, reason: Reason::NotConfigured });
            return;
        }
        if let Some(ms) = self.reputation(peer).shunned_for(now.mono_ms) {
            self.outputs.push_back(Output::Disconnect { peer, reason: Reason::Shunned });
            self.outputs.push_back(Output::Shun { peer, ms });
            return;
        }
        let vector: Vec<Entry> = entries(&self.state.vector).collect();
        // The peer's disk may have been lost or restored since its last vector.
        self.last_vectors.remove(&peer);
        self.links.insert(peer, PeerLink::new(self.state.vector.clone(), now.mono_ms));
        self.send(
            peer,
            Frame::Hello(Hello {
                version: VERSION,
                min_version: MIN_VERSION,
                cluster: self.cluster,
                no: self.state.me,
                writer: self.state.writer,
                wall_ms: now.wall_ms,
            }),
        );
        in_parts(&vector, Frame::Vector).into_iter().for_each(|frame| self.send(peer, frame));
        self.send_gc_watermark(peer);
        self.send(peer, Frame::Ready);
    }

    fn link_down(&mut self, peer: TrackerNo) {
        let Some(link) = self.links.remove(&peer) else {
            return;
        };
        if link.is_late(self.mono_ms) {
            let now_ms = self.mono_ms;
            self.reputation(peer).failed_to_acknowledge(now_ms);
        }
        if link.is_ready() {
            self.last_vectors.insert(peer, link.vector);
        }
        self.sync.take_if(|sync| sync.peer == peer);
        self.cannot_be_asked(peer);
        self.deferred.retain(|wait| wait.peer != peer);
        self.blobs.forget_peer(peer);
        self.stop_waiting_for(peer);
    }

    /// Closes a link from this side.
    pub(crate) fn disconnect(&mut self, peer: TrackerNo, reason: Reason) {
        self.outputs.push_back(Output::Disconnect { peer, reason });
        self.link_down(peer);
    }

    fn on_frame<R: Rows>(
        &mut self,
        rows: &mut R,
        peer: TrackerNo,
        frame: Frame,
        now: Now,
    ) -> Result<(), R::Error> {
        let Some(link) = self.links.get_mut(&peer) else {
            return Ok(());
        };
        link.heard_ms = now.mono_ms;
        match (link.stage, frame) {
            (_, Frame::Unknown) => Ok(()),
            (LinkStage::Silent, Frame::Hello(hello)) => {
                self.on_hello(peer, &hello, now);
                Ok(())
            }
            (LinkStage::Greeted(_) | LinkStage::Ready(_), Frame::Vector(entries)) => {
                self.on_vector(peer, &entries, now);
                Ok(())
            }
            (LinkStage::Greeted(_) | LinkStage::Ready(_), Frame::GcWatermark { entries, dropped }) => {
                self.on_gc_watermark(rows, peer, &entries, dropped, now)
            }
            (LinkStage::Greeted(writer), Frame::Ready) => {
                link.stage = LinkStage::Ready(writer);
                self.decision_due = true;
                self.announce_vector(peer);
                self.inherit_gc_watermark(rows, peer)
            }
            (LinkStage::Ready(_), frame) => self.on_member_frame(rows, peer, frame, now),
            _ => {
                self.disconnect(peer, Reason::Malformed);
                Ok(())
            }
        }
    }

    fn on_member_frame<R: Rows>(
        &mut self,
        rows: &mut R,
        peer: TrackerNo,
        frame: Frame,
        now: Now,
    ) -> Result<(), R::Error> {
        match frame {
            Frame::Pull(pull) => self.on_pull(rows, peer, &pull)?,
            Frame::Rows { sync_id, rows: received } => self.on_rows(rows, peer, sync_id, received, now)?,
            Frame::More { sync_id, frames } => self.on_more(rows, peer, sync_id, frames)?,
            Frame::End { sync_id } => self.on_end(peer, sync_id),
            Frame::Busy { sync_id } => self.on_busy(peer, sync_id, now),
            Frame::Live(live) => self.on_live(rows, peer, live, now)?,
            Frame::Ack { ids, held } => self.on_ack(peer, &ids, held, now),
            Frame::Ping => self.on_ping(rows, peer)?,
            Frame::Unknown => {}
            Frame::Digest { root } => self.on_digest(rows, peer, root, now)?,
            Frame::Want { hash, offset } => self.on_want(rows, peer, (hash, offset), now)?,
            Frame::Chunk(chunk) => self.on_chunk(rows, peer, chunk, now)?,
            Frame::Gone { hash } => self.on_gone(peer, hash),
            Frame::Hello(_) | Frame::Vector(_) | Frame::GcWatermark { .. } | Frame::Ready => {
                self.disconnect(peer, Reason::Malformed);
            }
        }
        Ok(())
    }

    /// Takes one row from a peer. Returns whether it was stored, or `None` if that ended the link.
    pub(crate) fn take<R: Rows>(
        &mut self,
        rows: &mut R,
        peer: TrackerNo,
        row: &Row,
        trust: Trust,
        now: Now,
    ) -> Result<Option<bool>, R::Error> {
        if !self.state.has_room_for_writer(row.writer) {
            self.outputs.push_back(Output::Alarm(Alarm::TooManyWriters));
            self.disconnect(peer, Reason::TooManyWriters);
            return Ok(None);
        }
        if self.is_false_attribution(peer, row.writer, row.seq, now)
            || !self.admits_writer(peer, row.writer, now)
        {
            return Ok(Some(false));
        }
        let trust = self.trust_in(peer, row.writer, trust);
        let applied = self.state.apply(rows, row, trust, now)?;
        if applied.conflict {
            self.outputs.push_back(Output::Alarm(Alarm::Conflict { kind: row.kind, key: row.key.clone() }));
        }
        if applied.stored {
            self.charge(peer, row.weight(), now.mono_ms);
        }
        if applied.refused {
            self.note_refusal(peer, row, now);
        }
        Ok(Some(applied.stored))
    }

    /// The steps that any event may have made possible.
    fn follow_up<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        self.fetch_blobs(rows, now)?;
        self.finish_deferred(rows, now)?;
        if self.votes_due {
            self.vote_on_pending(rows, now)?;
        }
        if self.decision_due {
            self.record_decisions(rows, now)?;
        }
        self.decide_removal(rows, now)?;
        self.start_sync(rows, now)
    }

    /// Takes what waited for blobs that are held now.
    fn finish_deferred<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        let blobs = &self.blobs;
        let is_done = |wait: &mut Deferred| !wait.hashes.iter().any(|&hash| blobs.is_wanted(hash));
        // In order of arrival: rows come before the END that counts them.
        let done: Vec<Deferred> = self.deferred.extract_if(.., is_done).collect();
        if done.is_empty() {
            return Ok(());
        }
        for Deferred { peer, what, .. } in done {
            if !self.links.contains_key(&peer) {
                continue;
            }
            match what {
                DeferredItem::Live(live) => {
                    if let Some(link) = self.links.get_mut(&peer) {
                        link.holds_back_no_more(live.rows.iter().map(Row::weight).sum());
                    }
                    self.finish_live(rows, peer, &live, now)?;
                }
                DeferredItem::Row { row, trust } => {
                    self.take_in_sync(rows, peer, &row, trust, now)?;
                }
                DeferredItem::End { vector, kind } => self.finish_sync(rows, peer, &vector, kind, now)?,
            }
        }
        self.give_credit(now);
        Ok(())
    }

    /// Defers something until these blobs are held.
    pub(crate) fn defer(&mut self, peer: TrackerNo, hashes: BTreeSet<BlobHash>, what: DeferredItem) {
        for &hash in &hashes {
            self.blobs.want(hash, peer);
        }
        self.deferred.push(Deferred { peer, hashes, what });
    }

    /// The connected trackers whose handshake is complete.
    fn ready_peers(&self) -> Vec<TrackerNo> {
        self.links.iter().filter(|(_, link)| link.is_ready()).map(|(&peer, _)| peer).collect()
    }

    /// Whether this is the current writer id of a connected tracker.
    pub(crate) fn is_connected_writer(&self, writer: WriterId) -> bool {
        self.links.values().any(|link| link.writer() == Some(writer))
    }

    /// Sends a peer the entries by which the vector has risen.
    pub(crate) fn announce_vector(&mut self, peer: TrackerNo) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.announce(&self.state.vector).into_iter().for_each(|frame| self.send(peer, frame));
        }
    }

    pub(crate) fn send(&mut self, to: TrackerNo, frame: Frame) {
        self.outputs.push_back(Output::Send { to, frame });
    }

    pub(crate) fn warn(&mut self, warning: Warning) {
        self.outputs.push_back(Output::Warning(warning));
    }
}

/// Whether some other tracker is known to hold a row durably.
pub(crate) fn is_held_elsewhere(
    links: &BTreeMap<TrackerNo, PeerLink>,
    last_vectors: &BTreeMap<TrackerNo, VersionVector>,
    writer: WriterId,
    seq: u64,
) -> bool {
    let connected = links.values().filter(|link| link.is_ready()).map(|link| &link.vector);
    connected.chain(last_vectors.values()).any(|vector| vector.covers(writer, seq))
}
