//! One run of a download: the engine's work, the holders that become its sources, and the parts that are offered to others.
//! Everything in it ends with it; `supervisor` begins one run after another.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use shoal_common::tracker_api::{Answer, Call, Extent, Holder, RefusalKind};
use shoal_common::{Layout, Manifest, PeerId, Sha1};
use shoal_engine::{
    BoxFuture, Content, Discovery, Download, MAX_CHANGES, Outcome, Phase, Progress, Shortage, SourceChange,
    feed,
};
use tokio::sync::{Notify, mpsc, watch};

use super::end::{End, Stop};
use super::error::StartError;
use super::list::{Now, Works};
use super::mirrors::{Mirrors, Notice};
use super::sources::{Banned, Sources};
use super::{Shared, destination};
use crate::store::DownloadRecord;
use shoal_http::mirror::Reach;
use shoal_session::CallError;
use shoal_session::events::Event;
use shoal_session::text;
use shoal_swarm::{Body, Served};

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
/// Peers that a download remembers as caught; it meets fewer.
const MAX_BANNED: usize = 1_024;
/// Why a download ends whose user is no member any more.
pub(super) const LEFT: &str =
    "you left the group and are not a member any more; ask again with join_group, then resume_download";

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

/// What one run of a download learns for those after it.
pub(super) struct Learned {
    /// Peers that lied or broke the protocol.
    banned: BTreeSet<PeerId>,
    mirrors: Mirrors,
}

impl Learned {
    /// Nothing is known yet.
    pub(super) fn new(manifest: &Manifest, reach: Reach) -> Self {
        Self { banned: BTreeSet::new(), mirrors: Mirrors::of(manifest, reach) }
    }
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
        (record, number): (&DownloadRecord, u64),
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
            let works = Works { progress: download.progress(), waits_for: download.waits_for() };
            list.is_now(record.key, number, Now::Works(works));
            list.is_current(record.key, Some(number)) && list.is_shared(record.key)
        };
        if share {
            let body = Body::Partial { reader: download.reader(), verified: download.verified() };
            shared.parts.swarm.serve(record.key, Served { layout, body });
        }
        let (shared, record) = (shared.clone(), record.clone());
        Ok(Self { shared, record, origin, layout, download, changes, stopped, opened })
    }

    /// Runs until the engine ends, or is stopped.
    pub(super) async fn run(self, learned: &mut Learned) -> Closed {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            outcome = self.download.wait() => end_of(outcome, None),
            stop = wanted(&mut stopped) => self.stop(stop).await,
            problem = self.feed(learned) => match self.stop(Stop::Pause).await {
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
        loop {
            self.shared.active.wanted().await;
            if self.download.progress().borrow().idle >= GIVE_WAY_AFTER {
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
        let works = |progress: &Progress| !matches!(progress.phase, Phase::Opening | Phase::Ended);
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
                self.shared.parts.holdings.set_part(self.record.key);
            }
        }
        std::future::pending().await
    }

    /// Asks the trackers for holders and gives them to the engine, for as long as the download runs. Completes only
    /// when it cannot go on, with the reason.
    async fn feed(&self, learned: &mut Learned) -> String {
        // The question and what is done with its answers go on side by side: holders that are known are tried again also
        // while no tracker answers.
        let (answers, answered) = mpsc::channel::<Answered>(1);
        let sooner = Notify::new();
        let parts = &self.shared.parts;
        let mut sources = Sources::new(parts.swarm.clone(), self.record.key, self.layout);
        sources.never(learned.banned.iter().copied());
        learned.mirrors.rest();
        let mut named = Named {
            run: self,
            answered,
            sooner: &sooner,
            sources,
            learned,
            changes: Vec::new(),
            told: matches!(self.origin, Origin::Command { unshared: true } | Origin::Again),
            wakes: self.shared.wakes.subscribe(),
            tickets: parts.tickets.changed(),
        };
        tokio::select! {
            problem = self.ask(answers, &sooner) => problem,
            never = feed(&self.download, self.changes.clone(), [&mut named]) => match never {},
        }
    }

    /// Asks the trackers again and again, earlier if `sooner` says so. Completes as [`Run::feed`].
    async fn ask(&self, answers: mpsc::Sender<Answered>, sooner: &Notify) -> String {
        let parts = &self.shared.parts;
        let key = self.record.key;
        // In a row.
        let mut refusals = 0;
        loop {
            if parts.tickets.own_ticket(key.group).is_none() {
                // The user may have become a member only now. Without trackers the next round tries again.
                let _ = parts.session.renew().await;
            }
            let again = match parts.session.call(Call::Holders { group: key.group, file: key.file }).await {
                Ok(Answer::Holders { holders, again_ms, mirrors }) => {
                    refusals = 0;
                    // The other end lives as long as this one.
                    let _ = answers.send(Answered { holders, mirrors }).await;
                    Duration::from_millis(again_ms.into()).clamp(SOONEST, LATEST)
                }
                Err(CallError::Refused { kind: RefusalKind::NotAllowed, text, .. }) => {
                    refusals += 1;
                    if refusals >= REFUSALS {
                        return text;
                    }
                    AFTER_SILENCE
                }
                Ok(_) | Err(_) => AFTER_SILENCE,
            };
            tokio::time::sleep(SOONEST).await;
            let _ = tokio::time::timeout(again.saturating_sub(SOONEST), sooner.notified()).await;
        }
    }
}

