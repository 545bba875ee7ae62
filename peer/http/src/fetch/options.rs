//! The command line of `fetch`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgGroup, CommandFactory, Parser};
use shoal_common::{Sha1, Sha256};
use shoal_console::LogFormat;

use crate::arguments::{self, Reports};
use crate::metalink::hex;

/// Downloads one file in segments from many HTTP servers at once.
///
/// All servers are asked for size, checksum and piece list; only those that agree with the majority are used. A server that
/// dies, stalls or sends wrong bytes costs only its own share. The file gets its name after the last check.
#[derive(Debug, Parser)]
#[command(
    name = "fetch",
    version,
    group = ArgGroup::new("from").args(["ports", "servers", "inputs"]).required(true).multiple(true),
    after_help = "Examples:\n  fetch -p 9001 9002 9003 -o film.mkv -i 2 -r\n  fetch --servers servers.txt --file film.mkv -c 8 -o .\n  fetch https://one.example/film.mkv https://two.example/film.mkv\n  fetch film.mkv.meta4"
)]
pub struct Options {
    /// URLs of the same file, or one Metalink (FILE.meta4 or its URL)
    #[arg(value_name = "URL")]
    pub inputs: Vec<String>,
    /// Address of the servers whose ports are given
    #[arg(
        short = 'a',
        long = "address",
        visible_alias = "server_ip_address",
        value_name = "ADDRESS",
        default_value = "127.0.0.1",
        requires = "ports",
        value_parser = address
    )]
    pub address: String,
    /// Ports of the servers
    #[arg(
        short = 'p',
        long = "port",
        visible_alias = "list_of_ports",
        value_name = "PORT",
        num_args = 1..,
        value_parser = arguments::port
    )]
    pub ports: Vec<u16>,
    /// File with a line "host port" for each server
    #[arg(long, value_name = "FILE", requires = "name")]
    pub servers: Option<PathBuf>,
    /// Name of the file on the servers, and here where -o names a folder
    #[arg(short = 'f', long = "file", visible_alias = "file_location", value_name = "NAME", id = "name")]
    pub name: Option<String>,
    /// Chunks downloaded in parallel, all servers together
    #[arg(short = 'c', long, value_name = "CHUNKS", value_parser = arguments::number(1..=1024))]
    pub chunks: Option<u32>,
    /// Where to: a folder or a file name
    #[arg(
        short = 'o',
        long = "output",
        visible_alias = "output_location",
        value_name = "OUT",
        default_value = "."
    )]
    pub output: PathBuf,
    /// Replace a file that exists under a name which the servers chose
    #[arg(long)]
    pub overwrite: bool,
    /// Interval of reports
    #[command(flatten)]
    pub reports: Reports,
    /// Continue an interrupted download
    #[arg(
        short = 'r',
        long = "resume",
        value_name = "yes|no",
        value_parser = yes_or_no,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    pub resume: bool,
    /// SHA-1 that the file must have, or auto to have it computed and shown
    #[arg(long, value_name = "HEX|auto", value_parser = sha1)]
    pub sha1: Option<AskedSha1>,
    /// SHA-256 that the file must have
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    pub sha256: Option<Sha256>,
    /// Bytes per second at most, with K, M or G; 0 for no limit
    #[arg(long, value_name = "RATE", value_parser = rate, default_value = "0")]
    pub limit_rate: u64,
    /// Parallel connections to each server [default: as its rate needs, 1 or 2]
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "chunks",
        value_parser = arguments::number(1..=16)
    )]
    pub connections: Option<u32>,
    /// How long, in seconds, to retry when no server delivers or the disk is full
    #[arg(
        long,
        value_name = "SECS",
        default_value_t = 40,
        value_parser = arguments::number(1..=86_400)
    )]
    pub retry_time: u32,
    /// One JSON object per report, and one at the end
    #[arg(long)]
    pub json: bool,
    /// Format of log lines
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// What a user wants of the file's SHA-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedSha1 {
    /// That it is this one.
    Expected(Sha1),
    /// To see it.
    Computed,
}

impl Options {
    /// The SHA-1 that the file must have, if the user gave one.
    #[must_use]
    pub fn expected_sha1(&self) -> Option<Sha1> {
        match self.sha1 {
            Some(AskedSha1::Expected(sha1)) => Some(sha1),
            Some(AskedSha1::Computed) | None => None,
        }
    }

    /// Whether the SHA-1 is to be computed even if nobody knows it: the user asked for it, or for JSON, which has it.
    #[must_use]
    pub fn wants_sha1(&self) -> bool {
        self.json || self.sha1 == Some(AskedSha1::Computed)
    }

    /// Reads the command line; on an error the process ends with its message.
    pub fn from_command_line(arguments: impl IntoIterator<Item = OsString>) -> Self {
        Self::read(arguments).unwrap_or_else(|error| error.exit())
    }

    fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let options = Self::try_parse_from(join_resume(arguments))?;
        let way = match (options.ports.is_empty(), &options.servers) {
            (false, Some(_)) => Some("-p"),
            (false, None) if !options.inputs.is_empty() => Some("-p"),
            (true, Some(_)) if !options.inputs.is_empty() => Some("--servers"),
            _ => None,
        };
        let Some(way) = way else { return Ok(options) };
        let message = match options.inputs.first() {
            Some(word) => {
                let hint = if options.resume { "; -r takes only yes, no, true, false, 1 or 0" } else { "" };
                format!("{word:?} is taken for a URL, but {way} names the servers already{hint}")
            }
            None => "-p and --servers both name the servers; give one of them".into(),
        };
        Err(Self::command().error(ErrorKind::ArgumentConflict, message))
    }
}

