//! An HTTP server as a source of pieces: a run of pieces is one range request on a connection that is kept. It only
//! carries bytes and says what went wrong; the engine checks the bytes and decides what follows.

pub mod answer;
mod patience;
mod whole;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::{Client, Response, StatusCode, Url, header};
use shoal_engine::{BufferError, Have, Limits, PieceBuf, PieceRun, PieceSource, Run, SourceError};
use tokio::sync::watch;

use crate::source::answer::{Validators, content_range, is_passing, retry_after};
pub use crate::source::patience::{Failing, Patience, Standing};
use crate::source::whole::WholeStream;
use crate::{client, mirror};

/// Longest time without a byte of an answer that has begun: less than the engine's own patience, so that the source itself
/// can count such failures.
const STALL: Duration = Duration::from_millis(4_500);
/// How long a server that fails is tried again, where the caller does not say.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest time that a server's `Retry-After` is honoured; then it is tried again.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// Pieces in one request at most: no bound but the engine's, which goes by time.
const MAX_RUN: u32 = 4_096;

/// One file on one HTTP server.
#[derive(Debug)]
pub struct HttpSource {
    client: Client,
    url: Url,
    size: u64,
    connections: usize,
    /// As many from the start, and not only where the rate needs them.
    parallel: bool,
    have: watch::Sender<Have>,
    standing: Arc<Standing>,
    /// What the server said of the file's version; the same must come with every answer. `None`: not compared.
    validators: Option<Mutex<Validators>>,
    /// What is read of a server that ignores ranges.
    whole: WholeStream,
}

impl HttpSource {
    /// The file of `size` bytes at `url`, over at most `connections` connections at once (0 is taken as 1).
    #[must_use]
    pub fn new(client: Client, url: Url, size: u64, connections: usize) -> Self {
        Self {
            client,
            url,
            size,
            connections: connections.max(1),
            parallel: false,
            have: watch::Sender::new(Have::All),
            standing: Arc::new(Standing::new(Patience::new(PATIENCE))),
            validators: None,
            whole: WholeStream::default(),
        }
    }

    /// Knows that the server took that long over its last answer, and whether it was seen to dislike ranges.
    #[must_use]
    pub fn that_answered(self, after: Duration, ranges: bool) -> Self {
        self.standing.thought(after);
        if !ranges {
            self.whole.ignore_ranges();
        }
        self
    }

    /// Keeps all its connections busy, as whoever asks for a number of them wants: servers may limit each by itself.
    #[must_use]
    pub fn in_parallel(mut self) -> Self {
        self.parallel = true;
        self
    }

