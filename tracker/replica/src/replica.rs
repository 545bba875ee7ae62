//! One tracker's part in the cluster: takes events, gives out frames and acknowledgements. Owned by the tracker's one
//! writer thread. Everything durable lies in [`Rows`]; what is here can be thrown away and opened again at any time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::blobs::Blobs;
use crate::conduct::Conduct;
use crate::election::Tally;
use crate::event::{Alarm, Bounds, Config, Event, Holder, Now, OpenError, Output, Reason, Warning, WriteId};
use crate::frame::{Entry, Frame, Hello, Live, MIN_VERSION, VERSION};
use crate::ledger::{Ledger, Trust};
use crate::link::{Link, Stage, entries, in_parts};
use crate::live::Pending;
use crate::names::NameSpace;
use crate::refusals::Refusals;
use crate::removal::{Held, Removal};
use crate::restamp::Restamping;
use crate::round::{PullKind, Pulling};
use crate::row::{BlobHash, Origin, Row, TrackerNo};
use crate::rows::Rows;
use crate::upkeep::Upkeep;
use crate::vector::VersionVector;

/// The sync state machine. See the crate's documentation for the contract with its driver.
#[derive(Debug)]
pub struct Replica {
    pub(crate) ledger: Ledger,
    pub(crate) cluster: [u8; 16],
    pub(crate) bounds: Bounds,
    /// When the last event came.
    mono_ms: u64,
    pub(crate) links: BTreeMap<TrackerNo, Link>,
    /// The last vectors of peers that were connected in this process.
    pub(crate) known: BTreeMap<TrackerNo, VersionVector>,
    /// Peers from whom a round was ENDed in this process.
    pub(crate) ended: BTreeSet<TrackerNo>,
    pub(crate) pull: Option<Pulling>,
    pub(crate) waits: Vec<Wait>,
    pub(crate) writes: BTreeMap<WriteId, Pending>,
    pub(crate) blobs: Blobs,
    pub(crate) upkeep: Upkeep,
    /// By peer; kept when a link ends, so that nobody resets them by connecting again.
    pub(crate) refusals: BTreeMap<TrackerNo, Refusals>,
    /// By peer; kept when a link ends, as well.
    pub(crate) conduct: BTreeMap<TrackerNo, Conduct>,
    /// What a round of everything left out, while the others are asked.
    pub(crate) removal: Option<Removal>,
    /// Removals that were not made, by who demanded them.
    pub(crate) held: BTreeMap<TrackerNo, Held>,
    /// Of these, those that are being tried again.
    pub(crate) retrying: BTreeSet<TrackerNo>,
    /// Since when a peer demands a round of everything.
    pub(crate) fresh_since: BTreeMap<TrackerNo, u64>,
    pub(crate) restamping: Option<Restamping>,
    /// Names have to be voted on before the next round begins.
    pub(crate) votes_due: bool,
    /// A peer has come to hold more: perhaps the votes that names wait for.
    pub(crate) settle_due: bool,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) next_write: u64,
    pub(crate) next_round: u64,
}

/// Something that is taken once its blobs are held.
#[derive(Debug)]
pub(crate) struct Wait {
    pub(crate) peer: TrackerNo,
    pub(crate) hashes: BTreeSet<BlobHash>,
    pub(crate) what: Waiting,
}

/// What is taken then.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// A peer's transaction.
    Live(Live),
    /// A row of a round.
    Row { row: Row, trust: Trust },
    /// A round.
    End { vector: VersionVector, kind: PullKind },
}

impl Replica {
    /// Opens the replica on a store: an empty one, or one that a replica of the same tracker worked on.
    ///
    /// # Errors
    /// When the storage fails or is corrupt, is another tracker's, or `config` contradicts itself.
    pub fn open<R: Rows>(rows: &mut R, config: Config, now: Now) -> Result<Self, OpenError<R::Error>> {
        let mut replica = Self {
            ledger: Ledger::open(rows, &config)?,
            cluster: config.cluster,
            bounds: config.bounds,
            mono_ms: now.mono_ms,
            links: BTreeMap::new(),
            known: BTreeMap::new(),
            ended: BTreeSet::new(),
            pull: None,
            waits: Vec::new(),
            writes: BTreeMap::new(),
            blobs: Blobs::default(),
            upkeep: Upkeep::new(now),
            refusals: BTreeMap::new(),
            conduct: BTreeMap::new(),
            removal: None,
            held: BTreeMap::new(),
            retrying: BTreeSet::new(),
            fresh_since: BTreeMap::new(),
            restamping: None,
            votes_due: false,
            settle_due: false,
            outputs: VecDeque::new(),
            next_write: 0,
            next_round: 0,
        };
        replica.votes_due = replica.may_vote();
        replica.look_for_missing(rows, now).map_err(OpenError::Store)?;
        Ok(replica)
    }

