//! Answers clients: one function per call, one file per family of commands. [`Client`] keeps the state of a connection;
//! everything durable goes through the database thread.

mod accounts;
mod earlier;
mod files;
mod groups;
mod login;
mod sessions;
mod storage;
mod throttle;
mod ways;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use shoal_common::bucket::Buckets;
use shoal_common::credentials::CHALLENGE_BYTES;
use shoal_common::tracker_api::storage::StoreCall;
use shoal_common::tracker_api::{Answer, Call, REVISION, Refusal, RefusalKind, Reply};
use shoal_common::{PeerId, Uid};
use shoal_net::{Budgets, Identity, Payer, Tariff};
use shoal_replica::{NameSpace, TrackerNo};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::database::{Database, Fault, Tx};
use crate::presence::{Listening, Presence};
use crate::price;
use crate::quota::{self, Quotas};
use crate::registration::{Rates, Registration, Terms};
use crate::relay::Relay;
use crate::storage::Storage;
use crate::trust::Trust;
use crate::ways::Ways;
use accounts::{Caller, NewUser};
use sessions::Sessions;
use storage::NodeSession;
use throttle::Throttle;
use ways::Unasked;

/// Answers clients. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    database: Database,
    presence: Presence,
    storage: Storage,
    identity: Identity,
    number: TrackerNo,
    trust: Trust,
    throttle: Arc<Mutex<Throttle>>,
    sessions: Sessions,
    registration: Registration,
    rates: Arc<Mutex<Rates>>,
    quotas: Quotas,
    dial_backs: Arc<Mutex<Buckets<IpAddr>>>,
    ways: Ways,
    relay: Option<Relay>,
    /// Looks whether clients are reached, by address.
    looks: Arc<Mutex<Buckets<IpAddr>>>,
    look_places: Arc<Semaphore>,
    /// Requests to connect, by user.
    knocks: Arc<Mutex<Buckets<Uid>>>,
    budgets: Budgets,
}

/// The state of one connection.
pub struct Client {
    peer: PeerId,
    remote: SocketAddr,
    listen: Option<Listening>,
    /// The [`REVISION`] that it speaks.
    revision: u32,
    challenge: Option<[u8; CHALLENGE_BYTES]>,
    session: Option<Session>,
    node: Option<NodeSession>,
    unasked: Unasked,
}

/// A session on a connection.
#[derive(Debug, Clone)]
struct Session {
    caller: Caller,
    /// Distinguishes this login's presence from that of an earlier connection.
    epoch: u64,
    /// Cancelled when it is no longer valid.
    over: CancellationToken,
}

impl Client {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(peer: PeerId, remote: SocketAddr) -> Self {
        Self {
            peer,
            remote,
            listen: None,
            revision: 0,
            challenge: None,
            session: None,
            node: None,
            unasked: Unasked::default(),
        }
    }

    /// The number of the login on this connection, if there is one. Each login at this tracker has another.
    #[must_use]
    pub fn session(&self) -> Option<u64> {
        self.session.as_ref().map(|session| session.epoch)
    }

    /// Whether a user is logged in or a storage node registered, which may therefore send large messages.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.session.is_some() || self.node.is_some()
    }

    /// Completes when the session on this connection is no longer valid, and never without one. Safe to drop.
    pub fn is_over(&self) -> impl Future<Output = ()> + use<> {
        let over = self.session.as_ref().map(|session| session.over.clone());
        async move {
            match over {
                Some(over) => over.cancelled().await,
                None => std::future::pending().await,
            }
        }
    }

    /// What reaches it without a call, to be said to it; its caller gives it back with the next call.
    pub fn unasked(&mut self) -> &mut Unasked {
        &mut self.unasked
    }

    /// Whose budget its calls come out of, and by which tariff.
    #[must_use]
    pub fn payer(&self) -> (Payer, Tariff) {
        match (&self.session, &self.node) {
            (Some(session), _) => (Payer::User(session.caller.user), price::MEMBER),
            (None, Some(_)) => (Payer::Peer(self.peer), price::NODE),
            (None, None) => (Payer::address(self.remote.ip()), price::STRANGER),
        }
    }

    fn caller(&self) -> Result<Caller, Refusal> {
        self.session.as_ref().map(|session| session.caller).ok_or_else(not_logged_in)
    }
}

