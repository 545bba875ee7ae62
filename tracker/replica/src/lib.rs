//! The replicated data of the tracker cluster: how rows merge, and how trackers bring each other into sync.
//!
//! Pure: time, randomness, storage and the network come in as arguments and go out as values. A driver can run it on
//! SQLite and sockets, a test on memory and a seeded random number generator.
//!
//! # The driver's part
//!
//! One thread owns the storage and the [`Replica`]. It repeats:
//!
//! 1. Begin a transaction.
//! 2. Hand in a batch of client writes ([`Replica::write`]) and events ([`Replica::handle`]).
//! 3. Commit durably.
//! 4. Carry out what [`Replica::poll_output`] returns, in order.
//!
//! It hands in [`Event::Tick`] at [`Replica::next_timeout`], which every call may change.
//!
//! If a transaction cannot be committed, the driver rolls back, drops the replica, closes all links and opens the replica
//! again with the same [`Config`]. At a process start it first mints a new [`WriterId`].
//!
//! A link is a pair of ordered streams on which the peer was authenticated as the tracker with that number. The driver
//! encodes and decodes frames ([`Frame::encode`], [`Frame::decode`]) and closes a link whose bytes are not a frame. It stops
//! reading from a peer that does not take what is sent to it, so that queues stay bounded.
//!
//! # Example
//!
//! Two trackers link up, and a write at the first one reaches the second.
//!
//! ```
//! use shoal_replica::memory::Memory;
//! use shoal_replica::{Bounds, Config, Event, Kind, Now, Output, Replica, Rows, TrackerNo, Write, WriterId};
//!
//! let now = Now { wall_ms: 1_700_000_000_000, mono_ms: 0 };
//! let numbers = [TrackerNo(1), TrackerNo(2)];
//! let mut stores = [Memory::new(), Memory::new()];
//! let mut open = |index: usize| {
//!     let writer = WriterId([index as u8 + 1; 16]); // 128 random bits in a real tracker
//!     let (me, configured, bounds) = (numbers[index], numbers.to_vec(), Bounds::default());
//!     Replica::open(&mut stores[index], Config { me, configured, writer, cluster: [0; 16], bounds }, now)
//! };
//! let mut replicas = [open(0)?, open(1)?];
//! replicas[0].handle(&mut stores[0], Event::LinkUp { peer: numbers[1] }, now)?;
//! replicas[1].handle(&mut stores[1], Event::LinkUp { peer: numbers[0] }, now)?;
//! let write = Write { kind: Kind::LAST_WINS, key: b"key".to_vec(), value: b"value".to_vec(), ..Write::default() };
//! replicas[0].write(&mut stores[0], vec![write], now)?;
//! stores.iter_mut().for_each(Memory::commit);
//!
//! // The driver carries frames until none is left.
//! loop {
//!     let (mut quiet, links) = (true, [(0, 1), (1, 0)]);
//!     for (from, to) in links {
//!         while let Some(output) = replicas[from].poll_output() {
//!             if let Output::Send { frame, .. } = output {
//!                 let event = Event::Frame { peer: numbers[from], frame };
//!                 replicas[to].handle(&mut stores[to], event, now)?;
//!                 stores[to].commit();
//!                 quiet = false;
//!             }
//!         }
//!     }
//!     if quiet {
//!         break;
//!     }
//! }
//! assert_eq!(stores[1].get(Kind::LAST_WINS, b"key")?.map(|row| row.value), Some(b"value".to_vec()));
//! assert_eq!(replicas[0].vector(), replicas[1].vector());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod election;
mod event;
mod frame;
pub mod limits;
pub mod memory;
mod merge;
mod names;
mod replica;
mod row;
mod rows;
mod state;
mod vector;

pub use event::{
    Alarm, Bounds, Config, Event, Holder, MemberStatus, Now, OpenError, Output, Reason, Refusal, Warning,
    Write, WriteError, WriteId,
};
pub use frame::{Chunk, Entry, Frame, FrameError, Hello, Live, Pull};
pub use merge::wins;
pub use names::{
    NameSpace, claim_key, decision_key, name_prefix, parse_claim_key, parse_decision_key, parse_vote_key,
    vote_key,
};
pub use replica::Replica;
pub use row::{BlobHash, Kind, Row, Rule, Stamp, TrackerNo, Uid, WriterId, bucket_of};
pub use rows::{Admission, After, MetaEntry, Rows};
pub use state::pending_key;
pub use vector::VersionVector;
