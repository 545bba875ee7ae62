//! A cluster of fake trackers on real channels: as much of a tracker as a session can tell apart, with faults on demand.

#![allow(dead_code, reason = "each test program uses its part of it")]
#![allow(clippy::unwrap_used, reason = "a test's helper fails its test")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use shoal_common::credentials::{Account, SALT_BYTES, check_answer};
use shoal_common::tracker_api::{
    Answer, CLIENT_PROTOCOL, Call, FromTracker, Holding, Refusal, RefusalKind, Reply, Session, ToTracker,
};
use shoal_common::{PeerId, TrackerInfo, Uid, UserName};
use shoal_net::{Channel, Control, ControlConfig, ControlLimits, Identity, KnownTrackers, Protocol};
use shoal_session::events::{Event, Events};
use shoal_session::holdings::Holdings;
use shoal_session::tickets::TicketBook;
use shoal_session::{Session as ClientSession, SessionConfig};
use tokio::sync::{broadcast, mpsc};

mod library;
pub(crate) mod waiting;

pub(crate) use library::Library;
pub(crate) use waiting::{until, within};

/// Waits for an event that fits.
pub(crate) async fn heard(events: &mut broadcast::Receiver<Event>, wanted: impl Fn(&Event) -> bool) -> Event {
    let wait = async {
        loop {
            let event = events.recv().await.unwrap();
            if wanted(&event) {
                return event;
            }
        }
    };
    within("the event", wait).await
}

/// What all fake trackers of one test know together, as if they were always in step.
#[derive(Default)]
pub(crate) struct Cluster {
    /// Claims to names, the holder first.
    pub(crate) accounts: HashMap<UserName, Vec<(Uid, Account)>>,
    /// Tokens that any of them accepts, and whose they are.
    pub(crate) tokens: HashMap<Vec<u8>, (UserName, Uid)>,
    /// Requests that took effect.
    pub(crate) effects: HashMap<Vec<u8>, usize>,
    pub(crate) ticket_keys: Vec<PeerId>,
    /// What a tracker hands out of the others' keys.
    pub(crate) lists: HashMap<PeerId, Vec<shoal_common::vouching::SignedList>>,
    /// What a session's name becomes when it is resumed.
    pub(crate) renamed: Option<UserName>,
    /// Groups, files and who holds them.
    pub(crate) library: Library,
}

/// What one fake tracker does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Answer,
    /// Takes effect and never answers.
    Mute,
    /// Refuses as one with a full disk.
    Full,
    /// Sends bytes that are no message.
    Babble,
}

/// One fake tracker.
pub(crate) struct Tracker {
    pub(crate) control: Control,
    pub(crate) address: SocketAddr,
    pub(crate) identity: Identity,
    pub(crate) mode: Arc<Mutex<Mode>>,
    /// Calls that arrived, in order.
    pub(crate) calls: Arc<Mutex<Vec<Call>>>,
}

pub(crate) type Shared = Arc<Mutex<Cluster>>;

impl Tracker {
    pub(crate) async fn start(cluster: &Shared) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), Identity::generate(), cluster).await
    }

    /// The same tracker again, after it ended.
    pub(crate) async fn again(&self, cluster: &Shared) -> Self {
        Self::start_at(self.address, self.identity.clone(), cluster).await
    }

    pub(crate) async fn start_at(listen: SocketAddr, identity: Identity, cluster: &Shared) -> Self {
        let own = identity.peer_id();
        let config = ControlConfig {
            identity: identity.clone(),
            listen: Some(listen),
            protocols: vec![Protocol(CLIENT_PROTOCOL)],
            limits: ControlLimits::default(),
        };
        let (control, mut incoming) = Control::start(config).await.unwrap();
        let tracker = Self {
            address: control.local_addr().unwrap(),
            identity,
            control,
            mode: Arc::new(Mutex::new(Mode::Answer)),
            calls: Arc::default(),
        };
        let (mode, calls, cluster) = (tracker.mode.clone(), tracker.calls.clone(), cluster.clone());
        tokio::spawn(async move {
            while let Some(inbound) = incoming.next().await {
                let serve = serve(inbound.channel, own, mode.clone(), calls.clone(), cluster.clone());
                tokio::spawn(serve);
            }
        });
        tracker
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    pub(crate) fn count(&self, wanted: impl Fn(&Call) -> bool) -> usize {
        self.calls.lock().unwrap().iter().filter(|call| wanted(call)).count()
    }
}

