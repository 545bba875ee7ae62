//! Carries one download from its beginning to its end, in a task of its own: run after run of the engine, and between them
//! the waits for what is lacking here (space, descriptors, memory, the drive). A passing lack does not end a download: what
//! is verified stays, and the next run continues from there.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use shoal_engine::{Lack, Pauses, Shortage};
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::end::{End, Stop};
use super::error::metadata;
use super::list::{Now, Running, Wait};
use super::run::{Closed, Found, LEFT, Learned, Run, StartedBy, wanted};
use super::{Downloads, Prepared, span};
use crate::store::DownloadRecord;
use shoal_session::events::Event;
use shoal_session::text;

/// Lets a listed download run; gives where its first result arrives.
pub(super) fn start(
    downloads: &Arc<Downloads>,
    record: DownloadRecord,
    started_by: StartedBy,
    found: Option<Found>,
) -> watch::Receiver<Option<Option<String>>> {
    let (stop, stopped) = watch::channel(None);
    let (opened, first_word) = watch::channel(None);
    let (ended, hurry) = (CancellationToken::new(), Arc::new(Notify::new()));
    let (number, lingering) = {
        let mut list = downloads.list();
        let number = list.next_run();
        let (opened, hurry, ended) = (opened.clone(), hurry.clone(), ended.clone());
        let (now, since, had) = (Now::Begins, Instant::now(), 0);
        list.began(record.key, Running { number, stop, ended, now, opened, since, had, hurry });
        (number, list.lingering(record.key))
    };
    downloads.running.send_modify(|running| *running += 1);
    let learned = Learned::new(&record.manifest, downloads.parts.mirrors);
    let supervisor = Supervisor {
        downloads: downloads.clone(),
        record,
        number,
        started_by,
        stopped,
        opened,
        hurry,
        pauses: Pauses::default(),
        learned,
        found,
        reported_lack: None,
    };
    let span = span(supervisor.record.key);
    let carry = async move {
        let downloads = supervisor.downloads.clone();
        supervisor.carry(lingering).await;
        downloads.running.send_modify(|running| *running -= 1);
        ended.cancel();
    };
    downloads.tasks.spawn(carry.instrument(span));
    first_word
}

struct Supervisor {
    downloads: Arc<Downloads>,
    record: DownloadRecord,
    /// Of this run, in the list.
    number: u64,
    started_by: StartedBy,
    stopped: watch::Receiver<Option<Stop>>,
    /// Emptied by a command that waits for the next result.
    opened: watch::Sender<Option<Option<String>>>,
    /// Ends a wait.
    hurry: Arc<Notify>,
    pauses: Pauses,
    learned: Learned,
    /// For the first run, if it need not wait.
    found: Option<Found>,
    /// The lack that was reported last.
    reported_lack: Option<Lack>,
}

impl Supervisor {
    async fn carry(mut self, lingering: Option<CancellationToken>) {
        let end = Box::pin(self.run_on(lingering)).await;
        // A command waits for the first result, and reports a failure itself.
        let early = self.opened.borrow().is_none() && self.started_by != StartedBy::Login;
        let failure = if let End::Failed(error) = &end { Some(error.clone()) } else { None };
        tracing::info!(?end, "the download stopped");
        self.downloads.ended(&self.record, Some(self.number), end, !early).await;
        if early {
            self.opened.send_replace(Some(failure));
        }
    }

    async fn run_on(&mut self, lingering: Option<CancellationToken>) -> End {
        if let Some(ended) = lingering {
            tokio::select! {
                () = ended.cancelled() => {}
                stop = wanted(&mut self.stopped) => return stopped_by(stop),
            }
        }
        loop {
            let place = match self.place().await {
                Ok(place) => place,
                Err(stop) => return stopped_by(stop),
            };
            let before = self.downloads.list().verified(self.record.key);
            match self.one_run().await {
                Closed::End(end) => return end,
                Closed::GaveWay => {}
                Closed::Short(shortage, error) => {
                    if self.is_mistake(&shortage) {
                        return End::Failed(text::error_line(&error));
                    }
                    if self.downloads.list().verified(self.record.key) > before {
                        self.pauses.reset();
                        self.reported_lack = None;
                    }
                    drop(place);
                    if let Some(stop) = self.wait_for(&shortage).await {
                        return stopped_by(stop);
                    }
                }
            }
            self.started_by = StartedBy::Again;
        }
    }

