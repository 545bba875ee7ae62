//! The `BitTorrent` programs that people use, run as they run them: one program on both ends, a torrent of 1 MiB pieces.
//!
//! libtorrent is given its peers; aria2 and rqbit ask the torrent's tracker, which is a thread here.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use shoal_tests::{free_port, until};

use crate::running::{Running, copy_tree, installed, same_tree};
use crate::sample::Sample;
use crate::{Plan, absent};

/// How long a download may take.
const LIMIT: Duration = Duration::from_secs(120);
/// How long a seeder may take to be ready.
const START: Duration = Duration::from_secs(60);
/// Seeders at most.
const SEEDERS: usize = 4;
/// The line by which rqbit says that it has everything.
const RQBIT_DONE: &str = "torrent finished downloading";

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    Libtorrent,
    Rqbit,
    Aria2,
}

impl Client {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Libtorrent => "libtorrent 2.1",
            Self::Rqbit => "rqbit",
            Self::Aria2 => "aria2",
        }
    }
}

/// A torrent of a file or folder, and the programs that are installed.
pub(crate) struct Torrents {
    dir: PathBuf,
    source: PathBuf,
    torrent: PathBuf,
    python: PathBuf,
    rqbit: PathBuf,
    clients: Vec<Client>,
    ports: Vec<u16>,
}

impl Torrents {
    /// Looks what is installed, and says what is not. Each program gets a copy of the file: one may touch it.
    pub(crate) fn find(plan: &Plan, dir: &Path, source: &Path) -> Self {
        let mut torrents = Self {
            dir: dir.join("torrents"),
            source: source.into(),
            torrent: dir.join("torrents/source.torrent"),
            python: plan.rivals.join("venv-lt21/bin/python"),
            rqbit: plan.rivals.join("cargo/bin/rqbit"),
            clients: Vec::new(),
            ports: (0..=SEEDERS).map(|_| free_port()).collect(),
        };
        std::fs::create_dir(&torrents.dir).unwrap();
        if !installed("mktorrent") {
            absent("libtorrent, rqbit and aria2", "mktorrent is not installed");
            return torrents;
        }
        let present = [
            (Client::Libtorrent, torrents.python.is_file(), torrents.python.display().to_string()),
            (Client::Rqbit, torrents.rqbit.is_file(), torrents.rqbit.display().to_string()),
            (Client::Aria2, installed("aria2c"), "aria2c".to_owned()),
        ];
        for (client, is_there, program) in present {
            if is_there {
                torrents.clients.push(client);
            } else {
                absent(client.name(), &format!("{program} is not installed"));
            }
        }
        torrents.make();
        torrents
    }

    /// Whether that program is installed.
    pub(crate) fn has(&self, client: Client) -> bool {
        self.clients.contains(&client)
    }

    /// What is measured: each program with one seeder and with four, if it gains by them.
    pub(crate) fn jobs(&self) -> Vec<(Client, usize)> {
        let with = |&client: &Client| {
            let several = if client == Client::Aria2 { vec![1] } else { vec![1, SEEDERS] };
            several.into_iter().map(move |seeders| (client, seeders))
        };
        self.clients.iter().flat_map(with).collect()
    }

    /// One download, from the start of the program that downloads; the seeders are ready by then.
    pub(crate) fn download(&self, client: Client, seeders: usize) -> Result<Sample, String> {
        let ports = &self.ports[..seeders];
        let mut running = Vec::new();
        for &port in ports {
            running.push(self.seeder(client, port)?);
        }
        let target = tempfile::tempdir_in(&self.dir).unwrap();
        let done = target.path().join("done");
        running.iter_mut().for_each(Running::mark);
        let mut command = self.command(client, target.path(), self.ports[SEEDERS], &done, ports);
        let mut leecher = Running::start(&mut command, &self.dir.join("leecher.log"))?;
        leecher
            .until(LIMIT, |leecher| done.exists() || client == Client::Rqbit && leecher.said(RQBIT_DONE))?;
        let mut sample = leecher.sample();
        sample.cpu_seconds += running.iter().map(Running::cpu).sum::<f64>();
        // It may still be writing what it has checked.
        let got = target.path().join(self.source.file_name().unwrap());
        until("what came is right", || same_tree(&self.source, &got));
        Ok(sample)
    }

