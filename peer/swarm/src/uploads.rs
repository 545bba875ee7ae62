//! All that is served: the files, and the policy's decisions carried to the connections that asked. UploadsShared by the
//! connections' tasks behind one lock that is held for a few lines; it never waits and does no I/O.

mod carrying;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use shoal_common::peer_wire::{CopyTrouble, Refused, ToRequester};
use shoal_common::{Bitfield, Gid, Layout, PeerId, PieceIndex, Uid};
use shoal_engine::rate::Limiter;
use shoal_policy::{ChannelId, Event, Policy};
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::have_log::{HaveCursor, HaveLog};
use super::refusal::Refusal;
use super::served::{Body, ReadFailure, Served, Source};
use super::{FileKey, SwarmEvent, Uploaded};

/// How often the policy learns that time passed, while a requester waits.
const TICK: Duration = Duration::from_millis(50);
/// New pieces are gathered for that long before they are announced; with the time to send them under 50 ms (swarm
/// model, rule 6).
pub(super) const GATHER: Duration = Duration::from_millis(25);
/// Files and peers of which uploads are counted one by one, each; the total counts everything.
const MAX_COUNTED: usize = 10_000;
/// Events that wait for a slow listener.
const MAX_EVENTS: usize = 256;

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Uploads {
    shared: Arc<UploadsShared>,
}

#[derive(Debug)]
struct UploadsShared {
    state: Mutex<UploadTable>,
    busy: Notify,
    events: broadcast::Sender<SwarmEvent>,
    limiter: Limiter,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Debug)]
struct UploadTable {
    files: HashMap<FileKey, Entry>,
    /// Files that are shared and cannot be served now. No more than are shared.
    withheld: HashMap<FileKey, CopyTrouble>,
    /// Of files that are downloaded here and not served yet.
    logs: HashMap<FileKey, Weak<HaveLog>>,
    policy: Policy,
    outlets: HashMap<ChannelId, Outlet>,
    channels: u64,
    uploaded: Uploaded,
}

#[derive(Debug)]
struct Entry {
    source: Arc<Source>,
    log: Arc<HaveLog>,
    /// A download of the same file, which is served when the whole is not any more.
    part: Option<Served>,
    /// Channels that have it open.
    open: usize,
    /// Ends the task that follows a download's progress.
    _follower: Option<DropGuard>,
}

/// Where answers to a channel go.
#[derive(Debug)]
struct Outlet {
    wire: u32,
    key: FileKey,
    peer: PeerId,
    outbox: Outbox,
    /// Whether new pieces wait in the outbox already.
    haves_wait: Arc<AtomicBool>,
}

/// What a connection's writer has to do.
#[derive(Debug)]
pub(super) enum Out {
    /// Say this.
    Say(ToRequester),
    /// Send a piece, then call [`Uploads::sent`] or [`Uploads::aborted`].
    Serve { channel: ChannelId, wire: u32, piece: PieceIndex, source: Arc<Source> },
    /// Stop sending a piece, and say that it is not coming.
    Stop { wire: u32, piece: PieceIndex },
    /// Announce new pieces. The flag is raised while this waits.
    Haves { wire: u32, waits: Arc<AtomicBool> },
    /// Forget a channel and what is to be sent on it, and say why if the requester does not know.
    Shut { channel: ChannelId, wire: u32, reason: Option<Refusal> },
}

/// The way to a connection's writer. A connection whose writer is this far behind is ended: what waits for it is bounded
/// by what it asked for, so it can only be one that asks and does not read.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    pub(super) sender: mpsc::Sender<Out>,
    pub(super) end: CancellationToken,
}

impl Outbox {
    pub(super) fn push(&self, out: Out) {
        if self.sender.try_send(out).is_err() {
            self.end.cancel();
        }
    }
}

/// A channel that was opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) id: ChannelId,
    pub(super) layout: Layout,
    pub(super) log: Arc<HaveLog>,
    pub(super) cursor: HaveCursor,
}

