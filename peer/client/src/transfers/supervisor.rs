//! Carries one download from its beginning to its end, in a task of its own: run after run of the engine, and between them
//! the waits for what is lacking here (space, descriptors, memory, the drive). A passing lack does not end a download: what
//! is verified stays, and the next run continues from there.

use std::sync::Arc;
use std::time::Instant;

use shoal_common::Sha1;
use shoal_engine::rate::Limiter;
use shoal_engine::{Chosen, Lack, Pauses, Shortage};
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::end::{Closed, End, LEFT, Stop, wanted};
use super::ending::EndedRun;
use super::folder::CannotStart;
use super::holders::HoldersAnswer;
use super::list::{Now, Running, Wait};
use super::places::Place;
use super::run::{Found, Learned, Run, StartedBy};
use super::{Downloads, Prepared, idleness, span};
use crate::priority::Rank;
use crate::store::DownloadRecord;
use shoal_session::events::Event;
use shoal_session::text;

/// Where the first result of a run arrives: nothing yet, that the engine works, or why it failed before it did.
type FirstWord = watch::Receiver<Option<Option<String>>>;

/// Lets a listed download run; gives where its first result arrives.
pub(super) fn start(
    downloads: &Arc<Downloads>,
    record: DownloadRecord,
    started_by: StartedBy,
    found: Option<Found>,
) -> FirstWord {
    let (supervisor, begun) = begin(downloads, record, started_by, found);
    let first_word = supervisor.opened.subscribe();
    let place = downloads.places.enter_one(supervisor.number, supervisor.record.rank);
    supervisor.spawn(begun, place);
    first_word
}

/// Lets listed downloads go on after a login. They enter the queue together, so that its order decides who is first.
pub(super) fn start_again(downloads: &Arc<Downloads>, records: Vec<DownloadRecord>) {
    let begin = |record| begin(downloads, record, StartedBy::Login, None);
    let all: Vec<(Supervisor, Begun)> = records.into_iter().map(begin).collect();
    let entering: Vec<(u64, Rank)> =
        all.iter().map(|(supervisor, _)| (supervisor.number, supervisor.record.rank)).collect();
    for ((supervisor, begun), place) in all.into_iter().zip(downloads.places.enter(&entering)) {
        supervisor.spawn(begun, place);
    }
}

/// What a run that is listed begins with.
struct Begun {
    /// Cancelled when it has ended.
    ended: CancellationToken,
    /// An earlier run that is not listed any more, whose files may be open.
    lingering: Option<CancellationToken>,
}

/// Lists a run of a download.
fn begin(
    downloads: &Arc<Downloads>,
    record: DownloadRecord,
    started_by: StartedBy,
    found: Option<Found>,
) -> (Supervisor, Begun) {
    let (stop, stopped) = watch::channel(None);
    let opened = watch::Sender::new(None);
    let (ended, hurry) = (CancellationToken::new(), Arc::new(Notify::new()));
    let limiter = Limiter::new(record.limit);
    let (number, lingering) = {
        let mut list = downloads.list();
        let number = list.next_run();
        let (opened, hurry, ended, limiter) = (opened.clone(), hurry.clone(), ended.clone(), limiter.clone());
        let (now, since, had) = (Now::Begins, Instant::now(), 0);
        let chosen = watch::Sender::new(Chosen::all());
        let running = Running { number, stop, ended, now, opened, since, had, hurry, limiter, chosen };
        list.began(record.key, running);
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
        limiter,
        pauses: Pauses::default(),
        learned,
        worked: false,
        found,
        reported_lack: None,
    };
    (supervisor, Begun { ended, lingering })
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
    /// Its own rate limit.
    limiter: Limiter,
    pauses: Pauses,
    learned: Learned,
    /// Whether the engine worked on it: only then is a whole file one that was downloaded.
    worked: bool,
    /// For the first run, if it need not wait.
    found: Option<Found>,
    /// The lack that was reported last.
    reported_lack: Option<Lack>,
}

impl Supervisor {
    /// Carries the download in a task of its own.
    fn spawn(self, Begun { ended, lingering }: Begun, place: Place) {
        let (span, downloads) = (span(self.record.key), self.downloads.clone());
        let carry = async move {
            let downloads = self.downloads.clone();
            self.carry(lingering, place).await;
            downloads.running.send_modify(|running| *running -= 1);
            ended.cancel();
        };
        downloads.tasks.spawn(carry.instrument(span));
    }

