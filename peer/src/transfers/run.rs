//! One run of a download: the engine's work, the holders that become its sources, and the parts that are offered to others.
//! Everything in it ends with it; `supervisor` begins one run after another.

use std::sync::Arc;
use std::time::Duration;

use shoal_common::tracker_api::{Answer, Call, Extent, Holder, RefusalKind};
use shoal_common::{Layout, Sha1};
use shoal_engine::{
    AnySource, Bottleneck, Content, Download, Outcome, Progress, Shortage, SourceChange, SourceState, State,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::choice::{Choice, Step};
use super::error::StartError;
use super::list::End;
use super::mirrors::Mirrors;
use super::{Shared, destination};
use crate::events::Event;
use crate::session::CallError;
use crate::store::DownloadRecord;
use crate::swarm::{Body, Served};
use crate::text;

/// Changes to the engine's sources that may wait for it.
const MAX_CHANGES: usize = 64;
/// The trackers' wish for when to ask again is kept within these bounds.
const SOONEST: Duration = Duration::from_millis(250);
const LATEST: Duration = Duration::from_secs(60);
/// When to ask again after no tracker answered, or none knew the file.
const AFTER_SILENCE: Duration = Duration::from_secs(2);
/// Refusals in a row after which the user is taken for no member any more: one alone may come from a tracker that is
/// still catching up.
const REFUSALS: u32 = 3;

/// How long a download has nothing to fetch before it gives its place to one that waits.
const GIVE_WAY_AFTER: Duration = Duration::from_secs(5);
/// How often that is looked at while one waits.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Why a download ends whose user is no member any more.
pub(super) const LEFT: &str =
    "you left the group and are not a member any more; ask again with join_group, then resume_download";

/// Why a run is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Its user paused it.
    Pause,
    /// The session ended.
    Suspend,
    /// Its user gave it up.
    Cancel,
    /// Its user left the group.
    Left,
}

/// Who began a run, and so, who learns of what goes wrong at its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It goes on by itself: everything is told as events.
    Login,
    /// A command, which tells of an early failure itself, and has told whether there was a sharer.
    Command {
        /// Nobody shared the file.
        unshared: bool,
    },
    /// A command that lets a download go on, which was begun where it is some time ago.
    Resume,
    /// An earlier run could not go on.
    Again,
}

/// How a run ended.
pub(super) enum Closed {
    /// The download ended with it.
    End(End),
    /// Something is lacking that may be there again: what is verified is kept, and another run goes on. With what went
    /// wrong, for somebody who should have chosen otherwise.
    Short(Shortage, String),
    /// It had nothing to fetch, and another download waits for its place.
    GaveWay,
}

/// A run of the engine.
pub(super) struct Run {
    shared: Arc<Shared>,
    record: DownloadRecord,
    origin: Origin,
    layout: Layout,
    download: Download,
    changes: mpsc::Sender<SourceChange>,
    stopped: watch::Receiver<Option<Stop>>,
    opened: watch::Sender<Option<Option<String>>>,
}

impl Run {
    /// Starts the engine on a listed download.
    pub(super) fn start(
        shared: &Arc<Shared>,
        record: &DownloadRecord,
        pieces: Arc<[Sha1]>,
        origin: Origin,
        opened: watch::Sender<Option<Option<String>>>,
        stopped: watch::Receiver<Option<Stop>>,
    ) -> Result<Self, StartError> {
        let layout = record.manifest.layout().map_err(shoal_common::manifest::ManifestError::from)?;
        let content = Content::new(layout, pieces, record.manifest.digest())?;
        let target = destination::target(record.path.clone(), record.overwrite);
        let (changes, sources) = mpsc::channel(MAX_CHANGES);
        let download = shared.parts.engine.start(content, target, sources);
        let share = {
            let mut list = shared.list();
            list.works(record.key, download.progress());
            list.is_shared(record.key)
        };
        if share {
            let body = Body::Partial { reader: download.reader(), verified: download.verified() };
            shared.parts.swarm.serve(record.key, Served { layout, body });
        }
        let (shared, record) = (shared.clone(), record.clone());
        Ok(Self { shared, record, origin, layout, download, changes, stopped, opened })
    }

