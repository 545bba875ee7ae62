//! Who is served on loopback, where any page in a browser and any user of the machine can send requests: whoever names this machine,
//! comes from no other page, and shows a token. Pure.

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
    /// What stands behind `Bearer` in the `Authorization` header, if there is one of them.
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
    /// It would change something, which is not done here.
    OtherMethod,
    /// It shows no token, or none that is good.
    NoToken,
}

/// The address where a code is traded for a token.
pub(crate) const TOKEN_PATH: &str = "/api/1/token";

/// Judges a request; `is_good` knows the tokens.
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
    match (shown.method, shown.path) {
        ("POST", TOKEN_PATH) => Verdict::Serve,
        ("GET", path) if is_page(path) => Verdict::Serve,
        ("GET", _) if shown.token.is_some_and(is_good) => Verdict::Serve,
        ("GET", _) => Verdict::NoToken,
        _ => Verdict::OtherMethod,
    }
}

/// Whether it is a part of the page, which holds no data and asks for a token itself.
fn is_page(path: &str) -> bool {
    path == "/" || path.starts_with("/assets/")
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

    #[test]
    fn every_host_origin_token_and_method_is_judged() {
        let mut served = 0;
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
            for &(origins, same) in origins {
                for (token, good) in
                    [(Some(GOOD), true), (Some("bad"), false), (Some(""), false), (None, false)]
                {
                    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"] {
                        for (path, trades, page) in [
                            ("/api/1/groups", false, false),
                            (TOKEN_PATH, true, false),
                            ("/api/1/command", false, false),
                            ("/", false, true),
                            ("/assets/app.js", false, true),
                            ("/assets", false, false),
                        ] {
                            for absolute in [false, true] {
                                let shown = Shown { method, path, absolute, hosts, origins, token };
                                let verdict = judge(shown, |token| token == GOOD);
                                let expected = match () {
                                    () if !here || absolute => Verdict::OtherHost,
                                    () if !same => Verdict::OtherOrigin,
                                    () if method == "POST" && trades => Verdict::Serve,
                                    () if method != "GET" => Verdict::OtherMethod,
                                    () if page => Verdict::Serve,
                                    () if !good => Verdict::NoToken,
                                    () => Verdict::Serve,
                                };
                                assert_eq!(verdict, expected, "{shown:?}");
                                served += usize::from(verdict == Verdict::Serve);
                            }
                        }
                    }
                }
            }
        }
        // Four hosts, two origins; four addresses with the good token, and one POST and two parts of the page with any of four.
        assert_eq!(served, 4 * 2 * (4 + 4 + 2 * 4));
    }
}
