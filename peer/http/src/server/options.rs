//! The command line of `server`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use shoal_console::LogFormat;

use crate::arguments::{self, Reports};

/// Serves a file, or the files of a folder, over HTTP on several ports ("virtual servers").
///
/// It supports ranges, conditional requests, digests (Repr-Digest) and a Metalink 4 with piece digests (/NAME.meta4), for
/// fetch, curl, aria2 and browsers. On a terminal it takes the commands status, stop N, start N, help and quit.
#[derive(Debug, Parser)]
#[command(name = "server", version, after_help = "Example: server -f film.mkv -n 3 -i 2 -p 9001 9002 9003")]
pub struct Options {
    /// File to serve
    #[arg(
        short = 'f',
        long = "file",
        visible_alias = "file_location",
        value_name = "FILE",
        required_unless_present = "root"
    )]
    pub file: Option<PathBuf>,
    /// Folder whose files are served by name, instead of one file
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    pub root: Option<PathBuf>,
    /// Number of virtual servers; must be the number of ports [default: that number]
    #[arg(short = 'n', long = "number", visible_alias = "num_servers", value_name = "N", value_parser = arguments::number(1..=65_535))]
    pub number: Option<u32>,
    /// Interval of reports
    #[command(flatten)]
    pub reports: Reports,
    /// Ports, one for each virtual server
    #[arg(
        short = 'p',
        long = "port",
        visible_alias = "list_of_ports",
        value_name = "PORT",
        num_args = 1..,
        required = true,
        allow_hyphen_values = false
    )]
    pub ports: Vec<String>,
    /// Listen on this address only [default: all interfaces]
    #[arg(short = 'a', long = "address", visible_alias = "server_ip_address", value_name = "ADDRESS", value_parser = shoal_console::ip_address)]
    pub address: Option<IpAddr>,
    /// How log lines are written
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

impl Options {
    /// Ends the process with a usage error if the options contradict each other.
    pub fn check(&self) {
        if let Some(number) = self.number.filter(|&number| number as usize != self.ports.len()) {
            let message = format!(
                "-n {number} does not match the number of ports given, {}; give one port for each server, or leave -n out",
                self.ports.len()
            );
            Self::command().error(ErrorKind::ValueValidation, message).exit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_said_under_the_binarys_own_name() {
        assert!(Options::command().render_version().starts_with("server "));
    }

    #[test]
    fn a_usage_error_says_what_to_give() {
        for (line, said) in [
            ("server -f a -p 1 -n x", "a whole number from 1 to 65535"),
            ("server -f a -p 1 -i x", "whole seconds"),
            ("server -f a -p 1 -a here", "an IP address without a port"),
        ] {
            let error = Options::try_parse_from(line.split(' ')).unwrap_err().to_string();
            assert!(error.contains(said), "{line}: {error}");
        }
    }

    #[test]
    fn both_ways_of_writing_it_are_understood() {
        for line in [
            "server -i 2 -n 2 -f a.bin -p 9001 9002",
            "server --status_interval 2 --num_servers 2 --file_location a.bin --list_of_ports 9001 9002",
            "server --metric_interval=2 --number=2 --file=a.bin --port 9001 9002",
        ] {
            let options = Options::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(
                (options.reports.interval, options.number, options.ports.len()),
                (2, Some(2), 2),
                "{line}"
            );
        }
        assert!(Options::try_parse_from(["server", "-p", "1"]).is_err());
        assert!(Options::try_parse_from(["server", "-f", "a", "--root", "b", "-p", "1"]).is_err());
    }
}