/// What the trackers say of a file.
struct Answered {
    holders: Vec<Holder>,
    /// None from a tracker of an earlier version.
    mirrors: Option<Vec<String>>,
}

/// The holders and mirrors that the trackers name, as the download's sources.
struct Named<'a> {
    run: &'a Run,
    answered: mpsc::Receiver<Answered>,
    /// Has the trackers asked sooner.
    sooner: &'a Notify,
    sources: Sources,
    learned: &'a mut Learned,
    /// Changes to the mirrors that the engine does not know yet.
    changes: Vec<SourceChange>,
    /// Whether the user knows that nobody shares the file.
    told: bool,
    wakes: watch::Receiver<u64>,
    tickets: watch::Receiver<u64>,
}

impl Discovery for Named<'_> {
    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            tokio::select! {
                Some(answered) = self.answered.recv() => self.take(answered),
                seen = self.sources.changed() => {
                    if seen.is_loss() {
                        // Its holder may be somewhere else by now.
                        self.sooner.notify_one();
                    }
                    if let Some(banned) = self.sources.take(seen) {
                        self.ban(banned);
                    }
                }
                Ok(()) = self.wakes.changed() => {
                    self.sources.hurry();
                    self.sooner.notify_one();
                }
                Ok(()) = self.tickets.changed() => self.sources.hurry(),
            }
        })
    }

    fn changes(&mut self, now: &Progress) -> Vec<SourceChange> {
        for banned in self.sources.look(now) {
            self.ban(banned);
        }
        let notices = self.learned.mirrors.look(now, &self.run.download.verified().borrow());
        self.tell(notices);
        self.add_mirrors();
        self.changes.extend(self.sources.choose(now));
        std::mem::take(&mut self.changes)
    }

    fn waits_for(&self) -> Option<String> {
        self.sources.waits_for()
    }
}

impl Named<'_> {
    /// Takes what the trackers say.
    fn take(&mut self, Answered { holders, mirrors }: Answered) {
        if let Some(urls) = mirrors {
            self.changes.extend(self.learned.mirrors.are(&urls));
        }
        self.add_mirrors();
        let run = self.run;
        let own = run.shared.parts.tickets.own();
        let holders: Vec<Holder> =
            holders.into_iter().filter(|h| h.peer != own && h.extent != Extent::None).collect();
        let others = holders.iter().any(|holder| holder.extent == Extent::Some);
        self.changes.push(SourceChange::OthersDownloading(others));
        if holders.is_empty() {
            let idle = run.download.progress().borrow().sources == 0 && !self.learned.mirrors.in_use();
            if idle && !std::mem::replace(&mut self.told, true) {
                let (group, file) = run.shared.name_of(&run.record);
                run.shared.parts.events.tell(Event::Waiting { group, file });
            }
        } else {
            self.told = false;
        }
        self.sources.offered(holders);
    }

    /// Mirrors need no tracker and no sharer who is online.
    fn add_mirrors(&mut self) {
        let mut notices = Vec::new();
        self.changes.extend(self.learned.mirrors.due(&mut notices));
        self.tell(notices);
    }

    /// A holder is not used any more, by later runs neither.
    fn ban(&mut self, Banned { peer, source, reason }: Banned) {
        if self.learned.banned.len() < MAX_BANNED {
            self.learned.banned.insert(peer);
        }
        self.tell(vec![Notice::Lied(source, reason)]);
    }

    fn tell(&self, notices: Vec<Notice>) {
        for notice in notices {
            let (group, file) = self.run.shared.name_of(&self.run.record);
            self.run.shared.parts.events.tell(match notice {
                Notice::Lied(source, reason) => Event::SourceBanned { group, file, source, reason },
                Notice::Refused(mirror, reason) => Event::MirrorRefused { group, file, mirror, reason },
            });
        }
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
