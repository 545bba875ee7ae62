//! One run of a download: the engine's work, the holders that become its sources, and the parts that are offered to others.
//! Everything in it ends with it; `supervisor` starts one run after another.

mod part;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_common::limits::MAX_LIST;
use shoal_common::tracker_api::{Call, Completeness, Holder, RefusalKind};
use shoal_common::{Layout, Manifest, PeerId, Sha1};
use shoal_engine::rate::Limiter;
use shoal_engine::{
    BoxFuture, Chosen, Discovery, Download, MAX_CHANGES, Phase, Progress, SourceChange, feed,
};
use tokio::sync::{Notify, mpsc, watch};

use super::end::{Closed, End, Stop, end_of, wanted};
use super::folder::Wanted;
use super::holders::{HoldersAnswer, SOONEST};
use super::known::{Asked, Known, MAX_KNOWN};
use super::list::{Now, SourceName, SourceNames, Works};
use super::mirrors::{Mirrors, Notice};
use super::places::Place;
use super::sources::{Banned, Sources};
use super::{Downloads, idleness};
use crate::store::DownloadRecord;
use shoal_http::mirror::Reach;
use shoal_session::CallError;
use shoal_session::events::Event;
use shoal_swarm::{Body, FileKey, Served};

/// When to ask again after no tracker answered, or none knew the file.
const AFTER_SILENCE: Duration = Duration::from_secs(2);
/// Refusals in a row after which the user counts as no member any more: one alone may come from a tracker that is still
/// catching up.
const REFUSALS: u32 = 3;
/// Most banned peers that a download remembers; it meets fewer.
const MAX_BANNED: usize = 1_024;
/// What started a run, and so, how an early failure is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StartedBy {
    /// A login: everything is reported as events.
    Login,
    /// A command, which reports an early failure itself, and has reported whether there was a sharer.
    Command {
        /// Nobody shared the file.
        unshared: bool,
    },
    /// A command that resumes a download, whose place was chosen some time ago.
    Resume,
    /// An earlier run could not go on.
    Again,
}

/// What `download_file` found for the first run, so that it need not be looked for again.
pub(super) struct Found {
    /// The digests of the file's pieces; its destination was looked at.
    pub(super) pieces: Arc<[Sha1]>,
    /// Who holds the file.
    pub(super) answer: HoldersAnswer,
}

/// What one run of a download learns for those after it.
pub(super) struct Learned {
    /// Peers that lied or broke the protocol.
    banned: BTreeSet<PeerId>,
    /// Some of them, and mirrors that did so, with what they did.
    liars: Vec<(String, String)>,
    mirrors: Mirrors,
}

impl Learned {
    /// Nothing is known yet.
    pub(super) fn new(manifest: &Manifest, reach: Reach) -> Self {
        Self { banned: BTreeSet::new(), liars: Vec::new(), mirrors: Mirrors::of(manifest, reach) }
    }
}

/// A run of the engine.
pub(super) struct Run {
    downloads: Arc<Downloads>,
    record: DownloadRecord,
    /// Under which key holders serve what is fetched.
    key: FileKey,
    is_listing: bool,
    started_by: StartedBy,
    layout: Layout,
    download: Download,
    changes: mpsc::Sender<SourceChange>,
    stopped: watch::Receiver<Option<Stop>>,
    opened: watch::Sender<Option<Option<String>>>,
    names: SourceNames,
    known: watch::Sender<Known>,
    /// Which files of a folder are fetched.
    chosen: watch::Receiver<Chosen>,
}

