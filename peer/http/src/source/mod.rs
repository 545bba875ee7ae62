//! An HTTP server as a source of pieces: a run of pieces is one range request on a connection that is kept. It only
//! carries bytes and says what went wrong; the engine checks the bytes and decides what follows.

pub mod answer;
mod holdings;
mod patience;
mod place;
mod trouble;
mod versions;
mod whole;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use reqwest::{Client, Response, StatusCode, Url, header};
use shoal_common::Layout;
use shoal_engine::{Have, Limits, PieceBuf, PieceRun, PieceSource, Run, SourceError};
use tokio::sync::{OnceCell, watch};

use crate::client;
use crate::held::{HAVE, Held};
use crate::source::answer::{content_range, is_passing, refused_size, retry_after};
use crate::source::holdings::Refusal;
pub(crate) use crate::source::holdings::{Holdings, ask_held};
pub use crate::source::patience::{Failing, Patience, Standing};
use crate::source::place::Place;
pub(crate) use crate::source::trouble::Trouble;
use crate::source::trouble::next_chunk;
pub(crate) use crate::source::versions::Sampler;
pub use crate::source::versions::{Joined, Samples, Versions};
use crate::source::whole::WholeStream;

/// How long a server that fails is tried again, where the caller does not say.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest time that a server's `Retry-After` is honoured; then it is tried again.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// Shortest range tried with a server that refuses long ones: the length of a piece.
const SHORTEST_RANGE: u64 = 64 * 1024;
/// A server that sends less per answer counts as failing: the requests would cost more than the file.
const SHORTEST_PART: u64 = 1024;
/// Most bytes in front of the requested ones that are read and skipped, for servers that send whole blocks of their own.
const LONGEST_SKIP: u64 = 1024 * 1024;
/// Pause after a refused part, until it is known not to ask for it again.
const AFTER_A_REFUSAL: Duration = Duration::from_millis(20);
/// Pieces in one request at most: no bound but the engine's, which goes by time.
const MAX_RUN: u32 = 4_096;

/// One file on one HTTP server.
#[derive(Debug)]
pub struct HttpSource {
    client: Client,
    place: Place,
    /// The URL that was given redirects.
    redirected: bool,
    size: u64,
    /// It was seen to serve a range.
    ranges: bool,
    /// Longest range that is asked for at once, in bytes.
    largest: AtomicU64,
    connections: usize,
    /// As many from the start, and not only where the rate needs them.
    parallel: bool,
    holdings: Arc<Holdings>,
    standing: Arc<Standing>,
    /// Samples of the file on the other servers, and whether this server has the same; compared before anything is used.
    reference: Option<Samples>,
    matches: OnceCell<bool>,
    /// The versions that its answers are of. `None`: not compared.
    versions: Option<Arc<Versions>>,
    /// What is read of a server that ignores ranges.
    whole: WholeStream,
}

impl HttpSource {
    /// The file of `size` bytes at `url`, over at most `connections` connections at once (0 is taken as 1).
    #[must_use]
    pub fn new(client: Client, url: Url, size: u64, connections: usize) -> Self {
        Self {
            client,
            place: Place::new(url),
            redirected: false,
            size,
            ranges: false,
            largest: AtomicU64::new(u64::MAX),
            connections: connections.max(1),
            parallel: false,
            holdings: Arc::new(Holdings::unknown()),
            standing: Arc::new(Standing::new(Patience::new(PATIENCE))),
            reference: None,
            matches: OnceCell::new(),
            versions: None,
            whole: WholeStream::default(),
        }
    }

    /// Records how long the server took for its last answer, and whether it serves ranges.
    #[must_use]
    pub fn that_answered(mut self, after: Duration, ranges: bool) -> Self {
        self.standing.thought(after);
        self.ranges = ranges;
        if !ranges {
            self.whole.ignore_ranges();
        }
        self
    }

    /// Knows that the URL led to `target`, and asks there directly for as long as that works.
    #[must_use]
    pub fn redirected_to(mut self, target: Url) -> Self {
        self.redirected = target != self.place.original;
        self.place.remember(target);
        self
    }

    /// Knows that the server holds only `held`, and says so at `url`.
    #[must_use]
    pub(crate) fn holding(mut self, url: Url, layout: Layout, held: &Held) -> Self {
        self.holdings = Arc::new(Holdings::claimed(url, layout, held));
        self
    }

    /// What the server holds, now and later.
    pub(crate) fn holdings(&self) -> Arc<Holdings> {
        self.holdings.clone()
    }

