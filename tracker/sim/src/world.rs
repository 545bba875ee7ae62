//! A cluster in one thread: trackers on their disks, a network between them, one clock, and the driver's
//! part.

pub(crate) mod liar;
mod pretend;
pub(crate) mod trace;
mod writes;

use std::collections::BTreeMap;

use fastrand::Rng;
use shoal_replica::{
    Alarm, Bounds, Config, Event, Frame, Holder, NameSpace, Now, Output, Reason, Replica, Row, TrackerNo,
    Warning, Write, WriteId, WriterId, parse_claim_key,
};

use crate::broken::Broken;
use crate::disk::Disk;
use crate::history::History;
use crate::network::{Delivery, Network};
use crate::tally::Tally;
use liar::Liar;
use pretend::pretend_all_synced;
use trace::{trace_input, trace_rows};
pub(crate) use writes::{claim, delete, put};

/// All trackers of a world belong to this cluster.
pub(crate) const CLUSTER: [u8; 16] = [7; 16];
pub(crate) const START_WALL_MS: u64 = 1_700_000_000_000;
/// How long a tracker refuses writes after its disk was full.
const FULL_MS: u64 = 5_000;
/// Longer than an acknowledgement may take, with every delay between two checks of it.
const WAIT_MS: u64 = 20_000;

/// What happens to a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TxFate {
    Commit,
    /// The commit fails. The tracker opens its replica again.
    Rollback,
    /// The disk is full. As `Rollback`, and for a while there are neither links nor writes.
    Full,
    /// The commit succeeds but reports an error. The tracker opens its replica again.
    CommitReportedFailed,
    /// The process dies before the commit.
    DieBefore,
    /// The process dies after the commit, having carried out this many of its outputs.
    DieAfter(usize),
}

/// An input of a transaction.
#[derive(Debug)]
pub(crate) enum Input {
    Event(Event),
    Write(Vec<Write>),
}

/// A write that is not acknowledged yet.
pub(crate) struct UnackedWrite {
    pub(crate) rows: Vec<Row>,
    since_ms: u64,
}

/// One tracker.
pub(crate) struct Node<D> {
    pub(crate) no: TrackerNo,
    pub(crate) store: D,
    pub(crate) replica: Option<Replica>,
    pub(crate) skew_ms: i64,
    /// Its disk was restored from a backup once.
    pub(crate) restored: bool,
    /// Writes of this process that are not acknowledged yet.
    pub(crate) pending: BTreeMap<WriteId, UnackedWrite>,
    pub(crate) acked: Vec<(WriteId, usize)>,
    full_until_ms: u64,
    pub(crate) writer: WriterId,
}

/// A cluster and everything known about it.
pub(crate) struct World<D> {
    pub(crate) rng: Rng,
    pub(crate) now_ms: u64,
    pub(crate) nodes: Vec<Node<D>>,
    pub(crate) history: History,
    pub(crate) broken: Broken,
    /// Whether frames are encoded and decoded.
    pub(crate) encode: bool,
    /// One frame in this many arrives twice; none for 0.
    pub(crate) repeats: u32,
    /// Whether acknowledgements by one tracker alone count, because no disk is lost.
    pub(crate) single_copies_count: bool,
    pub(crate) alarms: Vec<Alarm>,
    /// Held removals that no operator has looked at yet: the tracker that holds, and the peer of the full
    /// sync.
    pub(crate) held_removals: Vec<(usize, TrackerNo)>,
    pub(crate) warnings: Vec<Warning>,
    /// Links that were closed: by which tracker, with which one, and why.
    pub(crate) closed: Vec<(TrackerNo, TrackerNo, Reason)>,
    pub(crate) network: Network,
    /// What each tracker allows any other one to cause.
    pub(crate) bounds: Bounds,
    /// The lying tracker, if there is one.
    pub(crate) liar: Option<Liar>,
    /// Until when a tracker raises no link with another.
    shunned: BTreeMap<(usize, usize), u64>,
    pub(crate) tally: Tally,
    /// A log of what happened, if one is wanted.
    pub(crate) trace: Option<Vec<String>>,
}

impl<D: Disk> World<D> {
    pub(crate) fn new(trackers: usize, seed: u64) -> Self {
        let mut world = Self {
            rng: Rng::with_seed(seed),
            now_ms: 0,
            nodes: Vec::new(),
            history: History::default(),
            broken: Broken::Nothing,
            encode: false,
            repeats: 0,
            single_copies_count: true,
            alarms: Vec::new(),
            held_removals: Vec::new(),
            warnings: Vec::new(),
            closed: Vec::new(),
            network: Network::default(),
            bounds: Bounds::default(),
            liar: None,
            shunned: BTreeMap::new(),
            tally: Tally::default(),
            trace: None,
        };
        world.add(trackers);
        world
    }

