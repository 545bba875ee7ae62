//! A cluster in one thread: trackers on memory stores, links that keep order and break, one clock, and the driver's part.

use std::collections::{BTreeMap, VecDeque};

use fastrand::Rng;
use shoal_replica::memory::Memory;
use shoal_replica::{
    Alarm, Config, Event, Frame, Kind, NameSpace, Now, Origin, Output, Reason, Replica, Row, Rows, TrackerNo,
    Uid, Warning, Write, WriteId, claim_key, parse_claim_key,
};

use crate::history::History;

/// A rule that is broken on purpose, to see that it is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    Nothing,
    /// Every frame of rows is taken for the END of its round.
    EarlyEnd,
    /// A tracker has the same origin at every start.
    FixedOrigin,
    /// The floor of dropped tombstones is not told.
    NoFloor,
    /// A tracker thinks at its start that it has heard out everybody.
    NoAbstention,
}

/// What happens to a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Commit,
    /// It fails; the tracker opens its replica again.
    Rollback,
    /// The process dies before it.
    DieBefore,
    /// The process dies after it, having carried out that many of its outputs.
    DieAfter(usize),
}

/// Something for one tracker's one transaction.
pub(crate) enum Input {
    Event(Event),
    Write(Vec<Write>),
}

/// One tracker.
pub(crate) struct Node {
    pub(crate) no: TrackerNo,
    pub(crate) store: Memory,
    pub(crate) replica: Option<Replica>,
    pub(crate) skew_ms: i64,
    /// Writes of this process that are not acknowledged yet.
    pub(crate) pending: BTreeMap<WriteId, Vec<Row>>,
    pub(crate) acked: Vec<(WriteId, usize)>,
    origin: Origin,
}

/// A connection between two trackers, each of which learns of its coming and going in its own time.
struct Connection {
    broken: bool,
    up: [bool; 2],
    down: [bool; 2],
    /// Frames on their way to each side.
    inbox: [VecDeque<Frame>; 2],
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now_ms: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) history: History,
    pub(crate) sabotage: Sabotage,
    /// Whether frames go through their encoding.
    pub(crate) encode: bool,
    /// Whether acknowledgements by one tracker alone count, as no disk is lost.
    pub(crate) single_copies_count: bool,
    pub(crate) alarms: Vec<Alarm>,
    pub(crate) warnings: Vec<Warning>,
    /// Links that were closed: by whom, with whom, why.
    pub(crate) closed: Vec<(TrackerNo, TrackerNo, Reason)>,
    connections: BTreeMap<(usize, usize), VecDeque<Connection>>,
}

const START_WALL_MS: u64 = 1_700_000_000_000;

impl World {
    pub(crate) fn new(trackers: u8, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let nodes = (1..=trackers).map(|no| Node {
            no: TrackerNo(no),
            store: Memory::new(),
            replica: None,
            skew_ms: 0,
            pending: BTreeMap::new(),
            acked: Vec::new(),
            origin: Origin(rng.u128(..).to_le_bytes()),
        });
        let nodes = nodes.collect();
        Self {
            rng,
            now_ms: 0,
            nodes,
            history: History::default(),
            sabotage: Sabotage::Nothing,
            encode: false,
            single_copies_count: true,
            alarms: Vec::new(),
            warnings: Vec::new(),
            closed: Vec::new(),
            connections: BTreeMap::new(),
        }
    }

