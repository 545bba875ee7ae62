//! The HTTP client that everything here uses: its time-outs, what it follows, and what it never does.

use std::time::Duration;

use reqwest::{Client, header, redirect};

/// Longest time for a connection to come about, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Redirects that are followed at most, as curl's users are used to from browsers.
const MAX_REDIRECTS: usize = 10;
/// Idle connections are kept that long.
const IDLE: Duration = Duration::from_secs(30);

/// A client; `proxies` says whether the environment's proxies are used (`http_proxy`, `https_proxy`, `all_proxy`,
/// `no_proxy`). It never asks for compressed content: ranges are of the file itself.
///
/// # Errors
/// When the system's TLS certificates cannot be used.
pub fn build(proxies: bool) -> reqwest::Result<Client> {
    let mut headers = header::HeaderMap::new();
    headers.insert(header::ACCEPT_ENCODING, header::HeaderValue::from_static("identity"));
    let builder = Client::builder()
        .user_agent(concat!("shoal/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE)
        .tcp_nodelay(true)
        .redirect(redirect::Policy::limited(MAX_REDIRECTS))
        .http1_only();
    if proxies { builder } else { builder.no_proxy() }.build()
}

/// The error with its causes in one line, without the URL, which the caller names.
pub(crate) fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        // The innermost says what happened; those between say that something did.
        text = inner.to_string();
        cause = inner.source();
    }
    text
}
