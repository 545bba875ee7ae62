//! Everything that Shoal sends over a network, HTTP excepted: who we are, the control plane, bulk
//! connections.
//!
//! The only crate that knows libp2p and rustls. Both ways prove the peer ids of both ends by the same
//! certificates; other crates see [`shoal_common::PeerId`] and small types of ours. What the
//! messages mean is defined in `shoal-common` and decided elsewhere.

mod address;
mod admission;
pub mod bulk;
mod channel;
mod control;
mod error;
mod identity;
mod interfaces;
mod known;
mod message;
mod price;
mod protocol;
pub mod requests;

pub use address::{is_of_this_machine, site};
pub use admission::{ConnectionLimits, Full, IDLE, Limit, LimitScope, Place, Refused};
pub use channel::{Channel, ChannelReceiver, ChannelSender};
pub use control::{Control, ControlConfig, ControlLimits, DialError, Inbound, Incoming, RelayEnd};
pub use error::NetError;
pub use identity::{Identity, IdentityError};
pub use interfaces::{Interface, interfaces, is_local};
pub use known::{KNOWN_TRACKERS_FILE, KnownError, KnownTrackers, ReachError};
pub use message::{ChannelError, MAX_MESSAGE};
pub use price::{Budgets, MessageBudget, Overdrawn, Payer, Tariff};
pub use protocol::Protocol;