    pub(crate) fn now(&self, node: usize) -> Now {
        let wall = START_WALL_MS.checked_add(self.now_ms).unwrap();
        Now { wall_ms: wall.saturating_add_signed(self.nodes[node].skew_ms), mono_ms: self.now_ms }
    }

    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.nodes[node].replica.is_some()
    }

    pub(crate) fn all_up(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&node| self.is_up(node)).collect()
    }

    pub(crate) fn start(&mut self, node: usize) {
        if self.sabotage != Sabotage::FixedOrigin {
            self.nodes[node].origin = Origin(self.rng.u128(..).to_le_bytes());
        }
        self.open(node);
        if self.sabotage == Sabotage::NoAbstention {
            self.pretend_all_were_heard(node);
        }
    }

    fn open(&mut self, node: usize) {
        let now = self.now(node);
        let configured = self.nodes.iter().map(|node| node.no).collect();
        let it = &mut self.nodes[node];
        let config = Config { me: it.no, configured, origin: it.origin, cluster: [7; 16] };
        it.replica = Some(Replica::open(&mut it.store, config, now).unwrap());
        it.store.commit();
        it.pending.clear();
        it.acked.clear();
    }

    /// Gives a tracker the END of an empty round from everybody, whom it cannot tell from the real ones.
    fn pretend_all_were_heard(&mut self, node: usize) {
        let now = self.now(node);
        let peers: Vec<TrackerNo> = self.nodes.iter().map(|peer| peer.no).collect();
        let mut liar = Memory::new();
        let me = self.nodes[node].no;
        for peer in peers.iter().copied().filter(|&peer| peer != me) {
            let origin = Origin(self.rng.u128(..).to_le_bytes());
            let it = &mut self.nodes[node];
            let Some(replica) = &mut it.replica else { return };
            let config = Config { me: peer, configured: peers.clone(), origin, cluster: [7; 16] };
            liar.rollback();
            let mut fake = Replica::open(&mut liar, config, now).unwrap();
            replica.handle(&mut it.store, Event::LinkUp { peer }, now).unwrap();
            fake.handle(&mut liar, Event::LinkUp { peer: me }, now).unwrap();
            loop {
                let to_fake = sends(replica);
                let to_node = sends(&mut fake);
                if to_fake.is_empty() && to_node.is_empty() {
                    break;
                }
                for frame in to_fake.into_iter().filter(|frame| !matches!(frame, Frame::Vector(_))) {
                    fake.handle(&mut liar, Event::Frame { peer: me, frame }, now).unwrap();
                }
                for frame in to_node {
                    replica.handle(&mut it.store, Event::Frame { peer, frame }, now).unwrap();
                }
            }
            replica.handle(&mut it.store, Event::LinkDown { peer }, now).unwrap();
        }
        self.nodes[node].store.commit();
    }

    /// The process dies; what was not committed is lost.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].store.rollback();
        self.nodes[node].replica = None;
        self.cut_all(node);
    }

    fn cut_all(&mut self, node: usize) {
        for (&(low, high), connections) in &mut self.connections {
            if low == node || high == node {
                let side = usize::from(high == node);
                for connection in connections.iter_mut() {
                    connection.broken = true;
                    connection.up[side] = true;
                    connection.down[side] = true;
                    connection.inbox[side].clear();
                }
                connections.retain(|connection| connection.down != [true; 2]);
            }
        }
    }

    pub(crate) fn is_connected(&self, a: usize, b: usize) -> bool {
        let pair = (a.min(b), a.max(b));
        self.connections.get(&pair).and_then(VecDeque::back).is_some_and(|connection| !connection.broken)
    }

    pub(crate) fn connect(&mut self, a: usize, b: usize) {
        if a == b || self.is_connected(a, b) || !self.is_up(a) || !self.is_up(b) {
            return;
        }
        let connection =
            Connection { broken: false, up: [false; 2], down: [false; 2], inbox: Default::default() };
        self.connections.entry((a.min(b), a.max(b))).or_default().push_back(connection);
    }

    /// Breaks a link. Some of what was on its way still arrives.
    pub(crate) fn cut(&mut self, a: usize, b: usize) {
        let pair = (a.min(b), a.max(b));
        if let Some(connection) = self.connections.get_mut(&pair).and_then(VecDeque::back_mut) {
            connection.broken = true;
            for inbox in &mut connection.inbox {
                inbox.truncate(self.rng.usize(0..=inbox.len()));
            }
        }
    }

    /// Every delivery that is possible now: who hears from whom.
    pub(crate) fn deliverable(&self) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for (&(low, high), connections) in &self.connections {
            for (side, (to, from)) in [(low, high), (high, low)].into_iter().enumerate() {
                let first = connections.iter().find(|connection| !connection.down[side]);
                let due = first.is_some_and(|connection| {
                    !connection.up[side] || !connection.inbox[side].is_empty() || connection.broken
                });
                if due && self.is_up(to) {
                    found.push((to, from));
                }
            }
        }
        found
    }

    /// The next thing that `to` hears of its link with `from`.
    pub(crate) fn next_event(&mut self, to: usize, from: usize) -> Vec<Event> {
        let peer = self.nodes[from].no;
        let pair = (to.min(from), to.max(from));
        let side = usize::from(to > from);
        let Some(connections) = self.connections.get_mut(&pair) else { return Vec::new() };
        let Some(connection) = connections.iter_mut().find(|connection| !connection.down[side]) else {
            return Vec::new();
        };
        if !connection.up[side] {
            connection.up[side] = true;
            return vec![Event::LinkUp { peer }];
        }
        if let Some(frame) = connection.inbox[side].pop_front() {
            let early_end = match &frame {
                Frame::Rows { round, .. } if self.sabotage == Sabotage::EarlyEnd => {
                    Some(Event::Frame { peer, frame: Frame::End { round: *round } })
                }
                Frame::Floor(_) if self.sabotage == Sabotage::NoFloor => return Vec::new(),
                _ => None,
            };
            let frame = if self.encode { Frame::decode(&frame.encode()).unwrap() } else { frame };
            return [Event::Frame { peer, frame }].into_iter().chain(early_end).collect();
        }
        if !connection.broken {
            return Vec::new();
        }
        connection.down[side] = true;
        connections.retain(|connection| connection.down != [true; 2]);
        vec![Event::LinkDown { peer }]
    }

    /// One transaction of one tracker, as its driver runs it.
    pub(crate) fn transact(&mut self, node: usize, inputs: Vec<Input>, fate: Fate) -> Result<(), String> {
        let now = self.now(node);
        let it = &mut self.nodes[node];
        let Some(replica) = &mut it.replica else { return Ok(()) };
        for input in inputs {
            match input {
                Input::Event(event) => replica.handle(&mut it.store, event, now).unwrap(),
                Input::Write(writes) => {
                    let places: Vec<_> = writes.iter().map(|write| (write.kind, write.key.clone())).collect();
                    let id = replica.write(&mut it.store, writes, now).map_err(|error| error.to_string())?;
                    let rows = places.iter().filter_map(|(kind, key)| it.store.get(*kind, key).unwrap());
                    let rows: Vec<Row> = rows.collect();
                    rows.iter().for_each(|row| self.history.tried(row));
                    it.pending.insert(id, rows);
                }
            }
        }
        match fate {
            Fate::Commit => {
                it.store.commit();
                self.carry_out(node, usize::MAX)
            }
            Fate::DieAfter(count) => {
                it.store.commit();
                self.carry_out(node, count)?;
                self.kill(node);
                Ok(())
            }
            Fate::DieBefore => {
                self.kill(node);
                Ok(())
            }
            Fate::Rollback => {
                it.store.rollback();
                self.cut_all(node);
                self.open(node);
                Ok(())
            }
        }
    }

    pub(crate) fn tick_due(&mut self) -> Result<(), String> {
        for node in self.all_up() {
            let due = self.nodes[node].replica.as_ref().and_then(Replica::next_timeout);
            if due.is_some_and(|due| due <= self.now_ms) {
                self.transact(node, vec![Input::Event(Event::Tick)], Fate::Commit)?;
            }
        }
        Ok(())
    }

    pub(crate) fn start_all(&mut self) {
        for node in 0..self.nodes.len() {
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

    /// Delivers everything that is on its way, in some order, and lets time pass until something is due.
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
            self.transact(to, events, Fate::Commit)?;
        }
    }

    fn carry_out(&mut self, node: usize, count: usize) -> Result<(), String> {
        for _ in 0..count {
            let Some(output) = self.nodes[node].replica.as_mut().and_then(Replica::poll_output) else {
                break;
            };
            match output {
                Output::Send { to, frame } => self.send(node, usize::from(to.0) - 1, frame)?,
                Output::Disconnect { peer, reason } => {
                    self.closed.push((self.nodes[node].no, peer, reason));
                    self.hang_up(node, usize::from(peer.0) - 1);
                }
                Output::Acked { write, copies } => self.acked(node, write, copies)?,
                Output::Alarm(alarm) => self.alarms.push(alarm),
                Output::Warning(warning) => self.warnings.push(warning),
            }
        }
        Ok(())
    }

    fn send(&mut self, from: usize, to: usize, frame: Frame) -> Result<(), String> {
        self.history.sent(&frame)?;
        let side = usize::from(from > to);
        let connections = self.connections.get_mut(&(from.min(to), from.max(to)));
        let current = connections.and_then(|all| all.iter_mut().find(|connection| !connection.down[side]));
        if let Some(connection) = current.filter(|connection| connection.up[side] && !connection.broken) {
            connection.inbox[1 - side].push_back(frame);
        }
        Ok(())
    }

    fn hang_up(&mut self, node: usize, peer: usize) {
        let side = usize::from(node > peer);
        let pair = (node.min(peer), node.max(peer));
        let Some(connections) = self.connections.get_mut(&pair) else { return };
        if let Some(connection) = connections.iter_mut().find(|connection| !connection.down[side]) {
            connection.broken = true;
            connection.down[side] = true;
            connection.inbox[side].clear();
        }
        connections.retain(|connection| connection.down != [true; 2]);
    }

    fn acked(&mut self, node: usize, id: WriteId, copies: usize) -> Result<(), String> {
        let it = &mut self.nodes[node];
        it.acked.push((id, copies));
        let Some(rows) = it.pending.remove(&id) else {
            return Err(format!("{id:?} was acknowledged twice or never written"));
        };
        for row in &rows {
            let space = match row.kind {
                Kind::USER_CLAIM => NameSpace::User,
                Kind::GROUP_CLAIM => NameSpace::Group,
                _ => continue,
            };
            let (name, uid) = parse_claim_key(&row.key).unwrap();
            let it = &self.nodes[node];
            let holder = it.replica.as_ref().unwrap().holder(&it.store, space, name).unwrap();
            if holder.is_some_and(|holder| holder.definite && holder.uid == uid) {
                self.history.created(space, name, uid)?;
            }
        }
        if self.single_copies_count {
            let holds = |node: &&Node| {
                let held = |row: &Row| node.store.get(row.kind, &row.key).unwrap();
                rows.iter().all(|row| self.history.stands_for(held(row).as_ref(), row))
            };
            let holders = self.nodes.iter().filter(holds).count();
            if holders < copies {
                return Err(format!("{rows:?} is said to have {copies} copies and has {holders}"));
            }
        }
        if copies > 1 || self.single_copies_count {
            self.history.acked(&rows);
        }
        Ok(())
    }
}

fn sends(replica: &mut Replica) -> Vec<Frame> {
    let outputs = std::iter::from_fn(|| replica.poll_output());
    outputs
        .filter_map(|output| match output {
            Output::Send { frame, .. } => Some(frame),
            _ => None,
        })
        .collect()
}

/// A claim to a name.
pub(crate) fn claim(space: NameSpace, name: &[u8], uid: Uid) -> Write {
    Write {
        kind: space.claim_kind(),
        key: claim_key(name, uid),
        value: b"claim".to_vec(),
        ..Write::default()
    }
}

/// A write of a row whose last version wins.
pub(crate) fn put(key: &[u8], value: &[u8]) -> Write {
    Write { kind: Kind::LAST_WINS, key: key.to_vec(), value: value.to_vec(), ..Write::default() }
}

/// A deletion of such a row.
pub(crate) fn delete(key: &[u8]) -> Write {
    Write { kind: Kind::LAST_WINS, key: key.to_vec(), tombstone: true, ..Write::default() }
}
