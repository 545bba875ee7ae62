//! What can be asked: a command, what happens (`feed`), and what there is (`resources`).
//!
//! A command is answered with the object that `--json` prints. With `"stream": true` lines come as they are said, one object
//! each, and the last one has the result and its text. A command ends when its caller goes away.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shoal_client::Client;
use shoal_common::Password;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::answer::{object, problem};
use crate::events::Recent;
use crate::keys::{CODE_LIFE, Keys};
use crate::resources::{self, Site};
use crate::{VERSION, VERSION_HEADER, body, feed, metrics};

/// What is said of a command and not taken yet; the command waits meanwhile, or leaves progress out.
const SAID_AHEAD: usize = 16;
/// Most passwords that a command takes.
const MAX_PASSWORDS: usize = 2;

/// A command that came from a program.
#[derive(Debug)]
pub struct Asked {
    /// The command.
    pub words: Words,
    /// The folder that relative paths in it are relative to.
    pub folder: Option<PathBuf>,
    /// What is typed when the command asks for passwords, in its order.
    pub passwords: Vec<Password>,
    /// Takes what the command says. It is closed when the caller is gone.
    pub answer: mpsc::Sender<Said>,
}

/// A command as it was sent.
#[derive(Debug)]
pub enum Words {
    /// As it is typed at the prompt.
    Line(String),
    /// Cut into words.
    Cut(Vec<String>),
}

/// Something that a command says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// A line of its output that comes before its result.
    Line(String),
    /// What its caller should know.
    Note(String),
    /// How far something is: bars for a terminal, and lines that say the same.
    Progress {
        /// The bars.
        bars: Vec<Bar>,
        /// The same in words; empty where only a terminal is told.
        lines: Vec<String>,
        /// The same for scripts, where they are told.
        json: Option<Value>,
    },
    /// Its end.
    Done(Done),
}

/// A progress bar.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bar {
    /// Of what.
    pub name: String,
    /// How much is done.
    pub done: u64,
    /// Of how much.
    pub total: u64,
    /// What stands behind it.
    pub message: String,
}

/// The result of a command.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Done {
    /// As `--json` prints it, with `command` and `ok`.
    pub result: Map<String, Value>,
    /// As people read it; the error of a command that failed.
    pub text: String,
    /// The same for a terminal, if it is a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<Table>,
}

/// A list in columns.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Table {
    /// The columns' titles.
    pub titles: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
}

/// The body of a command's request.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct CommandBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) argv: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) folder: Option<PathBuf>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) passwords: Vec<Zeroizing<String>>,
    pub(crate) stream: bool,
}

/// Cancelled when all that answers a request is said.
#[derive(Clone)]
pub(crate) struct Answered(pub(crate) CancellationToken);

/// What is said where no address for browsers is served.
const NO_BROWSER: &str = "this client serves no browser; start it with --web 127.0.0.1:8384";

/// What the handlers work with.
#[derive(Clone)]
struct Parts {
    client: Client,
    asked: mpsc::Sender<Asked>,
    loopback: Option<Loopback>,
}

/// The API on a port of this machine, and who may use it.
#[derive(Clone)]
pub(crate) struct Loopback {
    pub(crate) at: SocketAddr,
    pub(crate) keys: Arc<Keys>,
}

pub(crate) fn router(
    client: Client,
    asked: mpsc::Sender<Asked>,
    site: Site,
    recent: Arc<Recent>,
    loopback: Option<Loopback>,
    closing: CancellationToken,
) -> Router {
    Router::new()
        .route("/api/1", get(about))
        .route("/api/1/command", post(command))
        .route("/api/1/link", post(link))
        .route("/api/1/link/file", post(link_file))
        .with_state(Parts { client: client.clone(), asked, loopback })
        .merge(resources::router(site))
        .merge(metrics::router(client.clone()))
        .merge(feed::router(client, recent, closing))
        .fallback(nothing)
        .method_not_allowed_fallback(other_method)
        .layer(axum::middleware::map_response(named))
}

/// Every answer says which version it comes from, and is kept nowhere.
async fn named(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(VERSION_HEADER, HeaderValue::from_static(VERSION));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Which daemon this is.
async fn about(State(parts): State<Parts>) -> Response {
    let who = parts.client.whoami();
    let about = json!({
        "program": "shoal", "version": VERSION, "pid": std::process::id(), "data_dir": who.data_dir, "user": who.user,
        "address": who.address,
    });
    object(StatusCode::OK, &about)
}

/// A link with a code, good once.
async fn link(State(parts): State<Parts>) -> Response {
    let Some(Loopback { at, keys }) = parts.loopback else {
        return problem(StatusCode::UNPROCESSABLE_ENTITY, NO_BROWSER);
    };
    match keys.code(Instant::now()) {
        Ok(code) => {
            let link = format!("http://{at}/#{}", code.as_str());
            object(StatusCode::OK, &json!({ "command": "web", "ok": true, "link": link }))
        }
        Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, &format!("no code can be made: {error}")),
    }
}

