//! A cluster of real trackers on loopback, and a hand-made client that speaks their protocol.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers: every binary uses its own part, and a panic is how a test fails"
)]

pub mod liar;
pub mod server;

use std::path::Path;
use std::time::{Duration, Instant};

use shoal_common::credentials::Secrets;
use shoal_common::limits::MAX_CLIENT_MESSAGE;
use shoal_common::tracker_api::{
    Answer, CLIENT_PROTOCOL, Call, FromTracker, REVISION, Refusal, Reply, Session, ToTracker,
};
use shoal_common::{Gid, GroupName, PeerId, TrackerInfo, Uid, UserName};
use shoal_net::{Channel, Control, ControlConfig, ControlLimits, Identity, Protocol};
pub use shoal_tests::free_ports;
use shoal_tracker::tracker::{Tracker, TrackerConfig};

/// How long a condition may take to come true.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn info(ports: &[u16]) -> TrackerInfo {
    let lines: Vec<String> = ports.iter().map(|port| format!("127.0.0.1 {port}")).collect();
    TrackerInfo::parse(&lines.join("\n")).unwrap()
}

pub async fn start(dir: &Path, ports: &[u16], number: u8) -> Tracker {
    Tracker::start(config(dir, ports, number)).await.unwrap()
}

/// How the tracker of that number of a cluster on these ports is started, in a folder of its own in `dir`.
pub fn config(dir: &Path, ports: &[u16], number: u8) -> TrackerConfig {
    TrackerConfig::new(info(ports), "tracker_info.txt".into(), number, dir.join(number.to_string()))
}

/// Waits until the tracker says that it is in sync with `others` trackers.
pub async fn in_sync(tracker: &Tracker, others: usize) {
    until("in sync", async || {
        let status = tracker.status().await.unwrap();
        status.members.iter().filter(|member| member.connected && member.in_sync).count() == others
    })
    .await;
}

/// Waits until a condition is true.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A client made by hand.
pub struct Client {
    pub identity: Identity,
    pub tracker: PeerId,
    control: Control,
    channel: Channel,
    calls: u32,
    /// Who is logged in.
    pub user: Option<Uid>,
}

impl Client {
    pub async fn connect(port: u16) -> Self {
        Self::connect_as(Identity::generate(), port).await
    }

    pub async fn connect_as(identity: Identity, port: u16) -> Self {
        let config = ControlConfig {
            identity: identity.clone(),
            listen: None,
            protocols: vec![],
            limits: ControlLimits::default(),
        };
        let (control, _) = Control::start(config).await.unwrap();
        let tracker = control.dial("127.0.0.1", port, None).await.unwrap();
        let mut channel = control.open(tracker, Protocol(CLIENT_PROTOCOL)).await.unwrap();
        channel.set_limit(MAX_CLIENT_MESSAGE);
        let mut client = Self { identity, tracker, control, channel, calls: 0, user: None };
        client.ok(Call::Hello { listen: "127.0.0.1:7777".into(), revision: Some(REVISION) }).await;
        client
    }

    pub async fn call(&mut self, body: Call) -> Result<Answer, Refusal> {
        self.calls += 1;
        let call = self.calls;
        self.channel.send(&minicbor::to_vec(ToTracker { call, body }).unwrap()).await.unwrap();
        let message = tokio::time::timeout(PATIENCE, self.channel.recv()).await.unwrap().unwrap().unwrap();
        let answer: FromTracker = minicbor::decode(&message).unwrap();
        assert_eq!(answer.call, call);
        match answer.body {
            Reply::Done(answer) => Ok(answer),
            Reply::Refused(refusal) => Err(refusal),
        }
    }

    pub async fn ok(&mut self, body: Call) -> Answer {
        self.call(body.clone()).await.unwrap_or_else(|refusal| panic!("{body:?}: {}", refusal.text))
    }

    pub async fn refused(&mut self, body: Call) -> Refusal {
        match self.call(body.clone()).await {
            Err(refusal) => refusal,
            Ok(answer) => panic!("{body:?} was done: {answer:?}"),
        }
    }

    pub async fn create_user(&mut self, name: &str, password: &str) -> (Uid, bool) {
        let (_, _, account) = Secrets::create(password).unwrap();
        let (id, call) = Call::create_user(user(name), account);
        match self.ok(call).await {
            Answer::Created { provisional } => (id, provisional),
            other => panic!("{other:?}"),
        }
    }

    pub async fn login(&mut self, name: &str, password: &str) -> Result<Session, Refusal> {
        let mut candidate = 0;
        loop {
            let challenge = Call::Challenge { name: user(name), candidate };
            let Answer::Challenge { salt, challenge } = self.call(challenge).await? else {
                panic!("no challenge")
            };
            let secrets = Secrets::derive(password, &salt).unwrap();
            let signature = secrets.answer(&challenge, self.identity.peer_id(), self.tracker);
            match self.call(Call::Login { name: user(name), candidate, signature }).await {
                Ok(Answer::LoggedIn(session)) => {
                    self.user = Some(session.user);
                    return Ok(*session);
                }
                Ok(other) => panic!("{other:?}"),
                Err(refusal) if refusal.kind == shoal_common::tracker_api::RefusalKind::TryNext => {
                    candidate += 1
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// Creates an account and logs in.
    pub async fn enter(&mut self, name: &str) -> Session {
        self.create_user(name, "secret").await;
        self.login(name, "secret").await.unwrap()
    }

    /// Creates an account and logs in, unless the tracker refuses either.
    pub async fn try_enter(&mut self, name: &str) -> Result<Session, Refusal> {
        let (_, _, account) = Secrets::create("secret").unwrap();
        self.call(Call::create_user(user(name), account).1).await?;
        self.login(name, "secret").await
    }

    pub async fn create_group(&mut self, name: &str) -> Gid {
        self.found(name).await.0
    }

    /// Creates a group, and says whether its name is provisional.
    pub async fn found(&mut self, name: &str) -> (Gid, bool) {
        let (id, call) = Call::create_group(self.user.unwrap(), group(name));
        match self.ok(call).await {
            Answer::Created { provisional } => (id, provisional),
            other => panic!("{other:?}"),
        }
    }

    pub async fn close(self) {
        self.control.shutdown().await;
    }
}

pub fn user(name: &str) -> UserName {
    UserName::refer(name).unwrap()
}

pub fn group(name: &str) -> GroupName {
    GroupName::refer(name).unwrap()
}

/// Waits until something is found.
pub async fn until_heard<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "nothing was heard within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