impl Service {
    /// The service of the tracker of that number.
    #[must_use]
    pub fn new(
        database: Database,
        (presence, ways, relay): (Presence, Ways, Option<Relay>),
        storage: Storage,
        (identity, number): (Identity, TrackerNo),
        trust: Trust,
        terms: Terms,
    ) -> Self {
        let (throttle, sessions) = (Arc::default(), Sessions::default());
        let rates = Arc::new(Mutex::new(Rates::new(terms.per_address, Instant::now())));
        Self {
            database,
            presence,
            storage,
            identity,
            number,
            trust,
            throttle,
            sessions,
            registration: terms.who,
            rates,
            quotas: Quotas::default(),
            budgets: Budgets::default(),
            dial_backs: Arc::new(Mutex::new(Buckets::new(storage::MAX_DIALLED))),
            ways,
            relay,
            looks: Arc::new(Mutex::new(Buckets::new(ways::MAX_REMEMBERED))),
            look_places: Arc::new(Semaphore::new(ways::MAX_LOOKS)),
            knocks: Arc::new(Mutex::new(Buckets::new(ways::MAX_REMEMBERED))),
        }
    }

    /// The budgets of its clients.
    #[must_use]
    pub fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// Ends sessions that are no longer valid, until the tracker closes.
    pub async fn watch_sessions(self, closing: CancellationToken) {
        self.sessions.watch(self.database, closing).await;
    }

    /// Answers a call. Dropping the future leaves what was written.
    pub async fn answer(&self, client: &mut Client, call: Call) -> Reply {
        let answered = self.dispatch(client, call).await;
        match answered.and_then(|answer| earlier::fit(answer, client.revision)) {
            Ok(answer) => Reply::Done(answer),
            Err(refusal) => {
                if matches!(refusal.kind, RefusalKind::NotLoggedIn | RefusalKind::SignedOut) {
                    self.end(client);
                }
                if refusal.kind == RefusalKind::SignedOut && client.revision < 2 {
                    // It cannot read that, and would find no tracker that it can talk to.
                    return Reply::Refused(signed_out_of_old());
                }
                Reply::Refused(refusal)
            }
        }
    }

    /// A connection ended: its client is offline, its storage node is not up.
    pub fn gone(&self, client: &Client) {
        self.node_gone(client);
        self.offline(client);
    }

    fn offline(&self, client: &Client) {
        self.way_gone(client);
        if let Some(session) = &client.session {
            self.presence.offline(client.peer, session.epoch);
            self.sessions.ended(session.epoch);
        }
    }

    fn end(&self, client: &mut Client) {
        self.offline(client);
        client.session = None;
    }

    /// Runs a command that only reads, if the caller's session is valid.
    async fn read_for<T: Send + 'static>(
        &self,
        caller: Caller,
        command: impl FnOnce(&Tx<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.database
            .read(move |tx| {
                sessions::check(tx, caller)?;
                command(tx)
            })
            .await
    }

    /// Runs a command that may write, if the caller's session is valid in that very transaction.
    async fn run_for<T: Send + 'static>(
        &self,
        caller: Caller,
        command: impl FnOnce(&mut Tx<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.database
            .run(move |tx| {
                sessions::check(tx, caller)?;
                command(tx)
            })
            .await
    }

