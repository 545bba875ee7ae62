//! `tracker_info.txt`: the trackers, one per line. A tracker's number is the position of its line.
//!
//! `ip port`, `ip:port` or a DNS name with a port, optionally followed by that tracker's peer id; `#` starts a comment;
//! `-` keeps the number of a tracker that was removed. Lines without content have no number.

use std::fmt;
use std::net::Ipv6Addr;

use crate::PeerId;

/// Trackers at most, removed ones included. Every tracker applies every write, so more of them only cost.
pub const MAX_TRACKERS: usize = 32;

/// Longest file: every tracker's line at its longest, with as much comment again.
pub const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Longest host name (RFC 1035, section 2.3.4).
const MAX_HOST_BYTES: usize = 253;

/// One tracker's line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackerLine {
    /// IPv4 or IPv6 address (without brackets), or DNS name.
    pub host: String,
    /// TCP port, never 0.
    pub port: u16,
    /// The key that this tracker must prove, if the line names one.
    pub peer_id: Option<PeerId>,
}

/// The trackers of a cluster by number; at least one is not removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackerInfo {
    lines: Vec<Option<TrackerLine>>,
}

/// What is wrong, and in which line (from 1, comments included).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrackerInfoError {
    /// A line that cannot be read.
    #[error("line {line}: {problem}")]
    Line {
        /// The line's number in the file.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// No tracker in it.
    #[error("it names no tracker; write one per line, for example: 127.0.0.1 9001")]
    Empty,
}

impl TrackerInfo {
    /// Reads the file's text.
    ///
    /// # Errors
    /// [`TrackerInfoError`] with the number of the offending line.
    pub fn parse(text: &str) -> Result<Self, TrackerInfoError> {
        let mut lines: Vec<Option<TrackerLine>> = Vec::new();
        for (number, raw) in text.lines().enumerate() {
            let content = raw.split('#').next().unwrap_or_default().trim().trim_start_matches('\u{feff}');
            if content.is_empty() {
                continue;
            }
            let fault = |problem: String| TrackerInfoError::Line { line: number + 1, problem };
            if lines.len() == MAX_TRACKERS {
                return Err(fault(format!("more than {MAX_TRACKERS} trackers")));
            }
            if content == "-" {
                lines.push(None);
                continue;
            }
            let line = parse_line(content).map_err(fault)?;
            if lines.iter().flatten().any(|other| (&other.host, other.port) == (&line.host, line.port)) {
                return Err(fault(format!("{line} is listed twice")));
            }
            lines.push(Some(line));
        }
        if lines.iter().flatten().next().is_none() {
            return Err(TrackerInfoError::Empty);
        }
        Ok(Self { lines })
    }

    /// The tracker of that number (from 1), if it is listed and not removed.
    #[must_use]
    pub fn tracker(&self, number: u8) -> Option<&TrackerLine> {
        self.lines.get(usize::from(number).checked_sub(1)?)?.as_ref()
    }

    /// All trackers that are not removed, with their numbers.
    #[expect(clippy::cast_possible_truncation, reason = "MAX_TRACKERS fits a u8")]
    pub fn iter(&self) -> impl Iterator<Item = (u8, &TrackerLine)> {
        self.lines.iter().enumerate().filter_map(|(i, line)| Some((i as u8 + 1, line.as_ref()?)))
    }
}

impl TrackerLine {
    /// The line as it is to stand in the file, with the tracker's key.
    #[must_use]
    pub fn with_key(&self, key: PeerId) -> String {
        format!("{} {} {key}", self.host, self.port)
    }
}

