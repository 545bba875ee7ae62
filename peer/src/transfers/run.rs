//! One running download: the engine's work, the holders that become its sources, the parts that are offered to others,
//! and what becomes of it at its end. One task each; everything in it ends with it.

use std::sync::Arc;
use std::time::Duration;

use shoal_common::tracker_api::{Answer, Call, Extent, Holder, RefusalKind};
use shoal_common::{Layout, Manifest, Sha1};
use shoal_engine::hash::FileIdentity;
use shoal_engine::{
    AnySource, Bottleneck, Content, Download, Outcome, Progress, SourceChange, SourceState, State,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::choice::{Choice, Step};
use super::error::StartError;
use super::list::{End, Running};
use super::mirrors::{Mirrors, Notice};
use super::{Shared, destination};
use crate::events::Event;
use crate::session::CallError;
use crate::store::{DownloadRecord, DownloadState, ShareRecord, StoreError};
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

/// How long a complete download counts as running while the trackers are told that it is shared. Without one the file is
/// there all the same.
const SHARE_WITHIN: Duration = Duration::from_secs(2);
/// Why a download ends whose user is no member any more.
const LEFT: &str =
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
}

/// Starts the engine on a recorded download.
pub(super) fn start(
    shared: &Arc<Shared>,
    record: DownloadRecord,
    pieces: Arc<[Sha1]>,
    origin: Origin,
) -> Result<(), StartError> {
    let layout = record.manifest.layout().map_err(shoal_common::manifest::ManifestError::from)?;
    let content = Content::new(layout, pieces, record.manifest.digest())?;
    let target = destination::target(record.path.clone(), record.overwrite);
    let (changes, sources) = mpsc::channel(MAX_CHANGES);
    let download = shared.parts.engine.start(content, target, sources);
    let (stop, stopped) = watch::channel(None);
    let (opened, opened_seen) = watch::channel(None);
    let ended = CancellationToken::new();
    let running = Running { stop, ended: ended.clone(), progress: download.progress(), opened: opened_seen };
    let share = record.share;
    shared.list().began(record.key, running);
    shared.running.send_modify(|running| *running += 1);
    if share {
        let body = Body::Partial { reader: download.reader(), verified: download.verified() };
        shared.parts.swarm.serve(record.key, Served { layout, body });
    }
    let run = Run { shared: shared.clone(), record, origin, layout, download, changes, stopped, opened };
    shared.tasks.spawn(async move {
        let shared = run.shared.clone();
        run.run().await;
        shared.running.send_modify(|running| *running -= 1);
        ended.cancel();
    });
    Ok(())
}

struct Run {
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
    async fn run(self) {
        let mut stopped = self.stopped.clone();
        let end = tokio::select! {
            outcome = self.download.wait() => end_of(outcome, None),
            stop = wanted(&mut stopped) => self.stop(stop).await,
            problem = self.feed() => match self.stop(Stop::Pause).await {
                End::Complete => End::Complete,
                _ => End::Failed(problem),
            },
            () = self.offer() => End::Suspended,
            () = self.watch_opening() => End::Suspended,
        };
        let early = self.opened.borrow().is_none() && self.origin != Origin::Login;
        let failure = if let End::Failed(error) = &end { Some(error.clone()) } else { None };
        self.shared.ended(&self.record, end, !early).await;
        if early {
            self.opened.send_replace(Some(failure));
        }
    }

    fn tell_banned(&self, source: String, reason: String) {
        let (group, file) = self.shared.name_of(&self.record);
        self.shared.parts.events.tell(Event::SourceBanned { group, file, source, reason });
    }

    fn tell_refused(&self, mirror: String, reason: String) {
        let (group, file) = self.shared.name_of(&self.record);
        self.shared.parts.events.tell(Event::MirrorRefused { group, file, mirror, reason });
    }

