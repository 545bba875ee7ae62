//! Opens the database and a replica on it: at the start, and again after the database thread had to give up the last one.

use std::time::Instant;

use anyhow::anyhow;
use shoal_replica::{Bounds, Config, Now, OpenError, Replica, Rows, WriteError, WriterId};

use super::DatabaseConfig;
use crate::clock;
use crate::record::{TICKET_KEY, put};
use crate::store::{Store, StoreError};

/// Trackers with another value refuse each other.
const CLUSTER: [u8; 16] = *b"shoal tracker  1";

/// Why database or replica could not be opened.
pub(super) enum Opening {
    Corrupt(String),
    Other(anyhow::Error),
}

impl From<StoreError> for Opening {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt(problem) => Self::Corrupt(problem),
            other => Self::Other(other.into()),
        }
    }
}

/// Opens the database of a data directory with a replica on it, and writes this tracker's own records. No answer of the
/// database is awaited yet, so all damage that this meets can be handled by starting blank.
pub(super) fn open(
    config: &DatabaseConfig,
    writer: WriterId,
    started: Instant,
) -> Result<(Store, Replica), Opening> {
    let mut store = Store::open(&config.dir)?;
    let mut replica = open_replica(&mut store, config, writer, now(started))?;
    write_own_records(&mut store, &mut replica, config, now(started))?;
    Ok((store, replica))
}

/// Opens a replica on a database that is open.
pub(super) fn open_replica(
    store: &mut Store,
    config: &DatabaseConfig,
    writer: WriterId,
    now: Now,
) -> Result<Replica, Opening> {
    let (configured, bounds) = (config.configured.clone(), Bounds::default());
    let identity = Config { me: config.me, configured, writer, cluster: CLUSTER, bounds };
    store.begin()?;
    match Replica::open(store, identity, now) {
        Ok(replica) => {
            store.commit()?;
            Ok(replica)
        }
        Err(error) => {
            store.rollback()?;
            Err(match error {
                OpenError::Store(error) => error.into(),
                OpenError::Corrupt(what) => Opening::Corrupt(format!("{what} cannot be read")),
                OpenError::OtherTracker(_) | OpenError::Config { .. } => Opening::Other(anyhow!("{error}")),
            })
        }
    }
}

/// Writes what every tracker contributes: the key that it signs tickets with.
fn write_own_records(
    store: &mut Store,
    replica: &mut Replica,
    config: &DatabaseConfig,
    now: Now,
) -> Result<(), Opening> {
    store.begin()?;
    let mut writes = Vec::new();
    let own_key = put(TICKET_KEY, vec![config.me.0], &config.peer);
    if store.get(TICKET_KEY, &own_key.key)?.is_none_or(|row| row.value != own_key.value) {
        writes.push(own_key);
    }
    if !writes.is_empty() {
        replica.write(store, writes, now).map_err(|error| match error {
            WriteError::Store(error) => error.into(),
            WriteError::Refused(refusal) => Opening::Other(anyhow!("cannot write own records: {refusal}")),
        })?;
    }
    Ok(store.commit()?)
}

/// Sets a damaged database aside and starts with an empty one.
pub(super) fn blank(
    config: &DatabaseConfig,
    problem: &str,
    writer: WriterId,
    started: Instant,
) -> anyhow::Result<(Store, Replica)> {
    let aside = Store::set_aside(&config.dir, now(started).wall_ms)?;
    tracing::error!(
        "the database is damaged ({problem}); it was set aside as {} and the other trackers will fill a new one",
        aside.display()
    );
    open(config, writer, started).map_err(|error| match error {
        Opening::Corrupt(problem) => anyhow!("a new database is damaged too ({problem}); check the disk"),
        Opening::Other(error) => error,
    })
}

/// Ends the process, because nothing may be acknowledged that is not durable.
pub(super) fn stop(problem: &str) {
    tracing::error!("stopping: {problem}");
    eprintln!("tracker: stopping: {problem}");
    std::process::exit(1);
}

pub(super) fn new_writer_id() -> WriterId {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system provides randomness");
    WriterId(bytes)
}

pub(super) fn now(started: Instant) -> Now {
    let mono_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Now { wall_ms: clock::wall_ms(), mono_ms }
}
