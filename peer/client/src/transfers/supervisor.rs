//! Carries one download from its beginning to its end, one task each: run after run of the engine, and between them the
//! waits for what is lacking here (space, descriptors, memory, the drive). A passing lack is no end: what is verified
//! stays, and the next run goes on from there.

use std::sync::Arc;

use shoal_common::Sha1;
use shoal_common::tracker_api::Extent;
use shoal_engine::{Lack, Pauses, Shortage};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use super::end::{End, Stop};
use super::error::metadata;
use super::list::{Now, Running};
use super::run::{Closed, LEFT, Origin, Run, wanted};
use super::{Prepared, Shared};
use crate::store::DownloadRecord;
use shoal_session::events::Event;
use shoal_session::text;

/// What the first run begins with: the piece list, or what is lacking.
pub(super) type First = Result<Arc<[Sha1]>, Shortage>;

/// Lets a listed download run.
pub(super) fn start(shared: &Arc<Shared>, record: DownloadRecord, origin: Origin, first: First) {
    let (stop, stopped) = watch::channel(None);
    let (opened, opened_seen) = watch::channel(None);
    let ended = CancellationToken::new();
    let running = Running { stop, ended: ended.clone(), now: Now::Begins, opened: opened_seen };
    shared.list().began(record.key, running);
    shared.running.send_modify(|running| *running += 1);
    let supervisor = Supervisor {
        shared: shared.clone(),
        record,
        origin,
        stopped,
        opened,
        pauses: Pauses::default(),
        told: None,
    };
    shared.tasks.spawn(async move {
        let shared = supervisor.shared.clone();
        supervisor.carry(first).await;
        shared.running.send_modify(|running| *running -= 1);
        ended.cancel();
    });
}

struct Supervisor {
    shared: Arc<Shared>,
    record: DownloadRecord,
    origin: Origin,
    stopped: watch::Receiver<Option<Stop>>,
    opened: watch::Sender<Option<Option<String>>>,
    pauses: Pauses,
    /// What the user knows to be lacking.
    told: Option<Lack>,
}

impl Supervisor {
    async fn carry(mut self, first: First) {
        let command = matches!(self.origin, Origin::Command { .. } | Origin::Resume);
        let end = Box::pin(self.run_on(first)).await;
        let early = self.opened.borrow().is_none() && command;
        let failure = if let End::Failed(error) = &end { Some(error.clone()) } else { None };
        self.shared.ended(&self.record, end, !early).await;
        if early {
            self.opened.send_replace(Some(failure));
        }
    }

    async fn run_on(&mut self, first: First) -> End {
        let mut first = Some(first);
        loop {
            let (place, at_once) = match self.place().await {
                Ok(place) => place,
                Err(stop) => return stopped_by(stop),
            };
            let before = self.shared.list().verified(self.record.key);
            // What was found before a long wait may not be so any more.
            let closed = self.one_run(first.take().filter(|_| at_once)).await;
            match closed {
                Closed::End(end) => return end,
                Closed::GaveWay => {}
                Closed::Short(shortage, error) => {
                    if self.is_mistake(&shortage) {
                        return End::Failed(text::error_line(&error));
                    }
                    if self.shared.list().verified(self.record.key) > before {
                        self.pauses.reset();
                        self.told = None;
                    }
                    drop(place);
                    if let Some(stop) = self.wait_for(&shortage).await {
                        return stopped_by(stop);
                    }
                }
            }
            self.origin = Origin::Again;
        }
    }

    /// A place among the downloads that work, and whether it was there at once.
    async fn place(&mut self) -> Result<(OwnedSemaphorePermit, bool), Stop> {
        let active = &self.shared.active;
        if let Some(place) = active.try_enter() {
            return Ok((place, true));
        }
        let all = text::count(active.all(), "download");
        let words =
            format!("waiting for its turn: only {all} at a time with this limit of open files (ulimit -n)");
        self.shared.list().waits_for(self.record.key, words);
        self.opened.send_replace(Some(None));
        self.withdraw();
        tokio::select! {
            place = active.enter() => Ok((place, false)),
            stop = wanted(&mut self.stopped) => Err(stop),
        }
    }

    /// One run of the engine, after a look at the destination.
    async fn one_run(&mut self, first: Option<First>) -> Closed {
        let pieces = match first {
            Some(Ok(pieces)) => pieces,
            Some(Err(shortage)) => {
                let error = shortage.to_string();
                return Closed::Short(shortage, error);
            }
            None => {
                let prepared = tokio::select! {
                    prepared = self.shared.prepare(&self.record) => prepared,
                    stop = wanted(&mut self.stopped) => return Closed::End(stopped_by(stop)),
                };
                match prepared {
                    Ok(Prepared::Complete) => return Closed::End(End::Complete),
                    Ok(Prepared::Pieces(pieces)) => pieces,
                    Err(error) => {
                        let (shortage, error) = (error.shortage(), error.to_string());
                        return match shortage {
                            Some(shortage) => Closed::Short(shortage, error),
                            None => Closed::End(End::Failed(text::error_line(&error))),
                        };
                    }
                }
            }
        };
        let (opened, stopped) = (self.opened.clone(), self.stopped.clone());
        match Run::start(&self.shared, &self.record, pieces, self.origin, opened, stopped) {
            Ok(run) => run.run().await,
            Err(error) => Closed::End(End::Failed(metadata(&self.record.manifest, &error).to_string())),
        }
    }

    /// Whether somebody has just chosen a place where nothing can be written: that is said at once.
    fn is_mistake(&self, shortage: &Shortage) -> bool {
        let just_chosen = matches!(self.origin, Origin::Command { .. }) && self.opened.borrow().is_none();
        just_chosen && shortage.lack.is_of_the_place()
    }

    /// Waits a while; gives the wish to stop, if there was one.
    async fn wait_for(&mut self, shortage: &Shortage) -> Option<Stop> {
        let key = self.record.key;
        let reason = text::error_line(&match shortage.lack {
            Lack::Partial => format!("{shortage}, or begin anew with resume_download"),
            _ => shortage.to_string(),
        });
        self.shared.list().waits_for(key, format!("waiting: {reason}"));
        self.opened.send_replace(Some(None));
        self.withdraw();
        if self.told.replace(shortage.lack) != Some(shortage.lack) {
            let (group, file) = self.shared.name_of(&self.record);
            self.shared.parts.events.tell(Event::Short { group, file, reason });
        }
        tokio::select! {
            () = tokio::time::sleep(self.pauses.pause()) => None,
            stop = wanted(&mut self.stopped) => Some(stop),
        }
    }

    /// What is there cannot be read, or must not be kept open.
    fn withdraw(&self) {
        self.shared.parts.holdings.set(self.record.key, Extent::None);
        self.shared.parts.swarm.stop(self.record.key);
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