    /// Keeps all its connections busy. A user who asks for a number of them expects it: servers may limit each by itself.
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

    /// Insists that the file stays one version, of which `known` is what is known already; the rest is learnt from the first
    /// answer. For content without piece digests, where nothing else keeps two versions apart. `digest_known`: a digest of the
    /// whole file is compared at the end. `fresh`: nothing of the file is there yet.
    #[must_use]
    pub fn insisting(mut self, known: Joined, digest_known: bool, fresh: bool) -> Self {
        self.versions = Some(Arc::new(Versions::new(self.size, known, digest_known, fresh)));
        self
    }

    /// Is used only if the file has these bytes, as it has on other servers.
    #[must_use]
    pub fn that_matches(mut self, reference: Samples) -> Self {
        self.reference = Some(reference);
        self
    }

    /// Whether the file is that of the other servers.
    async fn compare(&self, into: &PieceBuf) -> Result<(), Trouble> {
        let Some(reference) = &self.reference else { return Ok(()) };
        let _waiting = into.arrivals().waiting();
        let within = self.standing.answer_within();
        let sampler =
            Sampler { client: &self.client, urls: &[&self.place.original], size: self.size, within };
        let sampled = self.matches.get_or_try_init(|| async {
            let samples = sampler.two().await;
            if samples.is_err() {
                // It may only think for longer.
                self.standing.thought(within);
            }
            samples.map(|samples| samples.is_some_and(|samples| samples.allow(reference)))
        });
        match sampled.await? {
            true => Ok(()),
            false => Err(Trouble::Invalid("has another file of the same size than the other servers".into())),
        }
    }

    /// The versions that its answers are of, if they are compared.
    #[must_use]
    pub fn versions(&self) -> Option<Arc<Versions>> {
        self.versions.clone()
    }

    /// Fetches a run by ranges: what one answer leaves out is asked for with the next.
    async fn ranged(&self, want: &PieceRun, mut into: PieceBuf) -> Result<PieceBuf, Trouble> {
        let end = want.offset() + want.length();
        let mut largest = self.largest.load(Ordering::Relaxed);
        let piece = u64::from(want.layout().piece_length());
        // As long as it is not clear where what the server lacks begins.
        let mut cautious = u64::MAX;
        while into.remaining() > 0 {
            let first = end - into.remaining();
            let last = first + into.remaining().min(largest).min(cautious) - 1;
            let part = match self.ask(Some((first, last)), &into).await {
                Ok(part) => part,
                // It may lack only what is behind the first piece.
                Err(Trouble::Lacking(..)) if last / piece > first / piece => {
                    cautious = piece - first % piece;
                    continue;
                }
                // Some refuse only long ones.
                Err(Trouble::Range(_)) if self.ranges && last - first >= SHORTEST_RANGE => {
                    largest = ((last - first) / 4).max(SHORTEST_RANGE);
                    continue;
                }
                // A server that never served a range may have the file all the same.
                Err(Trouble::Range(_)) if !self.whole.serves_ranges() => {
                    self.whole.ignore_ranges();
                    return self.whole.fetch(self, want, into).await;
                }
                Err(Trouble::Range(reason)) if self.redirected && self.place.refused() => {
                    return Err(Trouble::Passing(reason, None));
                }
                Err(trouble) => return Err(trouble),
            };
            self.largest.fetch_min(largest, Ordering::Relaxed);
            cautious = cautious.saturating_mul(2);
            let Some((begins, ends)) = part.range else {
                self.whole.is_whole(part.response, self.size).await;
                return self.whole.fetch(self, want, into).await;
            };
            self.whole.saw_range();
            let (skip, most) = (first - begins, ends.min(last) + 1 - first);
            self.receive(part.response, (skip, most, ends <= last), want, &mut into).await?;
            if most < SHORTEST_PART && into.remaining() > 0 {
                return Err(Trouble::Passing(format!("sends only {most} bytes at a time"), None));
            }
        }
        Ok(into)
    }

