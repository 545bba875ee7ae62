//! Fetching pieces from other peers: [`PeerSource`] is the engine's view of one file at one peer, [`peers`] the
//! connections behind it, [`channels`] what goes on on one of them.

mod arrivals;
mod channels;
mod connection;
mod ladder;
mod parallel;
mod peers;
mod source;
mod supervisor;
mod target;
mod trouble;

pub(super) use self::peers::Peers;
pub use self::source::PeerSource;
pub(super) use self::source::Start;
pub use self::target::Liveness;
pub(super) use self::target::Target;
pub use self::trouble::Trouble;
