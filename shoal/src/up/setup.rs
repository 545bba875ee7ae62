//! What a folder of `shoal up` holds, and what is chosen where nothing was set up yet: the ports, and whose tracker is used. What was
//! chosen once stays.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use shoal_client::StartError;
use shoal_common::{PeerId, TrackerInfo};
use shoal_console::{read_text, read_trackers};
use shoal_net::NetError;

use super::Options;
use super::address;
use super::files::replace;

/// The first port that is tried for a client; its tracker has the next one.
const FIRST_PORT: u16 = 7_070;
/// Pairs of ports that are tried.
const PAIRS: u16 = 100;
/// The first port that is tried for the page.
const FIRST_WEB_PORT: u16 = 8_384;
/// Ports that are tried for the page.
const WEB_PORTS: u16 = 100;
/// What was chosen, in the folder.
const CHOICE_FILE: &str = "up.json";
/// The trackers, in the folder.
const TRACKERS_FILE: &str = "tracker_info.txt";
/// Bytes of the file of choices.
const MAX_CHOICE: u64 = 4_096;

/// What was chosen at the first start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Choice {
    /// As `--listen` was given, or all addresses with the port that was found.
    listen: SocketAddr,
    /// Whether it has a tracker of its own.
    own_tracker: bool,
    /// Where the page is; a version before chose none.
    #[serde(default)]
    web: Option<SocketAddr>,
}

/// What runs in a folder.
#[derive(Debug)]
pub(super) struct Setup {
    /// The folder.
    dir: PathBuf,
    choice: Choice,
    /// The trackers' file, if it changes.
    trackers: Option<String>,
    /// Keeps the ports that were found from others that begin at the same time, until they are used.
    reserved: Vec<UdpSocket>,
}

/// The folder where everything is kept.
pub(super) fn folder(options: &Options) -> Result<PathBuf> {
    match &options.data {
        Some(dir) => std::path::absolute(dir).with_context(|| format!("cannot use {}", dir.display())),
        None => default_folder(),
    }
}

/// The folder where everything is kept unless another one is named.
pub(crate) fn default_folder() -> Result<PathBuf> {
    use etcetera::BaseStrategy;
    let base = etcetera::choose_base_strategy()
        .context("there is no home folder to keep data in; give --data DIR")?;
    Ok(base.data_dir().join("shoal"))
}

/// The client's data folder in it.
pub(crate) fn client_folder(dir: &Path) -> PathBuf {
    dir.join("client")
}

/// The tracker's data folder in it.
pub(crate) fn tracker_folder(dir: &Path) -> PathBuf {
    dir.join("tracker")
}

/// The file that names the trackers.
pub(crate) fn trackers_file(dir: &Path) -> PathBuf {
    dir.join(TRACKERS_FILE)
}

/// What was chosen.
pub(crate) fn choice_file(dir: &Path) -> PathBuf {
    dir.join(CHOICE_FILE)
}

/// Whether `shoal up` ran in that folder.
pub(crate) fn is_set_up(dir: &Path) -> bool {
    choice_file(dir).exists()
}

