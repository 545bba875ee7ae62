//! A client made by hand: it speaks the protocols itself, and so can do what the real one never would.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use shoal_common::credentials::{SALT_BYTES, Secrets};
use shoal_common::limits::{MAX_CLIENT_MESSAGE, MAX_PEER_DATA, MAX_PEER_MESSAGE};
use shoal_common::peer_wire::{DATA, DataHead, TO_REQUESTER, TO_SERVER, ToRequester, ToServer};
use shoal_common::tracker_api::{
    Answer, CLIENT_PROTOCOL, Call, FromTracker, REVISION, Refusal, RefusalKind, Reply, Session, ToTracker,
};
use shoal_common::{Fid, FileName, Gid, GroupName, Manifest, PeerId, RequestId, Uid, UserName};
use shoal_net::bulk::frame::{FrameError, FrameReader, FrameWriter};
use shoal_net::bulk::{self, BulkError, BulkReader, BulkWriter};
use shoal_net::{Channel, Control, ControlConfig, ControlLimits, Identity, Protocol};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::timeout;

use crate::{PATIENCE, free_port};

/// Where a tracker is reached: a port of this machine where that is all that is given.
#[derive(Debug, Clone, Copy)]
pub struct TrackerAddress(pub SocketAddr);

impl From<u16> for TrackerAddress {
    fn from(port: u16) -> Self {
        Self(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }
}

impl From<SocketAddr> for TrackerAddress {
    fn from(address: SocketAddr) -> Self {
        Self(address)
    }
}

/// A hand-made client, connected to one tracker.
pub struct Member {
    identity: Identity,
    tracker: PeerId,
    listen: SocketAddr,
    channel: Channel,
    calls: u32,
    user: Option<Uid>,
    // Last, so that everything that runs on it is dropped first.
    _control: Control,
    runtime: Runtime,
}

impl Member {
    /// Connects to the tracker there, under a new key.
    #[must_use]
    pub fn connect(tracker: impl Into<TrackerAddress>) -> Self {
        Self::connect_as(Identity::generate(), tracker)
    }

    /// Connects under that key.
    #[must_use]
    pub fn connect_as(identity: Identity, tracker: impl Into<TrackerAddress>) -> Self {
        Self::try_connect_as(identity, tracker.into().0).unwrap()
    }

    /// Connects under a new key to a tracker that may be dying.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn try_connect(tracker: impl Into<TrackerAddress>) -> Result<Self, String> {
        Self::try_connect_as(Identity::generate(), tracker.into().0)
    }

