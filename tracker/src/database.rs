//! The one thread that owns the database and the replica.
//!
//! Jobs come in through a bounded queue and are run in batches. Those that only read are answered first, from what is durable.
//! All others are one transaction and take effect outside only after its commit: answers to clients and frames to other
//! trackers never precede what they promise. An answer to a write also waits until every connected tracker holds it.
//!
//! A full disk rolls the transaction back, drops the links and refuses writes until there is room; reads go on. A damaged
//! database is set aside, and the other trackers fill a new one. Any other failure stops the process, because it is not known
//! what is durable.

mod opening;
mod outputs;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shoal_common::PeerId;
use shoal_common::tracker_api::{Refusal, RefusalKind};
use shoal_replica::{
    Event, Holder, MemberStatus, NameSpace, Now, Replica, Row, TrackerNo, Write, WriteError, WriteId,
    WriterId,
};
use tokio::sync::{mpsc, oneshot};
use tracing::Span;

use crate::link_orders::LinkOrders;
use crate::store::{Store, StoreError};
use crate::sync_log::sync_span;
use opening::{Opening, blank, new_writer_id, now, open_replica, stop};

/// Jobs that may wait. Beyond that a client's call is refused and a link waits.
const MAX_JOBS: usize = 4_096;
/// Jobs in one transaction at most: a commit costs one fsync, however many share it.
const MAX_BATCH: usize = 256;
/// How often a full disk is looked at; writes are refused and links rest in between.
const FULL_PAUSE: Duration = Duration::from_secs(5);
/// Why there are no links meanwhile.
const DISK_FULL: &str = "this tracker's disk is full";
/// Claims on one name that are read at most.
const MAX_CLAIMS: usize = 64;