impl Run {
    /// Starts the engine on a listed download.
    pub(super) fn start(
        downloads: &Arc<Downloads>,
        (record, number): (&DownloadRecord, u64),
        (wanted, limiter): (Wanted, Limiter),
        started_by: StartedBy,
        opened: watch::Sender<Option<Option<String>>>,
        stopped: watch::Receiver<Option<Stop>>,
    ) -> Self {
        let Wanted { key, content, target, chosen, is_listing } = wanted;
        let layout = content.layout().clone();
        let (changes, sources) = mpsc::channel(MAX_CHANGES);
        // It may be changed while the download runs.
        let chosen = match downloads.list().chosen(record.key).filter(|_| !is_listing) {
            Some(changes) => changes,
            None => watch::channel(chosen).1,
        };
        let engine = &downloads.parts.engine;
        let download = engine.start_chosen(content, target, sources, limiter, chosen.clone());
        let (names, known) = (SourceNames::default(), watch::Sender::new(Known::default()));
        let share = !is_listing && {
            let mut list = downloads.list();
            let works = Works {
                progress: download.progress(),
                waits_for: download.waits_for(),
                verified: download.verified(),
                names: names.clone(),
                known: known.subscribe(),
            };
            list.is_now(record.key, number, Now::Works(works));
            list.is_current(record.key, Some(number)) && list.is_shared(record.key)
        };
        if share {
            let body = Body::Partial { reader: download.reader(), verified: download.verified() };
            downloads.parts.swarm.serve(record.key, Served { layout: layout.clone(), body });
            // Others may find this client before any that has the whole folder.
            if let Ok(listing) = downloads.parts.folders.serve_listing(&record.manifest) {
                downloads.parts.swarm.serve_listing(record.key, listing);
            }
        }
        let (downloads, record) = (downloads.clone(), record.clone());
        Self {
            downloads,
            record,
            key,
            is_listing,
            started_by,
            layout,
            download,
            changes,
            stopped,
            opened,
            names,
            known,
            chosen,
        }
    }

