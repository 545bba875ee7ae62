//! What is known of ways to and from this client, and what is asked of trackers about them.
//!
//! The session writes what trackers say, and carries what is asked to them. The swarm asks, and takes the requests of others. The
//! client says on which networks this machine is.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_common::tracker_api::ways::{MAX_LAN, Meeting, Push, WayAnswer, WayCall};
use shoal_common::{PeerId, TrackerInfo};
use shoal_net::Interface;
use shoal_net::bulk::Relayed;
use tokio::sync::{mpsc, oneshot, watch};

/// Questions that wait for a tracker; what comes beyond them is not asked.
const MAX_ASKED: usize = 64;
/// Requests of other clients that wait; more are dropped, and come again.
const MAX_KNOCKS: usize = 64;

/// How others reach this client, as far as a tracker said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// `ip:port` that others are given; none before a tracker said so.
    pub address: Option<String>,
    /// Whether that is where this client's connection comes from. Nobody looks whether a foreign address leads here.
    pub proven: bool,
    /// Whether the tracker reached this client there; none while it is not known.
    pub reached: Option<bool>,
    /// Whether the tracker passes on what two clients say that cannot connect.
    pub relays: bool,
}

/// Another client asks this one to connect to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knocked {
    /// A signed [`shoal_common::tokens::Knock`], not judged yet.
    pub knock: Vec<u8>,
    /// Where to meet; without it the client is to be dialled.
    pub meeting: Option<Meeting>,
}

/// See the module. Clones are one.
#[derive(Debug, Clone)]
pub struct Ways(Arc<WaysState>);

/// A question, and where its answer goes.
pub(crate) type Question = (WayCall, oneshot::Sender<Option<WayAnswer>>);

#[derive(Debug)]
struct WaysState {
    own: PeerId,
    trackers: TrackerInfo,
    reach: watch::Sender<Reach>,
    local: Mutex<Local>,
    ask: mpsc::Sender<Question>,
    questions: Mutex<Option<mpsc::Receiver<Question>>>,
    knock: mpsc::Sender<Knocked>,
    knocks: Mutex<Option<mpsc::Receiver<Knocked>>>,
}

/// Where this client is on its own networks.
#[derive(Debug, Default)]
struct Local {
    networks: Vec<Interface>,
    addresses: Vec<SocketAddr>,
}

impl Ways {
    /// Nothing is known yet. `own` is this client's key.
    #[must_use]
    pub fn new(own: PeerId, trackers: TrackerInfo) -> Self {
        let (ask, questions) = mpsc::channel(MAX_ASKED);
        let (knock, knocks) = mpsc::channel(MAX_KNOCKS);
        Self(Arc::new(WaysState {
            own,
            trackers,
            reach: watch::Sender::new(Reach::default()),
            local: Mutex::default(),
            ask,
            questions: Mutex::new(Some(questions)),
            knock,
            knocks: Mutex::new(Some(knocks)),
        }))
    }

    /// This client's key.
    #[must_use]
    pub fn own(&self) -> PeerId {
        self.0.own
    }

    /// This machine has these addresses now, and the client listens at those of them. True if that is news.
    pub fn is_at(&self, networks: Vec<Interface>, mut addresses: Vec<SocketAddr>) -> bool {
        addresses.truncate(MAX_LAN);
        let mut local = self.local();
        let news = local.networks != networks || local.addresses != addresses;
        *local = Local { networks, addresses };
        news
    }

    /// Whether an address is in one of this machine's own networks, and not its own.
    #[must_use]
    pub fn is_near(&self, ip: IpAddr) -> bool {
        let local = self.local();
        let own = local.networks.iter().any(|network| network.ip == ip.to_canonical());
        !own && local.networks.iter().any(|network| network.reaches(ip))
    }

    /// Where this client listens on its own networks, as trackers are told.
    #[must_use]
    pub fn near(&self) -> Vec<String> {
        self.local().addresses.iter().map(ToString::to_string).collect()
    }

    /// How others reach this client, now and later.
    #[must_use]
    pub fn reach(&self) -> watch::Receiver<Reach> {
        self.0.reach.subscribe()
    }

    /// Asks a tracker. Nothing if none takes it. Dropping the future leaves the question under way.
    pub async fn ask(&self, call: WayCall) -> Option<WayAnswer> {
        let (reply, answer) = oneshot::channel();
        self.0.ask.try_send((call, reply)).ok()?;
        answer.await.ok().flatten()
    }

    /// Where a meeting is, if this client knows that tracker. A tracker cannot say where another one is.
    #[must_use]
    pub fn place_of(&self, meeting: &Meeting) -> Option<Relayed> {
        let line = self.0.trackers.tracker(meeting.tracker)?;
        Some(Relayed { host: line.host.clone(), port: line.port, token: meeting.token })
    }

    /// The requests of other clients. There is one receiver: `None` when it was taken already.
    #[must_use]
    pub fn knocks(&self) -> Option<mpsc::Receiver<Knocked>> {
        self.0.knocks.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What the session carries to trackers; taken once.
    pub(crate) fn questions(&self) -> Option<mpsc::Receiver<Question>> {
        self.0.questions.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A tracker said where others are told to reach this client.
    pub(crate) fn here(&self, address: String, proven: bool, relays: bool) {
        self.0.reach.send_if_modified(|reach| {
            let reached = if reach.address.as_ref() == Some(&address) { reach.reached } else { None };
            let now = Reach { address: Some(address), proven, reached, relays };
            std::mem::replace(reach, now.clone()) != now
        });
    }

    /// A tracker speaks without being asked.
    pub(crate) fn pushed(&self, push: Push) {
        match push {
            Push::Reached { address, reached } => {
                self.0.reach.send_if_modified(|reach| {
                    // What is said of an earlier address says nothing any more.
                    let news = reach.address.as_ref().is_none_or(|now| *now == address)
                        && reach.reached != Some(reached);
                    if news {
                        reach.reached = Some(reached);
                    }
                    news
                });
            }
            Push::Knock { knock, meeting } => {
                if self.0.knock.try_send(Knocked { knock, meeting }).is_err() {
                    tracing::debug!("too many clients ask this one to connect; one more is not heard");
                }
            }
        }
    }

    fn local(&self) -> MutexGuard<'_, Local> {
        self.0.local.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