async fn serve(
    mut channel: Channel,
    own: PeerId,
    mode: Arc<Mutex<Mode>>,
    calls: Arc<Mutex<Vec<Call>>>,
    cluster: Shared,
) {
    channel.set_limit(shoal_common::limits::MAX_CLIENT_MESSAGE);
    let mut caller = Caller { peer: channel.peer(), address: String::new(), user: None };
    while let Ok(Some(message)) = channel.recv().await {
        let ToTracker { call, body } = minicbor::decode(&message).unwrap();
        calls.lock().unwrap().push(body.clone());
        let mode = *mode.lock().unwrap();
        let reply = match mode {
            Mode::Full => refuse(RefusalKind::Unavailable, "the disk is full"),
            _ => answer(&body, own, &mut caller, &mut cluster.lock().unwrap()),
        };
        match mode {
            Mode::Mute => {}
            Mode::Babble => channel.send(b"\xff\xff\xff").await.unwrap(),
            _ => {
                let message = minicbor::to_vec(FromTracker { call, body: reply }).unwrap();
                if channel.send(&message).await.is_err() {
                    break;
                }
            }
        }
    }
    cluster.lock().unwrap().library.leave(caller.peer);
}

/// Who is at the other end of a channel.
pub(crate) struct Caller {
    pub(crate) peer: PeerId,
    pub(crate) address: String,
    pub(crate) user: Option<(Uid, UserName)>,
}

const CHALLENGE: [u8; 32] = [7; 32];

fn answer(call: &Call, own: PeerId, caller: &mut Caller, cluster: &mut MutexGuard<'_, Cluster>) -> Reply {
    let count = |cluster: &mut Cluster, id: &[u8]| *cluster.effects.entry(id.to_vec()).or_default() += 1;
    match call {
        Call::Hello { listen, .. } => {
            caller.address.clone_from(listen);
            Reply::Done(Answer::Welcome {
                number: 1,
                now_ms: now_ms(),
                revision: Some(1),
                lists: cluster.lists.get(&own).cloned(),
            })
        }
        Call::CreateUser { id, name, account, .. } => {
            count(cluster, &id.0);
            cluster.accounts.entry(name.clone()).or_default().push((*id, account.clone()));
            Reply::Done(Answer::Created { provisional: false })
        }
        Call::Challenge { name, candidate } => {
            let claim = cluster.accounts.get(name).and_then(|claims| claims.get(usize::from(*candidate)));
            let salt = claim.map_or([0; SALT_BYTES], |(_, account)| account.salt);
            Reply::Done(Answer::Challenge { salt, challenge: CHALLENGE })
        }
        Call::Login { name, candidate, signature } => {
            let claims = cluster.accounts.get(name).cloned().unwrap_or_default();
            let at = usize::from(*candidate);
            let Some((uid, account)) = claims.get(at) else {
                return refuse(RefusalKind::WrongPassword, "wrong user id or password");
            };
            if check_answer(account.login_key, &CHALLENGE, caller.peer, own, signature) {
                Reply::Done(Answer::LoggedIn(session(cluster, caller, name, *uid)))
            } else if at + 1 < claims.len() {
                refuse(RefusalKind::TryNext, "try the next")
            } else {
                refuse(RefusalKind::WrongPassword, "wrong user id or password")
            }
        }
        Call::Resume { token } => match cluster.tokens.get(token).cloned() {
            Some((name, uid)) => Reply::Done(Answer::LoggedIn(session(cluster, caller, &name, uid))),
            None => refuse(RefusalKind::NotLoggedIn, "log in again"),
        },
        Call::ChangePassword { request, account, .. } => {
            count(cluster, &request.0);
            let (name, uid) = cluster.tokens.values().next().cloned().unwrap();
            cluster.accounts.insert(name.clone(), vec![(uid, account.clone())]);
            cluster.tokens.clear();
            Reply::Done(Answer::LoggedIn(session(cluster, caller, &name, uid)))
        }
        Call::JoinGroup { request, .. } => {
            count(cluster, &request.0);
            Reply::Done(Answer::Ok)
        }
        Call::Renew => {
            let (uid, name) = caller.user.clone().unwrap();
            Reply::Done(Answer::LoggedIn(session(cluster, caller, &name, uid)))
        }
        Call::Logout => {
            cluster.library.leave(caller.peer);
            caller.user = None;
            Reply::Done(Answer::Ok)
        }
        Call::Announce { holdings, .. } if holdings.len() > shoal_common::limits::MAX_LIST => {
            refuse(RefusalKind::Malformed, "too many holdings in one announcement")
        }
        Call::Announce { holdings, .. } => {
            cluster.library.announce(caller, holdings);
            Reply::Done(Answer::Announced { unknown: cluster.library.unknown(caller, holdings) })
        }
        Call::TicketKeys => Reply::Done(Answer::TicketKeys(cluster.ticket_keys.clone())),
        other => cluster.library.answer(other, caller),
    }
}