    /// Takes `most` bytes of a body behind the first `skip`. It must not end before, and not go on where they are all.
    async fn receive(
        &self,
        mut response: Response,
        (mut skip, mut most, all): (u64, u64, bool),
        want: &PieceRun,
        into: &mut PieceBuf,
    ) -> Result<(), Trouble> {
        while let Some(mut chunk) = next_chunk(&mut response).await? {
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            chunk.advance(skipped);
            skip -= skipped as u64;
            let wanted = usize::try_from(most).unwrap_or(usize::MAX).min(chunk.len());
            let mut more = wanted < chunk.len();
            chunk.truncate(wanted);
            if chunk.is_empty() {
                continue;
            }
            most -= chunk.len() as u64;
            self.take(&chunk, want, into).await?;
            if most > 0 {
                continue;
            }
            // Where the answer does not say how long it is, its end does, and the connection can be used again.
            if all && !more && response.content_length().is_none() {
                more = next_chunk(&mut response).await?.is_some();
            }
            return match all && more {
                true => Err(Trouble::Invalid("sent more bytes than were asked for".into())),
                false => Ok(()),
            };
        }
        Err(Trouble::Passing("ended its answer early".into(), None))
    }

    /// Bytes of the file came. Only a whole piece shows that the server does its work.
    async fn take(&self, bytes: &Bytes, want: &PieceRun, into: &mut PieceBuf) -> Result<(), Trouble> {
        if let Some(versions) = &self.versions {
            versions.came(want.offset() + want.length() - into.remaining(), bytes);
        }
        into.append(bytes).await?;
        let piece = u64::from(want.layout().piece_length()).min(want.length());
        if want.length().saturating_sub(into.remaining()) >= piece {
            self.standing.delivered(want.first());
            self.holdings.delivered();
            self.place.delivered();
        }
        Ok(())
    }

    /// Asks where the file was last found, and, if that says no, at the URL that was given.
    async fn ask(&self, range: Option<(u64, u64)>, into: &PieceBuf) -> Result<Part, Trouble> {
        let waiting = into.arrivals().waiting();
        let asked = self.ask_somewhere(range).await;
        drop(waiting);
        asked
    }

