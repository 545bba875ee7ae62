//! The links to the other trackers: dialled, proven, carried.
//!
//! A link is one stream each way. Ours is opened on a connection that *we* dialled to the other's listed address; theirs
//! arrives. The link stands once theirs came from the key that answered our dial, or that the line in `tracker_info.txt` names.
//! With a cluster key both ends must have proved it, too. No record is sent before that.
//!
//! Each side then says on its stream which of the other's streams it has taken. The link is up if that is the present one.
//! Otherwise two trackers could go on for ever taking streams that the other has given up. One task per tracker owns its link,
//! so nothing of an older link is passed on after a newer one stands.

mod carry;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use minicbor::{Decode, Encode};
use shoal_common::PeerId;
use shoal_common::limits::MAX_STRANGER_MESSAGE;
use shoal_common::tracker_info::TrackerLine;
use shoal_net::{ChannelReceiver, ChannelSender, Control, DialError, Inbound, Protocol, ReachError};
use shoal_replica::TrackerNo;
use shoal_replica::limits::MAX_FRAME_BYTES;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::cluster_key::{self, ClusterKey, Nonce, Unproven};
use crate::database::Database;
use crate::link_orders::LinkQueue;
use crate::presence::Presence;
use crate::trust::Trust;
use crate::ways::Ways;
use carry::carry;

/// The protocol's name on libp2p.
pub const LINK_PROTOCOL: Protocol = Protocol("/shoal/tracker/1");

/// Pause between two dials: a tracker that can be reached again is in step 1.5 s later.
const REDIAL: Duration = Duration::from_millis(250);
/// For how long the other side's stream is waited for once ours stands.
const INBOUND_WAIT: Duration = Duration::from_secs(3);
/// How long our own stream may take to be opened, introduced and, with a cluster key, proven.
const OUTBOUND_WAIT: Duration = Duration::from_secs(8);
/// Failed attempts in a row, with a tracker that answers dials, before a warning.
const WORTH_A_WARNING: u32 = 4;
/// How long an arriving stream may take to introduce itself.
const INTRODUCTION_WAIT: Duration = Duration::from_secs(5);
/// Arrived streams of strangers that may wait for their introduction.
const MAX_INTRODUCTIONS: usize = 32;
/// The same for each tracker whose key answered a dial, so that strangers cannot take these places.
const RESERVED_INTRODUCTIONS: usize = 4;
/// Clients of a tracker that cannot be reached are offline after this long (P20).
const FORGET_AFTER: Duration = Duration::from_secs(5);

/// Pause before a tracker that did not prove the cluster key is asked again.
const UNPROVEN_PAUSE: Duration = Duration::from_secs(2);

/// First byte of a message that carries a replica's frame.
const FRAME: u8 = 0;
/// First byte of a message that says which attempt's stream the sender has taken.
const TAKEN: u8 = 2;

/// The first message on a link's stream.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct Introduction {
    /// The sender's number.
    #[n(0)]
    number: u8,
    /// If the sender has a cluster key: the nonce with which the receiver proves that it has it too.
    #[cbor(n(1), with = "minicbor::bytes")]
    nonce: Option<Nonce>,
    /// Names the attempt that the stream belongs to.
    #[n(2)]
    attempt: u64,
}

/// This tracker's identity towards the others.
#[derive(Clone)]
pub struct LinkIdentity {
    /// Its number.
    pub number: TrackerNo,
    /// Its key's public half.
    pub peer: PeerId,
    /// What all trackers prove to hold, if there is such a key.
    pub cluster_key: Option<Arc<ClusterKey>>,
    /// Whose keys are the others'.
    pub trust: Trust,
}

impl LinkIdentity {
    /// Whether the tracker of that line must prove the cluster key, because its line names no key.
    fn demands_key(&self, line: &TrackerLine) -> bool {
        self.cluster_key.is_some() && line.peer_id.is_none()
    }
}

