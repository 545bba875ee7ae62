//! The HTTP client that everything here uses: its time-outs, what it follows, and what it never does.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{Client, ClientBuilder, Url, header, redirect};

use crate::cookies::Cookies;

/// Longest time for a connection to come about, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Redirects that are followed at most, as curl's users are used to from browsers.
pub(crate) const MAX_REDIRECTS: usize = 10;
/// Idle connections are kept that long.
const IDLE: Duration = Duration::from_secs(30);

/// A client; `proxies` says whether the environment's proxies are used (`http_proxy`, `https_proxy`, `all_proxy`,
/// `no_proxy`). It never asks for compressed content: ranges are of the file itself. It keeps cookies for as long as it lives.
///
/// # Errors
/// When the system's TLS certificates cannot be used.
pub fn build(proxies: bool) -> reqwest::Result<Client> {
    let follow = redirect::Policy::limited(MAX_REDIRECTS);
    let builder = builder().redirect(follow).cookie_provider(Arc::new(Cookies::default()));
    if proxies { builder } else { builder.no_proxy() }.build()
}

/// What all clients here have in common. They keep no cookies by themselves, and tell no server where they come from.
pub(crate) fn builder() -> ClientBuilder {
    let mut headers = header::HeaderMap::new();
    headers.insert(header::ACCEPT_ENCODING, header::HeaderValue::from_static("identity"));
    Client::builder()
        .user_agent(concat!("shoal/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE)
        .tcp_nodelay(true)
        .referer(false)
        .http1_only()
}

/// The proxy that the environment names for this URL, as host and port.
pub(crate) fn proxy(url: &Url) -> Option<String> {
    let found = Matcher::from_env().intercept(&url.as_str().parse().ok()?)?;
    found.uri().authority().map(|authority| match authority.as_str().rsplit_once('@') {
        Some((_, place)) => place.to_owned(),
        None => authority.to_string(),
    })
}

/// `to` with the user and password of `from` if both have the same scheme, host and port. No other server may learn them.
pub(crate) fn with_credentials(mut to: Url, from: &Url) -> Url {
    if to.origin() == from.origin() && to.username().is_empty() && to.password().is_none() {
        // Only URLs without a host refuse.
        let _ = to.set_username(from.username());
        let _ = to.set_password(from.password());
    }
    to
}

/// The URL without user and password, for what is shown or kept.
pub(crate) fn without_credentials(url: &Url) -> Url {
    let mut bare = url.clone();
    // As above.
    let _ = bare.set_username("");
    let _ = bare.set_password(None);
    bare
}

/// Whether the connection was made and then ended before the answer.
pub(crate) fn broke_off(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let kind = inner.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let broken = matches!(
            kind,
            Some(
                ErrorKind::ConnectionReset
                    | ErrorKind::ConnectionAborted
                    | ErrorKind::BrokenPipe
                    | ErrorKind::UnexpectedEof
            )
        );
        if broken || inner.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
            return true;
        }
        cause = inner.source();
    }
    false
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
    if text.contains("UnknownIssuer") {
        text.push_str("; SSL_CERT_FILE may name a file of certificates to trust instead of the system's");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_at_their_origin() {
        let from = Url::parse("http://ann:p%40ss@one.example:80/a").unwrap();
        for (to, expected) in [
            ("http://one.example/b?x", "http://ann:p%40ss@one.example/b?x"),
            ("http://bob@one.example/b", "http://bob@one.example/b"),
            ("https://one.example/b", "https://one.example/b"),
            ("http://one.example:81/b", "http://one.example:81/b"),
            ("http://two.example/b", "http://two.example/b"),
        ] {
            assert_eq!(with_credentials(Url::parse(to).unwrap(), &from).as_str(), expected);
        }
        assert_eq!(without_credentials(&from).as_str(), "http://one.example/a");
    }
}
