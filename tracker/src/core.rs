//! The one thread that owns the database and the replica.
//!
//! Jobs come in through a bounded queue, are run in batches inside one transaction, and take effect outside only after
//! its commit: answers to clients and frames to other trackers never precede what they promise. An answer to a write
//! also waits until every connected tracker holds it.
//!
//! A full disk rolls the batch back, drops the links and refuses writes for a while; reads go on. A damaged database is
//! set aside and the others fill a new one. Anything else that fails stops the process, because what is durable is not
//! known any more.

use std::collections::HashMap;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use shoal_common::tracker_api::{Refusal, RefusalKind};
use shoal_replica::{
    Config, Event, Frame, Holder, MemberStatus, NameSpace, Now, OpenError, Origin, Output, Replica, Row,
    TrackerNo, Write, WriteError, WriteId,
};
use tokio::sync::{mpsc, oneshot};

use crate::store::{Store, StoreError};

/// Jobs that may wait; a client's beyond that is refused, a link's waits.
const MAX_JOBS: usize = 4_096;
/// Jobs in one transaction at most: a commit costs one fsync, however many share it.
const MAX_BATCH: usize = 256;
/// After a full disk, for how long writes are refused before one is tried again.
const FULL_PAUSE: Duration = Duration::from_secs(5);
/// Claims on one name that are looked at.
const MAX_CLAIMS: usize = 64;
/// Trackers with another value refuse each other.
const CLUSTER: [u8; 16] = *b"shoal tracker  1";

/// Why a command was not done.
#[derive(Debug)]
pub enum Fault {
    /// It is refused; nothing was written.
    Refused(Refusal),
    /// The database failed; the core decides what that means.
    Store(StoreError),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A refusal in words that its reader can act on.
#[must_use]
pub fn refuse(kind: RefusalKind, text: impl Into<String>) -> Fault {
    Fault::Refused(Refusal { kind, text: text.into(), again_ms: None })
}

fn unavailable() -> Refusal {
    let text = "this tracker cannot do that now (is its disk full?); another one may".to_owned();
    Refusal { kind: RefusalKind::Unavailable, text, again_ms: None }
}

/// What the links must do, once what it rests on is durable.
#[derive(Debug)]
pub enum LinkOrder {
    /// Send a frame.
    Send(TrackerNo, Frame),
    /// Close one link.
    Close(TrackerNo, String),
    /// Close all links: the replica begins anew.
    CloseAll,
}

type Job = Box<dyn FnOnce(&mut Tx<'_>) -> Result<Finish, StoreError> + Send>;
/// Answers whoever waits; dropped instead when the transaction failed.
type Finish = Box<dyn FnOnce() + Send>;

enum Message {
    Job(Job),
    Event(Event),
    Status(oneshot::Sender<Status>),
}

/// How the tracker is, for its operator.
#[derive(Debug, Clone)]
pub struct Status {
    /// The other trackers.
    pub members: Vec<MemberStatus>,
    /// Process starts of any tracker that records may stem from.
    pub origins: u64,
    /// Alarms since the start.
    pub alarms: u64,
    /// Size of the database's file in bytes.
    pub database_bytes: u64,
    /// Whether writes are refused because the disk is full.
    pub disk_full: bool,
}

/// The handle that everybody shares.
#[derive(Clone)]
pub struct Core {
    messages: mpsc::Sender<Message>,
}

/// Where the core lives and who it is.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// The data directory, which exists.
    pub dir: PathBuf,
    /// This tracker's number.
    pub me: TrackerNo,
    /// All trackers' numbers.
    pub configured: Vec<TrackerNo>,
}

/// Opens the database, setting a damaged one aside, and starts the thread. It ends when all handles are gone.
///
/// # Errors
/// In words: what is wrong with the database or the configuration.
pub fn start(
    config: CoreConfig,
    orders: mpsc::UnboundedSender<LinkOrder>,
) -> anyhow::Result<(Core, JoinHandle<()>)> {
    let (messages, inbox) = mpsc::channel(MAX_JOBS);
    let state = State::open(config, orders)?;
    let thread = std::thread::Builder::new().name("core".into()).spawn(move || state.run(inbox))?;
    Ok((Core { messages }, thread))
}

impl Core {
    /// Runs a command and waits until what it wrote is durable on every connected tracker.
    ///
    /// # Errors
    /// The command's own refusal, or `Unavailable` when the database or the queue is full.
    pub async fn run<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Tx<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |tx| {
            let result = match command(tx) {
                Ok(value) => Ok(value),
                Err(Fault::Refused(refusal)) => Err(refusal),
                Err(Fault::Store(error)) => return Err(error),
            };
            // Nobody waits any more when the client is gone; what was written stays.
            Ok(Box::new(move || drop(answer.send(result))))
        });
        self.messages.try_send(Message::Job(job)).map_err(|_| unavailable())?;
        answered.await.unwrap_or_else(|_| Err(unavailable()))
    }

    /// Hands in what happened on a link; waits while the queue is full.
    pub async fn event(&self, event: Event) {
        // The core is gone only when the process ends.
        let _ = self.messages.send(Message::Event(event)).await;
    }

    /// How the tracker is.
    pub async fn status(&self) -> Option<Status> {
        let (answer, answered) = oneshot::channel();
        self.messages.send(Message::Status(answer)).await.ok()?;
        answered.await.ok()
    }
}

