//! The other end of the socket: `shoal` asks a running daemon. One request per connection.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::HeaderMap;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use shoal_common::Password;
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::api::{CommandBody, Said};
use crate::{VERSION, VERSION_HEADER, socket};

/// The longest line of an answer: a list of all files of a group, as text and as JSON.
const MAX_LINE: usize = 256 * 1024 * 1024;
/// Bytes of an error's body that are read.
const MAX_ERROR: usize = 64 * 1024;
/// How long a socket may have no room for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long is waited meanwhile before the next try.
const CONNECT_AGAIN: Duration = Duration::from_millis(20);
/// How long the head of an answer may take. A command's answer begins before the command does.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// After this silence within an answer it is asked whether the daemon still answers at all. A command may take as long as it takes.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Why a daemon did not answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nothing answers there.
    #[error("no daemon answers at {}: {error}", .path.display())]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// It is there, and says nothing.
    #[error(
        "the daemon at {} does not answer; is it stopped? type fg where it runs, or end it; whether the command takes effect is open",
        .path.display()
    )]
    Silent {
        /// The socket.
        path: PathBuf,
    },
    /// What listens there is another user's.
    #[error("{} belongs to another user's program (uid {uid}); nothing was sent to it", .path.display())]
    Stranger {
        /// The socket.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// It ended before it had answered.
    #[error(
        "the daemon ended or was killed before it answered; whether the command took effect is open: start it and look"
    )]
    Cut,
    /// It refuses.
    #[error("{text}")]
    Refused {
        /// What it says.
        text: String,
    },
    /// It answers what this version does not understand.
    #[error(
        "the daemon is of another version ({theirs}, this program is {VERSION}): start both from one version"
    )]
    OtherVersion {
        /// The version that it says it is.
        theirs: String,
    },
}

/// A command for a daemon.
#[derive(Debug, Default)]
pub struct Command {
    /// Its words.
    pub argv: Vec<String>,
    /// The folder that relative paths in it are relative to.
    pub folder: Option<PathBuf>,
    /// The passwords that it asks for.
    pub passwords: Vec<Password>,
}

/// An answer that comes line by line.
#[derive(Debug)]
pub struct Lines {
    at: PathBuf,
    body: Incoming,
    read: BytesMut,
    version: String,
}

/// Sends a command; what it says comes out of [`Lines::said`]. Dropping that ends the command.
///
/// # Errors
/// See [`CallError`].
pub async fn command(at: &Path, command: Command) -> Result<Lines, CallError> {
    let passwords = command.passwords.iter().map(|one| Zeroizing::new(one.expose().to_owned())).collect();
    // Without a folder a relative path is refused, and everything else works.
    let folder = command.folder.filter(|folder| folder.to_str().is_some());
    let body = CommandBody { line: None, argv: Some(command.argv), folder, passwords, stream: true };
    let body = serde_json::to_vec(&body).expect("a vector takes text");
    Lines::of(at, call(at, Method::POST, "/api/1/command", body).await?).await
}

/// Asks for events from now on; they come out of [`Lines::event`].
///
/// # Errors
/// See [`CallError`].
pub async fn events(at: &Path) -> Result<Lines, CallError> {
    Lines::of(at, call(at, Method::GET, "/api/1/events", Vec::new()).await?).await
}

/// Asks for a link for a browser, with a code that is good once.
///
/// # Errors
/// See [`CallError`].
pub async fn link(at: &Path) -> Result<Value, CallError> {
    object(at, Method::POST, "/api/1/link").await
}

/// Asks for such a link in a file for a browser to open.
///
/// # Errors
/// See [`CallError`].
pub async fn link_file(at: &Path) -> Result<Value, CallError> {
    object(at, Method::POST, "/api/1/link/file").await
}

/// Asks which daemon it is.
///
/// # Errors
/// See [`CallError`].
pub async fn about(at: &Path) -> Result<Value, CallError> {
    object(at, Method::GET, "/api/1").await
}

/// Asks for one object.
async fn object(at: &Path, method: Method, path: &str) -> Result<Value, CallError> {
    let mut lines = Lines::of(at, call(at, method, path, Vec::new()).await?).await?;
    let line = lines.line().await?.ok_or(CallError::Cut)?;
    serde_json::from_slice(&line).map_err(|_| lines.other_version())
}

