//! Who is served on loopback, where any page in a browser and any user of the machine can send requests: whoever names this machine,
//! comes from no other page, and shows a token. Whoever asks for the page itself needs none: it holds no data. Pure.

use crate::page::is_page;

/// What of a request decides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// Whether the request's target names a host itself, as those for proxies do.
    pub(crate) absolute: bool,
    /// All `Host` headers.
    pub(crate) hosts: &'a [&'a str],
    /// All `Origin` headers.
    pub(crate) origins: &'a [&'a str],
    /// All `Content-Type` headers.
    pub(crate) kinds: &'a [&'a str],
    /// What stands behind `Bearer` in the `Authorization` header, if there is one of them: a token, or a page's pass.
    pub(crate) token: Option<&'a str>,
}

/// Whether a request is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is.
    Serve,
    /// It names another host: a page of another name would be taken for this one.
    OtherHost,
    /// A page from elsewhere sends it.
    OtherOrigin,
    /// It is nothing that is done here, or only on the socket.
    OtherMethod,
    /// Its body is of another type: a form, which a page from elsewhere could send.
    OtherType,
    /// It shows no token, or none that is good.
    NoToken,
}

/// The address where a code is traded for a token.
pub(crate) const TOKEN_PATH: &str = "/api/1/token";

/// Where commands are taken, and codes given: on the socket alone.
const COMMAND_PATH: &str = "/api/1/command";
const LINK_PATH: &str = "/api/1/link";
/// Where groups' files are.
const GROUPS: &str = "/api/1/groups/";
/// The type of a body.
const JSON: &str = "application/json";

/// The address where this daemon proves itself to a page.
pub(crate) const PROOF_PATH: &str = "/api/1/proof";

/// Judges a request; `is_good` knows the tokens and passes.
pub(crate) fn judge(shown: Shown<'_>, is_good: impl Fn(&str) -> bool) -> Verdict {
    let [host] = shown.hosts else { return Verdict::OtherHost };
    if shown.absolute || !is_here(host) {
        return Verdict::OtherHost;
    }
    match shown.origins {
        [] => {}
        [origin] if origin.strip_prefix("http://") == Some(host) => {}
        _ => return Verdict::OtherOrigin,
    }
    let needs_token = match (shown.method, shown.path) {
        ("POST", TOKEN_PATH | PROOF_PATH) => false,
        ("GET", path) => !is_page(path),
        (_, COMMAND_PATH | LINK_PATH) => return Verdict::OtherMethod,
        ("POST" | "PUT" | "PATCH" | "DELETE", _) => true,
        _ => return Verdict::OtherMethod,
    };
    let carries = matches!(shown.method, "POST" | "PUT" | "PATCH");
    if carries && !is_content(shown) && shown.kinds != [JSON] {
        return Verdict::OtherType;
    }
    if needs_token && !shown.token.is_some_and(is_good) {
        return Verdict::NoToken;
    }
    Verdict::Serve
}

/// Whether the body is a file's content, of whichever type: no form of a page can send it by this method.
fn is_content(shown: Shown<'_>) -> bool {
    shown.method == "PUT" && shown.path.strip_prefix(GROUPS).is_some_and(|rest| rest.contains("/files/"))
}