/// What a command sees: the database and the replica inside the open transaction.
pub struct Tx<'a> {
    store: &'a mut Store,
    replica: &'a mut Replica,
    now: Now,
    full: bool,
    written: Option<WriteId>,
}

impl Tx<'_> {
    /// The database, for reading.
    #[must_use]
    pub fn store(&self) -> &Store {
        self.store
    }

    /// The time of this batch.
    #[must_use]
    pub fn now(&self) -> Now {
        self.now
    }

    /// How things stand with the other trackers.
    #[must_use]
    pub fn members(&self) -> Vec<MemberStatus> {
        self.replica.status(self.now)
    }

    /// Who holds a name.
    ///
    /// # Errors
    /// When the database fails.
    pub fn holder(&self, space: NameSpace, name: &str) -> Result<Option<Holder>, Fault> {
        Ok(self.replica.holder(self.store, space, name.as_bytes())?)
    }

    /// All claims on a name, in the order in which they hold it.
    ///
    /// # Errors
    /// When the database fails.
    pub fn claims(&self, space: NameSpace, name: &str) -> Result<Vec<Row>, Fault> {
        let mut claims = self.replica.claims(self.store, space, name.as_bytes())?;
        claims.truncate(MAX_CLAIMS);
        Ok(claims)
    }

    /// Writes rows, together or not at all. To be the last thing that a command does.
    ///
    /// # Errors
    /// A refusal when the disk is full or the rows break a limit.
    pub fn write(&mut self, writes: Vec<Write>) -> Result<(), Fault> {
        if self.full {
            return Err(Fault::Refused(unavailable()));
        }
        match self.replica.write(self.store, writes, self.now) {
            Ok(id) => {
                self.written = Some(id);
                Ok(())
            }
            Err(WriteError::Store(error)) => Err(error.into()),
            Err(WriteError::Refused(shoal_replica::Refusal::Busy)) => Err(Fault::Refused(Refusal {
                kind: RefusalKind::Unavailable,
                text: "this tracker has too many writes under way; try again in a moment".into(),
                again_ms: Some(500),
            })),
            Err(WriteError::Refused(refusal)) => Err(refuse(RefusalKind::Limit, refusal.to_string())),
        }
    }
}

/// The thread's own state.
struct State {
    config: CoreConfig,
    store: Store,
    replica: Replica,
    orders: mpsc::UnboundedSender<LinkOrder>,
    /// Answers that wait for the other trackers.
    waiting: HashMap<WriteId, Finish>,
    full_until: Option<Instant>,
    origin: Origin,
    started: Instant,
    alarms: u64,
}

