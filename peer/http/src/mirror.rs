//! Where a client may follow a mirror URL that another member put into a file's metadata: only over HTTP, on ports that
//! serve HTTP, and to global unicast addresses. That is checked at every redirect, after the name was resolved, and the
//! connection goes to the address that was checked. With [`Reach::Anywhere`] addresses are not checked.

use std::io;
use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder, Url, redirect};

use crate::client::{self, MAX_REDIRECTS};
use crate::global::is_global;

/// How far mirrors may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// At global unicast addresses only.
    #[default]
    Global,
    /// In private networks and on this machine too, and by way of the environment's proxies: the user wants it.
    Anywhere,
}

/// Addresses of one name that are tried at most.
const MAX_ADDRESSES: usize = 16;

/// Ports that no browser opens either (the Fetch standard's "bad ports", 2026-11): what listens there speaks something else,
/// and could take a request for a command of its own.
const BAD_PORTS: [u16; 83] = [
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103,
    104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514,
    515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723,
    2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
];

/// Why a client does not go there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MirrorRefused {
    /// Another scheme, or no host.
    #[error("is no http:// or https:// URL")]
    NoUrl,
    /// A member's URL must not carry a user or a password.
    #[error("has a user or password in its URL")]
    Credentials,
    /// Something else than HTTP is served there.
    #[error("is on port {0}, where browsers speak no HTTP either")]
    Port(u16),
    /// It is in a private network.
    #[error("leads to {0}, which is no public address; --private-mirrors allows it")]
    Private(String),
    /// Where a proxy connects to cannot be checked.
    #[error(
        "would be fetched through the proxy {0}, which may reach private addresses; --private-mirrors allows it"
    )]
    Proxy(String),
    /// It redirects too often.
    #[error("redirects more than {MAX_REDIRECTS} times")]
    Redirects,
}

impl Reach {
    /// The URL, if a client may go there as far as the URL itself tells.
    ///
    /// # Errors
    /// [`MirrorRefused`] says why not.
    pub fn allow(self, url: &str) -> Result<Url, MirrorRefused> {
        let url = Url::parse(url).map_err(|_| MirrorRefused::NoUrl)?;
        self.check(&url)?;
        Ok(url)
    }

    fn check(self, url: &Url) -> Result<(), MirrorRefused> {
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(MirrorRefused::NoUrl);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(MirrorRefused::Credentials);
        }
        let port = url.port_or_known_default().unwrap_or(0);
        if BAD_PORTS.contains(&port) {
            return Err(MirrorRefused::Port(port));
        }
        if self == Self::Anywhere {
            return Ok(());
        }
        // An address in a URL is not resolved. However it was written, the parser has made it one.
        if let Some(address) = literal(url).filter(|&address| !is_global(address)) {
            return Err(MirrorRefused::Private(address.to_string()));
        }
        client::proxy(url).map_or(Ok(()), |proxy| Err(MirrorRefused::Proxy(proxy)))
    }

    /// A client that keeps to this, whatever servers and names answer.
    ///
    /// # Errors
    /// When the system's TLS certificates cannot be used.
    pub fn client(self) -> reqwest::Result<Client> {
        self.builder().build()
    }

    fn builder(self) -> ClientBuilder {
        let follow = redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > MAX_REDIRECTS {
                return attempt.error(MirrorRefused::Redirects);
            }
            match self.check(attempt.url()) {
                Ok(()) => attempt.follow(),
                Err(refused) => attempt.error(refused),
            }
        });
        let builder = client::builder().redirect(follow);
        match self {
            Self::Anywhere => builder,
            Self::Global => builder.no_proxy().dns_resolver(GlobalOnly),
        }
    }
}

/// Finds out whether a request failed because it may not go there.
pub(crate) fn refused(error: &reqwest::Error) -> Option<&MirrorRefused> {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(refused) = inner.downcast_ref() {
            return Some(refused);
        }
        // An I/O error shows its inner one's source, but not that one itself.
        let within = inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(refused) = within.and_then(|inner| inner.downcast_ref()) {
            return Some(refused);
        }
        cause = inner.source();
    }
    None
}

fn literal(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// The system's resolver, reduced to global unicast addresses. The connection goes to one of those that are left.
#[derive(Debug, Clone, Copy)]
struct GlobalOnly;

impl Resolve for GlobalOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(global_of(name.as_str(), found)?)
        })
    }
}