/// Why a command was not done.
#[derive(Debug)]
pub enum Fault {
    /// It is refused; nothing was written.
    Refused(Refusal),
    /// The database failed; the database thread decides what follows.
    Store(StoreError),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A refusal, with a text that its reader can act on.
#[must_use]
pub fn refuse(kind: RefusalKind, text: impl Into<String>) -> Fault {
    Fault::Refused(Refusal::new(kind, text))
}

fn unavailable() -> Refusal {
    let text = "this tracker cannot do that now (its log says why); try again, or another one";
    Refusal::new(RefusalKind::Unavailable, text)
}

type Query = Box<dyn FnOnce(&Tx<'_>) -> Result<Finish, StoreError> + Send>;
type Job = Box<dyn FnOnce(&mut Tx<'_>) -> Result<Finish, StoreError> + Send>;
/// Sends the answer; dropped instead if the transaction failed.
type Finish = Box<dyn FnOnce() + Send>;

enum Message {
    Query(Query),
    Step(Step),
}

/// What takes part in a transaction.
enum Step {
    Job(Job),
    Event(Event),
    Status(oneshot::Sender<Status>),
}

/// The database's status, for the operator.
#[derive(Debug, Clone)]
pub struct Status {
    /// The other trackers.
    pub members: Vec<MemberStatus>,
    /// Process starts of any tracker that records may stem from.
    pub origins: u64,
    /// Alarms since the start.
    pub alarms: u64,
    /// The last of them, in words.
    pub last_alarms: Vec<String>,
    /// Whether records written here bear times so far ahead of the clock that others refuse them.
    pub set_back: bool,
    /// Size of the database's file in bytes.
    pub database_bytes: u64,
    /// Whether writes are refused because the disk is full.
    pub disk_full: bool,
}

/// A handle; all clones are one.
#[derive(Clone)]
pub struct Database {
    messages: mpsc::Sender<Message>,
}

/// Where the database is and whose it is.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// The data directory, which exists.
    pub dir: PathBuf,
    /// This tracker's number.
    pub me: TrackerNo,
    /// All trackers' numbers.
    pub configured: Vec<TrackerNo>,
    /// The key that it signs tickets with.
    pub peer: PeerId,
}

/// Opens the database, or sets a damaged one aside, and starts the thread. It ends when all handles are dropped.
///
/// # Errors
/// In words: what is wrong with the database or the configuration.
pub(crate) fn start(config: DatabaseConfig, links: LinkOrders) -> anyhow::Result<(Database, JoinHandle<()>)> {
    let (messages, inbox) = mpsc::channel(MAX_JOBS);
    let thread = DatabaseThread::open(config, links)?;
    let thread = std::thread::Builder::new().name("database".into()).spawn(move || thread.run(inbox))?;
    Ok((Database { messages }, thread))
}

impl Database {
    /// Runs a command that only reads what is durable here. It is answered even while the disk is full.
    ///
    /// # Errors
    /// The command's own refusal, or `Unavailable` when the queue is full or the database failed.
    pub async fn read<T: Send + 'static>(
        &self,
        command: impl FnOnce(&Tx<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let span = Span::current();
        let query: Query = Box::new(move |tx| finish(span.in_scope(|| command(tx)), answer));
        self.messages.try_send(Message::Query(query)).map_err(|_| unavailable())?;
        answered.await.unwrap_or_else(|_| Err(unavailable()))
    }

    /// Runs a command that may write and waits until what it wrote is durable on every connected tracker.
    ///
    /// # Errors
    /// The command's own refusal, or `Unavailable` when the database or the queue is full.
    pub async fn run<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Tx<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let span = Span::current();
        let job: Job = Box::new(move |tx| finish(span.in_scope(|| command(tx)), answer));
        self.messages.try_send(Message::Step(Step::Job(job))).map_err(|_| unavailable())?;
        answered.await.unwrap_or_else(|_| Err(unavailable()))
    }

    /// Passes on what happened on a link; waits while the queue is full.
    pub async fn event(&self, event: Event) {
        // The thread ends only with the process.
        let _ = self.messages.send(Message::Step(Step::Event(event))).await;
    }

    /// The database's status; `None` while it closes.
    pub async fn status(&self) -> Option<Status> {
        let (answer, answered) = oneshot::channel();
        self.messages.send(Message::Step(Step::Status(answer))).await.ok()?;
        answered.await.ok()
    }
}

/// Prepares the answer with a command's result.
fn finish<T: Send + 'static>(
    result: Result<T, Fault>,
    answer: oneshot::Sender<Result<T, Refusal>>,
) -> Result<Finish, StoreError> {
    let result = match result {
        Ok(value) => Ok(value),
        Err(Fault::Refused(refusal)) => Err(refusal),
        Err(Fault::Store(error)) => return Err(error),
    };
    // The client may be gone; what was written stays.
    Ok(Box::new(move || drop(answer.send(result))))
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

    /// The state of the other trackers.
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

    /// Writes rows, all or none. It must be the last thing that a command does.
    ///
    /// # Errors
    /// A refusal when the disk is full or the rows break a limit.
    pub fn write(&mut self, writes: Vec<Write>) -> Result<(), Fault> {
        if self.full {
            return Err(Fault::Refused(unavailable()));
        }
        match self.replica.write(self.store, writes, self.now) {
            Ok(id) => {
                tracing::debug!(write = ?id, "written; to be acknowledged");
                self.written = Some(id);
                Ok(())
            }
            Err(WriteError::Store(error)) => Err(error.into()),
            Err(WriteError::Refused(shoal_replica::Refusal::Busy)) => {
                let text = "this tracker has too many writes under way; try again in a moment";
                let refusal = Refusal::new(RefusalKind::Unavailable, text);
                Err(Fault::Refused(refusal.retry_after(Duration::from_millis(500))))
            }
            Err(WriteError::Refused(refusal)) => Err(refuse(RefusalKind::Limit, refusal.to_string())),
        }
    }
}

/// The thread's own state.
struct DatabaseThread {
    config: DatabaseConfig,
    store: Store,
    replica: Replica,
    links: LinkOrders,
    /// Answers that wait for the other trackers.
    waiting: HashMap<WriteId, Finish>,
    full_until: Option<Instant>,
    /// Whether the last write that was answered is durable here only.
    alone: bool,
    writer: WriterId,
    started: Instant,
    alarms: u64,
    last_alarms: VecDeque<String>,
}

impl DatabaseThread {
    fn open(config: DatabaseConfig, links: LinkOrders) -> anyhow::Result<Self> {
        let (writer, started) = (new_writer_id(), Instant::now());
        let (store, replica) = match opening::open(&config, writer, started) {
            Ok(both) => both,
            Err(Opening::Corrupt(problem)) => blank(&config, &problem, writer, started)?,
            Err(Opening::Other(error)) => return Err(error),
        };
        let mut thread = Self {
            config,
            store,
            replica,
            links,
            waiting: HashMap::new(),
            full_until: None,
            alone: false,
            writer,
            started,
            alarms: 0,
            last_alarms: VecDeque::new(),
        };
        thread.carry_out();
        Ok(thread)
    }

    fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        // This thread's own runtime only waits for a message or the next time-out.
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => return stop(&format!("cannot wait for work: {error}")),
        };
        loop {
            let wait = self.next_wait();
            let first = match runtime.block_on(async { tokio::time::timeout(wait, inbox.recv()).await }) {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(_) => Message::Step(Step::Event(Event::Tick)),
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
        if let Some(until) = self.full_until {
            return until.saturating_duration_since(Instant::now());
        }
        let now_ms = now(self.started).mono_ms;
        let due = self.replica.next_timeout().map_or(1_000, |at| at.saturating_sub(now_ms));
        Duration::from_millis(due.min(1_000))
    }

    /// Whether the disk is still full, as far as the file system says.
    fn is_full(&mut self) -> bool {
        let Some(until) = self.full_until else { return false };
        let now = Instant::now();
        if now < until {
            return true;
        }
        if self.store.has_room() {
            self.full_until = None;
            tracing::info!("there is room on the disk again: writes are taken");
            return false;
        }
        self.full_until = Some(now + FULL_PAUSE);
        self.links.rest(FULL_PAUSE);
        true
    }

    /// Answers the queries.
    fn answer(&mut self, queries: Vec<Query>, now: Now) -> Result<(), StoreError> {
        if queries.is_empty() {
            return Ok(());
        }
        self.store.begin_reading()?;
        let (store, replica) = (&mut self.store, &mut self.replica);
        let tx = Tx { store, replica, now, full: true, written: None };
        let answers = queries.into_iter().map(|query| query(&tx)).collect::<Result<Vec<_>, _>>()?;
        self.store.commit()?;
        answers.into_iter().for_each(|answer| answer());
        Ok(())
    }

    /// Answers the queries, runs the other messages in one transaction, and carries out what follows after its commit.
    fn batch(&mut self, batch: Vec<Message>) -> Result<(), StoreError> {
        let (full, now) = (self.is_full(), now(self.started));
        let (mut queries, mut steps) = (Vec::new(), Vec::new());
        for message in batch {
            match message {
                Message::Query(query) => queries.push(query),
                Message::Step(step) => steps.push(step),
            }
        }
        self.answer(queries, now)?;
        if steps.is_empty() {
            return Ok(());
        }
        let (mut finishes, mut statuses, mut refused_links) = (Vec::new(), Vec::new(), Vec::new());
        self.store.begin()?;
        for step in steps {
            match step {
                Step::Job(job) => {
                    let (store, replica) = (&mut self.store, &mut self.replica);
                    let mut tx = Tx { store, replica, now, full, written: None };
                    let finish = job(&mut tx)?;
                    finishes.push((tx.written, finish));
                }
                // While the disk is full there are no links, because nothing from them can be stored.
                Step::Event(Event::LinkUp { peer }) if full => refused_links.push(peer),
                Step::Event(_) if full => {}
                Step::Event(event) => {
                    let _sync = self.received(&event).entered();
                    self.replica.handle(&mut self.store, event, now)?;
                }
                Step::Status(answer) => statuses.push(answer),
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
            self.links.close(peer, DISK_FULL);
        }
        for answer in statuses {
            // An operator who is gone needs no answer.
            let _ = answer.send(self.status());
        }
        Ok(())
    }

    /// The span of the sync that an event belongs to.
    fn received(&self, event: &Event) -> tracing::Span {
        match event {
            Event::Frame { peer, frame } => sync_span(*peer, self.config.me, frame),
            _ => tracing::Span::none(),
        }
    }

    fn status(&self) -> Status {
        let now = now(self.started);
        Status {
            members: self.replica.status(now),
            origins: self.replica.vector().len() as u64,
            alarms: self.alarms,
            last_alarms: self.last_alarms.iter().cloned().collect(),
            set_back: self.replica.was_set_back(now),
            database_bytes: self.store.size(),
            disk_full: self.full_until.is_some(),
        }
    }

    /// Undoes the batch and goes on as far as possible.
    fn fail(&mut self, error: StoreError) {
        self.waiting.clear();
        let full = matches!(error, StoreError::Full);
        self.links.close_all(if full { DISK_FULL } else { "this tracker starts again" });
        let reopened = match error {
            StoreError::Full => {
                self.links.rest(FULL_PAUSE);
                tracing::error!("the disk is full: writes are refused until there is room");
                self.full_until = Some(Instant::now() + FULL_PAUSE);
                self.store.rollback().map_err(Opening::from).and_then(|()| {
                    let now = now(self.started);
                    open_replica(&mut self.store, &self.config, self.writer, now)
                        .map(|replica| self.replica = replica)
                })
            }
            StoreError::Corrupt(problem) => {
                self.writer = new_writer_id();
                blank(&self.config, &problem, self.writer, self.started)
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
