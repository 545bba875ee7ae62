//! The encrypted file store: `dfs-server`, a storage node, and `dfs`, the client that seals, places and fetches.
//!
//! [`seal`], [`keyring`], [`name`], [`conf`] and [`wire`] are pure. [`chunks`] keeps a node's chunks and [`node`] serves them;
//! `client` is the user's side, and [`queue`] what it has yet to do. Nodes and trackers never see a password, a key, plain bytes or a file's name: what they
//! are given is sealed in `seal` and `keyring`, and nothing else of the client sends anything.

pub mod chunks;
pub mod cli;
pub mod client;
pub mod conf;
pub mod connection;
pub mod files;
pub mod keyring;
pub mod name;
pub mod node;
pub mod queue;
pub mod seal;
pub mod source;
pub mod wire;