impl Uploads {
    /// Nothing is served yet. `tasks` owns the tasks that this starts; they end with `stop`.
    pub(super) fn new(slots: usize, tasks: TaskTracker, stop: CancellationToken) -> Self {
        let uploads = Self {
            shared: Arc::new(UploadsShared {
                state: Mutex::new(UploadTable {
                    files: HashMap::new(),
                    withheld: HashMap::new(),
                    logs: HashMap::new(),
                    policy: Policy::new(slots, fastrand::Rng::new()),
                    outlets: HashMap::new(),
                    channels: 0,
                    uploaded: Uploaded::default(),
                }),
                busy: Notify::new(),
                events: broadcast::Sender::new(MAX_EVENTS),
                limiter: Limiter::new(None),
                tasks,
                stop,
            }),
        };
        uploads.shared.tasks.spawn(uploads.clone().tick());
        uploads
    }

    pub(super) fn limiter(&self) -> &Limiter {
        &self.shared.limiter
    }

    pub(super) fn events(&self) -> broadcast::Receiver<SwarmEvent> {
        self.shared.events.subscribe()
    }

    pub(super) fn emit(&self, event: SwarmEvent) {
        // There may be no listener.
        let _ = self.shared.events.send(event);
    }

    pub(super) fn uploaded(&self) -> Uploaded {
        self.state().uploaded.clone()
    }

    /// How much of a file a peer that has it open here said it holds, in percent.
    pub(super) fn percent(&self, key: FileKey, peer: PeerId) -> Option<u8> {
        let state = self.state();
        let pieces = state.files.get(&key)?.source.layout().pieces();
        Some(Bitfield::percent_of(state.policy.holds(key, peer)?, pieces))
    }

    /// Serves a file from now on. If it is served already, requesters that have it open stay and are sent what is new.
    pub(super) fn serve(&self, key: FileKey, served: Served) {
        let layout = served.layout.clone();
        let verified = match &served.body {
            Body::File { .. } | Body::Folder(_) => None,
            Body::Partial { verified, .. } => Some(verified.clone()),
        };
        let stop = self.shared.stop.child_token();
        let mut state = self.state();
        if let Some(entry) = state.files.get_mut(&key).filter(|entry| !entry.source.is_partial())
            && verified.is_some()
        {
            entry.part = Some(served);
            return;
        }
        state.withheld.remove(&key);
        let waiting = state.logs.remove(&key).and_then(|log| log.upgrade());
        let follower = verified.is_some().then(|| stop.clone().drop_guard());
        let source = Arc::new(Source::new(served));
        let log = match state.files.get_mut(&key) {
            Some(entry) => {
                entry.part = (verified.is_none() && entry.source.is_partial())
                    .then(|| entry.source.served())
                    .or(entry.part.take().filter(|_| verified.is_none()));
                entry.source = source;
                entry._follower = follower;
                entry.log.clone()
            }
            None => {
                let log = waiting.unwrap_or_else(HaveLog::new);
                let entry = Entry { source, log: log.clone(), part: None, open: 0, _follower: follower };
                state.files.insert(key, entry);
                log
            }
        };
        drop(state);
        match verified {
            None => {
                log.complete(&layout);
                self.announce(key);
            }
            Some(verified) => {
                self.shared.tasks.spawn(self.clone().follow(key, layout, log, verified, stop));
            }
        }
    }

    /// Stops serving a file. Requesters that have it open are refused with [`Refused::NotShared`].
    pub(super) fn stop(&self, key: FileKey) {
        let mut state = self.state();
        state.withheld.remove(&key);
        self.shut(state, key, Refused::NotShared.into());
    }

    /// Stops serving a shared file for now. Requesters that have it open, or open it later, are sent the reason. A
    /// download under the same key is still served: false.
    pub(super) fn withhold(&self, key: FileKey, trouble: CopyTrouble) -> bool {
        let mut state = self.state();
        let entry = state.files.get_mut(&key);
        if entry.as_ref().is_some_and(|entry| entry.source.is_partial()) {
            return false;
        }
        let part = entry.and_then(|entry| entry.part.take());
        state.withheld.insert(key, trouble);
        self.shut(state, key, trouble.into());
        match part {
            Some(part) => {
                self.serve(key, part);
                false
            }
            None => true,
        }
    }

    /// Stops offering the parts of a download.
    pub(super) fn stop_part(&self, key: FileKey) {
        let mut state = self.state();
        let Some(entry) = state.files.get_mut(&key) else { return };
        entry.part = None;
        if entry.source.is_partial() {
            self.shut(state, key, Refused::NotShared.into());
        }
    }

