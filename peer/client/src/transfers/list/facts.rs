//! What is known of each download, for its explanation: more than its row says, as values instead of words.

use std::time::Duration;

use shoal_common::Gid;
use shoal_engine::{Bottleneck, Phase};

use super::{DownloadRow, Entry, Known, List, Now, Wait, Waiting, Works, row};

/// What is known of a download.
#[derive(Debug, Clone)]
pub(crate) struct DownloadFacts {
    /// As it is listed.
    pub(crate) row: DownloadRow,
    /// Whether it is shared while it runs and afterwards.
    pub(crate) share: bool,
    /// What it does now.
    pub(crate) now: Doing,
    /// Whether the file of one that is complete is not at its place any more; not looked at by the list.
    pub(crate) is_gone: bool,
}

/// What a download does now.
#[derive(Debug, Clone)]
pub(crate) enum Doing {
    /// It does not run.
    Stopped,
    /// It is about to begin, or to try again.
    Begins,
    /// It waits for something that is lacking here.
    Waits(Wait),
    /// It waits for its turn.
    Queued {
        /// So many are to run before it.
        before: usize,
        /// How many may run at the same time, where it is the limit of open files that says so.
        by_files: Option<usize>,
    },
    /// The engine works on it.
    Works(Box<Working>),
}

/// A download on which the engine works.
#[derive(Debug, Clone)]
pub(crate) struct Working {
    /// What it is doing.
    pub(crate) phase: Phase,
    /// What keeps it from being faster.
    pub(crate) limit: Bottleneck,
    /// Pieces that are missing and that no source holds.
    pub(crate) unheld: u32,
    /// All sources were silent for too long.
    pub(crate) silent: bool,
    /// How many sources ask for patience.
    pub(crate) patient: usize,
    /// How long nothing has come while there was something to fetch.
    pub(crate) quiet: Duration,
    /// Since when it runs.
    pub(crate) since: Duration,
    /// Whether the user has a ticket for the group.
    pub(crate) has_ticket: bool,
    /// What it knows of the places that it could come from.
    pub(crate) known: Known,
}

impl List {
    /// What is known of all downloads; `has_ticket` says for which groups the user has a ticket.
    pub(in super::super) fn facts(
        &self,
        waiting: &Waiting,
        has_ticket: impl Fn(Gid) -> bool,
    ) -> Vec<DownloadFacts> {
        self.entries.iter().map(|entry| facts(entry, waiting, &has_ticket)).collect()
    }
}

fn facts(entry: &Entry, waiting: &Waiting, has_ticket: impl Fn(Gid) -> bool) -> DownloadFacts {
    let now = match &entry.running {
        None => Doing::Stopped,
        Some(running) => match &running.now {
            Now::Begins => Doing::Begins,
            Now::Waits(wait) => Doing::Waits(wait.clone()),
            Now::Queued => {
                let before = waiting.places.get(&running.number).map_or(0, |place| place - 1);
                Doing::Queued { before, by_files: waiting.by_files }
            }
            Now::Works(Works { progress, known, .. }) => {
                let progress = progress.borrow();
                let sources = || progress.rows.iter().filter(|row| row.delivers());
                Doing::Works(Box::new(Working {
                    phase: progress.phase,
                    limit: progress.limit,
                    unheld: progress.unheld,
                    silent: progress.sources > 0 && sources().all(|row| row.silent),
                    patient: sources().filter(|row| row.patient).count(),
                    quiet: progress.quiet,
                    since: running.since.elapsed(),
                    has_ticket: has_ticket(entry.record.key.group),
                    known: known.borrow().clone(),
                }))
            }
        },
    };
    DownloadFacts { row: row(entry, waiting, has_ticket), share: entry.record.share, now, is_gone: false }
}
