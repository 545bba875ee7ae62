//! `shoal up`: one command to begin. A client and, where no other tracker is named, a tracker of its own in one process, with
//! everything in one folder.

mod address;
mod files;
mod notice;
mod run;
pub(crate) mod setup;
pub(crate) mod typed;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use shoal_console::{LogFormat, secrets};

/// The command line of `shoal up`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where everything is kept [default: shoal under the XDG data home].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where others reach this client; its tracker has the port above. Kept for the next start [default: this machine's address
    /// in its network].
    #[arg(long, value_name = "IP:PORT", value_parser = listen)]
    pub(crate) listen: Option<SocketAddr>,
    /// Use a friend's tracker instead of one's own: the three words that `shoal up` gave the friend.
    #[arg(long, value_name = "'HOST PORT PEERID'")]
    pub(crate) join: Option<String>,
    /// Where the page is for browsers on this machine. Kept for the next start [default: 127.0.0.1:8384, or the next free port].
    #[arg(long, value_name = "IP:PORT", value_parser = shoal_peer::options::loopback, conflicts_with = "no_web")]
    pub(crate) web: Option<SocketAddr>,
    /// A folder that the page may share from and download to; may be given several times [default: the download folder, and the
    /// folders of what is shared].
    #[arg(long, value_name = "DIR", conflicts_with = "no_web")]
    pub(crate) web_root: Vec<PathBuf>,
    /// Serve no page this time.
    #[arg(long)]
    pub(crate) no_web: bool,
    /// Open no browser.
    #[arg(long)]
    pub(crate) no_browser: bool,
    /// How lines of the log file look.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
}

/// Runs until `shoal quit` or a signal.
pub(crate) fn main(options: Options) -> ExitCode {
    secrets::no_core_dumps();
    let runtime = match shoal_console::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return crate::show::failed(&format!("cannot start: {error}")),
    };
    let ended = runtime.block_on(run::run(options));
    // What did not end in time ends with the process.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::show::failed(&format!("{error:#}")),
    }
}

/// Reads an address at which others can reach a client.
fn listen(typed: &str) -> Result<SocketAddr, String> {
    let at = shoal_peer::options::listen(typed)?;
    let is_nobodys = match at.ip() {
        IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_multicast(),
    };
    if is_nobodys {
        return Err(format!("{} is an address of no machine: write this machine's or the router's", at.ip()));
    }
    if at.port() == 0 {
        return Err("friends need a port that stays: write one from 1 on, for example 7070".to_owned());
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_can_reach_is_refused() {
        for good in ["127.0.0.1:7070", "203.0.113.5:1", "[::1]:7070", "0.0.0.0:7070"] {
            assert!(listen(good).is_ok(), "{good}");
        }
        for bad in ["127.0.0.1:0", "[::1]:0", "224.0.0.1:7070", "255.255.255.255:7070", "[ff02::1]:7070", "x"]
        {
            assert!(listen(bad).unwrap_err().contains("write"), "{bad}");
        }
    }
}
