//! The heart of the tracker cluster: how rows merge, and how trackers bring each other into step.
//!
//! Pure: time, randomness, storage and the network come in as arguments and go out as values. A driver may run it on
//! SQLite and sockets, a test on memory and a seeded random number generator.
//!
//! # The driver's part
//!
//! One thread owns the storage and the [`Replica`]. It begins a transaction; hands in a batch of client writes
//! ([`Replica::write`]) and events ([`Replica::handle`]); commits, durably; and only then carries out what
//! [`Replica::poll_output`] gives, in order. It hands in [`Event::Tick`] at [`Replica::next_timeout`], which every call may
//! have changed.
//!
//! When a transaction cannot be committed it rolls back, throws the replica away, closes all links and opens the replica
//! again with the same [`Config`]. At a process start it mints a new [`Origin`] first.
//!
//! A link is a pair of ordered streams on which the peer was authenticated as the tracker with that number; the driver
//! encodes and decodes frames ([`Frame::encode`], [`Frame::decode`]), closes a link whose bytes are no frame, and stops
//! reading from a peer that does not take what is sent to it, so that queues stay bounded.

mod blobs;
mod conduct;
mod election;
mod event;
mod frame;
mod introduction;
mod ledger;
pub mod limits;
mod link;
mod live;
pub mod memory;
mod merge;
mod names;
mod own_word;
mod refusals;
mod removal;
mod replica;
mod restamp;
mod round;
mod row;
mod rows;
mod serve;
mod status;
mod upkeep;
mod vector;
mod writers;

pub use event::{
    Alarm, Bounds, Config, Event, Holder, MemberStatus, Now, OpenError, Output, Reason, Refusal, Warning,
    Write, WriteError, WriteId,
};
pub use frame::{Chunk, Entry, Frame, FrameError, Hello, Live, Pull};
pub use merge::wins;
pub use names::{
    NameSpace, claim_key, name_prefix, parse_claim_key, parse_settled_key, parse_vote_key, settled_key,
    vote_key,
};
pub use replica::Replica;
pub use row::{BlobHash, Kind, Origin, Row, Rule, Stamp, TrackerNo, Uid, bucket_of};
pub use rows::{Admission, After, MetaEntry, Rows};
pub use vector::VersionVector;
