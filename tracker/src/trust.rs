//! Which keys are the trackers' now, as this tracker knows it: its own, and for every other listed number the one that the
//! file names or that is pinned. Signatures of other keys on sessions, tickets and orders do not count, whatever the records
//! say. So a tracker's authority ends when its line is removed.
//!
//! A key is pinned when the first link with it stands, or when more than half of all other trackers, this one counted with
//! them, vouch for a new line. Another key counts only through the file, the cluster key, or the operator's `accept-tracker`.
//! This tracker signs what it knows as a list, for clients, nodes and new trackers. The others' lists come as records and are
//! passed on with it, because their signatures prove them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use shoal_common::tokens::{self, seal};
use shoal_common::tracker_info::{MAX_TRACKERS, TrackerLine};
use shoal_common::vouching::{Expected, ListedTracker, Scope, SignedList, TrackerList};
use shoal_common::{PeerId, TrackerInfo};
use shoal_net::{Control, Identity, KnownError, KnownTrackers, ReachError};
use shoal_replica::{Row, Rows, Write};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::wall_ms;
use crate::database::{Database, Fault, Tx};
use crate::record::{TRACKER_LIST, part};

/// How often the others' lists are read.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long nothing must have changed before the own list is written: at a start, links come one by one.
const QUIET: Duration = Duration::from_secs(2);

/// The trackers' keys. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Trust(Arc<TrustInner>);

struct TrustInner {
    known: KnownTrackers,
    info: TrackerInfo,
    number: u8,
    identity: Identity,
    /// The last keys that trackers showed and that were not believed, by number.
    refused: Mutex<HashMap<u8, PeerId>>,
    own: Mutex<OwnList>,
    changed: Notify,
}

/// The list that this tracker signed last.
#[derive(Default)]
struct OwnList {
    made_ms: u64,
    trackers: Vec<ListedTracker>,
    sealed: Vec<u8>,
}

impl Trust {
    /// What the tracker of that number remembers in its data folder. Blocks on the disk.
    ///
    /// # Errors
    /// When the file of pins cannot be used.
    pub fn open(dir: &Path, info: &TrackerInfo, number: u8, identity: Identity) -> Result<Self, KnownError> {
        let known = KnownTrackers::open(dir, info, Some(number))?;
        let (refused, own) = (Mutex::default(), Mutex::default());
        let inner =
            TrustInner { known, info: info.clone(), number, identity, refused, own, changed: Notify::new() };
        Ok(Self(Arc::new(inner)))
    }

    /// The keys that sign for this cluster now, the own one first.
    #[must_use]
    pub fn keys(&self) -> Vec<PeerId> {
        let others = self.0.known.keys().into_iter().map(|(_, key)| key);
        std::iter::once(self.0.identity.peer_id()).chain(others).collect()
    }

    /// Connects to that tracker. It must have its known key, unless the cluster key is to prove it.
    pub(crate) async fn dial(
        &self,
        control: &Control,
        line: &TrackerLine,
        cluster_key_proves: bool,
    ) -> Result<PeerId, ReachError> {
        let expected = match self.0.known.expected(line).await? {
            Expected::Named(key) => Some(key),
            Expected::Pinned(key) if !cluster_key_proves => Some(key),
            _ => None,
        };
        Ok(control.dial(&line.host, line.port, expected).await?)
    }