    /// The same for a command whose answer is [`Answer::Ok`].
    async fn done_for(
        &self,
        caller: Caller,
        command: impl FnOnce(&mut Tx<'_>) -> Result<(), Fault> + Send + 'static,
    ) -> Result<Answer, Refusal> {
        self.run_for(caller, command).await.map(|()| Answer::Ok)
    }

    /// Refuses a session that is no longer valid, for calls that need nothing else of the database.
    async fn check(&self, caller: Caller) -> Result<(), Refusal> {
        self.read_for(caller, |_| Ok(())).await
    }

    async fn dispatch(&self, client: &mut Client, call: Call) -> Result<Answer, Refusal> {
        if client.listen.is_none() && !matches!(call, Call::Hello { .. }) {
            return Err(Refusal::new(
                RefusalKind::Malformed,
                "a connection begins with Hello; this client is of another version",
            ));
        }
        match call {
            Call::Hello { listen, revision } => {
                client.revision = revision.unwrap_or(0);
                self.hello(client, &listen).await
            }
            Call::CreateUser { id, name, account, nonce, invitation } => {
                self.create_user(client, NewUser { id, name, account, nonce, invitation }).await
            }
            Call::Challenge { name, candidate } => self.challenge(client, name, candidate).await,
            Call::Login { name, candidate, signature } => {
                self.login(client, name, candidate, signature).await
            }
            Call::Resume { token } => self.resume(client, token).await,
            Call::Renew => self.renew(client).await,
            Call::Logout => {
                self.end(client);
                Ok(Answer::Ok)
            }
            Call::ChangePassword { request: _, signature, account, change } => {
                self.change_password(client, signature, account, change).await
            }
            Call::ListGroups { after } => {
                let caller = client.caller().ok();
                let user = caller.map(|caller| caller.user);
                let list = move |tx: &Tx<'_>| groups::list(tx, user, after.as_ref());
                match caller {
                    Some(caller) => self.read_for(caller, list).await,
                    None => self.database.read(list).await,
                }
            }
            Call::Node(call) => self.for_node(client, call).await,
            Call::Store(StoreCall::Nodes) => Ok(self.storage_nodes()),
            Call::Store(call) => self.about_store(client.caller()?, call).await,
            Call::Sessions => {
                let caller = client.caller()?;
                self.check(caller).await?;
                Ok(sessions::list(&self.presence, caller))
            }
            Call::SignOut { request: _, peer } => {
                let caller = client.caller()?;
                self.done_for(caller, move |tx| sessions::sign_out(tx, caller.user, peer)).await
            }
            Call::Way(call) => self.about_ways(client, call).await,
            call => self.for_user(client.caller()?, call).await,
        }
    }

    /// Calls that need a login.
    async fn for_user(&self, caller: Caller, call: Call) -> Result<Answer, Refusal> {
        let user = caller.user;
        match call {
            Call::CreateGroup { id, name, nonce } => {
                let wanted = name.clone();
                self.run_for(caller, move |tx| groups::create(tx, user, (id, nonce), &wanted)).await?;
                self.created(NameSpace::Group, name.as_str().to_owned(), id.0).await
            }
            Call::JoinGroup { request, group } => {
                self.done_for(caller, move |tx| groups::join(tx, user, request, &group)).await
            }
            Call::LeaveGroup { request, group } => {
                self.done_for(caller, move |tx| groups::leave(tx, user, request, &group)).await
            }
            Call::ListRequests { group, after } => {
                self.read_for(caller, move |tx| groups::list_requests(tx, user, &group, after.as_ref())).await
            }
            Call::Decide { request, group, user: whose, accept } => {
                self.done_for(caller, move |tx| groups::decide(tx, user, request, &group, &whose, accept))
                    .await
            }
            Call::ListMembers { group, after } => {
                self.read_for(caller, move |tx| groups::list_members(tx, user, &group, after.as_ref())).await
            }
            Call::Quota { group } => {
                let ask = move |tx: &Tx<'_>| {
                    let group = group.map(|name| groups::joined(tx, user, &name)).transpose()?;
                    quota::answer(tx, (user, caller.peer), group)
                };
                self.read_for(caller, ask).await
            }
            call => self.about_files(caller, call).await,
        }
    }

