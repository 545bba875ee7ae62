//! How the core comes to a database and a replica on it: at the start, and again after what made it give up the last one.

use std::time::Instant;

use shoal_replica::{Config, Now, OpenError, Origin, Replica};

use super::CoreConfig;
use crate::clock;
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

pub(super) fn open_replica(
    store: &mut Store,
    config: &CoreConfig,
    origin: Origin,
    now: Now,
) -> Result<Replica, Opening> {
    let identity = Config { me: config.me, configured: config.configured.clone(), origin, cluster: CLUSTER };
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
                OpenError::OtherTracker(_) | OpenError::Config { .. } => {
                    Opening::Other(anyhow::anyhow!("{error}"))
                }
            })
        }
    }
}

/// Sets a damaged database aside and begins with an empty one.
pub(super) fn blank(
    config: &CoreConfig,
    problem: &str,
    origin: Origin,
    started: Instant,
) -> anyhow::Result<(Store, Replica)> {
    let aside = Store::set_aside(&config.dir, now(started).wall_ms)?;
    tracing::error!(
        "the database is damaged ({problem}); it was set aside as {} and the other trackers will fill a new one",
        aside.display()
    );
    let mut store = Store::open(&config.dir)?;
    match open_replica(&mut store, config, origin, now(started)) {
        Ok(replica) => Ok((store, replica)),
        Err(Opening::Corrupt(problem)) => anyhow::bail!("a new database is damaged too: {problem}"),
        Err(Opening::Other(error)) => Err(error),
    }
}

/// Ends the process: nothing that is not durable may be acknowledged.
pub(super) fn stop(problem: &str) {
    tracing::error!("stopping: {problem}");
    eprintln!("tracker: stopping: {problem}");
    std::process::exit(1);
}

pub(super) fn fresh_origin() -> Origin {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system provides randomness");
    Origin(bytes)
}

pub(super) fn now(started: Instant) -> Now {
    let mono_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Now { wall_ms: clock::wall_ms(), mono_ms }
}