    /// Takes an event. What follows from it is in [`poll_output`](Self::poll_output), to be carried out after the
    /// transaction has become durable.
    ///
    /// # Errors
    /// When the storage fails: the transaction must be rolled back and this replica thrown away.
    pub fn handle<R: Rows>(&mut self, rows: &mut R, event: Event, now: Now) -> Result<(), R::Error> {
        self.ledger.look_at_clock(now);
        self.mono_ms = now.mono_ms;
        match event {
            Event::LinkUp { peer } => self.link_up(peer, now),
            Event::LinkDown { peer } => self.link_down(peer),
            Event::Frame { peer, frame } => self.on_frame(rows, peer, frame, now)?,
            Event::Tick => self.tick(rows, now)?,
        }
        self.follow_up(rows, now)
    }

    /// The next thing to do, in order. To be asked until `None` after each commit; what a rolled-back transaction left is
    /// gone with the replica.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Event::Tick`] is due next, on the clock of [`Now::mono_ms`]; never `None` while a link stands.
    pub fn next_timeout(&self) -> Option<u64> {
        if self.votes_due || self.settle_due || self.restamping.is_some() {
            return Some(0);
        }
        let upkeep = [self.upkeep.digest_ms, self.upkeep.sweep_ms, self.upkeep.orphans_ms];
        let links = self.links.values().map(Link::next_timeout);
        let retries = self.retries();
        let stall = self.stall_deadline();
        upkeep.into_iter().chain(links).chain(retries).chain(stall).chain(self.blobs.next_timeout()).min()
    }