    fn seeder(&self, client: Client, port: u16) -> Result<Running, String> {
        let log = self.dir.join(format!("seeder-{port}.log"));
        let folder = self.dir.join(client.name().replace(' ', "-"));
        let own = folder.join(self.source.file_name().unwrap());
        if !own.exists() {
            std::fs::create_dir_all(&folder).unwrap();
            copy_tree(&self.source, &own);
        }
        let mut command = self.command(client, &folder, port, &self.dir.join("seeding"), &[]);
        let mut seeder = Running::listening(&mut command, &log, port)?;
        if client == Client::Rqbit {
            // It reads what it has first.
            seeder.until(START, |seeder| seeder.said(RQBIT_DONE))?;
        }
        Ok(seeder)
    }

    /// One peer; without `peers` it seeds.
    fn command(&self, client: Client, folder: &Path, port: u16, done: &Path, peers: &[u16]) -> Command {
        match client {
            Client::Libtorrent => {
                let mut command = Command::new(&self.python);
                command.arg("scripts/lib/libtorrent-peer.py").arg(&self.torrent).arg(folder);
                command.arg(port.to_string()).arg(done).args(peers.iter().map(u16::to_string));
                command
            }
            Client::Rqbit => {
                let mut command = Command::new(&self.rqbit);
                command.args(["-v", "info", "--ipv4-only", "--disable-dht", "--disable-lsd", "--listen-ip"]);
                command.args(["127.0.0.1", "--listen-port", &port.to_string(), "download"]);
                command.args(["--disable-http-api", "-o"]).arg(folder).arg(&self.torrent);
                if peers.is_empty() {
                    command.arg("--overwrite");
                }
                command.env("HOME", &self.dir).env("NO_COLOR", "1");
                command
            }
            Client::Aria2 => {
                let hook = done.with_extension("sh");
                std::fs::write(&hook, format!("#!/bin/sh\n: > '{}'\n", done.display())).unwrap();
                let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                std::fs::set_permissions(&hook, executable).unwrap();
                let mut command = Command::new("aria2c");
                command.args([
                    "--no-conf",
                    "--enable-dht=false",
                    "--enable-dht6=false",
                    "--bt-enable-lpd=false",
                ]);
                command.args(["--disable-ipv6=true", "--file-allocation=none", "--summary-interval=0"]);
                command.args([
                    "--console-log-level=warn",
                    "--show-console-readout=false",
                    "--seed-ratio=0.0",
                ]);
                command.arg(format!("--listen-port={port}")).arg(format!("--dir={}", folder.display()));
                command.arg(format!("--on-bt-download-complete={}", hook.display()));
                if peers.is_empty() {
                    command.arg("--bt-seed-unverified=true");
                }
                command.arg(&self.torrent);
                command
            }
        }
    }

    /// Makes the torrent, and starts the tracker that it names.
    fn make(&self) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/announce", listener.local_addr().unwrap());
        let answer = answer(&self.ports[..SEEDERS]);
        std::thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let mut request = [0; 4096];
                // Whatever was asked, the answer is the same; one who hangs up does without.
                let _ = socket.read(&mut request).and_then(|_| socket.write_all(&answer));
            }
        });
        let mut command = Command::new("mktorrent");
        command.args(["-l", "20", "-a", &url, "-o"]).arg(&self.torrent).arg(&self.source);
        let run = Running::start(&mut command, &self.dir.join("mktorrent.log"));
        run.and_then(|mut mktorrent| mktorrent.finish(LIMIT)).unwrap();
    }
}

/// A tracker's answer (BEP 3 and 23): the seeders' addresses, whether they run or not.
fn answer(ports: &[u16]) -> Vec<u8> {
    let peers: Vec<u8> =
        ports.iter().flat_map(|port| [vec![127, 0, 0, 1], port.to_be_bytes().to_vec()].concat()).collect();
    let mut body = format!("d8:intervali60e5:peers{}:", peers.len()).into_bytes();
    body.extend(peers);
    body.push(b'e');
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.into_bytes(), body].concat()
}