/// Writes what was chosen on another machine, so that it holds here: the ports and whose tracker is used, at this machine's address.
/// Without such a choice, ports are found at the first start.
pub(crate) fn place(dir: &Path, chosen: Option<&[u8]>) -> Result<()> {
    let before: Option<Choice> = chosen.and_then(|chosen| serde_json::from_slice(chosen).ok());
    let choice = match before {
        Some(before) => {
            let any = match before.listen.ip() {
                ip if ip.is_loopback() => ip,
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            // Another program may have the page's port here.
            Choice { listen: SocketAddr::new(any, before.listen.port()), web: None, ..before }
        }
        None => {
            let (port, _) = free_port(false)?;
            Choice {
                listen: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
                own_tracker: false,
                web: None,
            }
        }
    };
    replace(&choice_file(dir), &(serde_json::to_string(&choice)? + "\n"))
}

impl Setup {
    /// What was chosen before, with what the options change; or what is chosen now. It is not written yet.
    pub(super) fn read(dir: PathBuf, options: &Options) -> Result<Self> {
        let path = dir.join(CHOICE_FILE);
        let before: Option<Choice> = match path.exists() {
            false => None,
            true => {
                let text = read_text(&path, MAX_CHOICE)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let read = serde_json::from_str(&text);
                Some(read.with_context(|| {
                    let what = "it is not as shoal up wrote it: remove it, and give --listen again where you gave it before";
                    format!("{} cannot be used; {what}", path.display())
                })?)
            }
        };
        if before.as_ref().is_some_and(|before| before.own_tracker) && options.join.is_some() {
            bail!(
                "{} has a tracker of its own, which others may use; give another folder: --data DIR",
                dir.display()
            );
        }
        let own_tracker = before.as_ref().map_or(options.join.is_none(), |before| before.own_tracker);
        let before_web = before.as_ref().and_then(|before| before.web);
        let (listen, mut reserved) = match (options.listen, before) {
            (Some(listen), _) => (listen, Vec::new()),
            (None, Some(before)) => (before.listen, Vec::new()),
            (None, None) => {
                let (port, reserved) = free_port(own_tracker)?;
                (SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), reserved)
            }
        };
        if own_tracker && listen.port() == u16::MAX {
            bail!("the tracker has the port above the client's: give a lower one with --listen");
        }
        let web = options.web.or(before_web).or_else(|| {
            let (at, kept) = if options.no_web { None } else { free_web_port() }?;
            reserved.push(kept);
            Some(at)
        });
        let choice = Choice { listen, own_tracker, web };
        let setup = Self { dir, choice, trackers: None, reserved };
        setup.check_ports()?;
        Ok(setup)
    }

    /// The trackers, and their file. It is not written yet.
    pub(super) fn trackers(&mut self, join: Option<&str>) -> Result<(TrackerInfo, PathBuf)> {
        let path = self.dir.join(TRACKERS_FILE);
        self.trackers = if self.choice.own_tracker {
            let tracker = self.tracker_address();
            let key = shoal_tracker::data_dir::identity(&self.tracker_folder())?.peer_id();
            Some(format!("{} {} {key}\n", tracker.ip(), tracker.port()))
        } else {
            join.map(|line| format!("{}\n", line.trim()))
        };
        let Some(text) = &self.trackers else { return Ok((read_trackers(&path)?, path)) };
        let info = TrackerInfo::parse(text).map_err(|error| {
            anyhow::anyhow!("{:?} names no tracker: {error}; a friend's shoal up shows the line", text.trim())
        })?;
        Ok((info, path))
    }

    /// Writes down what was chosen, once it runs: what cannot be used is not kept for the next start.
    pub(super) fn keep(&mut self) -> Result<()> {
        self.reserved.clear();
        if let Some(text) = &self.trackers {
            replace(&self.dir.join(TRACKERS_FILE), text)?;
        }
        replace(&self.dir.join(CHOICE_FILE), &(serde_json::to_string(&self.choice)? + "\n"))
    }

    /// Where the page is.
    pub(super) fn web(&self) -> Option<SocketAddr> {
        self.choice.web
    }

    /// Whether it has a tracker of its own.
    pub(super) fn own_tracker(&self) -> bool {
        self.choice.own_tracker
    }

    /// The tracker's data folder.
    pub(super) fn tracker_folder(&self) -> PathBuf {
        tracker_folder(&self.dir)
    }

    /// Where the client listens. One with a tracker of its own gives out the tracker's address: both are reached in the same way.
    pub(super) fn client_address(&self) -> SocketAddr {
        match self.choice.own_tracker {
            true => SocketAddr::new(self.own_ip(), self.choice.listen.port()),
            false => self.choice.listen,
        }
    }

    /// Where the tracker is reached.
    pub(super) fn tracker_address(&self) -> SocketAddr {
        SocketAddr::new(self.own_ip(), self.choice.listen.port() + 1)
    }

    /// Where the tracker listens: at every address of this machine, so that it stays when one of them goes and also where others
    /// reach it through a router; or at loopback, if that was given.
    pub(super) fn tracker_listen(&self) -> SocketAddr {
        let ip = match self.choice.listen.ip() {
            ip if ip.is_loopback() => ip,
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(ip, self.choice.listen.port() + 1)
    }

    /// The own tracker as the client in this process dials it: within this machine, whatever address others are given.
    pub(super) fn near(&self, key: PeerId) -> Result<TrackerInfo> {
        let at = self.tracker_listen();
        let ip = match at.ip() {
            ip if ip.is_loopback() => ip,
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        Ok(TrackerInfo::parse(&format!("{ip} {} {key}", at.port()))?)
    }

    /// The address that was given out, where it was looked up and may change.
    pub(super) fn given_out(&self) -> Option<IpAddr> {
        self.choice.listen.ip().is_unspecified().then(|| self.own_ip())
    }

    /// The ports that others must reach, in words.
    pub(super) fn ports(&self) -> String {
        let port = self.choice.listen.port();
        if self.choice.own_tracker {
            format!("ports {port} and {}", port + 1)
        } else {
            format!("port {port}")
        }
    }

    fn own_ip(&self) -> IpAddr {
        let ip = self.choice.listen.ip();
        if ip.is_unspecified() { address::own() } else { ip }
    }

    /// Says which port another program has.
    fn check_ports(&self) -> Result<()> {
        let client = self.choice.listen.port();
        let ports = if self.choice.own_tracker { vec![client, client + 1] } else { vec![client] };
        if let Some(port) = ports.into_iter().find(|&port| port != 0 && !is_free(port)) {
            return Err(self.in_use(port));
        }
        Ok(())
    }

    /// A start that failed: where another program took the port meanwhile, what to do about that.
    pub(super) fn failed(&self, error: anyhow::Error) -> anyhow::Error {
        let network = match error.downcast_ref::<StartError>() {
            Some(StartError::Net(network)) => Some(network),
            _ => error.downcast_ref::<NetError>(),
        };
        match network {
            Some(NetError::PortInUse { address }) => self.in_use(address.port()),
            _ => error,
        }
    }

    fn in_use(&self, port: u16) -> anyhow::Error {
        let client = self.choice.listen.port();
        let friends = if self.choice.own_tracker { "; friends then need the new line" } else { "" };
        let other = if client < 60_000 { client + 10 } else { client - 10 };
        anyhow::anyhow!(
            "port {port} is in use by another program: end that one, or choose another port with --listen {}{friends}",
            SocketAddr::new(self.choice.listen.ip(), other)
        )
    }
}

/// Whether nothing listens on a port here. One that another program has at a single address counts as taken.
fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

/// The first port that is free, with the one above it if a tracker needs that; and what keeps them until they are used.
fn free_port(own_tracker: bool) -> Result<(u16, Vec<UdpSocket>)> {
    let count = if own_tracker { 2 } else { 1 };
    let candidates = (0..PAIRS).map(|pair| FIRST_PORT + 2 * pair);
    let mut fitting = candidates.filter_map(|port| {
        let ports = port..port + count;
        let reserved = ports.clone().map(reserve).collect::<Option<Vec<_>>>()?;
        ports.clone().all(is_free).then_some((port, reserved))
    });
    fitting.next().context("no port from 7070 on is free; give one with --listen IP:PORT")
}

/// The first address that is free for the page, and what keeps it.
fn free_web_port() -> Option<(SocketAddr, UdpSocket)> {
    let mut ports = (FIRST_WEB_PORT..FIRST_WEB_PORT + WEB_PORTS).filter(|&port| is_free(port));
    ports.find_map(|port| Some((SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), reserve(port)?)))
}

/// Nothing here uses UDP, so its port of the same number says among several `shoal up` whose the TCP port will be.
fn reserve(port: u16) -> Option<UdpSocket> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(listen: Option<&str>, join: Option<&str>) -> Options {
        Options {
            data: None,
            listen: listen.map(|listen| listen.parse().unwrap()),
            join: join.map(str::to_owned),
            web: None,
            web_root: Vec::new(),
            no_web: true,
            no_browser: true,
            log_format: shoal_console::LogFormat::Text,
        }
    }

    fn write(setup: &mut Setup, join: Option<&str>) -> Result<(TrackerInfo, PathBuf)> {
        let found = setup.trackers(join)?;
        setup.keep()?;
        Ok(found)
    }

    #[test]
    fn what_was_chosen_once_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Setup::read(dir.path().to_owned(), &options(None, None)).unwrap();
        std::fs::create_dir(first.tracker_folder()).unwrap();
        let (info, path) = write(&mut first, None).unwrap();
        assert_eq!(info.iter().count(), 1);
        let line = std::fs::read_to_string(&path).unwrap();
        let mut again = Setup::read(dir.path().to_owned(), &options(None, None)).unwrap();
        assert_eq!(again.choice, first.choice);
        write(&mut again, None).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), line, "the same port and key");
        let moved = Setup::read(dir.path().to_owned(), &options(Some("127.0.0.1:7990"), None)).unwrap();
        assert_eq!(moved.tracker_address(), "127.0.0.1:7991".parse().unwrap());
        let joined = Setup::read(dir.path().to_owned(), &options(None, Some("127.0.0.1 1")));
        assert!(joined.unwrap_err().to_string().contains("a tracker of its own"));
    }

    #[test]
    fn the_own_tracker_is_dialled_within_this_machine_whatever_others_are_given() {
        let key = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";
        for (given, listens, dialled) in [
            ("203.0.113.5:7070", "0.0.0.0:7071", "127.0.0.1:7071"),
            ("0.0.0.0:7070", "0.0.0.0:7071", "127.0.0.1:7071"),
            ("127.0.0.2:7070", "127.0.0.2:7071", "127.0.0.2:7071"),
            ("[2001:db8::1]:7070", "[::]:7071", "[::1]:7071"),
        ] {
            let choice = Choice { listen: given.parse().unwrap(), own_tracker: true, web: None };
            let setup = Setup { dir: PathBuf::new(), choice, trackers: None, reserved: Vec::new() };
            assert_eq!(setup.tracker_listen(), listens.parse().unwrap(), "{given}");
            let near = setup.near(key.parse().unwrap()).unwrap();
            let line = near.tracker(1).unwrap();
            assert_eq!((line.to_string(), line.peer_id.unwrap().to_string()), (dialled.into(), key.into()));
        }
    }

    #[test]
    fn a_friends_tracker_is_kept_and_nonsense_refused() {
        let dir = tempfile::tempdir().unwrap();
        let options_of = |join| options(Some("0.0.0.0:7995"), join);
        let mut setup = Setup::read(dir.path().to_owned(), &options_of(Some("x"))).unwrap();
        let wrong = write(&mut setup, Some("nonsense")).unwrap_err().to_string();
        assert!(wrong.contains("names no tracker") && wrong.contains("shoal up shows the line"), "{wrong}");
        assert!(!dir.path().join(CHOICE_FILE).exists(), "nothing is set up");
        write(&mut setup, Some("10.0.0.7 7071")).unwrap();
        let mut again = Setup::read(dir.path().to_owned(), &options(None, None)).unwrap();
        assert!(!again.own_tracker());
        assert_eq!(write(&mut again, None).unwrap().0.tracker(1).unwrap().to_string(), "10.0.0.7:7071");
    }

    #[test]
    fn the_page_has_a_port_of_its_own_that_stays() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let with_page = || Options { no_web: false, ..options(None, None) };
        let mut first = Setup::read(one.path().to_owned(), &with_page()).unwrap();
        let second = Setup::read(other.path().to_owned(), &with_page()).unwrap();
        let at = first.web().unwrap();
        assert!(at.ip().is_loopback() && Some(at) != second.web());
        first.keep().unwrap();
        assert_eq!(Setup::read(one.path().to_owned(), &with_page()).unwrap().web(), Some(at));
        // One without, and what an earlier version chose.
        assert_eq!(Setup::read(other.path().to_owned(), &options(None, None)).unwrap().web(), None);
        std::fs::write(other.path().join(CHOICE_FILE), r#"{"listen":"0.0.0.0:7990","own_tracker":false}"#)
            .unwrap();
        assert!(Setup::read(other.path().to_owned(), &with_page()).unwrap().web().is_some());
    }

    #[test]
    fn two_that_begin_at_once_choose_different_ports_and_nothing_is_kept_of_one_that_does_not_run() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Setup::read(one.path().to_owned(), &options(None, None)).unwrap();
        let mut second = Setup::read(other.path().to_owned(), &options(None, None)).unwrap();
        assert_ne!(first.choice.listen, second.choice.listen);
        std::fs::create_dir(second.tracker_folder()).unwrap();
        second.trackers(None).unwrap();
        assert!(!other.path().join(CHOICE_FILE).exists() && !other.path().join(TRACKERS_FILE).exists());
        let lost = NetError::PortInUse { address: second.client_address() };
        let said = second.failed(StartError::Net(lost).into()).to_string();
        assert!(said.contains("in use by another program") && said.contains("--listen"), "{said}");
    }

    #[test]
    fn a_port_that_is_taken_is_named_with_what_to_do() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let at = taken.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let error = Setup::read(dir.path().to_owned(), &options(Some(&at.to_string()), None))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("port {} is in use", at.port())) && error.contains("--listen"),
            "{error}"
        );
        std::fs::write(dir.path().join(CHOICE_FILE), "{").unwrap();
        let error = Setup::read(dir.path().to_owned(), &options(None, None)).unwrap_err().to_string();
        assert!(error.contains("up.json cannot be used") && error.contains("remove it"), "{error}");
    }
}
