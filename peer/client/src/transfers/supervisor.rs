//! Carries one download from its beginning to its end, one task each: run after run of the engine, and between them the
//! waits for what is lacking here (space, descriptors, memory, the drive). A passing lack is no end: what is verified
//! stays, and the next run goes on from there.

use std::pin::pin;
use std::sync::Arc;

use shoal_engine::{Lack, Pauses, Shortage};
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use super::end::{End, Stop};
use super::error::metadata;
use super::list::{Now, Running};
use super::run::{Closed, LEFT, Learned, Origin, Run, wanted};
use super::{Prepared, Shared};
use crate::store::DownloadRecord;
use shoal_session::events::Event;
use shoal_session::text;

/// Lets a listed download run; gives where its first word comes.
pub(super) fn start(
    shared: &Arc<Shared>,
    record: DownloadRecord,
    origin: Origin,
) -> watch::Receiver<Option<Option<String>>> {
    let (stop, stopped) = watch::channel(None);
    let (opened, first_word) = watch::channel(None);
    let (ended, hurry) = (CancellationToken::new(), Arc::new(Notify::new()));
    let (number, lingering) = {
        let mut list = shared.list();
        let number = list.next_run();
        let (opened, hurry, ended) = (opened.clone(), hurry.clone(), ended.clone());
        list.began(record.key, Running { number, stop, ended, now: Now::Begins, opened, hurry });
        (number, list.lingering(record.key))
    };
    shared.running.send_modify(|running| *running += 1);
    let learned = Learned::new(&record.manifest, shared.parts.mirrors);
    let supervisor = Supervisor {
        shared: shared.clone(),
        record,
        number,
        origin,
        stopped,
        opened,
        hurry,
        pauses: Pauses::default(),
        learned,
        told: None,
    };
    shared.tasks.spawn(async move {
        let shared = supervisor.shared.clone();
        supervisor.carry(lingering).await;
        shared.running.send_modify(|running| *running -= 1);
        ended.cancel();
    });
    first_word
}

struct Supervisor {
    shared: Arc<Shared>,
    record: DownloadRecord,
    /// Of this run, in the list.
    number: u64,
    origin: Origin,
    stopped: watch::Receiver<Option<Stop>>,
    /// Emptied by whoever waits for the next word.
    opened: watch::Sender<Option<Option<String>>>,
    /// Ends a wait.
    hurry: Arc<Notify>,
    pauses: Pauses,
    learned: Learned,
    /// What the user knows to be lacking.
    told: Option<Lack>,
}

impl Supervisor {
    async fn carry(mut self, lingering: Option<CancellationToken>) {
        let end = Box::pin(self.run_on(lingering)).await;
        // A command waits for the first word, and tells of the failure itself.
        let early = self.opened.borrow().is_none() && self.origin != Origin::Login;
        let failure = if let End::Failed(error) = &end { Some(error.clone()) } else { None };
        self.shared.ended(&self.record, Some(self.number), end, !early).await;
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
            let before = self.shared.list().verified(self.record.key);
            match self.one_run().await {
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

    /// A place among the downloads that work.
    async fn place(&mut self) -> Result<OwnedSemaphorePermit, Stop> {
        let active = &self.shared.active;
        if let Some(place) = active.try_enter() {
            return Ok(place);
        }
        let all = text::count(active.all(), "download");
        let words =
            format!("waiting for its turn: only {all} at a time with this limit of open files (ulimit -n)");
        self.shared.list().is_now(self.record.key, self.number, Now::Waits(words));
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
        let prepared = tokio::select! {
            prepared = self.shared.prepare(&self.record) => prepared,
            stop = wanted(&mut self.stopped) => return Closed::End(stopped_by(stop)),
        };
        let pieces = match prepared {
            Ok(Prepared::Complete) => return Closed::End(End::Complete),
            Ok(Prepared::Pieces(pieces)) => pieces,
            Err(error) => {
                let (shortage, error) = (error.shortage(), error.to_string());
                return match shortage {
                    Some(shortage) => Closed::Short(shortage, error),
                    None => Closed::End(End::Failed(text::error_line(&error))),
                };
            }
        };
        let (opened, stopped) = (self.opened.clone(), self.stopped.clone());
        let run = Run::start(&self.shared, (&self.record, self.number), pieces, self.origin, opened, stopped);
        match run {
            Ok(run) => run.run(&mut self.learned).await,
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
        self.shared.list().is_now(key, self.number, Now::Waits(format!("waiting: {reason}")));
        self.withdraw().await;
        self.opened.send_replace(Some(None));
        if self.told.replace(shortage.lack) != Some(shortage.lack) {
            let (group, file) = self.shared.name_of(&self.record);
            self.shared.parts.events.tell(Event::Short { group, file, reason });
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

    /// What is there cannot be read, or must not be kept open.
    async fn withdraw(&self) {
        if self.shared.list().is_current(self.record.key, Some(self.number)) {
            self.shared.release(self.record.key).await;
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
