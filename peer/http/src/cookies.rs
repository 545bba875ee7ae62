//! The cookies of one run, in memory alone: servers that redirect to signed or counted targets know their users by them.
//! Each goes back to where it came from, as in a browser. How many there are is bounded, whatever servers send.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use reqwest::Url;
use reqwest::cookie::{CookieStore, Jar};
use reqwest::header::HeaderValue;

/// Longest cookie that browsers keep (RFC 6265, section 6.1), in bytes.
const MAX_BYTES: usize = 4_096;
/// Most cookies of all servers together. RFC 6265 asks for 50 of each.
const MAX_COOKIES: usize = 500;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Cookies {
    jar: Jar,
    /// What tells one cookie from another, for those that were kept.
    known: Mutex<BTreeSet<String>>,
}

impl CookieStore for Cookies {
    fn set_cookies(&self, headers: &mut dyn Iterator<Item = &HeaderValue>, url: &Url) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = headers.filter(|header| {
            let Some(identity) = identity(header, url) else { return false };
            known.contains(&identity) || known.len() < MAX_COOKIES && known.insert(identity)
        });
        self.jar.set_cookies(&mut kept, url);
    }

    fn cookies(&self, url: &Url) -> Option<HeaderValue> {
        self.jar.cookies(url)
    }
}

/// The host, the cookie's name, and for which domain and path it is; `None` for a cookie that is not kept.
fn identity(header: &HeaderValue, url: &Url) -> Option<String> {
    let text = header.to_str().ok().filter(|text| text.len() <= MAX_BYTES)?;
    let mut attributes = text.split(';').map(str::trim);
    let (name, _) = attributes.next()?.split_once('=')?;
    let host = url.host_str()?;
    let mut identity = format!("{host} {name}");
    for attribute in attributes {
        let Some((kind, value)) = attribute.split_once('=') else { continue };
        let domain = kind.eq_ignore_ascii_case("domain");
        let value = value.trim().trim_start_matches('.');
        // Valid for all of `com`.
        if domain && !value.contains('.') && !value.is_empty() && !value.eq_ignore_ascii_case(host) {
            return None;
        }
        if domain || kind.eq_ignore_ascii_case("path") {
            identity.push_str(&format!(" {kind}={value}"));
        }
    }
    Some(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(cookies: &Cookies, url: &str, header: &str) {
        let header: HeaderValue = header.parse().unwrap();
        cookies.set_cookies(&mut std::iter::once(&header), &url.parse().unwrap());
    }

    fn sent(cookies: &Cookies, url: &str) -> Option<String> {
        cookies.cookies(&url.parse().unwrap()).map(|header| header.to_str().unwrap().to_owned())
    }

    #[test]
    fn cookies_go_back_to_where_they_came_from() {
        let cookies = Cookies::default();
        set(&cookies, "http://a.example/x", "one=1; Path=/");
        set(&cookies, "http://a.example/x", "all=2; Domain=example; Path=/");
        set(&cookies, "http://files.two.example/x", "wide=3; Domain=.two.example; Path=/");
        assert_eq!(sent(&cookies, "http://a.example/y").as_deref(), Some("one=1"));
        assert_eq!(sent(&cookies, "http://b.example/y"), None);
        assert_eq!(sent(&cookies, "http://cdn.two.example/y").as_deref(), Some("wide=3"));
        set(&cookies, "http://a.example/x", "one=4; Path=/");
        assert_eq!(sent(&cookies, "http://a.example/y").as_deref(), Some("one=4"));
    }

    #[test]
    fn no_server_fills_the_memory() {
        let cookies = Cookies::default();
        for number in 0..2 * MAX_COOKIES {
            set(&cookies, "http://a.example/", &format!("name{number}=x; Path=/"));
        }
        set(&cookies, "http://a.example/", &format!("long={}", "x".repeat(MAX_BYTES)));
        let all = sent(&cookies, "http://a.example/").unwrap();
        assert_eq!(all.split("; ").count(), MAX_COOKIES);
        // What is kept can be changed.
        set(&cookies, "http://a.example/", "name0=y; Path=/");
        assert!(sent(&cookies, "http://a.example/").unwrap().contains("name0=y"));
    }
}