    /// Runs until the engine ends, or is stopped.
    pub(super) async fn run(self) -> Closed {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            outcome = self.download.wait() => end_of(outcome, None),
            stop = wanted(&mut stopped) => self.stop(stop).await,
            problem = self.feed() => match self.stop(Stop::Pause).await {
                Closed::End(End::Complete) => Closed::End(End::Complete),
                _ => Closed::End(End::Failed(problem)),
            },
            () = self.idles() => match end_of(self.download.pause().await, Some(Stop::Suspend)) {
                Closed::End(End::Suspended) => Closed::GaveWay,
                closed => closed,
            },
            () = self.offer() => Closed::End(End::Suspended),
            () = self.note_begun() => Closed::End(End::Suspended),
            () = self.watch_opening() => Closed::End(End::Suspended),
        }
    }

    /// Completes when the download has had nothing to fetch for a while and another waits for its place.
    async fn idles(&self) {
        let progress = self.download.progress();
        let (mut since, mut fetched) = (Instant::now(), 0);
        loop {
            self.shared.active.wanted().await;
            {
                let now = progress.borrow();
                if now.state != State::Waiting || now.fetched_bytes != fetched {
                    (since, fetched) = (Instant::now(), now.fetched_bytes);
                }
            }
            if since.elapsed() >= GIVE_WAY_AFTER {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Records that there is something of the file once the first piece is: if it is not there later, its drive is away.
    /// Never completes.
    async fn note_begun(&self) {
        if self.shared.list().verified(self.record.key) == 0 {
            let mut verified = self.download.verified();
            let some = verified.wait_for(|pieces| !pieces.is_empty()).await.is_ok();
            let (user, key) = (self.record.user, self.record.key);
            let bytes = self.layout.piece_length().into();
            if some && let Err(error) = self.shared.parts.store.note_verified(user, key, bytes).await {
                tracing::debug!(%error, "the beginning of a download cannot be recorded");
            }
        }
        std::future::pending().await
    }

    fn tell_banned(&self, source: String, reason: String) {
        let (group, file) = self.shared.name_of(&self.record);
        self.shared.parts.events.tell(Event::SourceBanned { group, file, source, reason });
    }

    async fn stop(&self, stop: Stop) -> Closed {
        let outcome = match stop {
            Stop::Cancel => self.download.cancel().await,
            Stop::Pause | Stop::Suspend | Stop::Left => self.download.pause().await,
        };
        end_of(outcome, Some(stop))
    }

    /// Tells whoever began the download that the engine works. Never completes.
    async fn watch_opening(&self) {
        let mut progress = self.download.progress();
        let works = |progress: &Progress| !matches!(progress.state, State::Opening | State::Ended);
        let works = progress.wait_for(works).await.is_ok();
        if works {
            self.opened.send_replace(Some(None));
        }
        std::future::pending().await
    }

    /// Announces the file as held in part once a piece is there. Never completes.
    async fn offer(&self) {
        let mut verified = self.download.verified();
        let some = verified.wait_for(|pieces| !pieces.is_empty()).await.is_ok();
        if some {
            let list = self.shared.list();
            if list.is_shared(self.record.key) {
                self.shared.parts.holdings.set(self.record.key, Extent::Some);
            }
        }
        std::future::pending().await
    }

    /// Asks the trackers for holders and gives them to the engine, for as long as the download runs. Completes only
    /// when it cannot go on, with the reason.
    async fn feed(&self) -> String {
        let told = matches!(self.origin, Origin::Command { unshared: true } | Origin::Again);
        let mirrors = Mirrors::of(&self.record.manifest);
        let mut feeder = Feeder { run: self, choice: Choice::default(), mirrors, told, refused: 0 };
        let mut progress = self.download.progress();
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => {
                    feeder.add_mirrors().await;
                    match feeder.ask().await {
                        Ok(again) => next = Instant::now() + again,
                        Err(reason) => return reason,
                    }
                }
                Ok(()) = progress.changed() => {
                    let lost = feeder.look(&progress.borrow_and_update());
                    if lost {
                        next = next.min(Instant::now() + SOONEST);
                    }
                    feeder.choose().await;
                }
            }
        }
    }
}

/// What was made of the holders so far.
struct Feeder<'a> {
    run: &'a Run,
    choice: Choice,
    mirrors: Mirrors,
    /// Whether the user knows that nobody shares the file.
    told: bool,
    /// Refusals in a row.
    refused: u32,
}

