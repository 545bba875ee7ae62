//! The network between simulated trackers: links that keep order within one direction, and all faults of a
//! network. Directions and links have their own pace, so frames on two paths arrive in any order. A cut loses
//! the tail of what was in flight. A blocked direction delivers nothing, not even that the link broke. A
//! frame may arrive twice.
//!
//! No frame is lost in the middle of a link or overtakes another one on it. A link is one stream over TLS
//! over TCP, which ends rather than continue after a gap, and so does the tracker's own queue before it
//! (`tracker::links::orders`). The protocol relies on that: END says that all rows of the sync came before
//! it. A lossy network becomes cuts at any frame. Reordering becomes rows and vectors that arrive by way of a
//! third tracker sooner or later than directly.

use std::collections::{BTreeMap, VecDeque};

use fastrand::Rng;
use shoal_replica::Frame;

/// A connection between two trackers. Each of them learns of its beginning and end in its own time.
struct Connection {
    broken: bool,
    up: [bool; 2],
    down: [bool; 2],
    /// Frames in flight to each side.
    inbox: [VecDeque<Frame>; 2],
}

/// The next thing that one side learns.
pub(crate) enum Delivery {
    Up,
    Frame(Frame),
    Down,
}

/// All links of a cluster.
#[derive(Default)]
pub(crate) struct Network {
    connections: BTreeMap<(usize, usize), VecDeque<Connection>>,
    /// Until when nothing is delivered from the first to the second.
    blocked: BTreeMap<(usize, usize), u64>,
}

impl Network {
    /// All links of a tracker end. The other sides learn of it in their own time.
    pub(crate) fn cut_all(&mut self, node: usize) {
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

    /// Raises a link, unless there is one or a direction is blocked.
    pub(crate) fn connect(&mut self, a: usize, b: usize, now_ms: u64) {
        if a == b || self.is_connected(a, b) || self.is_blocked(a, b, now_ms) || self.is_blocked(b, a, now_ms)
        {
            return;
        }
        let connection =
            Connection { broken: false, up: [false; 2], down: [false; 2], inbox: Default::default() };
        self.connections.entry((a.min(b), a.max(b))).or_default().push_back(connection);
    }

    /// Breaks a link. Some of the frames in flight still arrive.
    pub(crate) fn cut(&mut self, a: usize, b: usize, rng: &mut Rng) {
        let pair = (a.min(b), a.max(b));
        if let Some(connection) = self.connections.get_mut(&pair).and_then(VecDeque::back_mut) {
            connection.broken = true;
            for inbox in &mut connection.inbox {
                inbox.truncate(rng.usize(0..=inbox.len()));
            }
        }
    }

    /// Blocks the direction from one to the other until then.
    pub(crate) fn block(&mut self, from: usize, to: usize, until_ms: u64) {
        self.blocked.insert((from, to), until_ms);
    }

    /// Unblocks all directions.
    pub(crate) fn unblock_all(&mut self) {
        self.blocked.clear();
    }

    fn is_blocked(&self, from: usize, to: usize, now_ms: u64) -> bool {
        self.blocked.get(&(from, to)).is_some_and(|&until_ms| now_ms < until_ms)
    }

    /// Every delivery that is possible now: receiver and sender.
    pub(crate) fn deliverable(&self, now_ms: u64) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for (&(low, high), connections) in &self.connections {
            for (side, (to, from)) in [(low, high), (high, low)].into_iter().enumerate() {
                let first = connections.iter().find(|connection| !connection.down[side]);
                let due = first.is_some_and(|connection| {
                    !connection.up[side] || !connection.inbox[side].is_empty() || connection.broken
                });
                if due && !self.is_blocked(from, to, now_ms) {
                    found.push((to, from));
                }
            }
        }
        found
    }

    /// The next thing that `to` learns of its link with `from`.
    pub(crate) fn next(&mut self, to: usize, from: usize) -> Option<Delivery> {
        let side = usize::from(to > from);
        let connections = self.connections.get_mut(&(to.min(from), to.max(from)))?;
        let connection = connections.iter_mut().find(|connection| !connection.down[side])?;
        if !connection.up[side] {
            connection.up[side] = true;
            return Some(Delivery::Up);
        }
        if let Some(frame) = connection.inbox[side].pop_front() {
            return Some(Delivery::Frame(frame));
        }
        if !connection.broken {
            return None;
        }
        connection.down[side] = true;
        connections.retain(|connection| connection.down != [true; 2]);
        Some(Delivery::Down)
    }

    /// Sends a frame over the link that the sender knows of, if it is still up.
    pub(crate) fn send(&mut self, from: usize, to: usize, frame: Frame) {
        let side = usize::from(from > to);
        let connections = self.connections.get_mut(&(from.min(to), from.max(to)));
        let current = connections.and_then(|all| all.iter_mut().find(|connection| !connection.down[side]));
        if let Some(connection) = current.filter(|connection| connection.up[side] && !connection.broken) {
            connection.inbox[1 - side].push_back(frame);
        }
    }

    /// One side closes the link that it knows of.
    pub(crate) fn hang_up(&mut self, node: usize, peer: usize) {
        let side = usize::from(node > peer);
        let Some(connections) = self.connections.get_mut(&(node.min(peer), node.max(peer))) else { return };
        if let Some(connection) = connections.iter_mut().find(|connection| !connection.down[side]) {
            connection.broken = true;
            connection.down[side] = true;
            connection.inbox[side].clear();
        }
        connections.retain(|connection| connection.down != [true; 2]);
    }
}