/// A stream that arrived and said whose it is. That is not proven yet.
struct Arrived {
    peer: PeerId,
    attempt: u64,
    receiver: ChannelReceiver,
}

/// The keys that answered the last dials, by the numbers of their trackers.
type Dialled = Arc<Mutex<HashMap<u8, PeerId>>>;

/// What the tasks of all links share.
#[derive(Clone)]
struct LinkContext {
    own: LinkIdentity,
    control: Control,
    database: Database,
    presence: Presence,
    ways: Ways,
    dialled: Dialled,
    closing: CancellationToken,
}

/// What reaches the task of one link.
struct Inbox {
    arrived: mpsc::Receiver<Arrived>,
    /// The newest that arrived. It outlives our own failed attempts: if each side gave up the other's stream with its own, they
    /// could go on for ever giving up what was just opened.
    newest: Option<Arrived>,
    orders: LinkQueue,
    /// The last warning about the other tracker's key, which is given once.
    complaint: Option<String>,
}

/// The links of one tracker: hands arrived streams to the task of the right link.
pub struct Links {
    own: LinkIdentity,
    /// For each tracker the queue of its arriving streams, and whether it must prove the cluster key.
    arrived: HashMap<u8, (mpsc::Sender<Arrived>, bool)>,
    introductions: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
    dialled: Dialled,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Links {
    /// Starts a task for each other tracker.
    #[must_use]
    pub(crate) fn start(
        others: Vec<(TrackerNo, TrackerLine, LinkQueue)>,
        own: LinkIdentity,
        control: Control,
        database: Database,
        (presence, ways): (Presence, Ways),
        closing: CancellationToken,
    ) -> Self {
        let tasks = TaskTracker::new();
        let dialled = Dialled::default();
        let reserved = Arc::new(Semaphore::new(RESERVED_INTRODUCTIONS * others.len()));
        let context = LinkContext {
            own: own.clone(),
            control,
            database,
            presence,
            ways,
            dialled: dialled.clone(),
            closing: closing.clone(),
        };
        let mut arrived = HashMap::new();
        for (number, line, orders) in others {
            let (arrived_sender, arrived_receiver) = mpsc::channel(4);
            arrived.insert(number.0, (arrived_sender, own.demands_key(&line)));
            let inbox = Inbox { arrived: arrived_receiver, newest: None, orders, complaint: None };
            let span = tracing::info_span!("link", tracker = number.0);
            tasks.spawn(keep_link(context.clone(), number, line, inbox).instrument(span));
        }
        let introductions = Arc::new(Semaphore::new(MAX_INTRODUCTIONS));
        Self { own, arrived, introductions, reserved, dialled, closing, tasks }
    }

    /// Takes a stream that arrived. Nothing is sent on it: a link's streams carry one way only.
    pub fn arrive(&self, inbound: Inbound) {
        let places = if self.has_answered(inbound.peer) { &self.reserved } else { &self.introductions };
        let Ok(permit) = places.clone().try_acquire_owned() else { return };
        let introduced = introduce(self.own.clone(), self.arrived.clone(), inbound);
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            let _permit = permit;
            tokio::select! {
                () = closing.cancelled() => {}
                () = introduced => {}
            }
        });
    }

    /// Whether a tracker answered our last dial with this key.
    fn has_answered(&self, peer: PeerId) -> bool {
        let dialled = self.dialled.lock().expect("no holder of the lock panics");
        dialled.values().any(|known| *known == peer)
    }

    /// Waits for all tasks to end, after the token was cancelled.
    pub async fn join(self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Reads whose stream arrived, and passes it to the task of that link.
async fn introduce(own: LinkIdentity, arrived: HashMap<u8, (mpsc::Sender<Arrived>, bool)>, inbound: Inbound) {
    let peer = inbound.peer;
    let (mut sender, mut receiver) = inbound.channel.split();
    receiver.set_limit(MAX_STRANGER_MESSAGE);
    let Ok(Ok(Some(first))) = tokio::time::timeout(INTRODUCTION_WAIT, receiver.recv()).await else {
        return;
    };
    let Ok(introduction) = minicbor::decode::<Introduction>(&first) else { return };
    let Some((link, demands_key)) = arrived.get(&introduction.number) else { return };
    let mut proven = Err(Unproven::NoKey);
    if let Some(nonce) = introduction.nonce {
        let (key, ends) = (own.cluster_key.as_deref(), (peer, own.peer));
        proven = cluster_key::accept(key, ends, nonce, &mut sender, &mut receiver).await;
    }
    if let (true, Err(why)) = (*demands_key, proven) {
        let number = introduction.number;
        tracing::debug!(%peer, from = %inbound.remote, "a stream claims to come from tracker {number}, but {why}");
        return;
    }
    // If the queue is full, many arrive at once. Only the newest counts, and it comes again.
    let _ = link.try_send(Arrived { peer, attempt: introduction.attempt, receiver });
}

/// Keeps the link to one tracker for as long as this one runs.
async fn keep_link(context: LinkContext, number: TrackerNo, line: TrackerLine, mut inbox: Inbox) {
    let cluster_key_proves = context.own.demands_key(&line);
    let mut silent_since = Some(Instant::now());
    let (mut reported, mut failures) = (false, 0);
    let closing = context.closing.clone();
    while !closing.is_cancelled() {
        let mut at_once = false;
        tokio::select! {
            () = closing.cancelled() => return,
            () = rested(&inbox.orders) => {}
        }
        let dialled = tokio::select! {
            () = closing.cancelled() => return,
            dialled = context.own.trust.dial(&context.control, &line, cluster_key_proves) => dialled,
        };
        match dialled {
            Ok(peer) if peer == context.own.peer => {
                tracing::error!(
                    "the line of tracker {number} leads to this tracker; correct tracker_info.txt"
                );
                tokio::time::sleep(FORGET_AFTER).await;
            }
            Ok(peer) => {
                reported = false;
                context.dialled.lock().expect("no holder of the lock panics").insert(number.0, peer);
                let raised = tokio::select! {
                    () = closing.cancelled() => return,
                    raised = raise(&context, (number, &line), peer, &mut inbox) => raised,
                };
                failures = if raised.is_some() { 0 } else { failures + 1 };
                if failures == WORTH_A_WARNING {
                    let LinkIdentity { number: own, peer: key, .. } = &context.own;
                    let advice =
                        format!("if it does not know this one's key: type accept-tracker {own} {key} there");
                    tracing::warn!(
                        "tracker {number} ({line}) answers, but no link can be made; {advice}; trying again until it can"
                    );
                }
                // Nothing is sent before the key is known.
                if let Some((sender, receiver)) = raised
                    && context.own.trust.linked((number.0, &line), peer, cluster_key_proves).await
                {
                    silent_since = None;
                    tracing::info!("linked with tracker {number} ({line})");
                    let why = carry(&context, number, peer, sender, receiver, &mut inbox).await;
                    at_once = inbox.newest.is_some();
                    tracing::warn!("the link with tracker {number} ({line}) ended: {why}");
                    silent_since.get_or_insert_with(Instant::now);
                }
            }
            Err(ReachError::Dial(DialError::WrongKey { found, .. })) if line.peer_id.is_none() => {
                context.own.trust.refuse((number.0, &line), found);
            }
            Err(error) => {
                context.own.trust.silent(number.0);
                if !std::mem::replace(&mut reported, true) {
                    tracing::warn!("tracker {number} ({line}): {error}; trying again until it answers");
                }
            }
        }
        if silent_since.is_some_and(|since| since.elapsed() > FORGET_AFTER) {
            context.presence.forget(number.0);
            silent_since = Some(Instant::now());
        }
        if !at_once {
            tokio::select! {
                () = closing.cancelled() => return,
                () = tokio::time::sleep(REDIAL) => {}
            }
        }
    }
}

/// Waits while links are not to be raised, even if that is extended.
async fn rested(orders: &LinkQueue) {
    loop {
        let until = orders.shunned_until();
        if until <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(until.into()).await;
    }
}

/// Opens our stream to a proven peer and waits for its own.
async fn raise(
    context: &LinkContext,
    to: (TrackerNo, &TrackerLine),
    peer: PeerId,
    inbox: &mut Inbox,
) -> Option<(ChannelSender, ChannelReceiver)> {
    let opened = tokio::time::timeout(OUTBOUND_WAIT, open(context, to, peer, inbox)).await;
    let (mut sender, attempt) = opened.ok()??;
    let taken = tokio::time::timeout(INBOUND_WAIT, take(inbox, peer, attempt, &mut sender)).await;
    let receiver = taken.ok()??;
    inbox.orders.begin();
    inbox.complaint = None;
    Some((sender, receiver))
}

/// Opens our stream to a proven peer and introduces it; returns the stream and the attempt's number.
async fn open(
    context: &LinkContext,
    (number, line): (TrackerNo, &TrackerLine),
    peer: PeerId,
    inbox: &mut Inbox,
) -> Option<(ChannelSender, u64)> {
    let own = &context.own;
    let (mut sender, mut answers) = context.control.open(peer, LINK_PROTOCOL).await.ok()?.split();
    let nonce = own.cluster_key.as_ref().map(|_| cluster_key::nonce());
    let attempt = fastrand::u64(..);
    sender.send(&crate::record::encode(&Introduction { number: own.number.0, nonce, attempt })).await.ok()?;
    if let (Some(key), Some(nonce)) = (&own.cluster_key, nonce) {
        answers.set_limit(MAX_STRANGER_MESSAGE);
        let proven = cluster_key::open(key, (own.peer, peer), nonce, &mut sender, &mut answers).await;
        if let (true, Err(why)) = (own.demands_key(line), proven) {
            let complaint = format!("no link with tracker {number} ({line}): {why}");
            if inbox.complaint.as_ref() != Some(&complaint) {
                tracing::warn!(%peer, "{complaint}; asking again until it proves it");
                inbox.complaint = Some(complaint);
            }
            // So that the other end does not wait.
            drop((sender, answers));
            tokio::select! {
                () = context.closing.cancelled() => {}
                () = tokio::time::sleep(UNPROVEN_PAUSE) => {}
            }
            return None;
        }
    }
    Some((sender, attempt))
}

/// Waits for a stream of the peer's on which it says that it has taken ours. A stream that ends belonged to an attempt that was
/// given up; then the next one is awaited.
async fn take(
    inbox: &mut Inbox,
    peer: PeerId,
    attempt: u64,
    sender: &mut ChannelSender,
) -> Option<ChannelReceiver> {
    let ours = [&[TAKEN][..], &attempt.to_le_bytes()].concat();
    let Inbox { arrived, newest, .. } = inbox;
    loop {
        while let Ok(later) = arrived.try_recv() {
            *newest = Some(later);
        }
        // With another key it is a stranger's, or was opened with an old key.
        newest.take_if(|candidate| candidate.peer != peer);
        let Some(candidate) = newest else {
            *newest = Some(arrived.recv().await?);
            continue;
        };
        candidate.receiver.set_limit(MAX_FRAME_BYTES + 1);
        sender.send(&[&[TAKEN][..], &candidate.attempt.to_le_bytes()].concat()).await.ok()?;
        let later = loop {
            tokio::select! {
                later = arrived.recv() => match later? {
                    later if later.peer == peer => break Some(later),
                    _ => {}
                },
                message = candidate.receiver.recv() => match message {
                    Ok(Some(message)) if message == ours => return newest.take().map(|taken| taken.receiver),
                    // It has taken an earlier one of ours, and takes this one when it sees the end of that.
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break None,
                },
            }
        };
        *newest = later;
    }
}
