//! The command line of `client`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use shoal_console::LogFormat;
use shoal_web::WebConfig;

/// Default number of peers that a client uploads to at a time: enough to fill a line, few enough that each gets a useful
/// share of it.
pub const UPLOAD_SLOTS: usize = 16;

/// Shares files with the groups you belong to, and downloads them from many members at once.
#[derive(Debug, Parser)]
#[command(name = "client", version, after_help = "Example: client 127.0.0.1:4001 tracker_info.txt")]
pub struct Options {
    /// Where other peers reach this client; 0.0.0.0:PORT for all addresses of this machine.
    #[arg(value_name = "IP:PORT", value_parser = listen)]
    pub listen: SocketAddr,
    /// The file that names the trackers, one per line.
    #[arg(value_name = "TRACKER_INFO")]
    pub tracker_info: PathBuf,
    /// Run this command first; may be given several times. Other users of this machine can read it: no passwords here.
    #[arg(long, value_name = "COMMAND")]
    pub exec: Vec<String>,
    /// Read no commands; share and download until a signal comes.
    #[arg(long)]
    pub headless: bool,
    /// Let a browser on this machine use this client at this address, such as 127.0.0.1:8384; with --headless.
    #[arg(long, value_name = "IP:PORT", value_parser = loopback, requires = "headless")]
    pub web: Option<SocketAddr>,
    /// A folder that the page may share from and download to; may be given several times [default: the download folder, and the
    /// folders of what is shared].
    #[arg(long, value_name = "DIR", requires = "web")]
    pub web_root: Vec<PathBuf>,
    /// Take passwords that are not given from the first line of this file, which only its owner may read (mode 600).
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Print one JSON object per command, and one per event.
    #[arg(long)]
    pub json: bool,
    /// Where this client keeps its identity, shares and downloads [default: a folder for this port under the XDG data home].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Peers to upload to at a time; at least 1 (`limit up` bounds the rate).
    #[arg(long, value_name = "N", default_value_t = UPLOAD_SLOTS, value_parser = at_least_one)]
    pub upload_slots: usize,
    /// Download also from mirrors in private networks and on this machine, and through a proxy of the environment. Any
    /// member of a group can name a mirror, and so make this client send requests there.
    #[arg(long)]
    pub private_mirrors: bool,
    /// How log lines look; RUST_LOG says which are written.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

fn at_least_one(typed: &str) -> Result<usize, String> {
    match typed.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(format!("write a whole number from 1 on, for example {UPLOAD_SLOTS}")),
    }
}

/// Reads an address at which a client listens.
///
/// # Errors
/// In words, what is expected.
pub fn listen(typed: &str) -> Result<SocketAddr, String> {
    let typed =
        typed.strip_prefix("localhost:").map_or_else(|| typed.to_owned(), |port| format!("127.0.0.1:{port}"));
    typed
        .parse()
        .map_err(|_| "write an IP address and a port, for example 127.0.0.1:4001 or [::1]:4001".to_owned())
}

/// Where a browser is served, if anywhere; folders are made whole.
#[must_use]
pub fn web(at: Option<SocketAddr>, roots: &[PathBuf]) -> Option<WebConfig> {
    let whole = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    at.map(|at| WebConfig { at, roots: roots.iter().map(whole).collect(), private: Vec::new() })
}

/// Reads an address of this machine alone.
///
/// # Errors
/// In words, what is expected.
pub fn loopback(typed: &str) -> Result<SocketAddr, String> {
    let at = listen(typed)?;
    let other =
        "only this machine can be let in: write 127.0.0.1 or [::1] and a port, for example 127.0.0.1:8384";
    if at.ip().is_loopback() { Ok(at) } else { Err(other.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_ip_and_port() {
        for good in ["127.0.0.1:4001", "[::1]:4001", "localhost:4001", "0.0.0.0:0"] {
            assert!(listen(good).is_ok(), "{good}");
        }
        for bad in ["4001", "127.0.0.1", "example.org:80", "::1:4001x", "127.0.0.1:99999", ""] {
            assert!(listen(bad).unwrap_err().contains("for example"), "{bad}");
        }
        assert!(loopback("127.0.0.1:8384").is_ok() && loopback("[::1]:0").is_ok());
        for other in ["0.0.0.0:8384", "192.168.1.20:8384", "8384"] {
            assert!(loopback(other).unwrap_err().contains("for example"), "{other}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Options::command().debug_assert();
        for wrong in ["0", "-1", "x", ""] {
            assert!(at_least_one(wrong).unwrap_err().contains("for example 16"), "{wrong:?}");
        }
        let options = Options::parse_from(["client", "127.0.0.1:1", "t", "--exec", "a b", "--exec", "c"]);
        assert_eq!(options.exec, ["a b", "c"]);
    }
}
