//! One member of the tracker cluster.
//!
//! `core` owns the database and the replica on one thread; `service` answers clients, one file a family of commands;
//! `clients` and `links` carry what clients and other trackers say; `presence` remembers who is online; `storage` keeps
//! the encrypted store's copies in place; `proof` says which claims and accounts prove themselves; `trust` knows whose keys
//! are the trackers'; `registration` and `quota` say who may write, and how much; `data_dir` is the folder that all
//! this is kept in; `node` puts them together; `prompt`, `status`, `reporter` and `metrics` are what an operator sees.

pub mod clients;
pub mod clock;
pub mod cluster_key;
pub mod core;
pub mod data_dir;
mod leases;
pub mod links;
pub mod metrics;
pub mod node;
pub mod presence;
pub mod prompt;
mod proof;
pub mod quota;
pub mod record;
pub mod registration;
pub mod reporter;
pub mod service;
pub mod status;
pub mod storage;
pub mod store;
mod sync_log;
pub mod trust;