    async fn carry(mut self, lingering: Option<CancellationToken>, place: Place) {
        let end = Box::pin(self.run_on(lingering, place)).await;
        // A command waits for the first result, and reports a failure itself.
        let early = self.opened.borrow().is_none() && self.started_by != StartedBy::Login;
        let failure = if let End::Failed(error) = &end { Some(error.clone()) } else { None };
        tracing::info!(?end, "the download stopped");
        let run = EndedRun { number: self.number, worked: self.worked };
        self.downloads.ended(&self.record, Some(run), end, !early).await;
        if early {
            self.opened.send_replace(Some(failure));
        }
    }

    async fn run_on(&mut self, lingering: Option<CancellationToken>, place: Place) -> End {
        let mut place = Some(place);
        if let Some(ended) = lingering {
            // It must not keep others waiting meanwhile.
            place = None;
            tokio::select! {
                () = ended.cancelled() => {}
                stop = wanted(&mut self.stopped) => return stopped_by(stop),
            }
        }
        loop {
            let now = place.take().unwrap_or_else(|| self.enter());
            let files = match self.turn(&now).await {
                Ok(files) => files,
                Err(stop) => return stopped_by(stop),
            };
            let before = self.downloads.list().verified(self.record.key);
            match self.one_run(&now).await {
                Closed::End(end) => return end,
                // It stays in the queue.
                Closed::GaveWay => place = Some(now),
                Closed::Short(shortage, error) => {
                    if self.is_mistake(&shortage) {
                        return End::Failed(text::error_line(&error));
                    }
                    if self.downloads.list().verified(self.record.key) > before {
                        self.pauses.reset();
                        self.reported_lack = None;
                    }
                    drop((files, now));
                    if let Some(stop) = self.wait_for(&shortage).await {
                        return stopped_by(stop);
                    }
                }
            }
            self.started_by = StartedBy::Again;
        }
    }

    /// Enters the queue again.
    fn enter(&self) -> Place {
        let rank = self.downloads.list().rank(self.record.key).unwrap_or(self.record.rank);
        self.downloads.places.enter_one(self.number, rank)
    }

    /// Waits until it is this download's turn; gives what lets it open files.
    async fn turn(&mut self, place: &Place) -> Result<OwnedSemaphorePermit, Stop> {
        let queued = !place.is_granted();
        if queued {
            // It may be out of date by then.
            self.found = None;
            self.downloads.list().is_now(self.record.key, self.number, Now::Queued);
            self.withdraw().await;
        }
        loop {
            if queued {
                self.opened.send_replace(Some(None));
            }
            tokio::select! {
                files = place.granted() => {
                    if queued {
                        self.downloads.list().is_now(self.record.key, self.number, Now::Begins);
                    }
                    return Ok(files);
                }
                // It keeps its place in the queue.
                () = self.hurry.notified(), if queued => {}
                stop = wanted(&mut self.stopped) => return Err(stop),
            }
        }
    }

    /// One run of the engine, after a look at the destination.
    async fn one_run(&mut self, place: &Place) -> Closed {
        let found = match self.found.take() {
            Some(Found { pieces, answer }) => Ok((Prepared::Pieces(pieces), Some(answer))),
            None => {
                let (progress, hashing) = watch::channel(None);
                tokio::select! {
                    prepared = self.downloads.prepare(&mut self.record, &progress) => {
                        prepared.map(|prepared| (prepared, None))
                    }
                    stop = wanted(&mut self.stopped) => return Closed::End(stopped_by(stop)),
                    () = place.revoked() => return Closed::GaveWay,
                    never = idleness::of_look(place, hashing) => match never {},
                }
            }
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
        match self.fetch(place, pieces.clone(), answer).await {
            // What is in the folder is known now.
            (true, Closed::End(End::Complete)) => self.fetch(place, pieces, None).await.1,
            (_, closed) => closed,
        }
    }

    /// Fetches what is to be fetched now; gives whether that is a folder's listing.
    async fn fetch(
        &mut self,
        place: &Place,
        pieces: Arc<[Sha1]>,
        answer: Option<HoldersAnswer>,
    ) -> (bool, Closed) {
        let wanted = match self.downloads.wanted(&self.record, pieces).await {
            Ok(wanted) => wanted,
            Err(CannotStart::Short(shortage, error)) => return (false, Closed::Short(shortage, error)),
            Err(CannotStart::Never(error)) => {
                return (false, Closed::End(End::Failed(text::error_line(&error))));
            }
        };
        let (opened, stopped) = (self.opened.clone(), self.stopped.clone());
        tracing::debug!(file = %self.record.manifest.name, "fetching");
        self.worked = true;
        let (is_listing, record) = (wanted.is_listing, (&self.record, self.number));
        let what = (wanted, self.limiter.clone());
        let run = Run::start(&self.downloads, record, what, self.started_by, opened, stopped);
        (is_listing, run.run(place, &mut self.learned, answer).await)
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
        let wait = Wait { lack: shortage.lack, words: format!("waiting: {reason}") };
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
