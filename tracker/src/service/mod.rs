//! Answers clients: one function a call, one file a family of commands. What must be remembered of a connection lives
//! in [`Client`]; everything durable goes through the core.

mod accounts;
mod files;
mod groups;
mod names;
mod storage;
mod throttle;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use shoal_common::credentials::{Account, CHALLENGE_BYTES, check_answer};
use shoal_common::tokens::{self, LONGEST_TICKET_MS, SESSION_LIFE_MS, SessionToken};
use shoal_common::tracker_api::storage::StoreCall;
use shoal_common::tracker_api::{Answer, Call, Refusal, RefusalKind, Reply};
use shoal_common::{PeerId, Uid, UserName};
use shoal_net::Identity;
use shoal_replica::{NameSpace, TrackerNo};

use crate::core::{Core, Fault, refuse};
use crate::presence::Presence;
use crate::storage::Storage;
use crate::trust::Trust;
use accounts::Facts;
use storage::NodeSession;
use throttle::Throttle;

/// What answers clients. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    core: Core,
    presence: Presence,
    storage: Storage,
    identity: Identity,
    number: TrackerNo,
    trust: Trust,
    throttle: Arc<Mutex<Throttle>>,
}

/// What is remembered of one connection.
pub struct Client {
    peer: PeerId,
    remote: SocketAddr,
    listen: Option<SocketAddr>,
    challenge: Option<[u8; CHALLENGE_BYTES]>,
    session: Option<Session>,
    node: Option<NodeSession>,
}

/// Who is logged in on a connection.
#[derive(Debug, Clone, Copy)]
struct Session {
    user: Uid,
    login_key: PeerId,
    /// Tells this login's presence from that of an earlier connection.
    epoch: u64,
}

impl Client {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(peer: PeerId, remote: SocketAddr) -> Self {
        Self { peer, remote, listen: None, challenge: None, session: None, node: None }
    }

    /// Whether somebody is logged in or a storage node registered, and may therefore send large messages.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.session.is_some() || self.node.is_some()
    }

    fn user(&self) -> Result<Uid, Refusal> {
        self.session.map(|session| session.user).ok_or_else(not_logged_in)
    }
}

impl Service {
    /// The service of the tracker of that number.
    #[must_use]
    pub fn new(
        core: Core,
        presence: Presence,
        storage: Storage,
        identity: Identity,
        number: TrackerNo,
        trust: Trust,
    ) -> Self {
        Self { core, presence, storage, identity, number, trust, throttle: Arc::default() }
    }

    /// Answers a call. Dropping the future leaves what was written in place.
    pub async fn answer(&self, client: &mut Client, call: Call) -> Reply {
        match self.dispatch(client, call).await {
            Ok(answer) => Reply::Done(answer),
            Err(refusal) => Reply::Refused(refusal),
        }
    }

    /// A connection ended: its client is offline, its storage node is not up.
    pub fn gone(&self, client: &Client) {
        self.node_gone(client);
        self.offline(client);
    }

    fn offline(&self, client: &Client) {
        if let Some(session) = client.session {
            self.presence.offline(client.peer, session.epoch);
        }
    }

    async fn dispatch(&self, client: &mut Client, call: Call) -> Result<Answer, Refusal> {
        if client.listen.is_none() && !matches!(call, Call::Hello { .. }) {
            return Err(refusal(RefusalKind::Malformed, "a connection begins with Hello"));
        }
        match call {
            Call::Hello { listen } => self.hello(client, &listen).await,
            Call::CreateUser { id, name, account } => self.create_user(id, name, account).await,
            Call::Challenge { name, candidate } => self.challenge(client, name, candidate).await,
            Call::Login { name, candidate, signature } => {
                self.login(client, name, candidate, signature).await
            }
            Call::Resume { token } => self.resume(client, token).await,
            Call::Renew => self.renew(client).await,
            Call::Logout => {
                self.offline(client);
                client.session = None;
                Ok(Answer::Ok)
            }
            Call::ChangePassword { request: _, signature, account } => {
                self.change_password(client, signature, account).await
            }
            Call::ListGroups { after } => {
                let caller = client.user().ok();
                self.core.read(move |tx| groups::list(tx, caller, after.as_ref())).await
            }
            Call::Node(call) => self.for_node(client, call).await,
            Call::Store(StoreCall::Nodes) => Ok(self.storage_nodes()),
            Call::Store(call) => self.about_store(client.user()?, client.peer, call).await,
            call => {
                let (caller, peer) = (client.user()?, client.peer);
                self.for_user(caller, peer, call).await
            }
        }
    }