    pub(super) fn serves(&self, key: FileKey) -> bool {
        self.state().files.contains_key(&key)
    }

    /// Whether any file of a group is served.
    pub(super) fn serves_any_of(&self, group: Gid) -> bool {
        self.state().files.keys().any(|key| key.group == group)
    }

    /// Why a file is not served.
    pub(super) fn refusal(&self, key: FileKey) -> Refusal {
        self.state().withheld.get(&key).map_or_else(|| Refused::NotShared.into(), |&trouble| trouble.into())
    }

    fn shut(&self, mut state: MutexGuard<'_, UploadTable>, key: FileKey, refusal: Refusal) {
        let Some(entry) = state.files.remove(&key) else { return };
        let channels: Vec<ChannelId> =
            state.outlets.iter().filter(|(_, outlet)| outlet.key == key).map(|(&id, _)| id).collect();
        for id in channels {
            state.policy.handle(Event::Closed { channel: id }, now());
            if let Some(outlet) = state.outlets.remove(&id) {
                outlet.outbox.push(Out::Shut { channel: id, wire: outlet.wire, reason: Some(refusal) });
            }
        }
        if Arc::strong_count(&entry.log) > 1 {
            state.logs.insert(key, Arc::downgrade(&entry.log));
        }
        entry.log.clear();
        self.carry(state);
    }

    /// What is offered of a file, served or not.
    pub(super) fn log(&self, key: FileKey) -> Arc<HaveLog> {
        let mut state = self.state();
        if let Some(entry) = state.files.get(&key) {
            return entry.log.clone();
        }
        if let Some(log) = state.logs.get(&key).and_then(Weak::upgrade) {
            return log;
        }
        state.logs.retain(|_, log| log.strong_count() > 0);
        let log = HaveLog::new();
        state.logs.insert(key, Arc::downgrade(&log));
        log
    }

    /// Opens a file to a member, and answers that it is open; `None` if it is not served.
    pub(super) fn open(
        &self,
        key: FileKey,
        (user, peer): (Uid, PeerId),
        wire: u32,
        outbox: &Outbox,
    ) -> Option<Opened> {
        let mut state = self.state();
        let entry = state.files.get_mut(&key)?;
        entry.open += 1;
        let (layout, log) = (entry.source.layout().clone(), entry.log.clone());
        let (pieces, cursor) = log.now(&layout);
        let have = pieces.as_ref().map(Bitfield::to_bytes);
        let id = ChannelId(state.channels);
        state.channels += 1;
        let event =
            Event::Opened { channel: id, user, peer, key, layout: layout.clone(), seeding: have.is_none() };
        state.policy.handle(event, now());
        outbox.push(Out::Say(ToRequester::Opened { channel: wire, have }));
        state
            .outlets
            .insert(id, Outlet { wire, key, peer, outbox: outbox.clone(), haves_wait: Arc::default() });
        Some(Opened { id, layout, log, cursor })
    }

    /// A requester closed a channel, its connection ended, or it may not have the file any more, for this reason.
    pub(super) fn close(&self, channel: ChannelId, reason: Option<Refused>) {
        let reason = reason.map(Refusal::from);
        let mut state = self.state();
        let Some(outlet) = state.outlets.remove(&channel) else { return };
        outlet.outbox.push(Out::Shut { channel, wire: outlet.wire, reason });
        if let Some(entry) = state.files.get_mut(&outlet.key) {
            entry.open -= 1;
            if entry.open == 0 {
                entry.source.close();
            }
        }
        state.policy.handle(Event::Closed { channel }, now());
        self.carry(state);
    }

    /// A requester holds these pieces; whether any of that is new.
    pub(super) fn have(&self, channel: ChannelId, pieces: Vec<PieceIndex>) -> bool {
        let mut state = self.state();
        let Some((key, peer)) = state.outlets.get(&channel).map(|outlet| (outlet.key, outlet.peer)) else {
            return false;
        };
        let before = state.policy.holds(key, peer);
        state.policy.handle(Event::Have { channel, pieces }, now());
        state.policy.holds(key, peer) != before
    }