    /// Runs until the engine ends, or is stopped.
    /// `answer` is what the trackers said of the holders just now, if they were asked.
    pub(super) async fn run(
        self,
        place: &Place,
        learned: &mut Learned,
        answer: Option<HoldersAnswer>,
    ) -> Closed {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            outcome = self.download.wait() => self.end_unless_more(end_of(outcome, None)),
            stop = wanted(&mut stopped) => tokio::select! {
                closed = self.stop(stop) => closed,
                // A drive that hangs ends nothing.
                never = idleness::of_run(place, self.download.progress()) => match never {},
            },
            problem = self.feed(learned, answer) => match self.stop(Stop::Pause).await {
                Closed::End(End::Complete) => Closed::End(End::Complete),
                _ => Closed::End(End::Failed(problem)),
            },
            () = self.gives_way(place) => match end_of(self.download.pause().await, Some(Stop::Suspend)) {
                Closed::End(End::Suspended) => Closed::GaveWay,
                closed => closed,
            },
            () = self.more_chosen() => match end_of(self.download.pause().await, Some(Stop::Suspend)) {
                Closed::End(End::Suspended) => Closed::GaveWay,
                closed => closed,
            },
            () = self.offer() => Closed::End(End::Suspended),
            () = self.note_begun() => Closed::End(End::Suspended),
            () = self.watch_opening() => Closed::End(End::Suspended),
        }
    }

    /// Completes when files are to be fetched that were not: whether there is room for them, and whether the file system can
    /// hold their names, is looked at before, as at every beginning.
    async fn more_chosen(&self) {
        let mut changes = self.chosen.clone();
        let mut before = changes.borrow_and_update().clone();
        while changes.changed().await.is_ok() {
            let now = changes.borrow_and_update().clone();
            if (0..self.layout.files()).any(|file| now.has(file) && !before.has(file)) {
                return;
            }
            before = now;
        }
        std::future::pending().await
    }

    /// More files may have been chosen in the moment in which the last one was there.
    fn end_unless_more(&self, closed: Closed) -> Closed {
        let had = self.download.progress().borrow().files.as_ref().map(|files| files.which.clone());
        match closed {
            Closed::End(End::Complete) if had.is_some_and(|had| had != *self.chosen.borrow()) => {
                Closed::GaveWay
            }
            closed => closed,
        }
    }

    /// Tells the queue whether anything comes. Completes when the download has to give way to another.
    async fn gives_way(&self, place: &Place) {
        tokio::select! {
            () = place.revoked() => {}
            never = idleness::of_run(place, self.download.progress()) => match never {},
        }
    }

    /// Records once the first piece is there: if the partial file is missing later, its drive is away. Never completes.
    async fn note_begun(&self) {
        if !self.is_listing && self.downloads.list().verified(self.record.key) == 0 {
            let mut verified = self.download.verified();
            let some = verified.wait_for(|pieces| !pieces.is_empty()).await.is_ok();
            let (user, key) = (self.record.user, self.record.key);
            let bytes = self.layout.piece_length().into();
            if some && let Err(error) = self.downloads.parts.store.note_verified(user, key, bytes).await {
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

    /// Reports to the command that began the download that the engine works. Never completes.
    async fn watch_opening(&self) {
        let mut progress = self.download.progress();
        let works = |progress: &Progress| !matches!(progress.phase, Phase::Opening | Phase::Ended);
        let works = progress.wait_for(works).await.is_ok();
        // After the listing there is more to open.
        if works && !self.is_listing {
            self.opened.send_replace(Some(None));
        }
        std::future::pending().await
    }

    /// Announces the file as held in part once a piece is there. Never completes.
    async fn offer(&self) {
        let mut verified = self.download.verified();
        let some = verified.wait_for(|pieces| !pieces.is_empty()).await.is_ok();
        if some && !self.is_listing {
            let list = self.downloads.list();
            if list.is_shared(self.record.key) {
                self.downloads.parts.holdings.set_part(self.record.key);
            }
        }
        std::future::pending().await
    }

    /// Asks the trackers for holders and gives them to the engine, for as long as the download runs. Completes only
    /// when it cannot continue, with the reason.
    async fn feed(&self, learned: &mut Learned, answer: Option<HoldersAnswer>) -> String {
        // Asking and using the answers run side by side: known holders are tried again also while no tracker answers.
        let (answers, answered) = mpsc::channel(1);
        let (sooner, unreached) = (Notify::new(), Mutex::default());
        let parts = &self.downloads.parts;
        let mut sources =
            Sources::new(parts.swarm.clone(), parts.ways.clone(), self.key, self.layout.clone());
        sources.are_named_in(self.names.clone());
        sources.never(learned.banned.iter().copied());
        learned.mirrors.rest();
        let mut named = Named {
            run: self,
            answered,
            sooner: &sooner,
            unreached: &unreached,
            sources,
            learned,
            changes: Vec::new(),
            reported: matches!(self.started_by, StartedBy::Command { unshared: true } | StartedBy::Again),
            wakes: self.downloads.wakes.subscribe(),
            tickets: parts.tickets.changed(),
        };
        tokio::select! {
            problem = self.ask(answer, answers, (&sooner, &unreached)) => problem,
            never = feed(&self.download, self.changes.clone(), [&mut named]) => match never {},
        }
    }

    /// Notes what the trackers said of the holders.
    fn note_answer(&self, answer: &Result<Option<HoldersAnswer>, CallError>) {
        let asked = match answer {
            Ok(Some(answer)) => Asked::Holders(self.others(&answer.holders).count()),
            Err(error) => match error.refusal() {
                Some(RefusalKind::NotFound) => Asked::Unknown,
                Some(_) => Asked::Refused,
                None => Asked::Silent,
            },
            Ok(None) => Asked::Silent,
        };
        self.known.send_modify(|known| known.asked = asked);
    }

    /// The holders that are not this client.
    fn others<'a>(&self, holders: &'a [Holder]) -> impl Iterator<Item = &'a Holder> {
        let own = self.downloads.parts.tickets.own();
        holders.iter().filter(move |holder| holder.peer != own && holder.completeness != Completeness::None)
    }

    /// Asks the trackers again and again, earlier if `sooner` says so. The first answer may be known. Completes as
    /// [`Run::feed`].
    async fn ask(
        &self,
        mut known: Option<HoldersAnswer>,
        answers: mpsc::Sender<HoldersAnswer>,
        (sooner, unreached): (&Notify, &Mutex<Vec<PeerId>>),
    ) -> String {
        let parts = &self.downloads.parts;
        let key = self.record.key;
        // In a row.
        let mut refusals = 0;
        loop {
            if parts.tickets.own_ticket(key.group).is_none() {
                // The user may have become a member only now. Without trackers the next round tries again.
                let _ = parts.session.renew().await;
            }
            let peers = std::mem::take(&mut *unreached.lock().unwrap_or_else(PoisonError::into_inner));
            if !peers.is_empty() {
                let report = Call::Unreached { group: key.group, file: key.file, peers };
                if let Err(error) = parts.session.call(report).await {
                    tracing::debug!(%error, "the trackers do not learn which holders are not reached");
                }
            }
            let answer = match known.take() {
                Some(answer) => Ok(Some(answer)),
                None => {
                    tracing::debug!("asking for holders");
                    let call = Call::Holders { group: key.group, file: key.file };
                    parts.session.call(call).await.map(HoldersAnswer::of)
                }
            };
            self.note_answer(&answer);
            let again = match answer {
                Ok(Some(answer)) => {
                    refusals = 0;
                    let again = answer.again;
                    // The other end lives as long as this one.
                    let _ = answers.send(answer).await;
                    again
                }
                Err(CallError::Refused { kind: RefusalKind::NotAllowed, text, .. }) => {
                    refusals += 1;
                    if refusals >= REFUSALS {
                        return text;
                    }
                    AFTER_SILENCE
                }
                Ok(None) | Err(_) => AFTER_SILENCE,
            };
            tokio::time::sleep(SOONEST).await;
            let _ = tokio::time::timeout(again.saturating_sub(SOONEST), sooner.notified()).await;
        }
    }
}

