//! One member of the tracker cluster.
//!
//! `database` owns the database and the replica on one thread; `service` answers clients, one file per family of commands;
//! `clients` and `links` carry what clients and other trackers say; `presence` remembers who is online; `storage` keeps
//! the encrypted store's copies in place; `proof` says which claims and accounts prove themselves; `trust` knows whose keys
//! are the trackers'; `registration` and `quota` say who may write, and how much; `data_dir` is the folder that all
//! this is kept in; `tracker` puts them together; `command_line`, `prompt`, `status`, `reporter` and `metrics` are what an operator sees.

pub mod clients;
pub mod clock;
pub mod cluster_key;
pub mod command_line;
pub mod data_dir;
pub mod database;
mod leases;
mod link_orders;
pub mod links;
pub mod metrics;
mod names;
pub mod presence;
pub mod price;
pub mod prompt;
mod proof;
pub mod quota;
pub mod record;
pub mod registration;
pub mod relay;
pub mod reporter;
pub mod service;
pub mod status;
pub mod storage;
pub mod store;
mod sync_log;
pub mod tracker;
pub mod trust;
pub mod ways;