impl Feeder<'_> {
    /// One question to the trackers; gives the time until the next.
    async fn ask(&mut self) -> Result<Duration, String> {
        let parts = &self.run.shared.parts;
        let record = &self.run.record;
        if parts.tickets.own_ticket(record.key.group).is_none() {
            // The user may have become a member only now. Without trackers the next round tries again.
            let _ = parts.session.renew().await;
        }
        let call = Call::Holders { group: record.key.group, file: record.key.file };
        match parts.session.call(call).await {
            Ok(Answer::Holders { holders, again_ms }) => {
                self.refused = 0;
                self.take(holders).await;
                Ok(Duration::from_millis(again_ms.into()).clamp(SOONEST, LATEST))
            }
            Err(CallError::Refused { kind: RefusalKind::NotAllowed, text, .. }) => {
                self.refused += 1;
                if self.refused < REFUSALS { Ok(AFTER_SILENCE) } else { Err(text) }
            }
            Ok(_) | Err(_) => Ok(AFTER_SILENCE),
        }
    }

    async fn take(&mut self, holders: Vec<Holder>) {
        let run = self.run;
        let own = run.shared.parts.tickets.own();
        let holders: Vec<Holder> =
            holders.into_iter().filter(|h| h.peer != own && h.extent != Extent::None).collect();
        let others = holders.iter().any(|holder| holder.extent == Extent::Some);
        let _ = run.changes.send(SourceChange::OthersDownloading(others)).await;
        if holders.is_empty() {
            let idle = run.download.progress().borrow().sources == 0 && !self.mirrors.in_use();
            if idle && !std::mem::replace(&mut self.told, true) {
                let (group, file) = run.shared.name_of(&run.record);
                run.shared.parts.events.tell(Event::Waiting { group, file });
            }
            return;
        }
        self.told = false;
        self.choice.offered(holders);
        self.choose().await;
    }

    /// Puts holders into use, and out of it.
    async fn choose(&mut self) {
        let run = self.run;
        let (rows, patient) = {
            let progress = run.download.progress();
            let progress = progress.borrow();
            // Whoever else was asked, no more would come.
            let patient = matches!(progress.limit, Bottleneck::RateLimit | Bottleneck::Idle);
            (progress.rows.clone(), patient)
        };
        for step in self.choice.turn(&rows, patient, Instant::now()) {
            let change = match step {
                Step::Add(id, holder) => {
                    let addresses: Vec<_> = holder.address.parse().into_iter().collect();
                    let source =
                        run.shared.parts.swarm.source(run.record.key, holder.peer, &addresses, run.layout);
                    SourceChange::Add(id, AnySource::new(source))
                }
                Step::Remove(id) => SourceChange::Remove(id),
            };
            let _ = run.changes.send(change).await;
        }
    }

    /// Mirrors need no tracker and no sharer.
    async fn add_mirrors(&mut self) {
        for (id, source) in self.mirrors.due() {
            let _ = self.run.changes.send(SourceChange::Add(id, source)).await;
        }
    }

    /// Notices sources that the engine gave up; true if any is new among them.
    fn look(&mut self, progress: &Progress) -> bool {
        let mut lost = false;
        for row in progress.rows.iter() {
            match &row.state {
                SourceState::Gone(reason) if self.choice.gone(row.id) => {
                    tracing::debug!(source = row.id.0, reason, "source is gone");
                    lost = true;
                }
                SourceState::Banned(reason) => {
                    if let Some(label) = self.choice.banned(row.id) {
                        self.run.tell_banned(label, reason.clone());
                    }
                }
                _ => {}
            }
        }
        for (mirror, reason) in self.mirrors.look(progress) {
            self.run.tell_banned(mirror, reason);
        }
        lost
    }
}

/// Completes when a stop is wanted.
pub(super) async fn wanted(stopped: &mut watch::Receiver<Option<Stop>>) -> Stop {
    match stopped.wait_for(Option::is_some).await.map(|stop| *stop) {
        Ok(Some(stop)) => stop,
        // The list dropped the run: the session is over.
        _ => Stop::Suspend,
    }
}

fn end_of(outcome: Outcome, stop: Option<Stop>) -> Closed {
    Closed::End(match (outcome, stop) {
        (Outcome::Complete { .. }, _) => End::Complete,
        (Outcome::Cancelled, _) => End::Cancelled,
        (Outcome::Failed(error), stop) => match (error.shortage(), stop) {
            (Some(shortage), None) => return Closed::Short(shortage, error.to_string()),
            // What is lacking shows again when it goes on.
            (Some(_), Some(Stop::Pause)) => End::Paused,
            (Some(_), Some(Stop::Suspend)) => End::Suspended,
            (Some(_), Some(Stop::Left)) => End::Failed(LEFT.to_owned()),
            (_, _) => End::Failed(text::error_line(&error.to_string())),
        },
        (Outcome::Paused, Some(Stop::Pause)) => End::Paused,
        (Outcome::Paused, Some(Stop::Left)) => End::Failed(LEFT.to_owned()),
        (Outcome::Paused, _) => End::Suspended,
    })
}