/// The holders and mirrors that the trackers name, as the download's sources.
struct Named<'a> {
    run: &'a Run,
    answered: mpsc::Receiver<HoldersAnswer>,
    /// Has the trackers asked sooner.
    sooner: &'a Notify,
    sources: Sources,
    learned: &'a mut Learned,
    /// Holders of which the trackers are to learn that they do not answer where they are said to be.
    unreached: &'a Mutex<Vec<PeerId>>,
    /// Changes to the mirrors that the engine does not know yet.
    changes: Vec<SourceChange>,
    /// Whether it was reported that no client shares the file.
    reported: bool,
    wakes: watch::Receiver<u64>,
    tickets: watch::Receiver<u64>,
}

impl Discovery for Named<'_> {
    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            tokio::select! {
                Some(answer) = self.answered.recv() => self.take(answer),
                seen = self.sources.changed() => {
                    if seen.is_loss() {
                        // Its holder may be at another address by now.
                        self.sooner.notify_one();
                    }
                    if let Some(banned) = self.sources.take(seen) {
                        self.ban(banned);
                    }
                    let mut unreached = self.unreached.lock().unwrap_or_else(PoisonError::into_inner);
                    unreached.extend(self.sources.take_unreached());
                    unreached.truncate(MAX_LIST);
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
        self.report(notices);
        self.add_mirrors();
        self.changes.extend(self.sources.choose(now));
        self.run.known.send_modify(|known| {
            self.sources.known(known);
            known.banned.clone_from(&self.learned.liars);
            known.mirrors = self.learned.mirrors.troubles();
        });
        std::mem::take(&mut self.changes)
    }

    fn waits_for(&self) -> Option<String> {
        self.sources.waits_for()
    }
}

impl Named<'_> {
    /// Takes an answer of the trackers.
    fn take(&mut self, HoldersAnswer { holders, mirrors, .. }: HoldersAnswer) {
        if let Some(urls) = mirrors {
            self.changes.extend(self.learned.mirrors.are(&urls));
        }
        self.add_mirrors();
        let run = self.run;
        for (id, url) in self.learned.mirrors.named() {
            run.names.add(id, SourceName { user: None, address: url.to_owned() });
        }
        let holders: Vec<Holder> = run.others(&holders).cloned().collect();
        let others = holders.iter().any(|holder| holder.completeness == Completeness::Some);
        self.changes.push(SourceChange::OthersDownloading(others));
        if holders.is_empty() {
            let idle = run.download.progress().borrow().sources == 0 && !self.learned.mirrors.in_use();
            if idle && !std::mem::replace(&mut self.reported, true) {
                let (group, file) = run.downloads.name_of(&run.record);
                run.downloads.parts.events.emit(Event::Waiting { group, file });
            }
        } else {
            self.reported = false;
        }
        self.sources.offered(holders);
    }

    /// Adds the mirrors that are due. They need no tracker, and no sharer who is online.
    fn add_mirrors(&mut self) {
        let mut notices = Vec::new();
        self.changes.extend(self.learned.mirrors.due(&mut notices));
        self.report(notices);
    }

    /// A holder is not used any more, not by later runs either.
    fn ban(&mut self, Banned { peer, source, reason }: Banned) {
        if self.learned.banned.len() < MAX_BANNED {
            self.learned.banned.insert(peer);
        }
        if self.learned.liars.len() < MAX_KNOWN {
            self.learned.liars.push((source.clone(), reason.clone()));
        }
        self.report(vec![Notice::Lied(source, reason)]);
    }

    fn report(&self, notices: Vec<Notice>) {
        for notice in notices {
            let (group, file) = self.run.downloads.name_of(&self.run.record);
            self.run.downloads.parts.events.emit(match notice {
                Notice::Lied(source, reason) => Event::SourceBanned { group, file, source, reason },
                Notice::Refused(mirror, reason) => Event::MirrorRefused { group, file, mirror, reason },
            });
        }
    }
}
