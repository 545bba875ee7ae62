//! One peer of a simulated swarm: its half of every connection, and its uplink.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_common::{Bitfield, Fid, Gid, Layout, PeerId, PieceIndex, Uid};
use shoal_engine_core::{DownloadCore, RequestId};
use shoal_policy::{ChannelId, Event as PolicyEvent, FileKey};

use crate::Manners;
use crate::plain::Server;

/// The one file of the swarm.
const FILE: FileKey = FileKey { group: Gid([1; 16]), file: Fid([1; 16]) };
/// Blocks in which pieces are sent.
const BLOCK: u64 = 16 * 1024;

/// A peer's number; the seeder is 0.
pub(crate) type Number = usize;

/// A piece on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sending {
    pub(crate) to: Number,
    pub(crate) piece: PieceIndex,
    pub(crate) left: u64,
    /// Bytes of the block that is being sent.
    pub(crate) block: u64,
}

/// A request of a leecher's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) request: RequestId,
    pub(crate) received: u64,
    pub(crate) first_byte: Option<Instant>,
    /// Whether the core knows of all bytes received.
    pub(crate) reported: bool,
}

pub(crate) struct Peer {
    pub(crate) manners: Manners,
    pub(crate) uplink: u64,
    pub(crate) here: bool,
    /// `None` for the seeder.
    pub(crate) core: Option<DownloadCore>,
    pub(crate) server: Server,
    pub(crate) have: Bitfield,
    pub(crate) neighbours: Vec<Number>,
    /// Its requests, by the peer asked and the piece.
    pub(crate) requests: BTreeMap<(Number, PieceIndex), Asked>,
    pub(crate) sending: VecDeque<Sending>,
    /// Whether a block is on the uplink.
    pub(crate) busy: bool,
    /// Pieces that were not announced to the neighbours yet.
    pub(crate) unannounced: Vec<PieceIndex>,
    /// The next announcement goes out no earlier than this.
    pub(crate) announces_at: Duration,
    pub(crate) finished: Option<Duration>,
    pub(crate) sent_bytes: u64,
    pub(crate) wasted_bytes: u64,
}

impl Peer {
    pub(crate) fn new(
        core: Option<DownloadCore>,
        have: Bitfield,
        uplink: u64,
        manners: Manners,
        server: Server,
    ) -> Self {
        Self {
            manners,
            uplink,
            here: false,
            core,
            server,
            have,
            neighbours: Vec::new(),
            requests: BTreeMap::new(),
            sending: VecDeque::new(),
            busy: false,
            unannounced: Vec::new(),
            announces_at: Duration::ZERO,
            finished: None,
            sent_bytes: 0,
            wasted_bytes: 0,
        }
    }

    /// The peer `by` of that user opens the file here.
    pub(crate) fn opened(&mut self, by: Number, user: Number, layout: Layout, now: Instant) {
        let (mut id, mut uid) = ([0; 32], [0; 16]);
        id[..8].copy_from_slice(&(by as u64).to_le_bytes());
        uid[..8].copy_from_slice(&(user as u64).to_le_bytes());
        let (channel, user, peer) = (channel(by), Uid(uid), PeerId(id));
        let seeding = self.core.is_none();
        let opened = PolicyEvent::Opened { channel, user, peer, key: FILE, layout, seeding };
        self.server.handle(opened, now);
    }

    /// A whole file is served by a seeder's rules.
    pub(crate) fn completed(&mut self, now: Instant) {
        self.server.handle(PolicyEvent::Completed { key: FILE }, now);
    }

    /// The next block for the uplink, pieces in turn, and how long it takes.
    pub(crate) fn next_block(&mut self) -> Option<Duration> {
        let sending = self.sending.front_mut()?;
        sending.block = sending.left.min(BLOCK);
        self.busy = true;
        Some(Duration::from_nanos(sending.block * 1_000_000_000 / self.uplink.max(1)))
    }

    /// The block is out; the piece that it belongs to goes to the end of the queue unless it is out whole.
    pub(crate) fn sent_block(&mut self) -> Option<Sending> {
        self.busy = false;
        let mut sending = self.sending.pop_front()?;
        sending.left -= sending.block;
        self.sent_bytes += sending.block;
        if sending.left > 0 {
            self.sending.push_back(sending);
        }
        Some(sending)
    }

    /// The pieces held, as neighbours get to know them.
    pub(crate) fn shared_have(&self) -> Arc<Bitfield> {
        Arc::new(self.have.clone())
    }
}

/// A requester has one channel with each peer that it asks.
pub(crate) fn channel(by: Number) -> ChannelId {
    ChannelId(by as u64)
}
