//! A download as it is listed, made of its record and what it does now.

use shoal_common::{Gid, Manifest};
use shoal_engine::{Bottleneck, Phase};

use super::{Entry, Now, Waiting, Works};
use crate::store::{DownloadRecord, DownloadState};
use crate::transfers::row::{NoSource, activity, percent};
use crate::transfers::{DownloadRow, FilesRow, RowState};

/// How many files of a folder are fetched, and there as far as that is known while nothing runs.
fn files(record: &DownloadRecord) -> Option<FilesRow> {
    let all = u64::from(record.manifest.folder.as_ref()?.files);
    let chosen = record.take.part.map_or(all, |part| part.files);
    let done = (record.state == DownloadState::Complete).then_some(chosen);
    Some(FilesRow { done, chosen, all })
}

/// Bytes of a download that are verified and written.
pub(super) fn verified(entry: &Entry) -> u64 {
    match entry.running.as_ref().map(|running| &running.now) {
        _ if entry.record.state == DownloadState::Complete => size(&entry.record),
        Some(Now::Works(Works { progress, .. })) if progress.borrow().phase != Phase::Opening => {
            progress.borrow().verified_bytes
        }
        _ => entry.record.verified,
    }
}

/// Bytes that are fetched in all.
pub(in crate::transfers) fn size(record: &DownloadRecord) -> u64 {
    record.take.part.map_or(record.manifest.size, |part| part.bytes)
}

pub(super) fn row(entry: &Entry, waiting: &Waiting, has_ticket: impl Fn(Gid) -> bool) -> DownloadRow {
    let Manifest { name, .. } = &entry.record.manifest;
    let size = size(&entry.record);
    let state = match &entry.record.state {
        DownloadState::Running => RowState::Downloading,
        DownloadState::Paused => RowState::Paused,
        DownloadState::Complete => RowState::Complete,
        DownloadState::Failed(error) => RowState::Failed(error.clone()),
    };
    let verified = verified(entry);
    let mut row = DownloadRow {
        percent: percent(&state, verified, size),
        verified,
        state,
        group: entry.record.group.clone(),
        file: name.clone(),
        path: entry.record.path.clone(),
        size,
        rate: 0,
        sources: 0,
        eta: None,
        activity: None,
        queued: None,
        priority: entry.record.rank.priority,
        limit: entry.record.limit,
        speed_limited: false,
        files: files(&entry.record),
    };
    let Some(running) = &entry.running else { return row };
    match &running.now {
        Now::Waits(wait) => row.activity = Some(wait.words.clone()),
        Now::Queued => (row.queued, row.activity) = waiting.place(running.number).unzip(),
        Now::Works(Works { progress, waits_for, .. }) => {
            let progress = progress.borrow();
            let waiting = progress.phase == Phase::Waiting;
            let lack = NoSource {
                needs_ticket: waiting && !has_ticket(entry.record.key.group),
                waits_for: waits_for.borrow().clone(),
            };
            row.rate = progress.rate;
            row.sources = progress.sources;
            row.eta = progress.eta.filter(|_| progress.sources > 0);
            row.speed_limited = progress.limit == Bottleneck::RateLimit;
            if let Some(files) = &progress.files {
                let (done, chosen, all) = (files.done as u64, files.chosen as u64, files.all as u64);
                row.files = Some(FilesRow { done: Some(done), chosen, all });
            }
            row.activity = activity(progress.phase, progress.limit, progress.sources, lack);
        }
        Now::Begins => {}
    }
    row
}
