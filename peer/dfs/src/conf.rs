//! `dfs.conf`: which servers there are and where the trackers are named.
//!
//! ```text
//! Server DFS1 127.0.0.1:10001
//! Trackers tracker_info.txt
//! ```
//!
//! Without a `Trackers` line, `./tracker_info.txt` is used, then the one in the configuration folder. A server's key, which `dfs-server` prints when it starts, may follow its address; then no other is taken for it.

use std::path::{Path, PathBuf};

use shoal_common::PeerId;
use shoal_common::names::NodeName;
use shoal_common::storage::MAX_STORE_SERVERS;

/// Longest `dfs.conf` that is read, in bytes: the most servers at their longest, with as much comment again.
pub const MAX_CONF_BYTES: u64 = 64 * 1024;

/// A server's line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLine {
    /// What it is called.
    pub name: NodeName,
    /// IP address or DNS name, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Its key, if the line says it.
    pub peer: Option<PeerId>,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conf {
    /// The servers, in the file's order, which placement follows.
    pub servers: Vec<ServerLine>,
    /// The file that names the trackers, if a line says it.
    pub trackers: Option<PathBuf>,
    /// What the user should know about the file.
    pub warnings: Vec<String>,
}

/// What is wrong with a `dfs.conf`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfError {
    /// A line that cannot be read.
    #[error("line {line}: {problem}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// No server in it.
    #[error("no server in it; write one per line, for example: Server DFS1 127.0.0.1:10001")]
    NoServers,
}

