//! `server`: several HTTP servers in one process, each on its own port, that serve the same file or folder. This module
//! starts and drives them; the parts below know nothing of the prompt.

mod body;
mod buffers;
mod catalog;
mod digests;
mod listing;
mod opened;
mod options;
mod places;
mod prompt;
mod ranges;
mod respond;
mod site;
mod virtual_server;
mod watched;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

pub use crate::server::options::Options;

use crate::program;
use crate::server::catalog::Catalog;
use crate::server::digests::DigestStore;
use crate::server::places::Places;
use crate::server::prompt::{Command, Prompt};
use crate::server::site::Site;
use crate::server::virtual_server::VirtualServer;

/// Threads that read files and folders: enough to keep several disks busy. Each keeps some memory of what it read last.
const BLOCKING_THREADS: usize = 32;

/// Runs `server` to its end; the exit code is 0, or 1 if it failed.
#[must_use]
pub fn main(options: Options) -> ExitCode {
    options.check();
    program::run("server", options.log_format, || run(options))
}

/// Runs `server` until `quit`, a signal, or the end of the pipe on standard input.
///
/// # Errors
/// When there is nothing to serve, or no port to serve it on.
pub fn run(options: Options) -> Result<()> {
    let _terminal = shoal_console::Restored::at_end();
    let runtime = shoal_console::runtime_with(BLOCKING_THREADS).context("cannot start the runtime")?;
    let ended = runtime.block_on(serve(options));
    // A thread may still be reading the terminal or a file.
    runtime.shutdown_background();
    ended
}

/// Serves the files of a folder to everyone who connects to the listener, as `server --root` does, for programs without its
/// prompt and its ports. Dropping the future ends it and its connections.
///
/// # Errors
/// When the folder cannot be opened; later never.
pub async fn serve_folder(folder: &Path, listener: TcpListener) -> Result<()> {
    let (catalog, port) = (Catalog::folder(folder)?, listener.local_addr()?.port());
    let places = Places::within(shoal_console::descriptors::limit());
    let site = Arc::new(Site::new(catalog, DigestStore::new(), places));
    site.listens_on(vec![port]);
    virtual_server::serve(listener, site).await;
    Ok(())
}

async fn serve(options: Options) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let catalog = match (&options.file, &options.root) {
        (Some(file), _) => Catalog::file(file)?,
        (None, Some(root)) => Catalog::folder(root)?,
        (None, None) => bail!("give -f FILE or --root DIR"),
    };
    let ports = usable_ports(&options.ports);
    let digests = DigestStore::new();
    let places = Places::within(shoal_console::descriptors::limit());
    let site = Arc::new(Site::new(catalog, digests, places));
    let servers = open_servers(&site, &ports, options.address).await?;
    let mut prompt = Prompt::new().context("cannot use the terminal")?;
    let prepared = tokio::select! {
        prepared = prepare(&site, &prompt) => prepared,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    prepared?;
    for server in &servers {
        prompt.print(&format!(
            "serving {} at http://{}/",
            site.catalog().shown(),
            opened_at(server.address())
        ));
    }
    let every = Duration::from_secs(u64::from(options.reports.interval.max(1)));
    let mut report = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = report.tick(), if options.reports.interval > 0 => report_on(&site, &servers, &prompt).await,
            command = prompt.command() => match command {
                None | Some(Command::Quit) => break,
                Some(command) => obey(command, &site, &servers, &prompt).await,
            },
        }
    }
    for server in &servers {
        server.stop().await;
    }
    Ok(())
}

/// The address to open on this machine: a wildcard address cannot be connected to.
fn opened_at(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("localhost:{}", address.port()),
        false => address.to_string(),
    }
}

/// The valid ports in the order given. Those left out are reported on standard error.
fn usable_ports(texts: &[String]) -> Vec<u16> {
    let mut seen = BTreeSet::new();
    let mut ports = Vec::new();
    for text in texts {
        match text.parse::<u16>() {
            Ok(port) if port > 0 && seen.insert(port) => ports.push(port),
            Ok(port) if port > 0 => eprintln!("server: port {port} is given twice; the second is left out"),
            _ => eprintln!("server: {text:?} is not a port (a number from 1 to 65535) and is left out"),
        }
    }
    ports
}