/// Whether a `Host` header names this machine, at any port: one may be forwarded by ssh.
fn is_here(host: &str) -> bool {
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| {
        let rest = host.strip_prefix(name);
        rest.is_some_and(|rest| {
            rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "good";
    /// Hosts, and whether each is this machine.
    const HOSTS: &[(&[&str], bool)] = &[
        (&["127.0.0.1:8384"], true),
        (&["localhost:8384"], true),
        (&["localhost"], true),
        (&["[::1]:9000"], true),
        (&["evil.example:8384"], false),
        (&["127.0.0.1.evil.example"], false),
        (&["localhost.evil.example:8384"], false),
        (&["127.0.0.1:8384@evil.example"], false),
        (&["127.0.0.1:99999"], false),
        (&["127.0.0.2:8384"], false),
        (&["192.168.1.20:8384"], false),
        (&[""], false),
        (&[], false),
        (&["127.0.0.1:8384", "127.0.0.1:8384"], false),
    ];

    const PATHS: &[&str] = &[
        "/api/1/groups",
        TOKEN_PATH,
        PROOF_PATH,
        "/api/1/command",
        "/api/1/link",
        "/",
        "/assets/app.js",
        "/api/1/groups/g/files/f",
        "//",
        "/api/1/groups/../command",
    ];
    const KINDS: &[&[&str]] = &[
        &[],
        &["application/json"],
        &["text/plain"],
        &["application/x-www-form-urlencoded"],
        &["multipart/form-data"],
        &["application/json", "text/plain"],
        &["application/octet-stream"],
    ];

    /// The same rules in other words: first who asks, then what.
    fn expected(shown: Shown<'_>, here: bool, same: bool, good: bool) -> Verdict {
        let (is_json, is_open) = (shown.kinds == [JSON], ["/", "/assets/app.js"].contains(&shown.path));
        let asked = match shown.method {
            "GET" => Some(good || is_open),
            "POST" | "PUT" | "PATCH" | "DELETE" if shown.path == "/api/1/command" => None,
            "POST" | "PUT" | "PATCH" | "DELETE" if shown.path == "/api/1/link" => None,
            "POST" if [TOKEN_PATH, PROOF_PATH].contains(&shown.path) => Some(true),
            "POST" | "PUT" | "PATCH" | "DELETE" => Some(good),
            _ => None,
        };
        let any_type = ["GET", "DELETE"].contains(&shown.method)
            || shown.method == "PUT" && shown.path == "/api/1/groups/g/files/f";
        match asked {
            _ if !here || shown.absolute => Verdict::OtherHost,
            _ if !same => Verdict::OtherOrigin,
            None => Verdict::OtherMethod,
            _ if !any_type && !is_json => Verdict::OtherType,
            Some(false) => Verdict::NoToken,
            Some(true) => Verdict::Serve,
        }
    }

    #[test]
    fn every_host_origin_token_method_and_type_is_judged() {
        let (mut served, mut changes) = (0, 0);
        for &(hosts, here) in HOSTS {
            let own = hosts.first().map(|host| format!("http://{host}")).unwrap_or_default();
            let secure = own.replace("http://", "https://");
            let origins: &[(&[&str], bool)] = &[
                (&[], true),
                (&[&own], true),
                (&[&secure], false),
                (&["http://evil.example"], false),
                (&["http://127.0.0.1:1"], false),
                (&["null"], false),
                (&[""], false),
                (&[&own, &own], false),
            ];
            let tokens = [(Some(GOOD), true), (Some("bad"), false), (Some(""), false), (None, false)];
            let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "get"];
            for &(origins, same) in origins {
                for (token, good) in tokens {
                    for method in methods {
                        for &path in PATHS {
                            for (&kinds, absolute) in
                                KINDS.iter().flat_map(|kind| [(kind, false), (kind, true)])
                            {
                                let shown = Shown { method, path, absolute, hosts, origins, kinds, token };
                                let verdict = judge(shown, |token| token == GOOD);
                                assert_eq!(verdict, expected(shown, here, same, good), "{shown:?}");
                                served += usize::from(verdict == Verdict::Serve);
                                changes += usize::from(verdict == Verdict::Serve && method != "GET");
                            }
                        }
                    }
                }
            }
        }
        // Four hosts and two origins. GET: eight addresses with the good token, and the page with any of four; of any type.
        assert_eq!(served - changes, 4 * 2 * 7 * (8 + 2 * 4));
        // The code and the proof with any token. Of JSON with the good one, POST four, PUT and PATCH eight, of them a file's content of any
        // type; DELETE of any type.
        assert_eq!(changes, 4 * 2 * (2 * 4 + 6 + 7 + 7 + 8 + 7 * 8));
    }
}