    async fn ask_somewhere(&self, range: Option<(u64, u64)>) -> Result<Part, Trouble> {
        if let Some(target) = self.place.target() {
            match self.ask_at(&target, range).await {
                Ok(part) => {
                    self.place.still_works();
                    return Ok(part);
                }
                Err(trouble @ (Trouble::Passing(..) | Trouble::Ours(_))) => {
                    self.place.expired(&target);
                    return Err(trouble);
                }
                Err(trouble) => {
                    tracing::debug!(url = %client::without_credentials(&target), ?trouble, "target says no");
                    self.place.expired(&target);
                }
            }
        }
        let asked = self.ask_at(&self.place.original, range).await;
        match asked {
            Ok(part) => {
                self.place.led_to(part.response.url());
                Ok(part)
            }
            // It led somewhere before, and may again.
            Err(Trouble::Final(reason)) if self.redirected && self.place.refused() => {
                Err(Trouble::Passing(reason, None))
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// Makes a request; an answer of 200 or 206 that can be of the right file.
    async fn ask_at(&self, url: &Url, range: Option<(u64, u64)>) -> Result<Part, Trouble> {
        let mut request = self.client.get(url.clone());
        if let Some((first, last)) = range {
            request = request.header(header::RANGE, format!("bytes={first}-{last}"));
        }
        let (asked, within) = (Instant::now(), self.standing.answer_within());
        let answered = tokio::time::timeout(within, request.send()).await;
        self.standing.thought(asked.elapsed().min(within));
        let response = answered.map_err(|_| Trouble::silent(within))?.map_err(Trouble::unanswered)?;
        let status = response.status();
        if let Some((first, _)) = range.filter(|_| self.lacks(status, response.headers())) {
            return Err(Trouble::Lacking(first, format!("answers {status} to a request for a part")));
        }
        match status {
            StatusCode::OK => {}
            StatusCode::PARTIAL_CONTENT if range.is_some() => {}
            _ if range.is_some() && answer::dislikes_range(status, response.headers()) => {
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
        let part = self.part(response, range)?;
        if let Some(versions) = &self.versions {
            let url = client::with_credentials(part.response.url().clone(), &self.place.original);
            let urls = [&url, &self.place.original];
            let sampler = Sampler { client: &self.client, urls: &urls, size: self.size, within };
            versions.check(&sampler, &part.response).await?;
        }
        Ok(part)
    }

    /// Whether an answer says that only this part of the file is not there. Other servers than ours say so in the words for
    /// a range behind the end, or for no file at all, although they sent other parts of it.
    fn lacks(&self, status: StatusCode, headers: &header::HeaderMap) -> bool {
        match status {
            StatusCode::SERVICE_UNAVAILABLE => headers.contains_key(HAVE),
            StatusCode::RANGE_NOT_SATISFIABLE => refused_size(headers) == Some(self.size),
            StatusCode::NOT_FOUND => self.ranges && !self.redirected && self.standing.first_piece().is_some(),
            _ => false,
        }
    }

    /// A part was refused: the pieces from the first missing byte on are not asked for again soon.
    fn judge_refusal(&self, reason: String, want: &PieceRun, from: u64) -> SourceError {
        let layout = want.layout().clone();
        let index = u32::try_from(from / u64::from(layout.piece_length())).ok();
        let first = index.and_then(|index| layout.piece(index)).unwrap_or(want.first());
        match self.holdings.refused(layout, first) {
            Refusal::Lacking => SourceError::Busy(AFTER_A_REFUSAL),
            Refusal::TooOften => SourceError::Gone(reason),
            Refusal::Lie => SourceError::Invalid("says that it has parts which it does not send".into()),
        }
    }

    /// What of the file an answer is, by its headers.
    fn part(&self, response: Response, asked: Option<(u64, u64)>) -> Result<Part, Trouble> {
        let Some((first, last)) = asked.filter(|_| response.status() == StatusCode::PARTIAL_CONTENT) else {
            return self.whole(response);
        };
        // Without a range it may be anything, or several parts in an envelope.
        let range = content_range(response.headers()).ok_or_else(|| {
            Trouble::Range("answers a request for a part without saying which part it sends".into())
        })?;
        let length = range.last - range.first + 1;
        if range.total.is_some_and(|total| total != self.size) || range.last >= self.size {
            return Err(Trouble::Invalid(format!(
                "has a file of {} bytes there now, where it had {}",
                range.total.map_or_else(|| "more".to_owned(), |total| total.to_string()),
                self.size
            )));
        }
        if response.content_length().is_some_and(|sent| sent != length) {
            return Err(Trouble::Invalid("sends more or fewer bytes than it says".into()));
        }
        if length == self.size && (first, last) != (range.first, range.last) {
            // It ignores what was asked for, and only calls it a part.
            return Ok(Part { response, range: None });
        }
        // A server may send less of what was asked for (RFC 9110, section 15.3.7). Some send whole blocks of their own.
        if range.first > first || range.last < first || first - range.first > LONGEST_SKIP {
            return Err(Trouble::Invalid(format!(
                "sent bytes {}-{} where {first}-{last} were asked for",
                range.first, range.last
            )));
        }
        Ok(Part { response, range: Some((range.first, range.last)) })
    }

    /// An answer with the whole file.
    fn whole(&self, response: Response) -> Result<Part, Trouble> {
        match response.content_length() {
            Some(length) if length != self.size => Err(Trouble::Invalid(format!(
                "sends {length} bytes where the file has {}: an error page, or another file",
                self.size
            ))),
            // Probably a page, such as a login form.
            None if self.ranges => {
                Err(Trouble::Invalid("sends something of unknown length where it had the file".into()))
            }
            _ => Ok(Part { response, range: None }),
        }
    }

    /// Translates a failure for the engine.
    fn judge(&self, trouble: Trouble) -> SourceError {
        match trouble {
            Trouble::Ours(error) => error.into(),
            Trouble::Invalid(reason) => SourceError::Invalid(reason),
            Trouble::Final(reason) | Trouble::Range(reason) | Trouble::Lacking(_, reason) => {
                SourceError::Gone(reason)
            }
            Trouble::Refused(reason) => {
                self.standing.refused();
                SourceError::Gone(reason)
            }
            Trouble::Passing(reason, retry) => {
                let pause = self.standing.failed(&reason);
                tracing::debug!(url = %client::without_credentials(&self.place.original), reason, ?pause, "request failed");
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
        self.holdings.watch()
    }

    async fn fetch(&self, want: PieceRun, into: PieceBuf) -> Result<PieceBuf, SourceError> {
        self.compare(&into).await.map_err(|trouble| self.judge(trouble))?;
        let fetched = if self.whole.ignores_ranges() {
            self.whole.fetch(self, &want, into).await
        } else {
            self.ranged(&want, into).await
        };
        fetched.map_err(|trouble| match trouble {
            Trouble::Lacking(from, reason) => self.judge_refusal(reason, &want, from),
            trouble => self.judge(trouble),
        })
    }
}

/// An answer with some of the file.
struct Part {
    response: Response,
    /// Its first and last byte; `None`: the whole file, from its start.
    range: Option<(u64, u64)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