    async fn about_files(&self, caller: Caller, call: Call) -> Result<Answer, Refusal> {
        let (presence, quotas) = (self.presence.clone(), self.quotas.clone());
        let ways = self.ways.clone();
        let Caller { user, peer, .. } = caller;
        match call {
            Call::ListFiles { group, after } => {
                self.read_for(caller, move |tx| files::list(tx, &presence, user, &group, after.as_ref()))
                    .await
            }
            Call::Share { request, group, manifest, piece_list } => {
                let shared = self.run_for(caller, move |tx| {
                    let new = files::NewShare { request, group: &group, manifest, piece_list };
                    files::share(tx, &quotas, (user, peer), new)
                });
                shared.await.map(|(group, file)| Answer::Shared { group, file })
            }
            Call::ShareKnown { request, group, file } => {
                let share = move |tx: &mut Tx<'_>| {
                    files::share_known(tx, &quotas, (user, peer), request, (group, file))
                };
                self.done_for(caller, share).await
            }
            Call::ForgetClient { request: _, peer: lost } => {
                self.run_for(caller, move |tx| files::forget_client(tx, &presence, user, lost)).await
            }
            Call::StopShare { request: _, group, file } => {
                self.done_for(caller, move |tx| files::stop_share(tx, user, peer, (group, file))).await
            }
            Call::Find { group, file } => {
                self.read_for(caller, move |tx| files::find(tx, user, &group, &file)).await
            }
            Call::PieceList { group, file } => {
                self.read_for(caller, move |tx| files::piece_list(tx, user, group, file)).await
            }
            Call::Holders { group, file } => {
                self.read_for(caller, move |tx| {
                    files::holders(tx, (&presence, &ways), (user, peer), (group, file))
                })
                .await
            }
            Call::Unreached { group, file, peers } => {
                self.read_for(caller, move |tx| files::unreached(tx, &presence, user, (group, file), &peers))
                    .await
            }
            Call::Announce { reset, holdings } => {
                self.read_for(caller, move |tx| files::announce(tx, &presence, (user, peer), reset, holdings))
                    .await
            }
            Call::TicketKeys => {
                self.check(caller).await?;
                Ok(Answer::TicketKeys(self.trust.keys()))
            }
            _ => Err(Refusal::new(
                RefusalKind::Malformed,
                "this tracker does not know that call; update the older of tracker and client",
            )),
        }
    }

    async fn hello(&self, client: &mut Client, listen: &str) -> Result<Answer, Refusal> {
        match files::listen_address(listen, client.remote, client.revision) {
            Ok(address) => client.listen = Some(address),
            Err(Fault::Refused(refusal)) => return Err(refusal),
            Err(Fault::Store(_)) => {}
        }
        let trust = self.trust.clone();
        let (now_ms, lists) = self.database.read(move |tx| Ok((tx.now().wall_ms, trust.lists(tx)?))).await?;
        Ok(Answer::Welcome { number: self.number.0, now_ms, revision: Some(REVISION), lists: Some(lists) })
    }

    async fn create_user(&self, client: &Client, new: NewUser) -> Result<Answer, Refusal> {
        let (id, name) = (new.id, new.name.clone());
        let (registration, rates, from) = (self.registration, self.rates.clone(), client.remote.ip());
        let created = self.database.run(move |tx| {
            accounts::create(tx, new, |tx, who| {
                let mut rates = rates.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                crate::registration::admit(tx, registration, &mut rates, from, who)
            })
        });
        created.await?;
        self.created(NameSpace::User, name.as_str().to_owned(), id.0).await
    }

    /// The answer to a claim on a name that was written.
    async fn created(&self, space: NameSpace, name: String, id: [u8; 16]) -> Result<Answer, Refusal> {
        let provisional =
            self.database.read(move |tx| accounts::is_provisional(tx, space, &name, id)).await?;
        Ok(Answer::Created { provisional })
    }
}

fn not_logged_in() -> Refusal {
    Refusal::new(RefusalKind::NotLoggedIn, "log in first with: login <user_id>")
}

fn signed_out() -> Refusal {
    let text = "this client was signed out by the account's owner; log in again with: login <user_id>";
    Refusal::new(RefusalKind::SignedOut, text)
}

/// The answer to a client that does not know [`RefusalKind::SignedOut`]. It must not log in again by itself after this.
fn signed_out_of_old() -> Refusal {
    let text = "this client was signed out by the account's owner, and its version is too old to go on; update it, or \
                restart it and log in again";
    Refusal::new(RefusalKind::NotAllowed, text)
}

fn session_over() -> Refusal {
    Refusal::new(RefusalKind::NotLoggedIn, "the session is over; log in again with: login <user_id>")
}