async fn open_servers(
    site: &Arc<Site>,
    ports: &[u16],
    address: Option<IpAddr>,
) -> Result<Vec<Arc<VirtualServer>>> {
    let mut servers = Vec::new();
    for &port in ports {
        let number = servers.len() + 1;
        let opened = match address {
            Some(address) => VirtualServer::open(number, SocketAddr::new(address, port), site).await,
            // IPv6 for both; where there is none, IPv4 alone.
            None => match VirtualServer::open(number, (Ipv6Addr::UNSPECIFIED, port).into(), site).await {
                Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {
                    VirtualServer::open(number, (Ipv4Addr::UNSPECIFIED, port).into(), site).await
                }
                opened => opened,
            },
        };
        match opened {
            Ok(server) => servers.push(server),
            Err(error) => eprintln!("server: cannot listen on port {port}: {error}; it is left out"),
        }
    }
    if servers.is_empty() {
        bail!("no port is left to listen on; choose others with -p");
    }
    site.listens_on(servers.iter().map(|server| server.address().port()).collect());
    Ok(servers)
}

/// Computes the digests of the one file before it is announced, and shows the progress.
async fn prepare(site: &Arc<Site>, prompt: &Prompt) -> Result<()> {
    let Some(opened) = site.catalog().only_file()? else { return Ok(()) };
    if opened.part().is_some() {
        // Its download knows the digests.
        return Ok(());
    }
    let mut shown = tokio::time::Instant::now();
    loop {
        match tokio::task::block_in_place(|| site.digests().of(&opened))? {
            digests::Known::Ready(_) => return Ok(()),
            digests::Known::Computing { done } => {
                let now = site.catalog().only_file().ok().flatten();
                if now.is_none_or(|now| now.version() != opened.version()) {
                    prompt
                        .print("the file changes; its digests are computed when it is asked for after that");
                    return Ok(());
                }
                if shown.elapsed() >= Duration::from_secs(1) {
                    shown = tokio::time::Instant::now();
                    let percent = done * 100 / opened.version().size.max(1);
                    prompt.print(&format!("computing digests: {percent} %"));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn report_on(site: &Arc<Site>, servers: &[Arc<VirtualServer>], prompt: &Prompt) {
    let looked = site.clone();
    let looked = tokio::task::spawn_blocking(move || match looked.catalog().is_lost() {
        true => "; the file was moved or deleted".to_owned(),
        false => match looked.catalog().progress() {
            Some((held, size)) => format!("; {} % of the file is there", held * 100 / size.max(1)),
            None => String::new(),
        },
    });
    let note = looked.await.unwrap_or_default();
    for server in servers {
        let line = server.status_line();
        prompt.print(&format!("{line}{note}"));
    }
}

async fn obey(command: Command, site: &Arc<Site>, servers: &[Arc<VirtualServer>], prompt: &Prompt) {
    let found = |number: usize| number.checked_sub(1).and_then(|index| servers.get(index));
    match command {
        Command::Status => report_on(site, servers, prompt).await,
        Command::Help => prompt.print(prompt::HELP),
        Command::Wrong(message) => prompt.print(&message),
        Command::Stop(number) => match found(number) {
            Some(server) => {
                server.stop().await;
                prompt.print(&server.status_line());
            }
            None => prompt
                .print(&format!("there is no server {number}; they are numbered 1 to {}", servers.len())),
        },
        Command::Start(number) => match found(number) {
            Some(server) => match server.start().await {
                Ok(()) => prompt.print(&server.status_line()),
                Err(error) => prompt.print(&format!("cannot start server {number}: {error}")),
            },
            None => prompt
                .print(&format!("there is no server {number}; they are numbered 1 to {}", servers.len())),
        },
        Command::Quit => {}
    }
}
