//! Asks a server what it has: size, digests, pieces, ranges. Trusts no answer, and is bounded in time and memory whatever
//! the server does.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, Url, header};
use shoal_common::FileName;
use tokio::time::Instant;

use crate::client;
use crate::fetch::majority::Claim;
use crate::held::{HAVE, Held};
use crate::metalink::{self, MAX_METALINK_BYTES, MetalinkError, MetalinkFile};
use crate::source::answer::{self, Validators};
use crate::source::{Samples, ask_held};
use crate::url_text::{encode_path, file_name};

/// Longest time for one question.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time that a server may take to compute its digests before it counts as not answering.
const COMPUTING: Duration = Duration::from_secs(600);
/// Pauses before a question is asked again that came to nothing.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(750)];
/// Longest pause before it is asked again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Names that a message repeats at most.
const SHOWN_NAMES: usize = 5;

/// Something that may have the file.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// What users know it by.
    pub(super) label: String,
    pub(super) place: Place,
}

/// Where to look.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// A server, `http://host:port/`, and the file's name there; `None`: the one that it serves.
    Server(Url, Option<String>),
    /// The file itself.
    File(Url),
}

impl Place {
    /// The file's URL, if it is known.
    pub(super) fn url(&self) -> Option<&Url> {
        match self {
            Self::File(url) => Some(url),
            Self::Server(..) => None,
        }
    }
}

/// Why there is no Metalink.
enum Unread {
    /// The server answers something else.
    Refused(StatusCode),
    /// It does not answer, or with something that is of no use.
    Other(String),
}

/// What a server answered.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// The URL that was given.
    pub(super) original: Url,
    /// Where it led.
    pub(super) url: Url,
    pub(super) name: Option<FileName>,
    pub(super) claim: Claim,
    pub(super) ranges: bool,
    pub(super) validators: Validators,
    /// How long it took for the answer to begin.
    pub(super) took: Duration,
    /// What the file comes coded with although that was not asked for.
    pub(super) coding: Option<String>,
    /// Samples of the file on the other servers, where this one was not compared yet.
    pub(super) reference: Option<Samples>,
    /// What the server holds of the file, and where it says so; `None`: all of it, as far as it says.
    pub(super) held: Option<(Url, Held)>,
}

impl Answer {
    /// Whether the server has all of the file, as far as it says.
    pub(super) fn is_whole(&self) -> bool {
        self.held.as_ref().is_none_or(|(_, held)| held.is_all())
    }
}

/// A Metalink that was read, and where the server says which part of the file it holds, if it holds only a part.
struct Described {
    files: Vec<MetalinkFile>,
    have: Option<Url>,
}

/// The client that asks, and its time limit per answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) client: &'a Client,
    /// Longest time that a server may take to begin an answer.
    pub(super) within: Duration,
}

impl Asker<'_> {
    async fn send(&self, request: reqwest::RequestBuilder, patience: Duration) -> Result<Response, String> {
        send(request, patience, self.within).await
    }
}

/// Asks one candidate; the error says in a few words why it is of no use.
pub(super) async fn ask(asker: Asker<'_>, candidate: &Candidate) -> Result<Answer, String> {
    match &candidate.place {
        Place::File(url) => ask_file(asker, url).await,
        Place::Server(base, None) => ask_for_only_file(asker, base).await,
        Place::Server(base, Some(name)) => {
            let url = join(base, name)?;
            let metalink = join(base, &format!("{name}.meta4"))?;
            match try_metalink(asker, &metalink).await {
                Ok(Described { files, have }) => match only(files) {
                    Some(file) => with_held(asker, from_metalink(url, file), have).await,
                    None => ask_file(asker, &url).await,
                },
                // Not one of ours, or it does not have the file: the file itself will tell.
                Err(_) => ask_file(asker, &url).await,
            }
        }
    }
}

/// Downloads and reads a Metalink, waiting while the server still computes it.
pub(super) async fn read_metalink(asker: Asker<'_>, url: &Url) -> Result<Vec<MetalinkFile>, String> {
    try_metalink(asker, url).await.map(|described| described.files).map_err(|unread| match unread {
        Unread::Refused(status) => refusal(status),
        Unread::Other(reason) => reason,
    })
}

async fn try_metalink(asker: Asker<'_>, url: &Url) -> Result<Described, Unread> {
    let request = asker.client.get(url.clone()).header(header::ACCEPT, metalink::MEDIA_TYPE);
    let response = asker.send(request, COMPUTING).await.map_err(Unread::Other)?;
    if response.status() != StatusCode::OK {
        return Err(Unread::Refused(response.status()));
    }
    let have = have_url(&response);
    let body = tokio::time::timeout(TIMEOUT, body(response)).await;
    let body = body.map_err(|_| Unread::Other("its Metalink does not end".into()))?;
    let files = metalink::parse(&body.map_err(Unread::Other)?);
    files.map(|files| Described { files, have }).map_err(|error| match error {
        MetalinkError::Xml(_) | MetalinkError::Text | MetalinkError::NotMetalink => {
            Unread::Other("is no server of Shoal's; name the file with --file".into())
        }
        error => Unread::Other(error.to_string()),
    })
}

