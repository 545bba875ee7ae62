//! Reaching a tracker: dial it, say hello, and make sure that it is to be believed. Clients and storage nodes do this in
//! the same way; how often they try, and what they do on the connection, is their own.

use std::sync::Arc;
use std::time::Duration;

use shoal_common::PeerId;
use shoal_common::tracker_api::{Answer, CLIENT_PROTOCOL, Call, REVISION, Reply};
use shoal_common::tracker_info::TrackerLine;
use shoal_common::vouching::{News, Scope, SignedList};
use shoal_net::{Control, DialError, KnownError, KnownTrackers, NetError, Protocol, ReachError};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::connection::{ANSWER_WITHIN, TrackerConnection};
use crate::text;
use crate::ways::Ways;

/// Pauses between tries: at first short, so that a restarted tracker is found at once.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Why a tracker is of no use, to be read behind its address.
#[derive(Debug, thiserror::Error)]
pub enum Unreached {
    /// It takes too long.
    #[error("does not answer")]
    Silent,
    /// Nothing, or another tracker than the file names, answers there.
    #[error("{0}")]
    Dial(#[from] DialError),
    /// It is not to be believed.
    #[error("{0}")]
    NotBelieved(#[from] KnownError),
    /// The other trackers removed it.
    #[error("is no tracker any more")]
    Removed,
    /// No channel could be opened to it.
    #[error("cannot be talked to: {0}")]
    Channel(NetError),
    /// It refuses, and what it says.
    #[error("refuses this client: {}", text::short(.0))]
    Refused(String),
    /// Its answer does not fit the call.
    #[error("speaks another version")]
    OtherVersion,
    /// The connection ended, and why; or something else that reads on behind the address.
    #[error("{0}")]
    Lost(String),
}

impl From<ReachError> for Unreached {
    fn from(error: ReachError) -> Self {
        match error {
            ReachError::Dial(error) => Self::Dial(error),
            ReachError::Known(error) => Self::NotBelieved(error),
        }
    }
}

impl Unreached {
    /// The reason, to be read behind the tracker's address also where the error begins with it.
    #[must_use]
    pub fn behind(&self, address: &str) -> String {
        let error = self.to_string();
        match (self, error.strip_prefix(address)) {
            (Self::Dial(_) | Self::NotBelieved(_), Some(rest)) if rest.starts_with(": ") => {
                format!("cannot be found{rest}")
            }
            (Self::Dial(_) | Self::NotBelieved(_), Some(rest)) => rest.trim_start().to_owned(),
            (Self::Dial(_) | Self::NotBelieved(_), None) => format!("does not answer ({error})"),
            _ => error,
        }
    }
}

/// Something that was learned of a tracker's key.
#[derive(Debug, Clone)]
pub enum Learned {
    /// It was met for the first time and is known by its key from now on.
    Met {
        /// The tracker's address.
        tracker: String,
        /// Its key.
        key: PeerId,
    },
    /// The other trackers say that its key is another one than before.
    Vouched(News),
}

/// Reaches trackers. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    /// The control plane.
    pub control: Control,
    /// The trackers' keys, as far as they are known.
    pub known: KnownTrackers,
    /// `ip:port` at which other peers reach this one; it may become another one.
    pub listen: watch::Receiver<String>,
    /// Takes what is learned of the trackers' keys.
    pub report: Arc<dyn Fn(Learned) + Send + Sync>,
    /// Owns the connections' tasks.
    pub tasks: TaskTracker,
    /// Takes what trackers say without being asked; none where nothing of that is of use.
    pub ways: Option<Ways>,
}

impl Dialer {
    /// A connection to the tracker at that address, which is to be believed.
    ///
    /// # Errors
    /// Why there is none; then nothing of it is left.
    pub async fn connect(&self, line: &TrackerLine) -> Result<TrackerConnection, Unreached> {
        let peer = self.dial(line).await?;
        let begun = self.begin(line, peer).await;
        if begun.is_err() {
            self.control.disconnect(peer).await;
        }
        begun
    }