impl Lines {
    async fn of(at: &Path, response: Response<Incoming>) -> Result<Self, CallError> {
        let version = version(response.headers());
        let status = response.status();
        let body = response.into_body();
        if status == StatusCode::OK {
            return Ok(Self { at: at.to_owned(), body, read: BytesMut::new(), version });
        }
        let limited = http_body_util::Limited::new(body, MAX_ERROR);
        let collected = timeout(HEAD_WITHIN, limited.collect()).await;
        let collected = collected.map_err(|_| CallError::Silent { path: at.to_owned() })?;
        let bytes = collected.map(|body| body.to_bytes()).unwrap_or_default();
        let said = serde_json::from_slice::<Value>(&bytes).ok();
        let text = said.as_ref().and_then(|said| said["error"].as_str());
        match text {
            Some(text) if status != StatusCode::NOT_FOUND => {
                Err(CallError::Refused { text: text.to_owned() })
            }
            _ => Err(CallError::OtherVersion { theirs: version }),
        }
    }

    /// What the command says next. After [`Said::Done`] nothing comes.
    ///
    /// # Errors
    /// [`CallError::Cut`] when the daemon ended, [`CallError::Silent`] when it was stopped meanwhile, or [`CallError::OtherVersion`].
    pub async fn said(&mut self) -> Result<Said, CallError> {
        let line = self.line().await?.ok_or(CallError::Cut)?;
        serde_json::from_slice(&line).map_err(|_| self.other_version())
    }

    /// The next event; none when the daemon has ended in order.
    ///
    /// # Errors
    /// [`CallError::Cut`] when the daemon was killed, [`CallError::Silent`] when it was stopped, or [`CallError::OtherVersion`].
    pub async fn event(&mut self) -> Result<Option<Value>, CallError> {
        while let Some(line) = self.line().await? {
            if let Some(data) = line.strip_prefix(b"data: ") {
                return serde_json::from_slice(data).map(Some).map_err(|_| self.other_version());
            }
        }
        Ok(None)
    }

    fn other_version(&self) -> CallError {
        CallError::OtherVersion { theirs: self.version.clone() }
    }

    /// The next line without its end; none behind the last.
    async fn line(&mut self) -> Result<Option<Bytes>, CallError> {
        let mut looked_at = 0;
        loop {
            if let Some(end) = self.read[looked_at..].iter().position(|&byte| byte == b'\n') {
                let mut line = self.read.split_to(looked_at + end + 1);
                line.truncate(looked_at + end);
                return Ok(Some(line.freeze()));
            }
            looked_at = self.read.len();
            if looked_at > MAX_LINE {
                return Err(self.other_version());
            }
            let Ok(frame) = timeout(ASK_AGAIN, self.body.frame()).await else {
                still_answers(&self.at).await?;
                continue;
            };
            match frame {
                None if self.read.is_empty() => return Ok(None),
                None | Some(Err(_)) => return Err(CallError::Cut),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

fn version(headers: &HeaderMap) -> String {
    let named = headers.get(VERSION_HEADER).and_then(|version| version.to_str().ok());
    named.unwrap_or("one that does not say").chars().take(40).collect()
}

/// Whether a daemon that says nothing for a while still takes requests: one that is stopped does not.
async fn still_answers(at: &Path) -> Result<(), CallError> {
    match call(at, Method::GET, "/api/1", Vec::new()).await {
        Err(silent @ CallError::Silent { .. }) => Err(silent),
        // If it ended, the answer that is waited for is cut off, too.
        _ => Ok(()),
    }
}

async fn call(at: &Path, method: Method, path: &str, body: Vec<u8>) -> Result<Response<Incoming>, CallError> {
    let stream = connect(at).await?;
    let (mut sender, connection) =
        http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.map_err(|_| CallError::Cut)?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, "localhost")
        .header(hyper::header::CONTENT_TYPE, "application/json")
        .header(VERSION_HEADER, VERSION)
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| CallError::Cut)?;
    match timeout(HEAD_WITHIN, sender.send_request(request)).await {
        Ok(answered) => answered.map_err(|_| CallError::Cut),
        Err(_) => Err(CallError::Silent { path: at.to_owned() }),
    }
}

async fn connect(at: &Path) -> Result<UnixStream, CallError> {
    let begun = Instant::now();
    let no_daemon = |error| CallError::NoDaemon { path: at.to_owned(), error };
    let stream = loop {
        match UnixStream::connect(at).await {
            // All places in its queue are taken at this moment.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if begun.elapsed() >= CONNECT_WITHIN {
                    return Err(CallError::Silent { path: at.to_owned() });
                }
                tokio::time::sleep(CONNECT_AGAIN).await;
            }
            connected => break connected.map_err(no_daemon)?,
        }
    };
    let uid = stream.peer_cred().map_err(no_daemon)?.uid();
    if socket::may_be_told(uid) { Ok(stream) } else { Err(CallError::Stranger { path: at.to_owned(), uid }) }
}