impl Conf {
    /// Reads the file's text; a relative tracker file is looked for beside it, in `folder`.
    ///
    /// # Errors
    /// [`ConfError`] names the offending line.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, ConfError> {
        let mut conf = Self { servers: Vec::new(), trackers: None, warnings: Vec::new() };
        for (line, raw) in text.lines().enumerate().map(|(index, raw)| (index + 1, raw)) {
            let content = raw.split('#').next().unwrap_or_default().trim().trim_start_matches('\u{feff}');
            let mut words = content.split_whitespace();
            let Some(kind) = words.next() else { continue };
            let rest: Vec<&str> = words.collect();
            let taken = match kind.trim_end_matches(':').to_ascii_lowercase().as_str() {
                "server" => conf.server(line, &rest),
                "trackers" => conf.trackers(content, folder),
                "username" | "password" => {
                    conf.warnings.push(format!(
                        "line {line}: {} is ignored: accounts are the trackers' accounts, and dfs asks for the password",
                        kind.trim_end_matches(':'),
                    ));
                    Ok(())
                }
                _ => Err("expected a line that begins with Server or Trackers".to_owned()),
            };
            taken.map_err(|problem| ConfError::Line { line, problem })?;
        }
        if conf.servers.is_empty() {
            return Err(ConfError::NoServers);
        }
        Ok(conf)
    }

    fn trackers(&mut self, content: &str, folder: &Path) -> Result<(), String> {
        let path = content.split_once(char::is_whitespace).map(|(_, path)| path.trim()).unwrap_or_default();
        if path.is_empty() {
            return Err("Trackers needs a file, for example: Trackers tracker_info.txt".to_owned());
        }
        if self.trackers.is_some() {
            return Err("Trackers is given twice".to_owned());
        }
        self.trackers = Some(folder.join(path));
        Ok(())
    }

    fn server(&mut self, line: usize, words: &[&str]) -> Result<(), String> {
        const FORM: &str =
            "write: Server NAME HOST:PORT, for example: Server DFS1 127.0.0.1:10001; its peer id may follow";
        let (name, at, peer) = match *words {
            [name, at] => (name, at.to_owned(), None),
            [name, host, port] if port.parse::<u16>().is_ok() => (name, format!("{host}:{port}"), None),
            [name, at, peer] => (name, at.to_owned(), Some(peer)),
            [name, host, port, peer] => (name, format!("{host}:{port}"), Some(peer)),
            _ => return Err(FORM.to_owned()),
        };
        let peer = peer.map(str::parse::<PeerId>).transpose();
        let peer = peer.map_err(|error| format!("the server's peer id: {error}"))?;
        let name = NodeName::create(name).map_err(|error| error.to_string())?;
        let (host, port) = at.rsplit_once(':').ok_or(FORM)?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or(FORM)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || host.len() > 253 {
            return Err(FORM.to_owned());
        }
        if let Some(same) = self.servers.iter().find(|server| server.host == host && server.port == port) {
            self.warnings.push(format!("line {line}: {at} is listed already, as {}", same.name));
            return Ok(());
        }
        if self.servers.len() == MAX_STORE_SERVERS {
            return Err(format!("more than {MAX_STORE_SERVERS} servers"));
        }
        let name = self.free_name(line, name)?;
        self.servers.push(ServerLine { name, host: host.to_owned(), port, peer });
        Ok(())
    }

    /// The name, or the next free `DFSn` where another server has it.
    fn free_name(&mut self, line: usize, name: NodeName) -> Result<NodeName, String> {
        let taken = |name: &NodeName| self.servers.iter().any(|server| server.name == *name);
        if !taken(&name) {
            return Ok(name);
        }
        let free = (1..=2 * MAX_STORE_SERVERS)
            .filter_map(|number| NodeName::create(&format!("DFS{number}")).ok())
            .find(|candidate| !taken(candidate));
        let free = free.ok_or("too many servers of one name")?;
        self.warnings
            .push(format!("line {line}: another server is called {name}; this one is taken as {free}"));
        Ok(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Conf, ConfError> {
        Conf::parse(text, Path::new("/etc/shoal"))
    }

    #[test]
    fn servers_and_trackers_are_read() {
        let conf = parse(
            "# mine\nServer DFS1 127.0.0.1:10001\nserver DFS2 host 10002\nServer DFS3 [::1]:10003\nTrackers: t.txt\n",
        )
        .unwrap();
        let at = |index: usize| {
            let server = &conf.servers[index];
            (server.name.as_str(), server.host.as_str(), server.port)
        };
        assert_eq!(at(0), ("DFS1", "127.0.0.1", 10_001));
        assert_eq!(at(1), ("DFS2", "host", 10_002));
        assert_eq!(at(2), ("DFS3", "::1", 10_003));
        assert_eq!(conf.trackers.as_deref(), Some(Path::new("/etc/shoal/t.txt")));
        assert_eq!(parse("Server A a:1\n").unwrap().trackers, None);
        assert!(conf.warnings.is_empty());
        assert!(conf.servers.iter().all(|server| server.peer.is_none()));
    }

    #[test]
    fn a_servers_key_may_follow_its_address() {
        let key = PeerId([7; 32]);
        let conf =
            parse(&format!("Server A a:1 {key}\nServer B b 2 {key}\nServer C c 3\nTrackers t\n")).unwrap();
        let keys: Vec<Option<PeerId>> = conf.servers.iter().map(|server| server.peer).collect();
        assert_eq!(keys, [Some(key), Some(key), None]);
        assert_eq!((conf.servers[1].host.as_str(), conf.servers[1].port), ("b", 2));
    }

    #[test]
    fn old_lines_and_doubles_are_warned_of() {
        let conf = parse(
            "Server DFS1 a:1\nServer DFS1 b:2\nServer X a:1\nUsername: bob\nPassword: secret\nTrackers t\n",
        )
        .unwrap();
        let names: Vec<&str> = conf.servers.iter().map(|server| server.name.as_str()).collect();
        assert_eq!(names, ["DFS1", "DFS2"]);
        assert_eq!(conf.warnings.len(), 4, "{:?}", conf.warnings);
        assert!(!conf.warnings.concat().contains("secret"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line() {
        for (text, reason) in [
            ("Server DFS1\nTrackers t", "line 1"),
            ("Server DFS1 host\nTrackers t", "line 1"),
            ("Trackers t\nServer DFS1 host:0", "line 2"),
            ("Server DFS1 host:99999\nTrackers t", "line 1"),
            ("Server DFS1 host:1 nonsense\nTrackers t", "peer id"),
            ("What 1", "line 1"),
            ("Trackers t", "no server"),
            ("Server DFS1 host:1\nTrackers", "needs a file"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }
}