    async fn stop(&self, stop: Stop) -> End {
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
        let told = self.origin == Origin::Command { unshared: true };
        let mirrors = Mirrors::of(&self.record.manifest, self.shared.parts.mirrors);
        let mut feeder = Feeder { run: self, choice: Choice::default(), mirrors, told, refused: 0 };
        let mut progress = self.download.progress();
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => {
                    match feeder.ask().await {
                        Ok(again) => next = Instant::now() + again,
                        Err(reason) => return reason,
                    }
                    feeder.add_mirrors().await;
                }
                Ok(()) = progress.changed() => {
                    let lost = feeder.look(&progress.borrow_and_update());
                    if lost {
                        next = next.min(Instant::now() + SOONEST);
                    }
                    feeder.choose().await;
                    feeder.add_mirrors().await;
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
            Ok(Answer::Holders { holders, again_ms, mirrors }) => {
                self.refused = 0;
                for ended in mirrors.map_or_else(Vec::new, |urls| self.mirrors.are(&urls)) {
                    let _ = self.run.changes.send(SourceChange::Remove(ended)).await;
                }
                self.add_mirrors().await;
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

    /// Mirrors need no tracker and no sharer who is online.
    async fn add_mirrors(&mut self) {
        let mut notices = Vec::new();
        for (id, source) in self.mirrors.due(&mut notices) {
            let _ = self.run.changes.send(SourceChange::Add(id, source)).await;
        }
        self.tell(notices);
    }

    fn tell(&self, notices: Vec<Notice>) {
        for notice in notices {
            match notice {
                Notice::Lied(mirror, reason) => self.run.tell_banned(mirror, reason),
                Notice::Refused(mirror, reason) => self.run.tell_refused(mirror, reason),
            }
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
        let notices = self.mirrors.look(progress, &self.run.download.verified().borrow());
        self.tell(notices);
        lost
    }
}

/// Completes when a stop is wanted.
async fn wanted(stopped: &mut watch::Receiver<Option<Stop>>) -> Stop {
    match stopped.wait_for(Option::is_some).await.map(|stop| *stop) {
        Ok(Some(stop)) => stop,
        // The list dropped the run: the session is over.
        _ => Stop::Suspend,
    }
}

fn end_of(outcome: Outcome, stop: Option<Stop>) -> End {
    match outcome {
        Outcome::Complete { .. } => End::Complete,
        Outcome::Failed(error) => End::Failed(text::error_line(&error.to_string())),
        Outcome::Cancelled => End::Cancelled,
        Outcome::Paused if stop == Some(Stop::Pause) => End::Paused,
        Outcome::Paused if stop == Some(Stop::Left) => End::Failed(LEFT.to_owned()),
        Outcome::Paused => End::Suspended,
    }
}

impl Shared {
    /// Records how a download ended, tells it (a failure only if `tell`), and shares the file or stops offering its parts.
    pub(super) async fn ended(self: &Arc<Self>, record: &DownloadRecord, end: End, tell: bool) {
        let (key, parts) = (record.key, &self.parts);
        let (group, file) = self.name_of(record);
        let verified = self.list().verified(key);
        let share = self.list().is_shared(key);
        if !(share && end == End::Complete) {
            parts.holdings.set(key, Extent::None);
            parts.swarm.stop(key);
        }
        let state = match &end {
            End::Complete => DownloadState::Complete,
            End::Failed(error) => DownloadState::Failed(error.clone()),
            End::Paused => DownloadState::Paused,
            End::Suspended => DownloadState::Running,
            End::Cancelled => return,
        };
        if let Err(error) = parts.store.set_download_state(record.user, key, state.clone(), verified).await {
            tracing::error!(%error, "the end of a download cannot be recorded");
        }
        self.list().ended(key, state);
        match end {
            End::Failed(error) if tell => parts.events.tell(Event::Failed { group, file, error }),
            End::Complete => {
                let (path, size) = (record.path.clone(), record.manifest.size);
                parts.events.tell(Event::Complete { group, file, path, size });
                if share {
                    let (shared, record) = (self.clone(), record.clone());
                    let sharing = self.tasks.spawn(async move { shared.share(&record).await });
                    let _ = tokio::time::timeout(SHARE_WITHIN, sharing).await;
                }
            }
            _ => {}
        }
    }

    /// Records the state that a download is in.
    pub(super) async fn record_state(
        &self,
        record: &DownloadRecord,
        state: DownloadState,
    ) -> Result<(), StoreError> {
        let verified = self.list().verified(record.key);
        self.parts.store.set_download_state(record.user, record.key, state.clone(), verified).await?;
        self.list().set_state(record.key, state);
        Ok(())
    }

    async fn share(&self, record: &DownloadRecord) {
        let path = record.path.clone();
        let identity = tokio::task::spawn_blocking(move || FileIdentity::of(&path)).await;
        let Ok(Ok(identity)) = identity else {
            self.parts.swarm.stop(record.key);
            return tracing::warn!(path = %record.path.display(), "a finished download is gone already");
        };
        let share = ShareRecord {
            user: record.user,
            key: record.key,
            group: record.group.clone(),
            // The mirrors are those of others: only who names them shares them.
            manifest: Manifest { mirrors: Vec::new(), ..record.manifest.clone() },
            path: record.path.clone(),
            identity,
        };
        if let Err(error) = self.parts.shares.completed(share).await {
            tracing::warn!(%error, file = %record.manifest.name, "a finished download is not shared");
        }
    }
}