    /// Calls that need a login.
    async fn for_user(&self, caller: Uid, peer: PeerId, call: Call) -> Result<Answer, Refusal> {
        let core = &self.core;
        let presence = self.presence.clone();
        match call {
            Call::CreateGroup { id, name } => {
                let wanted = name.clone();
                core.run(move |tx| groups::create(tx, caller, id, &wanted)).await?;
                let space = NameSpace::Group;
                let provisional =
                    core.read(move |tx| accounts::is_provisional(tx, space, name.as_str(), id.0)).await?;
                Ok(Answer::Created { provisional })
            }
            Call::JoinGroup { request, group } => {
                core.run(move |tx| groups::join(tx, caller, request, &group)).await.map(|()| Answer::Ok)
            }
            Call::LeaveGroup { request, group } => {
                core.run(move |tx| groups::leave(tx, caller, request, &group)).await.map(|()| Answer::Ok)
            }
            Call::ListRequests { group, after } => {
                core.read(move |tx| groups::list_requests(tx, caller, &group, after.as_ref())).await
            }
            Call::Decide { request, group, user, accept } => core
                .run(move |tx| groups::decide(tx, caller, request, &group, &user, accept))
                .await
                .map(|()| Answer::Ok),
            Call::ListMembers { group, after } => {
                core.read(move |tx| groups::list_members(tx, caller, &group, after.as_ref())).await
            }
            call => self.about_files(caller, peer, presence, call).await,
        }
    }

    async fn about_files(
        &self,
        caller: Uid,
        peer: PeerId,
        presence: Presence,
        call: Call,
    ) -> Result<Answer, Refusal> {
        let core = &self.core;
        match call {
            Call::ListFiles { group, after } => {
                core.read(move |tx| files::list(tx, &presence, caller, &group, after.as_ref())).await
            }
            Call::Share { request, group, manifest, piece_list } => {
                let shared = core.run(move |tx| {
                    let new = files::NewShare { request, group: &group, manifest, piece_list };
                    files::share(tx, caller, peer, new)
                });
                shared.await.map(|(group, file)| Answer::Shared { group, file })
            }
            Call::ShareKnown { request, group, file } => core
                .run(move |tx| files::share_known(tx, caller, peer, request, (group, file)))
                .await
                .map(|()| Answer::Ok),
            Call::StopShare { request: _, group, file } => core
                .run(move |tx| files::stop_share(tx, caller, peer, (group, file)))
                .await
                .map(|()| Answer::Ok),
            Call::Find { group, file } => core.read(move |tx| files::find(tx, caller, &group, &file)).await,
            Call::PieceList { group, file } => {
                core.read(move |tx| files::piece_list(tx, caller, group, file)).await
            }
            Call::Holders { group, file } => {
                core.read(move |tx| files::holders(tx, &presence, (caller, peer), (group, file))).await
            }
            Call::Announce { anew, holdings } => {
                core.read(move |tx| files::announce(tx, &presence, (caller, peer), anew, holdings)).await
            }
            Call::TicketKeys => Ok(Answer::TicketKeys(self.trust.keys())),
            _ => Err(refusal(RefusalKind::Malformed, "this tracker does not know that call")),
        }
    }

    async fn hello(&self, client: &mut Client, listen: &str) -> Result<Answer, Refusal> {
        match files::listen_address(listen, client.remote) {
            Ok(address) => client.listen = Some(address),
            Err(Fault::Refused(refusal)) => return Err(refusal),
            Err(Fault::Store(_)) => {}
        }
        let trust = self.trust.clone();
        let (now_ms, lists) = self.core.read(move |tx| Ok((tx.now().wall_ms, trust.lists(tx)?))).await?;
        Ok(Answer::Welcome { number: self.number.0, now_ms, lists: Some(lists) })
    }

    async fn create_user(&self, id: Uid, name: UserName, account: Account) -> Result<Answer, Refusal> {
        let wanted = name.clone();
        self.core.run(move |tx| accounts::create(tx, id, &wanted, &account)).await?;
        let space = NameSpace::User;
        let provisional =
            self.core.read(move |tx| accounts::is_provisional(tx, space, name.as_str(), id.0)).await?;
        Ok(Answer::Created { provisional })
    }

    async fn challenge(&self, client: &mut Client, name: UserName, candidate: u8) -> Result<Answer, Refusal> {
        self.check_wait(&name, client)?;
        let salt = self.core.read(move |tx| match accounts::candidate(tx, &name, candidate)? {
            Some(found) => Ok(found.account.salt),
            None => accounts::salt_of_nobody(tx, &name),
        });
        let salt = salt.await?;
        let mut challenge = [0; CHALLENGE_BYTES];
        getrandom::fill(&mut challenge).expect("the system provides randomness");
        client.challenge = Some(challenge);
        Ok(Answer::Challenge { salt, challenge })
    }

