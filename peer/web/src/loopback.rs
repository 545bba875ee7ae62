//! The API on a port of this machine, for a browser: resources and events for whoever shows a token, and the page, which holds no
//! data, for everyone. Commands are not taken here.

use std::io;
use std::net::{SocketAddr, TcpListener as Blocking};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::post;
use serde::Deserialize;
use serde_json::json;
use shoal_client::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::answer::{object, problem};
use crate::body;
use crate::events::Recent;
use crate::guard::{PROOF_PATH, Shown, TOKEN_PATH, Verdict, judge};
use crate::keys::Keys;
use crate::pages::{Given, Pages};
use crate::resources::{self, Site};
use crate::{VERSION, VERSION_HEADER, feed, metrics, page};

/// What a browser may do with an answer: show it, and nothing else.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'; form-action 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static(VERSION_HEADER), VERSION),
];

/// A page puts a nonce into this header of a request, and finds the proof that its client answers in the other one of the answer.
const NONCE_HEADER: HeaderName = HeaderName::from_static("shoal-nonce");
const PROOF_HEADER: HeaderName = HeaderName::from_static("shoal-proof");

/// Who may look in.
#[derive(Clone)]
pub(crate) struct Doors {
    /// Codes, and the tokens of programs.
    pub(crate) keys: Arc<Keys>,
    /// The keys of pages.
    pub(crate) pages: Arc<Pages>,
}

/// Listens at an address of this machine alone. Gives the address, and the keys of its pages in that data folder.
///
/// # Errors
/// When it is another address, or the port is taken.
pub(crate) fn listen(at: SocketAddr, data: &Path) -> io::Result<(TcpListener, SocketAddr, Pages)> {
    if !at.ip().is_loopback() {
        let what = format!("{} is not an address of this machine alone; give 127.0.0.1", at.ip());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let listener = Blocking::bind(at)?;
    listener.set_nonblocking(true)?;
    let at = listener.local_addr()?;
    Ok((TcpListener::from_std(listener)?, at, Pages::open(data, at.port())?))
}

/// What is served there.
pub(crate) fn router(
    client: Client,
    site: Site,
    recent: Arc<Recent>,
    doors: Doors,
    closing: CancellationToken,
) -> Router {
    Router::new()
        .route(TOKEN_PATH, post(trade))
        .route(PROOF_PATH, post(prove))
        .with_state(doors.clone())
        .merge(resources::router(site))
        .merge(metrics::router(client.clone()))
        .merge(feed::router(client, recent, closing))
        .merge(page::router())
        .fallback(nothing)
        .layer(axum::middleware::from_fn_with_state(doors, guarded))
}

async fn nothing() -> Response {
    problem(StatusCode::NOT_FOUND, "there is nothing here; see docs/api.md")
}

/// Lets through what the guard allows.
async fn guarded(State(doors): State<Doors>, request: Request, next: Next) -> Response {
    let proof = proof(&doors.pages, &request);
    let refused = match verdict(&doors, &request) {
        Verdict::Serve => None,
        Verdict::OtherHost => {
            Some((StatusCode::FORBIDDEN, "another host was named; use http://127.0.0.1 or http://localhost"))
        }
        Verdict::OtherOrigin => Some((StatusCode::FORBIDDEN, "a page from elsewhere asked; it gets nothing")),
        Verdict::OtherMethod => {
            Some((StatusCode::METHOD_NOT_ALLOWED, "that is not done here; use shoal or the socket"))
        }
        Verdict::OtherType => Some((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "give a body as application/json, {} if there is nothing to say",
        )),
        Verdict::NoToken => {
            Some((StatusCode::UNAUTHORIZED, "a token is needed: shoal web shows a link with a code for one"))
        }
    };
    let mut response = match refused {
        None => next.run(request).await,
        Some((status, text)) => problem(status, text),
    };
    for (name, value) in HEADERS {
        // The page says itself what it needs.
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    if let Some(proof) = proof.and_then(|proof| HeaderValue::from_str(&proof).ok()) {
        response.headers_mut().insert(PROOF_HEADER, proof);
    }
    response
}

/// What stands behind `Bearer`, if there is one such header.
fn bearer(request: &Request) -> Option<&str> {
    let mut headers = request.headers().get_all(header::AUTHORIZATION).iter();
    let (Some(one), None) = (headers.next(), headers.next()) else { return None };
    one.to_str().ok()?.strip_prefix("Bearer ")
}

/// The proof that a page with a pass asks for with its request.
fn proof(pages: &Pages, request: &Request) -> Option<String> {
    let nonce = request.headers().get(NONCE_HEADER)?.to_str().ok()?;
    let id = pages.id_of(bearer(request)?)?;
    Some(pages.prove(id, nonce)?.1)
}

fn verdict(doors: &Doors, request: &Request) -> Verdict {
    let texts = |name: HeaderName| -> Vec<&str> {
        let values = request.headers().get_all(name).iter();
        // What is no text is no host or origin of ours.
        values.map(|value| value.to_str().unwrap_or("?")).collect()
    };
    let (hosts, origins) = (texts(header::HOST), texts(header::ORIGIN));
    let kinds = texts(header::CONTENT_TYPE);
    let shown = Shown {
        method: request.method().as_str(),
        path: request.uri().path(),
        absolute: request.uri().authority().is_some(),
        hosts: &hosts,
        origins: &origins,
        kinds: &kinds,
        token: bearer(request),
    };
    judge(shown, |token| doors.keys.is_token(token) || doors.pages.id_of(token).is_some())
}

/// The body of a trade.
#[derive(Deserialize)]
struct Trade {
    code: Zeroizing<String>,
    /// Whether a page asks, which gets a key instead of a token.
    #[serde(default)]
    page: bool,
}

/// A token for a code, or a page's key.
async fn trade(State(Doors { keys, pages }): State<Doors>, request: Request) -> Response {
    let Trade { code, page } = match body::read(request).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let traded = tokio::task::spawn_blocking(move || {
        if !page {
            let token = keys.trade(&code, Instant::now())?;
            return Ok(token.map(|token| json!({ "ok": true, "token": token.as_str() })));
        }
        let given = keys.take(&code, Instant::now()).then(|| pages.give()).transpose()?;
        Ok(given.map(|Given { id, secret }| json!({ "ok": true, "id": id, "key": secret.as_str() })))
    });
    match traded.await.unwrap_or_else(|stopped| Err(io::Error::other(stopped))) {
        Ok(Some(given)) => object(StatusCode::OK, &given),
        Ok(None) => problem(
            StatusCode::FORBIDDEN,
            "the code was used, or is older than a minute; type shoal web for another",
        ),
        Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, &format!("the token cannot be kept: {error}")),
    }
}

/// The body of a request for a proof.
#[derive(Deserialize)]
struct Challenge {
    id: String,
    nonce: String,
}

/// Proves that this is the daemon which gave a page its key.
async fn prove(State(doors): State<Doors>, request: Request) -> Response {
    let Challenge { id, nonce } = match body::read(request).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    match doors.pages.prove(&id, &nonce) {
        Some((run, proof)) => object(StatusCode::OK, &json!({ "ok": true, "run": run, "proof": proof })),
        None => problem(
            StatusCode::FORBIDDEN,
            "this page has no key here any more: type shoal web, and follow the link",
        ),
    }
}