fn global_of(name: &str, found: Vec<SocketAddr>) -> Result<Addrs, MirrorRefused> {
    let first = found.first().map(SocketAddr::ip);
    let global: Vec<SocketAddr> =
        found.into_iter().filter(|address| is_global(address.ip())).take(MAX_ADDRESSES).collect();
    match first {
        Some(address) if global.is_empty() => Err(MirrorRefused::Private(format!("{name} at {address}"))),
        _ => Ok(Box::new(global.into_iter())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_lead_into_a_network_are_refused_however_they_are_written() {
        for url in [
            "http://127.0.0.1/x",
            "http://2130706433/x",
            "http://0x7f000001/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://0/",
            "http://127.0.0.1./",
            "http://①②⑦.⓪.⓪.①/",
            "http://%31%32%37.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[::127.0.0.1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[64:ff9b:1::1]/",
            "http://[2002:7f00:1::]/",
            "http://[2001:0:1::]/",
            "http://[fe80::1]/",
            "http://[fd00::1]:8080/",
            "https://192.168.1.1:8443/",
            "http://169.254.169.254/latest/meta-data",
            "http://100.64.0.1/",
            "http://255.255.255.255/",
        ] {
            assert!(matches!(Reach::Global.allow(url), Err(MirrorRefused::Private(_))), "{url}");
            assert!(Reach::Anywhere.allow(url).is_ok(), "{url}");
        }
        for url in [
            "ftp://x/",
            "file:///etc/passwd",
            "gopher://x/",
            "http://",
            "x",
            "http://[fe80::1%25eth0]/",
            "http://1.2.3.4.5/",
        ] {
            for reach in [Reach::Global, Reach::Anywhere] {
                assert_eq!(reach.allow(url), Err(MirrorRefused::NoUrl), "{url}");
            }
        }
        for reach in [Reach::Global, Reach::Anywhere] {
            assert_eq!(reach.allow("http://a:b@one.example/"), Err(MirrorRefused::Credentials));
            assert_eq!(reach.allow("http://a@one.example/"), Err(MirrorRefused::Credentials));
            for port in [22, 25, 6000, 6667] {
                assert_eq!(reach.allow(&format!("http://1.1.1.1:{port}/")), Err(MirrorRefused::Port(port)));
            }
            for url in [
                "http://1.1.1.1/x",
                "https://one.example/x",
                "http://[2606:4700::1]:8080/",
                "http://one.example:81/",
            ] {
                assert!(reach.allow(url).is_ok(), "{url}");
            }
        }
    }

    #[test]
    fn of_a_names_addresses_only_the_global_ones_are_used() {
        let of = |texts: &[&str]| -> Result<Vec<String>, MirrorRefused> {
            let found = texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect();
            Ok(global_of("h.example", found)?.map(|address| address.ip().to_string()).collect())
        };
        assert_eq!(of(&["10.0.0.1", "1.1.1.1", "::1", "2606:4700::1"]).unwrap(), ["1.1.1.1", "2606:4700::1"]);
        assert!(of(&["127.0.0.1", "::1"]).unwrap_err().to_string().contains("h.example at 127.0.0.1"));
        assert_eq!(of(&[]).unwrap(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn the_client_opens_no_connection_to_what_is_refused() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = Reach::Global.client().unwrap();
        // A name goes through the resolver, an address in the URL through the check alone.
        let error = client.get(format!("http://localhost:{port}/")).send().await.unwrap_err();
        assert!(matches!(refused(&error), Some(MirrorRefused::Private(_))), "{error:?}");
        let asked = tokio::time::timeout(std::time::Duration::from_millis(50), listener.accept()).await;
        assert!(asked.is_err(), "a connection came");
    }

    #[tokio::test]
    async fn a_redirect_into_a_network_is_not_followed() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (public, private) = (
            tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(),
            tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        let (at, behind) = (public.local_addr().unwrap(), private.local_addr().unwrap().port());
        // Stands for a name whose address is anybody's.
        let client = Reach::Global.builder().resolve("mirror.example", at).build().unwrap();
        for host in
            ["127.0.0.1", "2130706433", "[::ffff:127.0.0.1]", "localhost", "ann:secret@mirror.example"]
        {
            let answer = format!(
                "HTTP/1.1 302 Found\r\nLocation: http://{host}:{behind}/\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            );
            let asked = client.get(format!("http://mirror.example:{}/", at.port())).send();
            let answered = async {
                let (mut stream, _) = public.accept().await.unwrap();
                let mut head = [0; 1_024];
                let _ = stream.read(&mut head).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream
            };
            let (error, _) = tokio::join!(asked, answered);
            let error = error.unwrap_err();
            assert!(refused(&error).is_some(), "{host}: {error:?}");
        }
        let asked = tokio::time::timeout(std::time::Duration::from_millis(50), private.accept()).await;
        assert!(asked.is_err(), "a connection came");
    }
}
