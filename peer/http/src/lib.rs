//! Shoal's HTTP side: `server` serves a file or a folder in ranges on several ports, `fetch` takes one file in segments
//! from many servers at once. An HTTP server is one more [`PieceSource`](shoal_engine::PieceSource) of the same engine that
//! swarm downloads run on; there is no second one.

pub mod arguments;
pub mod client;
mod cookies;
pub mod fetch;
pub mod global;
mod held;
pub mod metalink;
pub mod mirror;
mod network_name;
mod program;
pub mod server;
pub mod source;
mod url_text;