    async fn login(
        &self,
        client: &mut Client,
        name: UserName,
        number: u8,
        signature: [u8; 64],
    ) -> Result<Answer, Refusal> {
        self.check_wait(&name, client)?;
        if client.session.is_some() {
            return Err(refusal(
                RefusalKind::Exists,
                "you are logged in already; log out first with: logout",
            ));
        }
        let wanted = name.clone();
        let found = self.core.read(move |tx| accounts::candidate(tx, &wanted, number)).await?;
        let challenge = client.challenge.take();
        let tracker = self.identity.peer_id();
        let proven = found.as_ref().filter(|found| {
            challenge.is_some_and(|challenge| {
                check_answer(found.account.login_key, &challenge, client.peer, tracker, &signature)
            })
        });
        let from = client.remote.ip().to_canonical();
        let Some(proven) = proven else {
            if found.is_some_and(|found| found.more) {
                return Err(refusal(RefusalKind::TryNext, "another account of that name may be meant"));
            }
            self.throttle().failed(&name, from, Instant::now());
            let text = "wrong user id or password; a new account is made with: create_user";
            return Err(refusal(RefusalKind::WrongPassword, text));
        };
        self.throttle().succeeded(&name, from);
        self.begin(client, proven.user, None).await
    }

    async fn resume(&self, client: &mut Client, token: Vec<u8>) -> Result<Answer, Refusal> {
        let now_ms = self.core.read(|tx| Ok(tx.now().wall_ms)).await?;
        let keys = self.trust.keys();
        let token: SessionToken =
            tokens::open(&token, |key| keys.contains(key)).map_err(|_| session_over())?;
        // One that says to be good for longer was made with a stolen key, to outlive it.
        let longest = now_ms + SESSION_LIFE_MS + LONGEST_TICKET_MS;
        if token.peer != client.peer || !(now_ms..=longest).contains(&token.expires_ms) {
            return Err(session_over());
        }
        self.begin(client, token.user, Some(token.login_key)).await
    }

    async fn renew(&self, client: &mut Client) -> Result<Answer, Refusal> {
        let session = client.session.ok_or_else(not_logged_in)?;
        let facts = self.facts(session.user).await?.filter(|facts| facts.login_key() == session.login_key);
        let Some(facts) = facts else {
            self.offline(client);
            client.session = None;
            return Err(session_over());
        };
        Ok(self.logged_in(facts, client.peer))
    }

    fn logged_in(&self, facts: Facts, client: PeerId) -> Answer {
        Answer::LoggedIn(Box::new(facts.into_session(&self.identity, client, self.trust.keys())))
    }

    async fn change_password(
        &self,
        client: &mut Client,
        signature: [u8; 64],
        account: Account,
    ) -> Result<Answer, Refusal> {
        let user = client.user()?;
        let challenge = client.challenge.take();
        let (peer, tracker, login_key) = (client.peer, self.identity.peer_id(), account.login_key);
        let replaced = self.core.run(move |tx| {
            let old = accounts::account(tx, user)?;
            if old.as_ref().is_some_and(|old| *old == account) {
                // This request took effect before the tracker that took it died.
                return Ok(());
            }
            let proven = old.zip(challenge).is_some_and(|(old, challenge)| {
                check_answer(old.login_key, &challenge, peer, tracker, &signature)
            });
            if !proven {
                return Err(refuse(
                    RefusalKind::WrongPassword,
                    "the old password is wrong; nothing was changed",
                ));
            }
            accounts::replace_secrets(tx, user, &account)
        });
        replaced.await?;
        self.begin(client, user, Some(login_key)).await
    }

    /// Begins a session, under the login key that it was proven with if that matters.
    async fn begin(
        &self,
        client: &mut Client,
        user: Uid,
        login_key: Option<PeerId>,
    ) -> Result<Answer, Refusal> {
        let facts = self.facts(user).await?;
        let facts = facts.filter(|facts| login_key.is_none_or(|key| key == facts.login_key()));
        let (Some(facts), Some(address)) = (facts, client.listen) else { return Err(session_over()) };
        self.offline(client);
        let epoch = self.presence.online(client.peer, user, address);
        client.session = Some(Session { user, login_key: facts.login_key(), epoch });
        Ok(self.logged_in(facts, client.peer))
    }

    async fn facts(&self, user: Uid) -> Result<Option<Facts>, Refusal> {
        self.core.read(move |tx| accounts::facts(tx, user)).await
    }

    fn check_wait(&self, name: &UserName, client: &Client) -> Result<(), Refusal> {
        match self.throttle().wait(name, client.remote.ip().to_canonical(), Instant::now()) {
            None => Ok(()),
            Some(wait) => {
                let seconds = wait.as_secs_f32().ceil();
                Err(Refusal {
                    kind: RefusalKind::Wait,
                    text: format!(
                        "too many failed logins for {name} from here; wait {seconds} s and try again"
                    ),
                    again_ms: u32::try_from(wait.as_millis()).ok(),
                })
            }
        }
    }

    fn throttle(&self) -> std::sync::MutexGuard<'_, Throttle> {
        // A panic while the lock was held cannot leave worse than a count that is off by one.
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(kind: RefusalKind, text: impl Into<String>) -> Refusal {
    Refusal { kind, text: text.into(), again_ms: None }
}

fn not_logged_in() -> Refusal {
    refusal(RefusalKind::NotLoggedIn, "log in first with: login <user_id>")
}

fn session_over() -> Refusal {
    refusal(RefusalKind::NotLoggedIn, "the session is over; log in again with: login <user_id>")
}