/// The same in a file for a browser to open, which goes when the code is used or old.
async fn link_file(State(parts): State<Parts>) -> Response {
    let Some(Loopback { at, keys }) = parts.loopback else {
        return problem(StatusCode::UNPROCESSABLE_ENTITY, NO_BROWSER);
    };
    let (made_by, base) = (keys.clone(), format!("http://{at}/#"));
    let made = tokio::task::spawn_blocking(move || made_by.code_in_file(&base, Instant::now())).await;
    match made.unwrap_or_else(|stopped| Err(std::io::Error::other(stopped))) {
        Ok(file) => {
            // Weak, so that the daemon's end removes the file and is not waited for.
            let keys = Arc::downgrade(&keys);
            tokio::spawn(async move {
                tokio::time::sleep(CODE_LIFE).await;
                if let Some(keys) = keys.upgrade() {
                    keys.forget_old(Instant::now());
                }
            });
            let page = format!("http://{at}/");
            object(StatusCode::OK, &json!({ "command": "web", "ok": true, "page": page, "file": file }))
        }
        Err(error) => {
            let text = format!("no link can be put into a file for a browser ({error}); see: shoal web");
            problem(StatusCode::SERVICE_UNAVAILABLE, &text)
        }
    }
}

async fn nothing(request: Request) -> Response {
    let path: String = request.uri().path().chars().take(100).collect();
    problem(StatusCode::NOT_FOUND, &format!("there is no {path}; this is version {VERSION} of the program"))
}

async fn other_method() -> Response {
    problem(StatusCode::METHOD_NOT_ALLOWED, "this address takes another method; see docs/api.md")
}

async fn command(
    State(parts): State<Parts>,
    Extension(Answered(answered)): Extension<Answered>,
    request: Request,
) -> Response {
    let body: CommandBody = match body::read(request).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let words = match (body.line, body.argv) {
        (Some(line), None) => Words::Line(line),
        (None, Some(words)) => Words::Cut(words),
        _ => return problem(StatusCode::BAD_REQUEST, "give either \"line\" or \"argv\""),
    };
    if body.passwords.len() > MAX_PASSWORDS {
        return problem(StatusCode::BAD_REQUEST, "no command takes that many passwords");
    }
    let passwords = body.passwords.iter().map(|password| Password::new(password.to_string())).collect();
    let (answer, said) = mpsc::channel(SAID_AHEAD);
    let asked = Asked { words, folder: body.folder, passwords, answer };
    match parts.asked.try_send(asked) {
        Ok(()) => {}
        Err(mpsc::error::TrySendError::Full(_)) => {
            return problem(StatusCode::SERVICE_UNAVAILABLE, "too many commands wait already; try again");
        }
        Err(mpsc::error::TrySendError::Closed(_)) => return ending(),
    }
    if body.stream { stream(said, answered) } else { at_the_end(said).await }
}

/// What a command says as it says it, one object a line.
fn stream(said: mpsc::Receiver<Said>, answered: CancellationToken) -> Response {
    let guard = answered.drop_guard();
    let lines = futures::stream::unfold((said, Some(guard)), |(mut said, mut guard)| async move {
        let next = said.recv().await;
        if !matches!(next, Some(Said::Line(_) | Said::Note(_) | Said::Progress { .. })) {
            guard = None;
        }
        let line = serde_json::to_string(&next?).unwrap_or_default() + "\n";
        Some((Ok::<_, Infallible>(Bytes::from(line)), (said, guard)))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (StatusCode::OK, kind, Body::from_stream(lines)).into_response()
}

/// The result alone.
async fn at_the_end(mut said: mpsc::Receiver<Said>) -> Response {
    while let Some(next) = said.recv().await {
        if let Said::Done(done) = next {
            let succeeded = done.result.get("ok").is_some_and(|ok| *ok == true);
            let status = if succeeded { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
            return object(status, &Value::Object(done.result));
        }
    }
    ending()
}

fn ending() -> Response {
    problem(StatusCode::SERVICE_UNAVAILABLE, "the daemon ends; whether the command took effect is open")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_another_version_are_read_as_far_as_they_are_known() {
        let body: CommandBody =
            serde_json::from_str(r#"{"line":"whoami","colour":"blue","passwords":["x"]}"#).unwrap();
        assert_eq!(body.line.as_deref(), Some("whoami"));
        assert!(!body.stream && body.argv.is_none() && body.passwords.len() == 1);
    }

    #[test]
    fn what_is_said_reads_back() {
        let done = Done {
            result: json!({"ok": true}).as_object().cloned().unwrap_or_default(),
            text: "t".into(),
            table: Some(Table { titles: vec!["A".into()], rows: vec![vec!["b\n".into()]] }),
        };
        let line = serde_json::to_string(&Said::Done(done)).unwrap();
        assert!(!line.contains('\n'), "one line: {line}");
        let Said::Done(done) = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
        assert_eq!(done.result["ok"], true);
    }
}
