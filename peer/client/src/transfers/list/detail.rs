//! One download in detail: which pieces are there, and where the others come from.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use shoal_common::{Bitfield, UserName};
use shoal_engine::{Partial, SourceId, SourceState};

use super::super::{DownloadRow, TransferError, Transfers, destination};
use super::{Detail, Works};
use crate::FileRef;
use crate::results::{PieceMap, SourceEntry};
use crate::store::{DownloadRecord, DownloadState};
use shoal_session::text;

/// Sources whose names are remembered; a download has fewer at a time.
const MAX_NAMED: usize = 1_024;
/// Sources that are given.
const MAX_GIVEN: usize = 256;

/// Who a run's sources are. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(in crate::transfers) struct SourceNames(Arc<Mutex<HashMap<SourceId, SourceName>>>);

/// Who a source is.
#[derive(Debug, Clone)]
pub(in crate::transfers) struct SourceName {
    /// The user; nobody for a mirror.
    pub(in crate::transfers) user: Option<UserName>,
    /// Where it is.
    pub(in crate::transfers) address: String,
}

impl SourceNames {
    /// A source was added.
    pub(in crate::transfers) fn add(&self, id: SourceId, name: SourceName) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= MAX_NAMED
            && let Some(&oldest) = names.keys().min_by_key(|id| id.0)
        {
            names.remove(&oldest);
        }
        names.insert(id, name);
    }

    fn of(&self, id: SourceId) -> Option<SourceName> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }
}

impl Transfers {
    /// A download in detail.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn detail(
        &self,
        file: &FileRef,
    ) -> Result<(DownloadRow, Option<PieceMap>, Vec<SourceEntry>), TransferError> {
        let key = self.named(file)?.key;
        let has_ticket = |group| self.0.parts.tickets.own_ticket(group).is_some();
        let waiting = self.0.waiting();
        let found = self.0.named_list().detail(key, &waiting, has_ticket);
        let Some(Detail { record, row, pieces, sources }) = found else {
            return Err(TransferError::Unknown(file.clone()));
        };
        let pieces = match pieces {
            Some(pieces) => Some(pieces),
            // What is on the disk goes on to be there.
            None => tokio::task::spawn_blocking(move || on_disk(&record)).await.ok().flatten(),
        };
        Ok((row, pieces, sources))
    }
}

/// The pieces that are there by what is in memory: those of a run, or all.
pub(super) fn in_memory(record: &DownloadRecord, works: Option<&Works>) -> Option<PieceMap> {
    let layout = record.manifest.layout().ok()?;
    match works {
        _ if record.state == DownloadState::Complete => {
            Some(map(layout.piece_length(), &Bitfield::all(&layout)))
        }
        Some(works) => Some(map(layout.piece_length(), &works.verified.borrow())),
        None => None,
    }
}

/// The pieces that an unfinished download left. Blocking.
fn on_disk(record: &DownloadRecord) -> Option<PieceMap> {
    let layout = record.manifest.layout().ok()?;
    let target = destination::target(record.path.clone(), record.overwrite);
    let files = File::open(target.info_path()).and_then(|info| Ok((info, File::open(target.state_path())?)));
    let partial = files.and_then(|(info, state)| Partial::read(info, state)).ok().flatten();
    let none = Bitfield::none(&layout);
    let partial = partial.filter(|partial| *partial.content().layout() == layout);
    Some(map(layout.piece_length(), partial.as_ref().map_or(&none, Partial::durable)))
}

fn map(size: u32, have: &Bitfield) -> PieceMap {
    let bytes = have.to_bytes().into_iter().map(u8::reverse_bits);
    PieceMap { count: have.len(), size, have: bytes.collect() }
}

/// The sources of a run, those that were dropped last included.
pub(super) fn sources(works: &Works) -> Vec<SourceEntry> {
    let progress = works.progress.borrow();
    let pieces = works.verified.borrow().len();
    let entry = |row: &shoal_engine::SourceRow| {
        let name = works.names.of(row.id);
        let (state, reason) = match &row.state {
            SourceState::Active => ("active", None),
            SourceState::Idle => ("idle", None),
            SourceState::BackingOff => ("waiting", None),
            SourceState::Gone(reason) => ("gone", Some(reason)),
            SourceState::Banned(reason) => ("banned", Some(reason)),
        };
        SourceEntry {
            user: name.as_ref().and_then(|name| name.user.clone()),
            address: name.map(|name| text::printable(&name.address)).unwrap_or_default(),
            rate: row.rate,
            fetched: row.fetched_bytes,
            percent: Bitfield::percent_of(row.holds, pieces),
            state,
            reason: reason.map(|reason| text::error_line(reason)),
        }
    };
    progress.rows.iter().take(MAX_GIVEN).map(entry).collect()
}