impl State {
    fn open(config: CoreConfig, orders: mpsc::UnboundedSender<LinkOrder>) -> anyhow::Result<Self> {
        let (origin, started) = (fresh_origin(), Instant::now());
        let opened = Store::open(&config.dir).map_err(Opening::from).and_then(|mut store| {
            let replica = open_replica(&mut store, &config, origin, now(started))?;
            Ok((store, replica))
        });
        let (store, replica) = match opened {
            Ok(both) => both,
            Err(Opening::Corrupt(problem)) => blank(&config, &problem, origin, started)?,
            Err(Opening::Other(error)) => return Err(error),
        };
        let waiting = HashMap::new();
        let mut state =
            Self { config, store, replica, orders, waiting, full_until: None, origin, started, alarms: 0 };
        state.carry_out();
        Ok(state)
    }

    fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        // A runtime of its own on this thread only waits for a message or the next time-out.
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => return stop(&format!("cannot wait for work: {error}")),
        };
        loop {
            let wait = self.next_wait();
            let first = match runtime.block_on(async { tokio::time::timeout(wait, inbox.recv()).await }) {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(_) => Message::Event(Event::Tick),
            };
            let mut batch = vec![first];
            while batch.len() < MAX_BATCH
                && let Ok(message) = inbox.try_recv()
            {
                batch.push(message);
            }
            if let Err(error) = self.batch(batch) {
                self.fail(error);
            }
        }
    }

    fn next_wait(&self) -> Duration {
        let now_ms = now(self.started).mono_ms;
        let due = self.replica.next_timeout().map_or(1_000, |at| at.saturating_sub(now_ms));
        Duration::from_millis(due.min(1_000))
    }

    /// Runs messages in one transaction and carries out what follows from them after its commit.
    fn batch(&mut self, batch: Vec<Message>) -> Result<(), StoreError> {
        self.full_until = self.full_until.filter(|until| Instant::now() < *until);
        let full = self.full_until.is_some();
        let now = now(self.started);
        let (mut finishes, mut statuses, mut refused_links) = (Vec::new(), Vec::new(), Vec::new());
        self.store.begin()?;
        for message in batch {
            match message {
                Message::Job(job) => {
                    let (store, replica) = (&mut self.store, &mut self.replica);
                    let mut tx = Tx { store, replica, now, full, written: None };
                    let finish = job(&mut tx)?;
                    finishes.push((tx.written, finish));
                }
                // While the disk is full there are no links, and nothing from them can be stored.
                Message::Event(Event::LinkUp { peer }) if full => refused_links.push(peer),
                Message::Event(_) if full => {}
                Message::Event(event) => self.replica.handle(&mut self.store, event, now)?,
                Message::Status(answer) => statuses.push(answer),
            }
        }
        self.store.commit()?;
        for (written, finish) in finishes {
            match written {
                Some(id) => drop(self.waiting.insert(id, finish)),
                None => finish(),
            }
        }
        self.carry_out();
        for peer in refused_links {
            self.order(LinkOrder::Close(peer, "this tracker's disk is full".to_owned()));
        }
        for answer in statuses {
            // An operator who does not wait any more needs no answer.
            let _ = answer.send(self.status());
        }
        Ok(())
    }

    /// Does what the replica asks for, now that it is durable.
    fn carry_out(&mut self) {
        while let Some(output) = self.replica.poll_output() {
            match output {
                Output::Send { to, frame } => self.order(LinkOrder::Send(to, frame)),
                Output::Disconnect { peer, reason } => {
                    self.order(LinkOrder::Close(peer, reason.to_string()));
                }
                Output::Acked { write, copies } => {
                    if copies == 1 && self.config.configured.len() > 1 {
                        tracing::warn!("a write is durable on this tracker only: no other is connected");
                    }
                    if let Some(finish) = self.waiting.remove(&write) {
                        finish();
                    }
                }
                Output::Alarm(alarm) => {
                    self.alarms += 1;
                    tracing::error!(?alarm, "alarm");
                }
                Output::Warning(warning) => tracing::warn!(?warning, "warning"),
            }
        }
    }

    fn order(&self, order: LinkOrder) {
        // The links are gone only when the process ends.
        let _ = self.orders.send(order);
    }

    fn status(&self) -> Status {
        Status {
            members: self.replica.status(now(self.started)),
            origins: self.replica.vector().len() as u64,
            alarms: self.alarms,
            database_bytes: self.store.size(),
            disk_full: self.full_until.is_some(),
        }
    }

    /// Undoes the batch and goes on as far as that can be done.
    fn fail(&mut self, error: StoreError) {
        self.waiting.clear();
        self.order(LinkOrder::CloseAll);
        let reopened = match error {
            StoreError::Full => {
                tracing::error!("the disk is full: writes are refused until there is room");
                self.full_until = Some(Instant::now() + FULL_PAUSE);
                self.store.rollback().map_err(Opening::from).and_then(|()| {
                    let now = now(self.started);
                    open_replica(&mut self.store, &self.config, self.origin, now)
                        .map(|replica| self.replica = replica)
                })
            }
            StoreError::Corrupt(problem) => {
                self.origin = fresh_origin();
                blank(&self.config, &problem, self.origin, self.started)
                    .map(|(store, replica)| (self.store, self.replica) = (store, replica))
                    .map_err(Opening::Other)
            }
            other => Err(Opening::Other(other.into())),
        };
        match reopened {
            Ok(()) => self.carry_out(),
            Err(Opening::Corrupt(problem)) => stop(&problem),
            Err(Opening::Other(error)) => stop(&format!("{error:#}")),
        }
    }
}