    /// Is tried again as long as that when it fails.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.standing = Arc::new(Standing::new(patience));
        self
    }

    /// How the server stands, now and later.
    #[must_use]
    pub fn standing(&self) -> Arc<Standing> {
        self.standing.clone()
    }

    /// Insists that the file stays the version that `validators` name; what they do not name is learnt from the first
    /// answer. For content without piece digests, where nothing else keeps two versions apart.
    #[must_use]
    pub fn insisting(mut self, validators: Validators) -> Self {
        self.validators = Some(Mutex::new(validators));
        self
    }

    async fn ranged(&self, want: PieceRun, mut into: PieceBuf) -> Result<PieceBuf, Trouble> {
        let (first, last) = (want.offset(), want.offset() + want.length() - 1);
        let asked = self.ask(Some(format!("bytes={first}-{last}")), &into).await;
        let response = match asked {
            // A server that never served a range may have the file all the same.
            Err(Trouble::Range(_)) if !self.whole.serves_ranges() => {
                self.whole.ignore_ranges();
                return self.whole.fetch(self, want, into).await;
            }
            asked => asked?,
        };
        if response.status() == StatusCode::OK {
            let whole = first == 0 && last + 1 == self.size;
            self.check_length(&response)?;
            // One that does not say how long it is, is taken where its end is looked at.
            if !whole || response.content_length().is_none() {
                self.whole.is_whole(response, self.size).await;
                return self.whole.fetch(self, want, into).await;
            }
        } else {
            self.whole.saw_range();
            let range = content_range(response.headers()).ok_or_else(|| {
                Trouble::Invalid("answered a range request without saying which range".into())
            })?;
            // A server may send less of what was asked for (RFC 9110, section 15.3.7), but nothing else.
            if range.first != first
                || range.last > last
                || range.total.is_some_and(|total| total != self.size)
            {
                return Err(Trouble::Invalid(format!(
                    "sent bytes {}-{} of {} where {first}-{last} of {} were asked for",
                    range.first,
                    range.last,
                    range.total.map_or_else(|| "?".to_owned(), |total| total.to_string()),
                    self.size
                )));
            }
        }
        self.receive(response, want, &mut into).await?;
        Ok(into)
    }

    /// Takes a response's body, which must end where the run ends.
    async fn receive(
        &self,
        mut response: Response,
        want: PieceRun,
        into: &mut PieceBuf,
    ) -> Result<(), Trouble> {
        while let Some(chunk) = next_chunk(&mut response).await? {
            into.append(&chunk).await?;
            self.came(want, into);
        }
        if into.remaining() > 0 {
            return Err(Trouble::Passing("ended its answer early".into(), None));
        }
        Ok(())
    }

    /// Something came. Only a whole piece shows that the server does its work.
    fn came(&self, want: PieceRun, into: &PieceBuf) {
        let piece = u64::from(want.layout().piece_length()).min(want.length());
        if want.length().saturating_sub(into.remaining()) >= piece {
            self.standing.delivered(want.first());
        }
    }

    /// Makes a request; an answer of 200 or 206 for the right version.
    async fn ask(&self, range: Option<String>, into: &PieceBuf) -> Result<Response, Trouble> {
        let mut request = self.client.get(self.url.clone());
        let ranged = range.is_some();
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        let (asked, within) = (Instant::now(), self.standing.answer_within());
        let waiting = into.arrivals().waiting();
        let answered = tokio::time::timeout(within, request.send()).await;
        drop(waiting);
        self.standing.thought(asked.elapsed().min(within));
        let response = answered.map_err(|_| Trouble::silent(within))?;
        let response = response.map_err(|error| match mirror::refused(&error) {
            Some(refused) => Trouble::Refused(refused.to_string()),
            None => Trouble::Passing(client::reason(error), None),
        })?;
        let status = response.status();
        match status {
            StatusCode::OK => {}
            StatusCode::PARTIAL_CONTENT if ranged => {}
            _ if ranged && answer::dislikes_range(status, response.headers()) => {
                return Err(Trouble::Range(format!("answers {status} to a request for a part")));
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                return Err(Trouble::Invalid("has a file of another size there now".into()));
            }
            _ if is_passing(status) => {
                return Err(Trouble::Passing(format!("answers {status}"), retry_after(response.headers())));
            }
            _ => return Err(Trouble::Final(format!("answers {status}"))),
        }
        let version = Validators::of(response.headers());
        if let Some(known) = &self.validators {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            if !known.allow(&version) {
                return Err(Trouble::Invalid("has another version of the file now".into()));
            }
            known.learn(version);
        }
        Ok(response)
    }

    /// That a whole answer is of the file's size.
    fn check_length(&self, response: &Response) -> Result<(), Trouble> {
        match response.content_length() {
            Some(length) if length != self.size => Err(Trouble::Invalid(format!(
                "sends {length} bytes where the file has {}: an error page, or another file",
                self.size
            ))),
            _ => Ok(()),
        }
    }

    /// What the engine is told of a failure.
    fn judge(&self, trouble: Trouble) -> SourceError {
        match trouble {
            Trouble::Ours(error) => error.into(),
            Trouble::Invalid(reason) => SourceError::Invalid(reason),
            Trouble::Final(reason) | Trouble::Range(reason) => SourceError::Gone(reason),
            Trouble::Refused(reason) => {
                self.standing.refused();
                SourceError::Gone(reason)
            }
            Trouble::Passing(reason, retry) => {
                let pause = self.standing.failed(&reason);
                tracing::debug!(url = %client::without_credentials(&self.url), reason, ?pause, "request failed");
                match pause {
                    Some(pause) => SourceError::Busy(retry.unwrap_or(pause).min(LONGEST_RETRY)),
                    None => SourceError::Gone(reason),
                }
            }
        }
    }
}

impl PieceSource for HttpSource {
    fn limits(&self) -> Limits {
        Limits {
            max_in_flight: self.connections,
            min_in_flight: if self.parallel { self.connections } else { 1 },
            max_in_flight_bytes: u64::MAX,
            run: Run::UpTo(MAX_RUN),
        }
    }

    fn have(&self) -> watch::Receiver<Have> {
        self.have.subscribe()
    }

    async fn fetch(&self, want: PieceRun, into: PieceBuf) -> Result<PieceBuf, SourceError> {
        let fetched = if self.whole.ignores_ranges() {
            self.whole.fetch(self, want, into).await
        } else {
            self.ranged(want, into).await
        };
        fetched.map_err(|trouble| self.judge(trouble))
    }
}

/// What went wrong with a request.
#[derive(Debug)]
enum Trouble {
    /// The buffer takes no more.
    Ours(BufferError),
    /// The server did what no right server does.
    Invalid(String),
    /// It will not help to ask again.
    Final(String),
    /// It does not like to be asked for a part.
    Range(String),
    /// It leads to where we may not go.
    Refused(String),
    /// It may help to ask again, after that time if the server said so.
    Passing(String, Option<Duration>),
}

impl Trouble {
    fn silent(time: Duration) -> Self {
        Self::Passing(format!("sent nothing for {:.1} s", time.as_secs_f64()), None)
    }
}

impl From<BufferError> for Trouble {
    fn from(error: BufferError) -> Self {
        match error {
            BufferError::TooLong => Self::Invalid("sent more bytes than were asked for".into()),
            BufferError::Closed => Self::Ours(error),
        }
    }
}

/// The next bytes of a body; `None` at its end. Safe to drop.
async fn next_chunk(response: &mut Response) -> Result<Option<Bytes>, Trouble> {
    match tokio::time::timeout(STALL, response.chunk()).await {
        Ok(Ok(chunk)) => Ok(chunk),
        Ok(Err(error)) => Err(Trouble::Passing(client::reason(error), None)),
        Err(_) => Err(Trouble::silent(STALL)),
    }
}