    fn try_connect_as(identity: Identity, at: SocketAddr) -> Result<Self, String> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listen = SocketAddr::new(own_address(at), free_port());
        let connected = runtime.block_on(async {
            let config = ControlConfig {
                identity: identity.clone(),
                listen: None,
                protocols: vec![],
                limits: ControlLimits::default(),
            };
            let (control, _) = Control::start(config).await.unwrap();
            let tracker = control.dial(&at.ip().to_string(), at.port(), None).await;
            let tracker = tracker.map_err(|error| error.to_string())?;
            let channel = control.open(tracker, Protocol(CLIENT_PROTOCOL)).await;
            let mut channel = channel.map_err(|error| error.to_string())?;
            channel.set_limit(MAX_CLIENT_MESSAGE);
            Ok::<_, String>((control, tracker, channel))
        });
        let (control, tracker, channel) = connected?;
        let mut member =
            Self { identity, tracker, listen, channel, calls: 0, user: None, _control: control, runtime };
        let hello = member.try_call(Call::Hello { listen: listen.to_string(), revision: Some(REVISION) })?;
        hello.map_err(|refusal| refusal.text)?;
        Ok(member)
    }

    /// Asks a tracker that may be dying.
    ///
    /// # Errors
    /// When no answer comes; what became of the call is then unknown.
    pub fn try_call(&mut self, body: Call) -> Result<Result<Answer, Refusal>, String> {
        self.calls += 1;
        self.runtime.block_on(async {
            let message = minicbor::to_vec(ToTracker { call: self.calls, body }).unwrap();
            self.channel.send(&message).await.map_err(|error| error.to_string())?;
            let answer = timeout(PATIENCE, self.channel.recv()).await.map_err(|_| "silence".to_owned())?;
            let answer = answer.map_err(|error| error.to_string())?.ok_or("the end")?;
            let answer: FromTracker = minicbor::decode(&answer).map_err(|error| error.to_string())?;
            Ok(match answer.body {
                Reply::Done(answer) => Ok(answer),
                Reply::Refused(refusal) => Err(refusal),
            })
        })
    }

    /// Whether the tracker closes the connection within that time, without being asked for anything.
    pub fn is_left_within(&mut self, patience: Duration) -> bool {
        self.runtime.block_on(async {
            let end = timeout(patience, self.channel.recv()).await;
            matches!(end, Ok(Ok(None) | Err(_)))
        })
    }

    /// Its key.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where it serves, as it announced.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// What its tasks run on.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        self.runtime.handle()
    }

    /// Asks the tracker.
    ///
    /// # Errors
    /// When the tracker refuses.
    pub fn call(&mut self, body: Call) -> Result<Answer, Refusal> {
        self.calls_at_once(vec![body]).remove(0)
    }

    /// Asks the tracker many things without waiting in between; the answers are in the order of the calls.
    pub fn calls_at_once(&mut self, bodies: Vec<Call>) -> Vec<Result<Answer, Refusal>> {
        let (first, count) = (self.calls, bodies.len());
        let mut answers = vec![None; count];
        self.runtime.block_on(async {
            for body in bodies {
                self.calls += 1;
                let message = ToTracker { call: self.calls, body };
                self.channel.send(&minicbor::to_vec(message).unwrap()).await.unwrap();
            }
            for _ in 0..count {
                let message = timeout(PATIENCE, self.channel.recv()).await.unwrap().unwrap().unwrap();
                let answer: FromTracker = minicbor::decode(&message).unwrap();
                answers[(answer.call - first - 1) as usize] = Some(match answer.body {
                    Reply::Done(answer) => Ok(answer),
                    Reply::Refused(refusal) => Err(refusal),
                });
            }
        });
        answers.into_iter().map(Option::unwrap).collect()
    }

    /// Asks the tracker what it must do.
    pub fn done(&mut self, body: Call) -> Answer {
        self.call(body.clone()).unwrap_or_else(|refusal| panic!("{body:?}: {}", refusal.text))
    }

    /// Asks the tracker what it must refuse.
    pub fn refused(&mut self, body: Call) -> Refusal {
        match self.call(body.clone()) {
            Err(refusal) => refusal,
            Ok(answer) => panic!("{body:?} was done: {answer:?}"),
        }
    }

    /// Creates an account; says whether its name is provisional.
    pub fn create_user(&mut self, name: &str, password: &str) -> bool {
        let (_, _, account) = Secrets::create(password).unwrap();
        let name = UserName::create(name).unwrap();
        match self.done(Call::create_user(name, account).1) {
            Answer::Created { provisional } => provisional,
            other => panic!("{other:?}"),
        }
    }

    /// Founds a group, for the user who is logged in; gives its id, and says whether its name is provisional.
    pub fn create_group(&mut self, name: &str) -> (Gid, bool) {
        let (id, call) = Call::create_group(self.user.unwrap(), GroupName::create(name).unwrap());
        match self.done(call) {
            Answer::Created { provisional } => (id, provisional),
            other => panic!("{other:?}"),
        }
    }

    /// Logs in.
    ///
    /// # Errors
    /// When the tracker refuses.
    pub fn login(&mut self, name: &str, password: &str) -> Result<Session, Refusal> {
        self.login_by(name, &mut |salt| Arc::new(Secrets::derive(password, salt).unwrap()))
    }

    /// Logs in with what `derive` makes of the password and the salt: for many clients of one account it is the same.
    ///
    /// # Errors
    /// When the tracker refuses.
    pub fn login_by(
        &mut self,
        name: &str,
        derive: &mut impl FnMut(&[u8; SALT_BYTES]) -> Arc<Secrets>,
    ) -> Result<Session, Refusal> {
        let name = UserName::refer(name).unwrap();
        let mut candidate = 0;
        loop {
            let Answer::Challenge { salt, challenge } =
                self.call(Call::Challenge { name: name.clone(), candidate })?
            else {
                panic!("no challenge")
            };
            let signature = derive(&salt).answer(&challenge, self.identity.peer_id(), self.tracker);
            match self.call(Call::Login { name: name.clone(), candidate, signature }) {
                Ok(Answer::LoggedIn(session)) => {
                    self.user = Some(session.user);
                    return Ok(*session);
                }
                Ok(other) => panic!("{other:?}"),
                Err(refusal) if refusal.kind == RefusalKind::TryNext => candidate += 1,
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// Replaces the password of the user who is logged in; gives the session that goes on.
    pub fn change_password(&mut self, name: &str, old: &str, new: &str) -> Session {
        self.try_change_password(name, old, new).unwrap_or_else(|refusal| panic!("{}", refusal.text))
    }

    /// Replaces the password of the user who is logged in, if that is the present one.
    ///
    /// # Errors
    /// When the tracker refuses.
    pub fn try_change_password(&mut self, name: &str, old: &str, new: &str) -> Result<Session, Refusal> {
        let challenge = Call::Challenge { name: UserName::refer(name).unwrap(), candidate: 0 };
        let Answer::Challenge { salt, challenge } = self.call(challenge)? else { panic!("no challenge") };
        let secrets = Secrets::derive(old, &salt).unwrap();
        let signature = secrets.answer(&challenge, self.identity.peer_id(), self.tracker);
        let (_, _, account) = Secrets::create(new).unwrap();
        let change = Some(secrets.sign_change(self.user.unwrap(), &account.digest()));
        match self.call(Call::ChangePassword { request: RequestId::random(), signature, account, change })? {
            Answer::LoggedIn(session) => Ok(*session),
            other => panic!("{other:?}"),
        }
    }

    /// Creates an account and logs in.
    pub fn enter(&mut self, name: &str) -> Session {
        self.create_user(name, "secret");
        self.login(name, "secret").unwrap()
    }

    /// Files a join request.
    pub fn join(&mut self, group: &str) {
        self.done(Call::JoinGroup { request: RequestId::random(), group: GroupName::refer(group).unwrap() });
    }

    /// The session as it is now, with a ticket for each group.
    pub fn renew(&mut self) -> Session {
        match self.done(Call::Renew) {
            Answer::LoggedIn(session) => *session,
            other => panic!("{other:?}"),
        }
    }

    /// The ticket for a group of that name.
    pub fn ticket(&mut self, group: &str) -> (Gid, Vec<u8>) {
        let session = self.renew();
        let ticket = session.tickets.into_iter().find(|ticket| ticket.name.as_str() == group);
        let ticket = ticket.unwrap_or_else(|| panic!("no ticket for {group}"));
        (ticket.group, ticket.ticket)
    }

    /// Looks a file up.
    pub fn find(&mut self, group: &str, file: &str) -> (Gid, Fid, Manifest) {
        let call =
            Call::Find { group: GroupName::refer(group).unwrap(), file: FileName::refer(file).unwrap() };
        match self.done(call) {
            Answer::Found { group, file, manifest } => (group, file, *manifest),
            other => panic!("{other:?}"),
        }
    }

    /// Connects to a peer's bulk lane at that port of this machine.
    #[must_use]
    pub fn dial_peer(&self, port: u16, peer: PeerId) -> Wire {
        self.try_dial_peer(port, peer).unwrap()
    }

    /// Connects to a peer that may have too much to do.
    ///
    /// # Errors
    /// When no connection comes about.
    pub fn try_dial_peer(&self, port: u16, peer: PeerId) -> Result<Wire, BulkError> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = self.runtime.block_on(async { bulk::connect(address, peer, &self.identity).await })?;
        let (reader, writer) = stream.into_split();
        let reader = FrameReader::new(reader, u32::try_from(MAX_PEER_DATA + DataHead::BYTES).unwrap());
        Ok(Wire { runtime: self.runtime.handle().clone(), reader, writer: FrameWriter::new(writer) })
    }
}

/// What a peer sends to a requester of pieces.
#[derive(Debug)]
pub enum Heard {
    /// A message.
    Said(ToRequester),
    /// A block of a piece.
    Block(DataHead, Vec<u8>),
}

/// A bulk connection, as the one who asks for pieces.
pub struct Wire {
    runtime: Handle,
    reader: FrameReader<BulkReader>,
    writer: FrameWriter<BulkWriter>,
}

impl Wire {
    /// Sends a message.
    pub fn say(&mut self, message: &ToServer) {
        let bytes = minicbor::to_vec(message).unwrap();
        self.say_raw(TO_SERVER, &bytes);
    }

    /// Sends a frame, whatever it means.
    pub fn say_raw(&mut self, kind: u8, payload: &[u8]) {
        self.runtime.block_on(async {
            // The other side may have hung up, which the next answer shows.
            if self.writer.control(kind, payload).await.is_ok() {
                let _ = self.writer.flush().await;
            }
        });
    }

    /// The next message; `Ok(None)` for a block of a piece.
    ///
    /// # Errors
    /// When the connection ended, or nothing comes within `patience`.
    pub fn hear(&mut self, patience: Duration) -> Result<Option<ToRequester>, String> {
        match self.hear_all(patience)? {
            Heard::Said(message) => Ok(Some(message)),
            Heard::Block(..) => Ok(None),
        }
    }

    /// The next message or block.
    ///
    /// # Errors
    /// When the connection ended, or nothing comes within `patience`.
    pub fn hear_all(&mut self, patience: Duration) -> Result<Heard, String> {
        self.runtime.block_on(async {
            let next = timeout(patience, self.reader.next()).await.map_err(|_| "silence".to_owned())?;
            let header = next.map_err(|error| error.to_string())?.ok_or("the end")?;
            let said = |error: FrameError| error.to_string();
            if header.kind == DATA {
                let mut head = [0; DataHead::BYTES];
                self.reader.read_into(&mut head).await.map_err(said)?;
                let mut block = vec![0; self.reader.remaining()];
                self.reader.read_into(&mut block).await.map_err(said)?;
                return Ok(Heard::Block(DataHead::from_bytes(&head), block));
            }
            assert_eq!(header.kind, TO_REQUESTER);
            let payload = self.reader.payload(MAX_PEER_MESSAGE).await.map_err(said)?;
            Ok(Heard::Said(minicbor::decode(&payload).unwrap()))
        })
    }

    /// Opens a file with a ticket and asks for its first piece at once; gives the answers up to a refusal, a block of the
    /// piece, the end, or a silence of that length.
    pub fn try_for_a_piece(
        &mut self,
        (group, file): (Gid, Fid),
        ticket: &[u8],
        patience: Duration,
    ) -> Vec<String> {
        self.say(&ToServer::Open { channel: 1, group, file, ticket: ticket.to_vec() });
        self.say(&ToServer::Request { channel: 1, piece: 0 });
        let mut heard = Vec::new();
        loop {
            match self.hear(patience) {
                Ok(Some(ToRequester::Refused { reason, .. })) => {
                    heard.push(format!("refused: {reason:?}"));
                    return heard;
                }
                Ok(Some(ToRequester::Opened { .. })) => heard.push("opened".into()),
                Ok(Some(_)) => {}
                Ok(None) => {
                    heard.push("a piece".into());
                    return heard;
                }
                Err(end) => {
                    heard.push(end);
                    return heard;
                }
            }
        }
    }
}

/// This machine's address as the tracker sees it.
fn own_address(tracker: SocketAddr) -> IpAddr {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    // Sends nothing.
    socket.connect(tracker).unwrap();
    socket.local_addr().unwrap().ip()
}