    /// Adds blank trackers that do not run yet.
    pub(crate) fn add(&mut self, count: usize) {
        let numbers = numbers(self.nodes.len() + count);
        for no in numbers.into_iter().skip(self.nodes.len()) {
            self.nodes.push(Node {
                no,
                store: D::blank(),
                replica: None,
                skew_ms: 0,
                restored: false,
                pending: BTreeMap::new(),
                acked: Vec::new(),
                full_until_ms: 0,
                writer: WriterId(self.rng.u128(..).to_le_bytes()),
            });
        }
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9} ms  {}", self.now_ms, what()));
        }
    }

    pub(crate) fn now(&self, node: usize) -> Now {
        let wall = START_WALL_MS.checked_add(self.now_ms).unwrap();
        Now { wall_ms: wall.saturating_add_signed(self.nodes[node].skew_ms), mono_ms: self.now_ms }
    }

    pub(crate) fn configured(&self) -> Vec<TrackerNo> {
        self.nodes.iter().map(|node| node.no).collect()
    }

    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.nodes[node].replica.is_some()
    }

    pub(crate) fn is_full(&self, node: usize) -> bool {
        self.now_ms < self.nodes[node].full_until_ms
    }

    pub(crate) fn all_up(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&node| self.is_up(node)).collect()
    }

    pub(crate) fn start(&mut self, node: usize) {
        if self.broken != Broken::WriterId {
            self.nodes[node].writer = WriterId(self.rng.u128(..).to_le_bytes());
        }
        self.note(|| format!("tracker {} starts", node + 1));
        self.open(node);
        if self.broken == Broken::Abstention {
            pretend_all_synced(self, node);
        }
    }

    fn open(&mut self, node: usize) {
        let now = self.now(node);
        let configured = self.configured();
        let it = &mut self.nodes[node];
        let bounds = self.bounds;
        let config = Config { me: it.no, configured, writer: it.writer, cluster: CLUSTER, bounds };
        it.store.begin();
        it.replica = Some(Replica::open(&mut it.store, config, now).unwrap());
        it.store.commit();
        it.pending.clear();
        it.acked.clear();
    }

    /// The process dies. What was not committed is lost.
    pub(crate) fn kill(&mut self, node: usize) {
        self.note(|| format!("tracker {} dies", node + 1));
        self.tally.crashes += 1;
        let it = &mut self.nodes[node];
        it.store.crash();
        it.replica = None;
        it.pending.clear();
        it.full_until_ms = 0;
        self.network.cut_all(node);
    }

    /// The process dies and its disk is lost. A backup replaces it, if there is one.
    pub(crate) fn lose_disk(&mut self, node: usize, backup: Option<&D::Backup>) {
        self.kill(node);
        self.tally.lost_disks += 1;
        let what = if backup.is_some() { "comes back from a backup" } else { "is lost" };
        self.note(|| format!("the disk of tracker {} {what}", node + 1));
        self.nodes[node].restored |= backup.is_some();
        self.nodes[node].store = backup.map_or_else(D::blank, D::restore);
    }

    pub(crate) fn connect(&mut self, a: usize, b: usize) {
        let serves = |node| self.is_up(node) && !self.is_full(node);
        let shuns = |a, b| self.shunned.get(&(a, b)).is_some_and(|&until| self.now_ms < until);
        if serves(a) && serves(b) && !shuns(a, b) && !shuns(b, a) {
            self.network.connect(a, b, self.now_ms);
        }
    }

    /// Breaks a link. Some of the frames in flight still arrive.
    pub(crate) fn cut(&mut self, a: usize, b: usize) {
        self.tally.cuts += u64::from(self.network.is_connected(a, b));
        self.network.cut(a, b, &mut self.rng);
    }

    /// Every delivery that is possible now: receiver and sender.
    pub(crate) fn deliverable(&self) -> Vec<(usize, usize)> {
        let mut ways = self.network.deliverable(self.now_ms);
        ways.retain(|&(to, _)| self.is_up(to));
        ways
    }

    /// The next events that `to` gets from its link with `from`.
    pub(crate) fn next_event(&mut self, to: usize, from: usize) -> Vec<Event> {
        let peer = self.nodes[from].no;
        let frame = match self.network.next(to, from) {
            None => return Vec::new(),
            Some(Delivery::Up) => return vec![Event::LinkUp { peer }],
            Some(Delivery::Down) => return vec![Event::LinkDown { peer }],
            Some(Delivery::Frame(frame)) => frame,
        };
        if self.liar.as_ref().is_some_and(|liar| liar.node == to)
            && let Some(lies) = self.lying_reply(from, &frame)
        {
            lies.into_iter().for_each(|lie| self.network.send(to, from, lie));
            return Vec::new();
        }
        let early_end = match &frame {
            Frame::Rows { sync_id, .. } if self.broken == Broken::End => {
                Some(Event::Frame { peer, frame: Frame::End { sync_id: *sync_id } })
            }
            Frame::GcWatermark { .. } if self.broken == Broken::FullSync => return Vec::new(),
            _ => None,
        };
        let frame = if self.encode { Frame::decode(&frame.encode()).unwrap() } else { frame };
        let again = self.repeats > 0 && self.rng.u32(..self.repeats) == 0;
        let again = again.then(|| Event::Frame { peer, frame: frame.clone() });
        [Event::Frame { peer, frame }].into_iter().chain(again).chain(early_end).collect()
    }

    /// Runs one transaction of one tracker as its driver does.
    pub(crate) fn transact(&mut self, node: usize, inputs: Vec<Input>, fate: TxFate) -> Result<(), String> {
        if self.is_full(node) {
            // Neither links nor writes. What was in flight is lost.
            return Ok(());
        }
        if self.trace.is_some() {
            self.trace_transaction(node, &inputs, fate);
        }
        let now = self.now(node);
        let it = &mut self.nodes[node];
        let Some(replica) = &mut it.replica else { return Ok(()) };
        it.store.begin();
        for input in inputs {
            match input {
                Input::Event(event) => replica.handle(&mut it.store, event, now).unwrap(),
                Input::Write(writes) => {
                    let places: Vec<_> = writes.iter().map(|write| (write.kind, write.key.clone())).collect();
                    let id = replica.write(&mut it.store, writes, now);
                    let id =
                        id.map_err(|error| format!("invariant 5: tracker {} refuses: {error}", node + 1))?;
                    let rows = places.iter().filter_map(|(kind, key)| it.store.get(*kind, key).unwrap());
                    let rows: Vec<Row> = rows.collect();
                    rows.iter().for_each(|row| self.history.tried(row));
                    it.pending.insert(id, UnackedWrite { rows, since_ms: self.now_ms });
                }
            }
        }
        self.end_transaction(node, fate)
    }

    fn end_transaction(&mut self, node: usize, fate: TxFate) -> Result<(), String> {
        let it = &mut self.nodes[node];
        match fate {
            TxFate::Commit | TxFate::DieAfter(_) | TxFate::CommitReportedFailed => it.store.commit(),
            TxFate::Rollback | TxFate::Full => it.store.rollback(),
            TxFate::DieBefore => {}
        }
        match fate {
            TxFate::Commit => return self.carry_out(node, usize::MAX),
            TxFate::DieAfter(count) => {
                self.carry_out(node, count)?;
                self.kill(node);
            }
            TxFate::DieBefore => self.kill(node),
            TxFate::Rollback | TxFate::CommitReportedFailed | TxFate::Full => {
                self.tally.failures += 1;
                if fate == TxFate::Full {
                    it.full_until_ms = self.now_ms + FULL_MS;
                }
                self.network.cut_all(node);
                self.open(node);
            }
        }
        Ok(())
    }

    pub(crate) fn tick_due(&mut self) -> Result<(), String> {
        for node in self.all_up() {
            let due = self.nodes[node].replica.as_ref().and_then(Replica::next_timeout);
            if due.is_some_and(|due| due <= self.now_ms) {
                self.transact(node, vec![Input::Event(Event::Tick)], TxFate::Commit)?;
            }
        }
        Ok(())
    }

    pub(crate) fn start_all(&mut self) {
        for node in 0..self.nodes.len() {
            self.nodes[node].full_until_ms = 0;
            if !self.is_up(node) {
                self.start(node);
            }
        }
    }

    pub(crate) fn connect_all(&mut self) {
        for node in 0..self.nodes.len() {
            (0..node).for_each(|other| self.connect(other, node));
        }
    }

    /// Delivers everything in flight, in some order, and advances the clock until something is due.
    pub(crate) fn step(&mut self) -> Result<(), String> {
        self.deliver_all()?;
        let timeouts = self.nodes.iter().filter_map(|node| node.replica.as_ref()?.next_timeout());
        let next = timeouts.min().unwrap_or(0);
        self.now_ms = next.max(self.now_ms + 1);
        self.tick_due()
    }

    pub(crate) fn deliver_all(&mut self) -> Result<(), String> {
        loop {
            let ways = self.deliverable();
            let Some(&(to, from)) = self.rng.choice(&ways) else { return Ok(()) };
            let events = self.next_event(to, from).into_iter().map(Input::Event).collect();
            self.transact(to, events, TxFate::Commit)?;
        }
    }

    /// Who holds a name according to one tracker.
    pub(crate) fn holder(&self, node: usize, space: NameSpace, name: &[u8]) -> Option<Holder> {
        let it = &self.nodes[node];
        let replica = it.replica.as_ref()?;
        if self.broken != Broken::Votes {
            return replica.holder(&it.store, space, name).unwrap();
        }
        let claims = replica.claims(&it.store, space, name).unwrap();
        let claim = claims.into_iter().min_by_key(|claim| (claim.stamp.instant(), claim.key.clone()))?;
        let (_, uid) = parse_claim_key(&claim.key)?;
        Some(Holder { uid, definite: false, claim: Some(claim) })
    }

    /// Checks that no write waits for longer than an acknowledgement can take.
    pub(crate) fn check_waiting(&self, node: usize) -> Result<(), String> {
        let late = |pending: &UnackedWrite| self.now_ms > pending.since_ms + WAIT_MS;
        match self.nodes[node].pending.values().find(|pending| late(pending)) {
            Some(pending) => Err(format!("invariant 5: {:?} is not acknowledged", pending.rows)),
            None => Ok(()),
        }
    }

    fn carry_out(&mut self, node: usize, count: usize) -> Result<(), String> {
        for _ in 0..count {
            let Some(output) = self.nodes[node].replica.as_mut().and_then(Replica::poll_output) else {
                break;
            };
            match output {
                Output::Send { to: _, frame } if self.is_withheld(node, &frame) => {}
                Output::Send { to, frame } => {
                    self.history.sent(&frame)?;
                    self.network.send(node, usize::from(to.0) - 1, frame);
                }
                Output::Disconnect { peer, reason } => {
                    self.note(|| format!("tracker {} closes the link with {peer}: {reason}", node + 1));
                    self.tally.cuts += 1;
                    self.closed.push((self.nodes[node].no, peer, reason));
                    self.network.hang_up(node, usize::from(peer.0) - 1);
                }
                Output::Shun { peer, ms } => {
                    self.shunned.insert((node, usize::from(peer.0) - 1), self.now_ms + ms);
                }
                Output::Pause { peer, ms } => {
                    self.network.block(usize::from(peer.0) - 1, node, self.now_ms + ms);
                }
                Output::Acked { write, copies } => self.acked(node, write, copies)?,
                Output::Alarm(alarm) => {
                    self.note(|| format!("tracker {}: {}", node + 1, alarm.text()));
                    if let Alarm::RemovalHeld { peer, .. } = alarm {
                        self.held_removals.push((node, peer));
                    }
                    self.alarms.push(alarm);
                }
                Output::Warning(warning) => {
                    self.tally.full_syncs += u64::from(matches!(warning, Warning::FullSync { .. }));
                    self.warnings.push(warning);
                }
            }
        }
        Ok(())
    }

    fn acked(&mut self, node: usize, id: WriteId, copies: usize) -> Result<(), String> {
        self.tally.acked += 1;
        let it = &mut self.nodes[node];
        it.acked.push((id, copies));
        let Some(UnackedWrite { rows, .. }) = it.pending.remove(&id) else {
            return Err(format!("{id:?} was acknowledged twice or never written"));
        };
        self.note(|| {
            format!("tracker {} acknowledges with {copies} copies: {}", node + 1, trace_rows(&rows))
        });
        for row in &rows {
            let Some(space) = NameSpace::of(row.kind) else { continue };
            let Some((name, uid)) = parse_claim_key(&row.key) else { continue };
            let by_copies = self.broken == Broken::Votes && 2 * copies > self.nodes.len();
            let holder = self.holder(node, space, name).filter(|holder| holder.uid == uid);
            if holder.is_some_and(|holder| holder.definite || by_copies) {
                self.tally.names += 1;
                self.note(|| format!("tracker {} gives {name:?} to {uid:?} for good", node + 1));
                self.history.created(space, name, uid)?;
            }
        }
        if self.single_copies_count {
            let holds = |node: &&Node<D>| {
                let held = |row: &Row| node.store.get(row.kind, &row.key).unwrap();
                rows.iter().all(|row| self.history.stands_for(held(row).as_ref(), row))
            };
            let holders = self.nodes.iter().filter(holds).count();
            // A liar's acknowledgement may be a lie.
            if holders + usize::from(self.liar.is_some()) < copies {
                return Err(format!("{rows:?} is said to have {copies} copies and has {holders}"));
            }
        }
        if copies > 1 || self.single_copies_count {
            self.history.acked(&rows);
        }
        Ok(())
    }

    fn trace_transaction(&mut self, node: usize, inputs: &[Input], fate: TxFate) {
        let what: Vec<String> = inputs.iter().filter_map(trace_input).collect();
        if !what.is_empty() || fate != TxFate::Commit {
            let fate = if fate == TxFate::Commit { String::new() } else { format!(" [{fate:?}]") };
            self.note(|| format!("tracker {}: {}{fate}", node + 1, what.join("; ")));
        }
    }
}

/// The numbers of the first `count` trackers.
fn numbers(count: usize) -> Vec<TrackerNo> {
    (1..).take(count).map(TrackerNo).collect()
}