impl fmt::Display for TrackerLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn parse_line(content: &str) -> Result<TrackerLine, String> {
    let mut words = content.split_whitespace();
    let first = words.next().unwrap_or_default();
    if let Some((host, port)) = first.split_once(',') {
        let port = if port.is_empty() { words.next().unwrap_or("9001") } else { port };
        let (line, host, port) = (short(content), short(host), short(port));
        return Err(format!("{line:?} has a comma; write for example: {host} {port}"));
    }
    let (host, port) = match split_host_port(first) {
        Some((host, port)) => (host, port),
        None => match words.next() {
            Some(port) => (first.trim_matches(['[', ']']), port),
            None => {
                return Err(format!(
                    "{:?} has no port; write for example: {} 9001",
                    short(first),
                    short(first)
                ));
            }
        },
    };
    let port = match port.parse() {
        Ok(0) | Err(_) => return Err(format!("{:?} is not a port (1 to 65535)", short(port))),
        Ok(port) => port,
    };
    check_host(host)?;
    let peer_id = match words.next() {
        None => None,
        Some(word) => Some(word.parse().map_err(|error| format!("{:?} is {error}", short(word)))?),
    };
    match words.next() {
        None => Ok(TrackerLine { host: host.to_owned(), port, peer_id }),
        Some(word) => {
            Err(format!("{:?} is one word too many; write: name port, and perhaps a peer id", short(word)))
        }
    }
}

/// `host:port` or `[v6]:port`; a bare IPv6 address, which has more than one colon, is no such pair.
fn split_host_port(word: &str) -> Option<(&str, &str)> {
    if let Some(rest) = word.strip_prefix('[') {
        return rest.split_once("]:");
    }
    word.split_once(':').filter(|(_, port)| !port.contains(':'))
}

fn check_host(host: &str) -> Result<(), String> {
    let dns = !host.is_empty()
        && host.len() <= MAX_HOST_BYTES
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    // Only digits and dots: it is meant as an IPv4 address and must be one.
    let numeric = dns && host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let valid = if host.contains(':') {
        host.parse::<Ipv6Addr>().is_ok()
    } else if numeric {
        host.parse::<std::net::Ipv4Addr>().is_ok()
    } else {
        dns
    };
    if valid { Ok(()) } else { Err(format!("{:?} is neither an IP address nor a host name", short(host))) }
}

/// A word, cut for an error message.
fn short(word: &str) -> String {
    word.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_forms_are_read() {
        let id = PeerId([3; 32]);
        let text = format!(
            "# a comment\n127.0.0.1 9001\n\n10.0.0.2:9002 {id} # with a key\n-\ntracker.example.org 80\n::1 9003\n[2001:db8::1]:9004\n"
        );
        let info = TrackerInfo::parse(&text).unwrap();
        let shown: Vec<_> = info.iter().map(|(number, line)| format!("{number} {line}")).collect();
        assert_eq!(
            shown,
            [
                "1 127.0.0.1:9001",
                "2 10.0.0.2:9002",
                "4 tracker.example.org:80",
                "5 [::1]:9003",
                "6 [2001:db8::1]:9004"
            ]
        );
        assert_eq!(info.tracker(2).unwrap().peer_id, Some(id));
        assert_eq!(info.tracker(3), None);
        assert_eq!(info.tracker(0), None);
        assert_eq!(info.tracker(7), None);
    }

    #[test]
    fn errors_name_the_line() {
        for (bad, word) in [
            ("127.0.0.1", "no port; write for example: 127.0.0.1 9001"),
            ("127.0.0.1,7001", "has a comma; write for example: 127.0.0.1 7001"),
            ("127.0.0.1, 7001", "has a comma; write for example: 127.0.0.1 7001"),
            ("host,", "has a comma; write for example: host 9001"),
            ("127.0.0.1 0", "not a port"),
            ("127.0.0.1:99999", "not a port"),
            ("127.0.0.999 9001", "neither"),
            ("a b", "not a port"),
            ("h 9001 junk", "not a peer id"),
            ("ho/st 9001", "neither"),
            ("127.0.0.1 9001", "twice"),
            ("- -", "not a port"),
        ] {
            let error =
                TrackerInfo::parse(&format!("127.0.0.1 9001\n# fine\n{bad}\n")).unwrap_err().to_string();
            assert!(error.starts_with("line 3: ") && error.contains(word), "{bad}: {error}");
        }
        assert_eq!(TrackerInfo::parse("# nothing\n-\n"), Err(TrackerInfoError::Empty));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9a-z:.#\\[\\] \n-]{0,200}|.{0,200}") {
            let _ = TrackerInfo::parse(&text);
        }
    }
}
