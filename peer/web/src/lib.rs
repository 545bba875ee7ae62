//! The client's local HTTP API: a front beside the prompt. It takes commands and hands out events on a Unix socket, to programs
//! of the same user only. It knows no command: each goes to the front that started it, as an [`Asked`], and comes back as what
//! was [`Said`].
//!
//! `socket` is where it listens and who may connect, `serve` the connections and their bounds, `api` what can be asked,
//! `resources` what can be looked at and done, `feed` and `events` what happens, `loopback` the
//! same for a browser, behind `guard`, `keys` and `pages`, with the `page`, and `caller` the other end: what `shoal` does on the socket.

mod answer;
mod api;
mod body;
pub mod caller;
mod events;
mod feed;
mod guard;
mod keys;
mod loopback;
mod metrics;
mod page;
mod pages;
mod redirect;
mod resources;
mod roots;
pub mod schema;
mod serve;
pub mod socket;

pub use api::{Asked, Bar, Done, Said, Table, Words};
pub use serve::{Web, WebConfig, start};
pub use socket::SocketError;

/// The version that answers and callers name.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The header that names it.
pub(crate) const VERSION_HEADER: &str = "shoal-version";