fn session(cluster: &mut Cluster, caller: &mut Caller, name: &UserName, uid: Uid) -> Box<Session> {
    caller.user = Some((uid, name.clone()));
    let token = Uid::random().0.to_vec();
    let account = cluster.accounts[name].iter().find(|(id, _)| *id == uid).unwrap().1.clone();
    cluster.tokens.insert(token.clone(), (name.clone(), uid));
    Box::new(Session {
        user: uid,
        name: cluster.renamed.clone().unwrap_or_else(|| name.clone()),
        provisional: false,
        token,
        now_ms: now_ms(),
        tickets: cluster.library.tickets(caller, now_ms()),
        ticket_keys: cluster.library.ticket_keys(),
        account,
    })
}

pub(crate) fn refuse(kind: RefusalKind, text: &str) -> Reply {
    Reply::Refused(Refusal { kind, text: text.into(), retry_after_ms: None })
}

pub(crate) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A client's session with everything around it that a test looks at.
pub(crate) struct Client {
    pub(crate) session: ClientSession,
    pub(crate) unknown: mpsc::Receiver<Vec<Holding>>,
    pub(crate) events: broadcast::Receiver<Event>,
    pub(crate) holdings: Holdings,
    pub(crate) tickets: TicketBook,
    control: Control,
    /// Where it remembers the trackers' keys.
    _folder: tempfile::TempDir,
}

impl Client {
    pub(crate) async fn start(trackers: &[SocketAddr]) -> Self {
        let identity = Identity::generate();
        let own = identity.peer_id();
        let limits = ControlLimits::default();
        let config = ControlConfig { identity, listen: None, protocols: vec![], limits };
        let (control, _) = Control::start(config).await.unwrap();
        let text: Vec<String> = trackers.iter().map(ToString::to_string).collect();
        let (folder, info) = (tempfile::tempdir().unwrap(), TrackerInfo::parse(&text.join("\n")).unwrap());
        let (events, holdings, tickets) = (Events::default(), Holdings::default(), TicketBook::new(own));
        let heard = events.listen();
        let (session, unknown) = ClientSession::start(SessionConfig {
            ways: None,
            control: control.clone(),
            own,
            known: KnownTrackers::open(folder.path(), &info, None).unwrap(),
            trackers: info,
            listen: "127.0.0.1:1".into(),
            tickets: tickets.clone(),
            holdings: holdings.clone(),
            events,
        });
        Self { session, unknown, events: heard, holdings, tickets, control, _folder: folder }
    }

    /// Waits for an event that fits.
    pub(crate) async fn event(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        heard(&mut self.events, wanted).await
    }

    /// Ends the session; no task is left then.
    pub(crate) async fn end(self) {
        within("the end of the session", self.session.shutdown()).await;
        self.control.shutdown().await;
    }
}