    /// A link with that tracker, which has that key, is about to stand: pins the key at the first contact, and if the cluster key
    /// proved it. Whether the link may stand.
    pub(crate) async fn linked(
        &self,
        tracker: (u8, &TrackerLine),
        key: PeerId,
        cluster_key_proved: bool,
    ) -> bool {
        match self.pin(tracker, key, cluster_key_proved).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!("no link with tracker {} ({}): {error}", tracker.0, tracker.1);
                false
            }
        }
    }

    async fn pin(
        &self,
        (number, line): (u8, &TrackerLine),
        key: PeerId,
        cluster_key_proved: bool,
    ) -> Result<(), KnownError> {
        let before = self.0.known.key(line);
        if cluster_key_proved && before.is_some_and(|before| before != key) {
            tracing::warn!(
                "tracker {number} ({line}) has another key than before, {key}: the cluster key proves it"
            );
            self.0.known.accept(line, key).await?;
        } else if self.0.known.met(line, key).await? {
            tracing::warn!("tracker {number} ({line}) is now known by its key {key}");
        }
        self.refused().remove(&number);
        if before != Some(key) {
            self.0.changed.notify_one();
        }
        Ok(())
    }

    /// Another key than the known one is shown at that tracker's address. Logs that once for each key.
    pub(crate) fn refuse(&self, (number, line): (u8, &TrackerLine), key: PeerId) {
        if self.refused().insert(number, key) != Some(key) {
            tracing::error!(
                "tracker {number} ({line}) shows another key than before, {key}, and is not believed; if it was replaced \
                 on purpose and --id on its machine prints that key, type accept-tracker {number} {key} at this tracker's \
                 prompt, or write the peer id into its line of tracker_info.txt"
            );
        }
    }

    /// The tracker of that number no longer answers: the key that it showed last is not to be accepted.
    pub(crate) fn silent(&self, number: u8) {
        self.refused().remove(&number);
    }

    /// The key that this tracker shows and that is not believed.
    #[must_use]
    pub fn refused_key(&self, number: u8) -> Option<PeerId> {
        self.refused().get(&number).copied()
    }

    /// Believes from now on that `key` is the key of the tracker of that number, and returns it. Without a key nothing changes:
    /// the error says which key is shown now.
    ///
    /// # Errors
    /// In words: there is no such tracker, its line names its key, or no key was given.
    pub async fn accept(&self, number: u8, key: Option<PeerId>) -> Result<PeerId> {
        let Some(line) = self.0.info.tracker(number).filter(|_| number != self.0.number) else {
            bail!("there is no other tracker {number} in tracker_info.txt");
        };
        if let Some(named) = line.peer_id {
            bail!(
                "tracker_info.txt names the key of tracker {number}, {named}; change it there, and restart"
            );
        }
        let Some(accepted) = key else {
            match self.refused_key(number) {
                Some(shown) => bail!(
                    "{line} shows the key {shown}; nothing was changed. If the tracker on its machine prints that key with \
                     --id, type: accept-tracker {number} {shown}"
                ),
                None => bail!(
                    "tracker {number} shows no other key than the one that it is known by; nothing was changed. To believe \
                     another one, type it: accept-tracker {number} PEERID"
                ),
            }
        };
        self.0.known.accept(line, accepted).await?;
        self.refused().remove(&number);
        self.0.changed.notify_one();
        tracing::warn!("tracker {number} ({line}) is now known by its key {accepted}: its operator says so");
        Ok(accepted)
    }

    /// The signed lists of trackers' keys: this one's, and the others' as they came.
    pub(crate) fn lists(&self, tx: &Tx<'_>) -> Result<Vec<SignedList>, Fault> {
        self.sign(wall_ms());
        let own = SignedList(self.own().sealed.clone());
        let others = self.rows(tx)?.into_iter().filter(|(number, _)| *number != self.0.number);
        Ok(std::iter::once(own).chain(others.map(|(_, list)| list)).collect())
    }

    /// Keeps the own list written for the others, and learns from theirs, until the tracker closes.
    pub(crate) async fn run(self, database: Database, closing: CancellationToken) {
        let work = async {
            loop {
                tokio::select! {
                    () = self.0.changed.notified() => tokio::time::sleep(QUIET).await,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                if let Err(refusal) = self.exchange(&database).await {
                    tracing::debug!(refusal.text, "the lists of trackers' keys cannot be exchanged now");
                }
            }
        };
        closing.run_until_cancelled(work).await;
    }

    async fn exchange(&self, database: &Database) -> Result<(), shoal_common::tracker_api::Refusal> {
        let trust = self.clone();
        let rows = database.read(move |tx| trust.rows(tx)).await?;
        let others = rows.iter().filter(|(number, _)| *number != self.0.number);
        let others = others.map(|(_, list)| list.clone()).collect();
        match self.0.known.learn(others, Scope::New).await {
            Ok(news) => news.iter().for_each(|news| tracing::info!(?news, "the other trackers vouch")),
            Err(error) => {
                tracing::warn!(%error, "what the other trackers say of keys cannot be written down")
            }
        }
        self.sign(wall_ms());
        let value = self.own().sealed.clone();
        let key = vec![self.0.number];
        database
            .run(move |tx| {
                if tx.store().get(TRACKER_LIST, &key)?.is_some_and(|row| !row.tombstone && row.value == value)
                {
                    return Ok(());
                }
                tx.write(vec![Write { kind: TRACKER_LIST, key, value, ..Write::default() }])
            })
            .await
    }

    /// Reads the list that this tracker signed before this start. To be called before any list is sent: a later list must not
    /// seem earlier, and one with the same content is not written again.
    pub(crate) async fn recall(&self, database: &Database) {
        let trust = self.clone();
        let Ok(rows) = database.read(move |tx| trust.rows(tx)).await else { return };
        let stored = rows.into_iter().find(|(number, _)| *number == self.0.number);
        let Some((_, SignedList(sealed))) = stored else { return };
        let own_key = self.0.identity.peer_id();
        if let Ok(list) = tokens::open::<TrackerList>(&sealed, |key| *key == own_key) {
            *self.own() = OwnList { made_ms: list.made_ms, trackers: list.trackers, sealed };
        }
        if self.own().trackers != self.entries() {
            self.0.changed.notify_one();
        }
    }

    /// Signs a new list if the known keys changed since the last one.
    fn sign(&self, now_ms: u64) {
        let trackers = self.entries();
        let mut own = self.own();
        if own.sealed.is_empty() || own.trackers != trackers {
            let made_ms = now_ms.max(own.made_ms.saturating_add(1));
            let list = TrackerList { made_ms, trackers };
            let sealed = seal(&list, self.0.identity.peer_id(), |message| self.0.identity.sign(message));
            *own = OwnList { made_ms, trackers: list.trackers, sealed };
        }
    }

    /// Every listed tracker with its key, if that is known.
    fn entries(&self) -> Vec<ListedTracker> {
        let entry = |(number, line): (u8, &TrackerLine)| {
            let own = number == self.0.number;
            let key = if own { Some(self.0.identity.peer_id()) } else { self.0.known.key(line) };
            ListedTracker { number, address: line.to_string(), key }
        };
        self.0.info.iter().map(entry).collect()
    }

    /// The lists of listed trackers among the records.
    fn rows(&self, tx: &Tx<'_>) -> Result<Vec<(u8, SignedList)>, Fault> {
        let rows = tx.store().scan(TRACKER_LIST, &[], None, 2 * MAX_TRACKERS)?;
        let listed = |row: &Row| {
            let [number] = part::<1>(&row.key, 0)?;
            self.0.info.tracker(number).filter(|_| !row.tombstone)?;
            Some(number)
        };
        Ok(rows.into_iter().filter_map(|row| Some((listed(&row)?, SignedList(row.value)))).collect())
    }

    fn refused(&self) -> MutexGuard<'_, HashMap<u8, PeerId>> {
        self.0.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(&self) -> MutexGuard<'_, OwnList> {
        self.0.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
