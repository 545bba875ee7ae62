//! The heart of the tracker cluster: how rows merge, and how trackers bring each other into step.
//!
//! Pure: time, randomness, storage and the network come in as arguments and go out as values. A driver owns one
//! [`Rows`] transaction at a time and hands it in with every event.
//! A driver may run it on SQLite and sockets, a test on memory and a seeded random number generator.

mod blobs;
mod election;
mod event;
mod frame;
mod ledger;
pub mod limits;
mod link;
mod live;
pub mod memory;
mod merge;
mod names;
mod replica;
mod round;
mod row;
mod rows;
mod serve;
mod upkeep;
mod vector;

pub use event::{
    Alarm, Config, Event, Holder, MemberStatus, Now, OpenError, Output, Reason, Refusal, Warning, Write,
    WriteError, WriteId,
};
pub use frame::{Chunk, Entry, Frame, FrameError, Hello, Live, Pull};
pub use merge::wins;
pub use names::{
    NameSpace, claim_key, name_prefix, parse_claim_key, parse_settled_key, parse_vote_key, settled_key,
    vote_key,
};
pub use replica::Replica;
pub use row::{BlobHash, Kind, Origin, Row, Rule, Stamp, TrackerNo, Uid, bucket_of};
pub use rows::{After, MetaEntry, Rows};
pub use vector::VersionVector;