    /// A request for a piece; one that is not here is answered so.
    pub(super) fn request(&self, channel: ChannelId, piece: PieceIndex) {
        let mut state = self.state();
        let Some(outlet) = state.outlets.get(&channel) else { return };
        let here = state.files.get(&outlet.key).is_some_and(|entry| entry.log.has(piece));
        if !here {
            let (channel, piece) = (outlet.wire, piece.get());
            let after_ms = u32::try_from(GATHER.as_millis()).unwrap_or(u32::MAX);
            outlet.outbox.push(Out::Say(ToRequester::NotNow { channel, piece, after_ms, instead: None }));
            return;
        }
        state.policy.handle(Event::Request { channel, piece }, now());
        self.carry(state);
    }

    pub(super) fn cancel(&self, channel: ChannelId, piece: PieceIndex) {
        let mut state = self.state();
        state.policy.handle(Event::Cancel { channel, piece }, now());
        self.carry(state);
    }

    /// Pieces went out whole.
    pub(super) fn sent(&self, pieces: &[(ChannelId, PieceIndex)]) {
        let mut state = self.state();
        for &(channel, piece) in pieces {
            state.count(channel, piece);
            state.policy.handle(Event::Sent { channel, piece }, now());
        }
        self.carry(state);
    }

    pub(super) fn aborted(&self, channel: ChannelId, piece: PieceIndex) {
        let mut state = self.state();
        state.policy.handle(Event::Aborted { channel, piece }, now());
        self.carry(state);
    }

    /// A piece could not be read from what is served to a channel. The file is withheld until its owner has looked at it,
    /// unless it is served from elsewhere by now.
    pub(super) fn unreadable(&self, channel: ChannelId, source: &Arc<Source>, failure: &ReadFailure) {
        let state = self.state();
        let key = state.outlets.get(&channel).map(|outlet| outlet.key);
        let current =
            key.filter(|key| state.files.get(key).is_some_and(|entry| Arc::ptr_eq(&entry.source, source)));
        drop(state);
        let Some(key) = current else { return };
        let event = match failure {
            ReadFailure::Missing | ReadFailure::Busy(_) => return,
            ReadFailure::Changed => SwarmEvent::FileChanged(key),
            ReadFailure::Io(error) => SwarmEvent::FileUnreadable(key, error.to_string()),
        };
        if source.is_partial() {
            self.stop_part(key);
        } else {
            self.withhold(key, CopyTrouble::Checked);
        }
        self.emit(event);
    }

    /// Tells all that have the file open that there are new pieces.
    fn announce(&self, key: FileKey) {
        let mut state = self.state();
        if state.files.get(&key).is_some_and(|entry| entry.log.is_all()) {
            state.policy.handle(Event::Completed { key }, now());
        }
        for outlet in state.outlets.values().filter(|outlet| outlet.key == key) {
            if !outlet.haves_wait.swap(true, Ordering::AcqRel) {
                outlet.outbox.push(Out::Haves { wire: outlet.wire, waits: outlet.haves_wait.clone() });
            }
        }
        self.carry(state);
    }

    /// Announces a download's progress to those that have it open.
    async fn follow(
        self,
        key: FileKey,
        layout: Layout,
        log: Arc<HaveLog>,
        mut verified: watch::Receiver<Arc<Bitfield>>,
        stop: CancellationToken,
    ) {
        let follow = async {
            loop {
                let pieces = verified.borrow_and_update().clone();
                if log.extend(&layout, &pieces) {
                    self.announce(key);
                }
                if pieces.is_all() || verified.changed().await.is_err() {
                    return;
                }
                tokio::time::sleep(GATHER).await;
            }
        };
        let _ = stop.run_until_cancelled(follow).await;
    }

    /// Tells the policy the time while a requester waits.
    async fn tick(self) {
        let ticking = async {
            loop {
                self.shared.busy.notified().await;
                tokio::time::sleep(TICK).await;
                let mut state = self.state();
                state.policy.handle(Event::Tick, now());
                self.carry(state);
            }
        };
        let _ = self.shared.stop.run_until_cancelled(ticking).await;
    }

    /// Carries out what the policy decided.
    fn carry(&self, mut state: MutexGuard<'_, UploadTable>) {
        while let Some(action) = state.policy.next(now()) {
            state.carry_out(action);
        }
        if !state.policy.is_idle() {
            self.shared.busy.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, UploadTable> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