/// Where an answer says which part of the file the server holds, if it holds only a part: at the same server.
fn have_url(response: &Response) -> Option<Url> {
    let link = response.headers().get(HAVE)?.to_str().ok()?;
    let url = response.url().join(link).ok()?;
    (url.origin() == response.url().origin()).then_some(url)
}

/// The answer with what the server holds.
async fn with_held(asker: Asker<'_>, mut answer: Answer, have: Option<Url>) -> Result<Answer, String> {
    if let Some(url) = have {
        let url = client::with_credentials(url, &answer.original);
        let held = ask_held(asker.client, &url, asker.within).await?;
        if answer.claim.size.is_some_and(|size| size != held.size()) {
            return Err("contradicts itself on the size of the file".into());
        }
        answer.claim.size = Some(held.size());
        answer.ranges = true;
        answer.held = Some((url, held));
    }
    Ok(answer)
}

async fn body(mut response: Response) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(client::reason)? {
        if bytes.len() + chunk.len() > MAX_METALINK_BYTES {
            return Err("its Metalink is too long".into());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Asks, and again if the connection broke off or the server has trouble that may pass: a few times, or, while it says itself
/// when to come back, for as long as `patience`.
async fn send(
    mut request: reqwest::RequestBuilder,
    patience: Duration,
    within: Duration,
) -> Result<Response, String> {
    let (started, mut pauses) = (Instant::now(), PAUSES.into_iter());
    loop {
        let again = request.try_clone();
        let answer = tokio::time::timeout(within, request.send()).await;
        let answer = answer.map_err(|_| format!("did not answer within {} s", within.as_secs()))?;
        let pause = match &answer {
            Ok(response) if response.headers().contains_key(HAVE) => None,
            Ok(response) if answer::is_passing(response.status()) => {
                match answer::retry_after(response.headers()) {
                    Some(pause) => (started.elapsed() < patience).then_some(pause.min(LONGEST_PAUSE)),
                    None => pauses.next(),
                }
            }
            Err(error) if client::broke_off(error) => pauses.next(),
            _ => None,
        };
        let (Some(pause), Some(next)) = (pause, again) else { return answer.map_err(client::reason) };
        request = next;
        tokio::time::sleep(pause).await;
    }
}

async fn ask_for_only_file(asker: Asker<'_>, base: &Url) -> Result<Answer, String> {
    let Described { files, have } = try_metalink(asker, base).await.map_err(|unread| match unread {
        Unread::Refused(status) => {
            format!("{}; if this is not a Shoal server, name the file with --file", refusal(status))
        }
        Unread::Other(reason) => reason,
    })?;
    let [file] = &files[..] else {
        let names: Vec<String> = files.iter().take(SHOWN_NAMES).map(MetalinkFile::path).collect();
        let more = if files.len() > SHOWN_NAMES { ", …" } else { "" };
        return Err(match names.is_empty() {
            true => "serves no file".into(),
            false => format!("serves several files ({}{more}); choose one with --file", names.join(", ")),
        });
    };
    let url = join(base, &file.path())?;
    if !file.digests.is_empty() {
        return with_held(asker, from_metalink(url, file.clone()), have).await;
    }
    let metalink = join(base, &format!("{}.meta4", file.path()))?;
    match try_metalink(asker, &metalink).await.map(|described| (only(described.files), described.have)) {
        Ok((Some(file), have)) => with_held(asker, from_metalink(url, file), have).await,
        _ => ask_file(asker, &url).await,
    }
}

fn only(files: Vec<MetalinkFile>) -> Option<MetalinkFile> {
    let mut files = files.into_iter();
    files.next().filter(|_| files.next().is_none())
}

fn join(base: &Url, name: &str) -> Result<Url, String> {
    base.join(&format!("./{}", encode_path(name))).map_err(|error| format!("no URL for {name:?}: {error}"))
}

fn from_metalink(url: Url, file: MetalinkFile) -> Answer {
    Answer {
        original: url.clone(),
        url,
        name: Some(file.name),
        claim: Claim { size: file.size, digests: file.digests, pieces: file.pieces },
        ranges: true,
        validators: Validators::default(),
        took: Duration::ZERO,
        coding: None,
        reference: None,
        held: None,
    }
}

/// Asks for the file's first byte, or for the file where a part is not liked, and follows the Metalink that the answer
/// points to.
async fn ask_file(asker: Asker<'_>, url: &Url) -> Result<Answer, String> {
    if url.path().ends_with('/') {
        return Err("names a folder, not a file".into());
    }
    let get = || asker.client.get(url.clone());
    let mut asked = Instant::now();
    let mut response = asker.send(get().header(header::RANGE, "bytes=0-0"), asker.within).await?;
    let empty = response.status() == StatusCode::RANGE_NOT_SATISFIABLE
        && answer::refused_size(response.headers()) == Some(0);
    let have = have_url(&response);
    let unsaid = response.status() == StatusCode::PARTIAL_CONTENT
        && answer::content_range(response.headers()).is_none();
    if unsaid || !empty && answer::dislikes_range(response.status(), response.headers()) {
        asked = Instant::now();
        response = asker.send(get(), asker.within).await?;
    }
    let took = asked.elapsed();
    let headers = response.headers();
    // A folder answers with a page about it. Servers redirect there when the slash is left out.
    let page = response.url().path() == format!("{}/", url.path());
    if response.status().is_success() && (page || headers.contains_key(answer::FOLDER)) {
        return Err("has a folder of that name, not a file".into());
    }
    let (mut size, ranges) = match response.status() {
        StatusCode::PARTIAL_CONTENT => match answer::content_range(headers) {
            // All of it, and only called a part.
            Some(range) if range.total.is_some_and(|total| total > 1 && range.last + 1 == total) => {
                (range.total, false)
            }
            Some(range) => (range.total, true),
            None => return Err("answers a range without saying which".into()),
        },
        StatusCode::OK => (content_length(headers), false),
        StatusCode::RANGE_NOT_SATISFIABLE if empty => (Some(0), true),
        // The first byte is not there yet.
        StatusCode::SERVICE_UNAVAILABLE if have.is_some() => (None, true),
        status => return Err(refusal(status)),
    };
    let mut answer = Answer {
        original: url.clone(),
        // After redirects: asking there at once saves a round trip for each part.
        url: client::with_credentials(response.url().clone(), url),
        name: file_name(url.path()).or_else(|| file_name(response.url().path())),
        claim: Claim { size: None, digests: answer::digests(headers), pieces: None },
        ranges,
        validators: Validators::of(headers),
        took,
        coding: answer::coding(headers),
        reference: None,
        held: None,
    };
    let metalink = answer::described_by(headers).and_then(|link| answer.url.join(&link).ok());
    let metalink = metalink.map(|link| client::with_credentials(link, &answer.url));
    drop(response);
    if have.is_some() {
        answer = with_held(asker, answer, have).await?;
        size = answer.claim.size;
    }
    if size.is_none() {
        // At the URL that was given: where it led may be good for one question of one kind.
        size = size_elsewhere(asker, url).await;
        if let Some(said) = size.filter(|_| ranges)
            && goes_on(asker, url, said).await
        {
            size = None;
        }
    }
    answer.claim.size = size;
    if let Some(metalink) = metalink.filter(|link| matches!(link.scheme(), "http" | "https"))
        && let Ok(files) = read_metalink(asker, &metalink).await
        && let Some(file) = only(files).filter(|file| size.is_none() || file.size == size)
    {
        answer.claim.size = size.or(file.size);
        answer.claim.digests = answer.claim.digests.or(&file.digests);
        answer.claim.pieces = file.pieces;
    }
    Ok(answer)
}

/// The size that one answer did not give, from others: to a question for the headers alone, then to one for the file. Servers
/// that make an answer while they send it say 0 to the first.
async fn size_elsewhere(asker: Asker<'_>, url: &Url) -> Option<u64> {
    for request in [asker.client.head(url.clone()), asker.client.get(url.clone())] {
        if let Ok(response) = asker.send(request, asker.within).await
            && response.status() == StatusCode::OK
            && let Some(size) = content_length(response.headers()).filter(|&size| size > 0)
        {
            return Some(size);
        }
    }
    None
}

/// Whether there are bytes behind the first `size`. An answer to another kind of question may have named another size.
async fn goes_on(asker: Asker<'_>, url: &Url, size: u64) -> bool {
    let request = asker.client.get(url.clone()).header(header::RANGE, format!("bytes={size}-{size}"));
    asker.send(request, asker.within).await.is_ok_and(|response| {
        response.status() == StatusCode::PARTIAL_CONTENT
            && answer::content_range(response.headers()).is_some_and(|range| range.first == size)
    })
}

fn refusal(status: StatusCode) -> String {
    let hint = match status {
        StatusCode::UNAUTHORIZED => {
            "; user and password can be put into the URL: http://USER:PASSWORD@HOST/…"
        }
        _ => "",
    };
    format!("answers {status}{hint}")
}

fn content_length(headers: &header::HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