    /// A place among the downloads that work.
    async fn place(&mut self) -> Result<OwnedSemaphorePermit, Stop> {
        let active = &self.downloads.active;
        if let Some(place) = active.try_enter() {
            return Ok(place);
        }
        // It may be out of date by then.
        self.found = None;
        let all = text::count(active.all(), "download");
        let words =
            format!("waiting for its turn: only {all} at a time with this limit of open files (ulimit -n)");
        self.downloads.list().is_now(self.record.key, self.number, Now::Waits(Wait { lack: None, words }));
        self.withdraw().await;
        let mut entered = pin!(active.enter());
        loop {
            self.opened.send_replace(Some(None));
            tokio::select! {
                place = &mut entered => return Ok(place),
                // It keeps its turn.
                () = self.hurry.notified() => {}
                stop = wanted(&mut self.stopped) => return Err(stop),
            }
        }
    }

    /// One run of the engine, after a look at the destination.
    async fn one_run(&mut self) -> Closed {
        let found = match self.found.take() {
            Some(Found { pieces, answer }) => Ok((Prepared::Pieces(pieces), Some(answer))),
            None => tokio::select! {
                prepared = self.downloads.prepare(&mut self.record) => prepared.map(|prepared| (prepared, None)),
                stop = wanted(&mut self.stopped) => return Closed::End(stopped_by(stop)),
            },
        };
        let (pieces, answer) = match found {
            Ok((Prepared::Complete, _)) => return Closed::End(End::Complete),
            Ok((Prepared::Pieces(pieces), answer)) => (pieces, answer),
            Err(error) => {
                let (shortage, error) = (error.shortage(), error.to_string());
                return match shortage {
                    Some(shortage) => Closed::Short(shortage, error),
                    None => Closed::End(End::Failed(text::error_line(&error))),
                };
            }
        };
        let (opened, stopped) = (self.opened.clone(), self.stopped.clone());
        tracing::debug!(file = %self.record.manifest.name, "fetching");
        let run = Run::start(
            &self.downloads,
            (&self.record, self.number),
            pieces,
            self.started_by,
            opened,
            stopped,
        );
        match run {
            Ok(run) => run.run(&mut self.learned, answer).await,
            Err(error) => Closed::End(End::Failed(metadata(&self.record.manifest, &error).to_string())),
        }
    }

    /// Whether the user has just chosen a place where nothing can be written: that is an error at once.
    fn is_mistake(&self, shortage: &Shortage) -> bool {
        let just_chosen =
            matches!(self.started_by, StartedBy::Command { .. }) && self.opened.borrow().is_none();
        just_chosen && shortage.lack.is_of_the_place()
    }

    /// Waits a while; gives the wish to stop, if there was one.
    async fn wait_for(&mut self, shortage: &Shortage) -> Option<Stop> {
        let key = self.record.key;
        let reason = text::error_line(&match shortage.lack {
            Lack::Partial => format!("{shortage}, or start again from the beginning with resume_download"),
            _ => shortage.to_string(),
        });
        let wait = Wait { lack: Some(shortage.lack), words: format!("waiting: {reason}") };
        self.downloads.list().is_now(key, self.number, Now::Waits(wait));
        self.withdraw().await;
        self.opened.send_replace(Some(None));
        if self.reported_lack.replace(shortage.lack) != Some(shortage.lack) {
            let (group, file) = self.downloads.name_of(&self.record);
            self.downloads.parts.events.emit(Event::Short { group, file, reason });
        }
        tokio::select! {
            () = tokio::time::sleep(self.pauses.pause()) => None,
            () = self.hurry.notified() => {
                self.pauses.reset();
                None
            }
            stop = wanted(&mut self.stopped) => Some(stop),
        }
    }

    /// Stops offering parts: they cannot be read, or must not be kept open.
    async fn withdraw(&self) {
        if self.downloads.list().is_current(self.record.key, Some(self.number)) {
            self.downloads.release(self.record.key).await;
        }
    }
}

/// How a download ends that is stopped while the engine does not work on it.
fn stopped_by(stop: Stop) -> End {
    match stop {
        Stop::Pause => End::Paused,
        Stop::Suspend => End::Suspended,
        Stop::Cancel => End::Cancelled,
        Stop::Left => End::Failed(LEFT.to_owned()),
    }
}