/// Why database or replica could not be opened.
enum Opening {
    Corrupt(String),
    Other(anyhow::Error),
}

impl From<StoreError> for Opening {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt(problem) => Self::Corrupt(problem),
            other => Self::Other(other.into()),
        }
    }
}

fn open_replica(
    store: &mut Store,
    config: &CoreConfig,
    origin: Origin,
    now: Now,
) -> Result<Replica, Opening> {
    let identity = Config { me: config.me, configured: config.configured.clone(), origin, cluster: CLUSTER };
    store.begin()?;
    match Replica::open(store, identity, now) {
        Ok(replica) => {
            store.commit()?;
            Ok(replica)
        }
        Err(error) => {
            store.rollback()?;
            Err(match error {
                OpenError::Store(error) => error.into(),
                OpenError::Corrupt(what) => Opening::Corrupt(format!("{what} cannot be read")),
                OpenError::OtherTracker(_) | OpenError::Config { .. } => {
                    Opening::Other(anyhow::anyhow!("{error}"))
                }
            })
        }
    }
}

/// Sets a damaged database aside and begins with an empty one.
fn blank(
    config: &CoreConfig,
    problem: &str,
    origin: Origin,
    started: Instant,
) -> anyhow::Result<(Store, Replica)> {
    let aside = Store::set_aside(&config.dir, now(started).wall_ms)?;
    tracing::error!(
        "the database is damaged ({problem}); it was set aside as {} and the other trackers will fill a new one",
        aside.display()
    );
    let mut store = Store::open(&config.dir)?;
    match open_replica(&mut store, config, origin, now(started)) {
        Ok(replica) => Ok((store, replica)),
        Err(Opening::Corrupt(problem)) => anyhow::bail!("a new database is damaged too: {problem}"),
        Err(Opening::Other(error)) => Err(error),
    }
}

/// Ends the process: nothing that is not durable may be acknowledged.
fn stop(problem: &str) {
    tracing::error!("stopping: {problem}");
    eprintln!("tracker: stopping: {problem}");
    std::process::exit(1);
}

fn fresh_origin() -> Origin {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system provides randomness");
    Origin(bytes)
}

fn now(started: Instant) -> Now {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Now {
        wall_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, ms),
        mono_ms: ms(started.elapsed()),
    }
}