    /// Who holds a name, if anybody claims it.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn holder<R: Rows>(
        &self,
        rows: &R,
        space: NameSpace,
        name: &[u8],
    ) -> Result<Option<Holder>, R::Error> {
        let held = |origin, seq| is_held_elsewhere(&self.links, &self.known, origin, seq);
        Ok(Tally::read(rows, space, name)?.definite_holder(&self.ledger, &held))
    }

    /// All claims to a name: the holder's first, then by their stamps.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn claims<R: Rows>(&self, rows: &R, space: NameSpace, name: &[u8]) -> Result<Vec<Row>, R::Error> {
        Ok(Tally::read(rows, space, name)?.into_claims(&self.ledger.configured))
    }

    /// Up to where everything is held here.
    pub fn vector(&self) -> &VersionVector {
        &self.ledger.vector
    }

    /// Whether this tracker votes on names: once it has heard out every other configured tracker since its start.
    pub fn may_vote(&self) -> bool {
        self.ledger.configured.iter().all(|no| *no == self.ledger.me || self.ended.contains(no))
    }

    fn link_up(&mut self, peer: TrackerNo, now: Now) {
        self.link_down(peer);
        if peer == self.ledger.me || !self.ledger.configured.contains(&peer) {
            self.outputs.push_back(Output::Disconnect { peer, reason: Reason::NotConfigured });
            return;
        }
        if let Some(ms) = self.conduct(peer).shunned_for(now.mono_ms) {
            self.outputs.push_back(Output::Disconnect { peer, reason: Reason::Shunned });
            self.outputs.push_back(Output::Shun { peer, ms });
            return;
        }
        let vector: Vec<Entry> = entries(&self.ledger.vector).collect();
        // What was known of it may no longer be true: its disk may have been lost or restored.
        self.known.remove(&peer);
        self.links.insert(peer, Link::new(self.ledger.vector.clone(), now.mono_ms));
        self.send(
            peer,
            Frame::Hello(Hello {
                version: VERSION,
                min_version: MIN_VERSION,
                cluster: self.cluster,
                no: self.ledger.me,
                origin: self.ledger.origin,
                wall_ms: now.wall_ms,
            }),
        );
        in_parts(&vector, Frame::Vector).into_iter().for_each(|frame| self.send(peer, frame));
        self.tell_floor(peer);
        self.send(peer, Frame::Ready);
    }

    fn link_down(&mut self, peer: TrackerNo) {
        let Some(link) = self.links.remove(&peer) else {
            return;
        };
        if link.is_late(self.mono_ms) {
            let now_ms = self.mono_ms;
            self.conduct(peer).failed_to_acknowledge(now_ms);
        }
        if link.is_ready() {
            self.known.insert(peer, link.vector);
        }
        self.pull.take_if(|pull| pull.peer == peer);
        self.has_no_opinion(peer);
        self.waits.retain(|wait| wait.peer != peer);
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
            (Stage::Silent, Frame::Hello(hello)) => {
                self.on_hello(peer, &hello, now);
                Ok(())
            }
            (Stage::Greeted(_) | Stage::Ready(_), Frame::Vector(entries)) => {
                self.on_vector(peer, &entries, now);
                Ok(())
            }
            (Stage::Greeted(_) | Stage::Ready(_), Frame::Floor { entries, dropped }) => {
                self.on_floor(rows, peer, &entries, dropped, now)
            }
            (Stage::Greeted(origin), Frame::Ready) => {
                link.stage = Stage::Ready(origin);
                self.settle_due = true;
                self.tell(peer);
                self.inherit_floor(rows, peer)
            }
            (Stage::Ready(_), frame) => self.on_member_frame(rows, peer, frame, now),
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
            Frame::Rows { round, rows: received } => self.on_rows(rows, peer, round, received, now)?,
            Frame::More { round, frames } => self.on_more(rows, peer, round, frames)?,
            Frame::End { round } => self.on_end(peer, round),
            Frame::Busy { round } => self.on_busy(peer, round, now),
            Frame::Live(live) => self.on_live(rows, peer, live, now)?,
            Frame::Ack { ids, held } => self.on_ack(peer, &ids, held, now),
            Frame::Ping => self.on_ping(rows, peer)?,
            Frame::Unknown => {}
            Frame::Digest { root } => self.on_digest(rows, peer, root, now)?,
            Frame::Want { hash, offset } => self.on_want(rows, peer, (hash, offset), now)?,
            Frame::Chunk(chunk) => self.on_chunk(rows, peer, chunk, now)?,
            Frame::Gone { hash } => self.on_gone(peer, hash),
            Frame::Hello(_) | Frame::Vector(_) | Frame::Floor { .. } | Frame::Ready => {
                self.disconnect(peer, Reason::Malformed);
            }
        }
        Ok(())
    }

    /// Takes one row from a peer; says whether it changed anything, or `None` if that ended the link.
    pub(crate) fn take<R: Rows>(
        &mut self,
        rows: &mut R,
        peer: TrackerNo,
        row: &Row,
        trust: Trust,
        now: Now,
    ) -> Result<Option<bool>, R::Error> {
        if !self.ledger.has_room_for_origin(row.origin) {
            self.outputs.push_back(Output::Alarm(Alarm::TooManyOrigins));
            self.disconnect(peer, Reason::TooManyOrigins);
            return Ok(None);
        }
        if self.is_false_word(peer, row.origin, row.seq, now) || !self.admits_writer(peer, row.origin, now) {
            return Ok(Some(false));
        }
        let trust = self.trust_in(peer, row.origin, trust);
        let applied = self.ledger.apply(rows, row, trust, now)?;
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

    /// What every event may have made possible.
    fn follow_up<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        self.fetch_blobs(rows, now)?;
        self.finish_waits(rows, now)?;
        if self.votes_due {
            self.vote_on_pending(rows, now)?;
        }
        if self.settle_due {
            self.settle(rows, now)?;
        }
        self.decide_removal(rows, now)?;
        self.start_pull(rows, now)
    }

    /// Takes what has waited for blobs that are held now.
    fn finish_waits<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        let blobs = &self.blobs;
        let is_done = |wait: &mut Wait| !wait.hashes.iter().any(|&hash| blobs.is_wanted(hash));
        // In the order of their arrival: rows come before the END that counts them.
        let done: Vec<Wait> = self.waits.extract_if(.., is_done).collect();
        if done.is_empty() {
            return Ok(());
        }
        for Wait { peer, what, .. } in done {
            if !self.links.contains_key(&peer) {
                continue;
            }
            match what {
                Waiting::Live(live) => {
                    if let Some(link) = self.links.get_mut(&peer) {
                        link.holds_back_no_more(live.rows.iter().map(Row::weight).sum());
                    }
                    self.finish_live(rows, peer, &live, now)?;
                }
                Waiting::Row { row, trust } => {
                    self.take_in_round(rows, peer, &row, trust, now)?;
                }
                Waiting::End { vector, kind } => self.finish_round(rows, peer, &vector, kind, now)?,
            }
        }
        self.give_credit(now);
        Ok(())
    }

    /// Puts something off until these blobs are held.
    pub(crate) fn wait(&mut self, peer: TrackerNo, hashes: BTreeSet<BlobHash>, what: Waiting) {
        for &hash in &hashes {
            self.blobs.want(hash, peer);
        }
        self.waits.push(Wait { peer, hashes, what });
    }

    /// Whether this is the current origin of a connected tracker.
    pub(crate) fn is_connected_origin(&self, origin: Origin) -> bool {
        self.links.values().any(|link| link.origin() == Some(origin))
    }

    /// Tells a peer how far the vector has come, if it has.
    pub(crate) fn tell(&mut self, peer: TrackerNo) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.tell(&self.ledger.vector).into_iter().for_each(|frame| self.send(peer, frame));
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
    links: &BTreeMap<TrackerNo, Link>,
    known: &BTreeMap<TrackerNo, VersionVector>,
    origin: Origin,
    seq: u64,
) -> bool {
    let connected = links.values().filter(|link| link.is_ready()).map(|link| &link.vector);
    connected.chain(known.values()).any(|vector| vector.covers(origin, seq))
}
