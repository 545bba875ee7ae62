//! The API on a port of this machine, for a browser: resources and events for whoever shows a token, and the page, which holds no
//! data, for everyone. Commands are not taken here.

use std::io;
use std::net::{SocketAddr, TcpListener as Blocking};
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
use crate::guard::{Shown, TOKEN_PATH, Verdict, judge};
use crate::keys::Keys;
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

/// Listens at an address of this machine alone.
///
/// # Errors
/// When it is another address, or the port is taken.
pub(crate) fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    if !at.ip().is_loopback() {
        let what = format!("{} is not an address of this machine alone; give 127.0.0.1", at.ip());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let listener = Blocking::bind(at)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// What is served there.
pub(crate) fn router(
    client: Client,
    site: Site,
    recent: Arc<Recent>,
    keys: Arc<Keys>,
    closing: CancellationToken,
) -> Router {
    Router::new()
        .route(TOKEN_PATH, post(trade))
        .with_state(keys.clone())
        .merge(resources::router(site))
        .merge(metrics::router(client.clone()))
        .merge(feed::router(client, recent, closing))
        .merge(page::router())
        .fallback(nothing)
        .layer(axum::middleware::from_fn_with_state(keys, guarded))
}

async fn nothing() -> Response {
    problem(StatusCode::NOT_FOUND, "there is nothing here; see docs/api.md")
}

/// Lets through what the guard allows.
async fn guarded(State(keys): State<Arc<Keys>>, request: Request, next: Next) -> Response {
    let refused = match verdict(&keys, &request) {
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
    response
}

fn verdict(keys: &Keys, request: &Request) -> Verdict {
    let texts = |name: HeaderName| -> Vec<&str> {
        let values = request.headers().get_all(name).iter();
        // What is no text is no host or origin of ours.
        values.map(|value| value.to_str().unwrap_or("?")).collect()
    };
    let (hosts, origins) = (texts(header::HOST), texts(header::ORIGIN));
    let (authorizations, kinds) = (texts(header::AUTHORIZATION), texts(header::CONTENT_TYPE));
    let token = match authorizations.as_slice() {
        [one] => one.strip_prefix("Bearer "),
        _ => None,
    };
    let shown = Shown {
        method: request.method().as_str(),
        path: request.uri().path(),
        absolute: request.uri().authority().is_some(),
        hosts: &hosts,
        origins: &origins,
        kinds: &kinds,
        token,
    };
    judge(shown, |token| keys.is_token(token))
}

/// The body of a trade.
#[derive(Deserialize)]
struct Trade {
    code: Zeroizing<String>,
}

/// A token for a code.
async fn trade(State(keys): State<Arc<Keys>>, request: Request) -> Response {
    let Trade { code } = match body::read(request).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let traded = tokio::task::spawn_blocking(move || keys.trade(&code, Instant::now()));
    match traded.await.unwrap_or_else(|stopped| Err(io::Error::other(stopped))) {
        Ok(Some(token)) => object(StatusCode::OK, &json!({ "ok": true, "token": token.as_str() })),
        Ok(None) => problem(
            StatusCode::FORBIDDEN,
            "the code was used, or is older than a minute; type shoal web for another",
        ),
        Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, &format!("the token cannot be kept: {error}")),
    }
}
