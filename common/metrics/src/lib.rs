//! Figures for Prometheus, over HTTP on an address that the operator gives, and the same as a page for people. What the figures are is
//! up to the program.

mod human;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::body::Incoming;
use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at once: one or two scrapers, and an operator who looks.
const MAX_CONNECTIONS: usize = 16;
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(5);
/// A connection lives this long at most; a scraper's next request opens another.
const LIFE: Duration = Duration::from_secs(60);
/// Pause after a failed accept: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The text format's type, as a header names it.
pub const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The labels of one value.
pub type Labels = Vec<(&'static str, String)>;

/// Figures in Prometheus' text format. Every name gets the prefix `shoal_`.
#[derive(Debug)]
pub struct Page(Registry);

impl Default for Page {
    fn default() -> Self {
        Self(Registry::with_prefix("shoal"))
    }
}

impl Page {
    /// Adds a figure.
    pub fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.0.register(name, help, ConstGauge::new(signed(value)));
    }

    /// Adds a figure with one value per set of labels.
    pub fn labelled(&mut self, name: &str, help: &str, values: Vec<(Labels, u64)>) {
        let family = Family::<Labels, Gauge>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(signed(value));
        }
        self.0.register(name, help, family);
    }

    /// The whole page.
    ///
    /// # Errors
    /// When a figure cannot be written as text.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0)?;
        Ok(text)
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Serves `/metrics`, and a page for people at `/`, at `address` until `closing`. `page` makes the page for each request; `None` while the program closes.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve<P, F>(
    address: SocketAddr,
    page: P,
    tasks: &TaskTracker,
    closing: CancellationToken,
) -> Result<SocketAddr>
where
    P: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Option<String>> + Send + 'static,
{
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot serve metrics at {address}; choose another --metrics"))?;
    let address = listener.local_addr()?;
    tasks.spawn(accept(listener, page, tasks.clone(), closing));
    Ok(address)
}

async fn accept<P, F>(listener: TcpListener, page: P, tasks: TaskTracker, closing: CancellationToken)
where
    P: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Option<String>> + Send + 'static,
{
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else { continue };
        let (page, closing) = (page.clone(), closing.clone());
        tasks.spawn(async move {
            let _permit = permit;
            let service = hyper::service::service_fn(move |request| {
                let page = page.clone();
                async move { respond(page, request).await }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = closing.cancelled() => {}
                // However it ended, there is no one to tell.
                _ = tokio::time::timeout(LIFE, connection) => {}
            }
        });
    }
}

async fn respond<P, F>(page: P, request: Request<Incoming>) -> Result<Response<String>, Infallible>
where
    P: Fn() -> F,
    F: Future<Output = Option<String>>,
{
    let failed = |status, text: &str| {
        let mut response = Response::new(text.to_owned());
        *response.status_mut() = status;
        response
    };
    let path = request.uri().path();
    if path == "/style.css" {
        return Ok(of_type(human::STYLE.to_owned(), "text/css; charset=utf-8"));
    }
    if path != "/metrics" && path != "/" {
        return Ok(failed(
            StatusCode::NOT_FOUND,
            "the metrics are at /metrics, and a page for people is at /\n",
        ));
    }
    let Some(text) = page().await else {
        return Ok(failed(StatusCode::SERVICE_UNAVAILABLE, "this program is closing\n"));
    };
    if path == "/" {
        return Ok(of_type(human::page(&text), "text/html; charset=utf-8"));
    }
    let mut response = Response::new(text);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TYPE));
    Ok(response)
}

/// What a browser shows, and does nothing else with.
fn of_type(text: String, kind: &'static str) -> Response<String> {
    let mut response = Response::new(text);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(human::POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