    /// Dials a tracker; its key. The connection closes by itself unless [`Dialer::begin`] follows.
    ///
    /// # Errors
    /// When it does not answer, or shows another key than expected.
    pub async fn dial(&self, line: &TrackerLine) -> Result<PeerId, Unreached> {
        let dialled = timeout(ANSWER_WITHIN, self.known.dial(&self.control, line)).await;
        Ok(dialled.map_err(|_| Unreached::Silent)??)
    }

    /// Opens a channel to a tracker that was dialled, and greets it.
    ///
    /// # Errors
    /// Why that failed; the channel is closed then.
    pub async fn begin(&self, line: &TrackerLine, peer: PeerId) -> Result<TrackerConnection, Unreached> {
        let opened = timeout(ANSWER_WITHIN, self.control.open(peer, Protocol(CLIENT_PROTOCOL))).await;
        let channel = opened.map_err(|_| Unreached::Silent)?.map_err(Unreached::Channel)?;
        let connection = TrackerConnection::start(line.to_string(), channel, &self.tasks, self.ways.clone());
        match self.greet(line, &connection).await {
            Ok(()) => Ok(connection),
            Err(reason) => {
                connection.close(&reason.behind(connection.address()));
                Err(reason)
            }
        }
    }

    /// Says hello, makes sure that this is the tracker of that line, and takes what it says of all trackers' keys.
    ///
    /// # Errors
    /// When it does not answer, or is not to be believed.
    pub async fn greet(&self, line: &TrackerLine, connection: &TrackerConnection) -> Result<(), Unreached> {
        let listen = self.listen.borrow().clone();
        let hello = Call::Hello { listen, revision: Some(REVISION) };
        let Answer::Welcome { revision, lists, .. } = ask(connection, hello).await? else {
            return Err(Unreached::OtherVersion);
        };
        connection.speaks(revision.unwrap_or(0));
        self.believe(line, connection.peer(), lists.unwrap_or_default()).await
    }

    /// Whether that key is still the tracker's, by all that was learned since.
    ///
    /// # Errors
    /// [`Unreached::Removed`].
    pub fn check(&self, line: &TrackerLine, key: PeerId) -> Result<(), Unreached> {
        if self.known.key(line) == Some(key) { Ok(()) } else { Err(Unreached::Removed) }
    }

    async fn believe(
        &self,
        line: &TrackerLine,
        key: PeerId,
        lists: Vec<SignedList>,
    ) -> Result<(), Unreached> {
        if self.known.met(line, key).await? {
            (self.report)(Learned::Met { tracker: line.to_string(), key });
        }
        match self.known.learn(lists, Scope::All).await {
            Err(error) => tracing::error!(%error, "what the trackers say of their keys is not remembered"),
            Ok(all) => {
                for news in all {
                    tracing::info!(?news, "the trackers vouch");
                    if news.before.is_some() {
                        (self.report)(Learned::Vouched(news));
                    }
                }
            }
        }
        self.check(line, key)
    }
}

/// Asks a tracker something.
///
/// # Errors
/// When it refuses, or the connection ends.
pub async fn ask(connection: &TrackerConnection, call: Call) -> Result<Answer, Unreached> {
    match connection.call(call).await {
        Ok(Reply::Done(answer)) => Ok(answer),
        Ok(Reply::Refused(refusal)) => Err(Unreached::Refused(refusal.text)),
        Err(_) => Err(Unreached::Lost(connection.ended().await)),
    }
}

/// The pauses between tries, each twice as long as the one before.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Backoff {
    /// The next pause. Jitter keeps the clients of a restarted tracker from coming all at once.
    pub fn pause(&mut self) -> Duration {
        let pause = self.0.mul_f64(0.75 + fastrand::f64() / 2.0);
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
        pause
    }
}