/// An address without a port.
fn address(text: &str) -> Result<String, String> {
    let with_port = text.parse::<std::net::SocketAddr>().is_ok()
        || text
            .split_once([':', ',', ' '])
            .is_some_and(|(host, port)| !host.is_empty() && port.trim().parse::<u16>().is_ok());
    match with_port {
        true => {
            Err("give the address without the port, and the ports with -p: -a 127.0.0.1 -p 9001 9002".into())
        }
        false => Ok(text.to_owned()),
    }
}

/// Joins `-r` with a yes or no behind it; no other word is its value.
fn join_resume(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    let mut resume = false;
    for argument in arguments {
        match argument.to_str().map(str::to_ascii_lowercase).as_deref() {
            Some(value) if resume && yes_or_no(value).is_ok() => {
                joined.pop();
                joined.push(format!("--resume={value}").into());
            }
            _ => joined.push(argument),
        }
        resume = joined.last().is_some_and(|last| last == "-r" || last == "--resume");
    }
    joined
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "1" => Ok(true),
        "no" | "false" | "0" => Ok(false),
        _ => Err("give yes, no, true, false, 1 or 0, or -r alone for yes".into()),
    }
}

fn sha1(text: &str) -> Result<AskedSha1, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(AskedSha1::Computed);
    }
    let digits = hex(text).map_err(|_| "a SHA-1 has 40 hex digits; auto computes it")?;
    Ok(AskedSha1::Expected(Sha1(digits)))
}

fn sha256(text: &str) -> Result<Sha256, String> {
    hex(text).map(Sha256).map_err(|_| "a SHA-256 has 64 hex digits".into())
}

fn rate(text: &str) -> Result<u64, String> {
    shoal_console::rate(text).ok_or_else(|| format!("{text:?} is not a rate; write 500K, 20M, 1G or 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        Options::read(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_version_is_said_under_the_binarys_own_name() {
        assert!(Options::command().render_version().starts_with("fetch "));
    }

    #[test]
    fn both_ways_of_writing_it_are_understood() {
        for line in [
            "fetch -a 10.0.0.1 -p 9001 9002 -o out -i 2 -r",
            "fetch --server_ip_address 10.0.0.1 --list_of_ports 9001 9002 --output_location out --metric_interval 2 --resume",
            "fetch --resume true --address 10.0.0.1 --port 9001 9002 --output out --interval 2",
            "fetch -r -p 9001 9002 -a 10.0.0.1 -o out --status_interval 2",
        ] {
            let options = parse(line).unwrap();
            let read = (
                options.address.as_str(),
                options.ports.as_slice(),
                options.reports.interval,
                options.resume,
            );
            assert_eq!(read, ("10.0.0.1", &[9001, 9002][..], 2, true), "{line}");
        }
        for (word, resume) in [
            ("yes", true),
            ("YES", true),
            ("1", true),
            ("true", true),
            ("no", false),
            ("0", false),
            ("False", false),
        ] {
            for line in [format!("fetch -r {word} -p 1"), format!("fetch -p 1 --resume={word}")] {
                assert_eq!(parse(&line).unwrap().resume, resume, "{line}");
            }
        }
        assert!(!parse("fetch -p 1").unwrap().resume);
        assert_eq!(parse("fetch -r http://a/b").unwrap().inputs, ["http://a/b"]);
        let chunked = parse("fetch --servers s.txt --file NAME -c 8 -o OUT").unwrap();
        assert_eq!((chunked.chunks, chunked.name.as_deref()), (Some(8), Some("NAME")));
    }

    #[test]
    fn a_usage_error_says_what_is_wrong() {
        for (line, said) in [
            ("fetch -p 1 -r maybe", "-r takes only yes, no, true, false, 1 or 0"),
            ("fetch -p 1 -r=maybe", "give yes, no, true, false, 1 or 0"),
            ("fetch -p 1 -a 127.0.0.1,1", "without the port"),
            ("fetch -p 1 -a 127.0.0.1:1", "without the port"),
            ("fetch -p 1 -a [::1]:1", "without the port"),
            ("fetch -p 1 -i 0.5", "whole seconds"),
            ("fetch -p x", "numbers from 1 to 65535"),
            ("fetch -p 9001,9002", "with spaces between"),
            ("fetch -p 1 -c 0", "a whole number from 1 to 1024"),
            ("fetch -p 1 --connections -", "a whole number from 1 to 16"),
            ("fetch -p 1 --retry-time x", "a whole number from 1 to 86400"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(said), "{line}: {error}");
        }
        for address in ["::1", "[::1]", "fe80::1", "example.org", "10.0.0.1"] {
            assert!(parse(&format!("fetch -p 1 -a {address}")).is_ok(), "{address}");
        }
    }

    #[test]
    fn contradictions_are_usage_errors() {
        for line in [
            "fetch",
            "fetch -p 0",
            "fetch -p x",
            "fetch -p 1 -r maybe",
            "fetch http://a/b -p 1",
            "fetch --servers x",
            "fetch --servers x -f n -p 1",
            "fetch --servers x -f n http://a/b",
            "fetch -p 1 -a 127.0.0.1:1",
            "fetch -p 1 -i 0.5",
            "fetch -p 1 --sha1 00",
            "fetch -p 1 --limit-rate 1T",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
