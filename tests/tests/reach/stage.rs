//! A tracker and clients on an Internet of the test's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shoal_tests::{Flow, Internet, Service, binary, client_command, random_file, tracker_command, until};

/// Where all clients listen.
pub(crate) const PORT: u16 = 7_001;
/// The tracker's host, by IPv4 and IPv6.
pub(crate) const TRACKER: &str = "t:-:198.51.100.1,2001:db8::1";
/// How long one packet takes through the Internet.
pub(crate) const DELAY_MS: u32 = 10;
/// A download that takes longer found no way.
const NO_WAY_AFTER: Duration = Duration::from_secs(20);

/// See the module.
pub(crate) struct Stage {
    pub(crate) net: Internet,
    dir: PathBuf,
    tracker: Child,
    clients: BTreeMap<String, Service>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.tracker.kill();
        let _ = self.tracker.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- tracker:\n{}",
                std::fs::read_to_string(self.dir.join("tracker.log")).unwrap_or_default()
            );
        }
    }
}

/// How a download went.
#[derive(Debug)]
pub(crate) struct Went {
    /// `lan`, `direct`, `reversed`, `relayed` or `none`.
    pub(crate) way: &'static str,
    /// When the first data came.
    pub(crate) first: Duration,
    /// When it was complete.
    pub(crate) whole: Duration,
}

impl Stage {
    /// Starts a tracker on [`TRACKER`]; nothing where that cannot be done here.
    pub(crate) fn or_skip(test: &str, dir: &Path, nodes: &[&str], tracker_options: &[&str]) -> Option<Self> {
        let all: Vec<&str> = nodes.iter().copied().chain([TRACKER]).collect();
        let net = Internet::or_skip(test, dir, DELAY_MS, &all)?;
        // An address that is not the machine's: it listens on all that it has.
        std::fs::write(dir.join("tracker_info.txt"), "[2001:db8:ffff::1]:7000\n").unwrap();
        std::fs::write(dir.join("v4.txt"), "198.51.100.1:7000\n").unwrap();
        std::fs::write(dir.join("v6.txt"), "[2001:db8::1]:7000\n").unwrap();
        let log = std::fs::File::create(dir.join("tracker.log")).unwrap();
        let usual = tracker_command(&dir.join("tracker_info.txt"), 1, &dir.join("tracker"));
        let tracker = net
            .on("t", &binary("tracker"))
            .args(usual.get_args())
            .args(["--accounts-per-address", "1000000"])
            .args(tracker_options)
            .env("RUST_LOG", "shoal_tracker=debug")
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let log = dir.join("tracker.log");
        until("the tracker serves", || {
            std::fs::read_to_string(&log).unwrap_or_default().contains("serves at")
        });
        Some(Self { net, dir: dir.to_owned(), tracker, clients: BTreeMap::new() })
    }

    /// Starts a client on a host, at that address, and lets its user of the same name into the group `g`. The first one founds it.
    pub(crate) fn client(&mut self, host: &str, address: &str) -> &Service {
        let info = self.dir.join(if address.contains(':') { "v6.txt" } else { "v4.txt" });
        let usual = client_command(&self.dir, host, &info, PORT);
        let at =
            if address.contains(':') { format!("[{address}]:{PORT}") } else { format!("{address}:{PORT}") };
        let mut command = self.net.on(host, &binary("client"));
        command.arg(at).args(usual.get_args().skip(1)).arg("--headless");
        let client = Service::launch(&self.dir, host, command);
        client.enter(host);
        match self.clients.values().find(|other| other.ok("whoami")["user"] == "founder") {
            None if host == "founder" => drop(client.ok("create_group g")),
            None => panic!("the first client is the founder"),
            Some(founder) => {
                client.ok("join_group g");
                founder.ok(&format!("accept_request g {host}"));
                until("it knows its group", || client.ok("list_files g")["ok"] == true);
            }
        }
        self.clients.insert(host.to_owned(), client);
        &self.clients[host]
    }

    /// The client of a host.
    pub(crate) fn of(&self, host: &str) -> &Service {
        &self.clients[host]
    }

    /// Has a client share a file `HOST.bin` of so many bytes.
    pub(crate) fn share(&self, host: &str, size: usize) {
        let path = self.dir.join(format!("{host}.bin"));
        random_file(&path, size, u64::try_from(size).unwrap() + host.len() as u64);
        self.of(host).ok(&format!("upload_file {} g", path.display()));
    }

    /// Has a client download another's file, which then is not shared there, and says how the bytes came.
    pub(crate) fn download(&self, from: &str, to: &str) -> Went {
        let (client, file) = (self.of(to), format!("{from}.bin"));
        let into = self.dir.join(format!("into-{to}"));
        std::fs::create_dir_all(&into).unwrap();
        let size = std::fs::metadata(self.dir.join(&file)).unwrap().len();
        self.net.forget();
        let begun = Instant::now();
        let answer = client.ok(&format!("download_file g {file} {}", into.display()));
        assert_eq!(answer["ok"], true);
        let mut first = None;
        let whole = loop {
            let came = self.came_to(to) > 30_000;
            if came && first.is_none() {
                first = Some(begun.elapsed());
            }
            let state = state_of(&client.ok("show_downloads -v"), &file);
            assert_ne!(state, "F");
            if state == "C" {
                break begun.elapsed();
            }
            if begun.elapsed() > NO_WAY_AFTER {
                break Duration::ZERO;
            }
            std::thread::yield_now();
        };
        let way = if whole.is_zero() { "none" } else { self.way(from, to, size) };
        if way == "none" {
            eprintln!("{from} to {to}: {:?}\n{}", self.net.flows(), client.ok("show_downloads -v"));
        } else {
            // It is shared by itself, a moment after it is complete.
            let stop = json!({ "line": format!("stop_share g {file}") });
            until("what was downloaded is shared, and then is not", || client.ask(&stop).status == 200);
        }
        client.ok(&format!("cancel_download g {file}"));
        let _ = std::fs::remove_file(into.join(&file));
        Went { way, first: first.unwrap_or(whole), whole }
    }

    fn came_to(&self, host: &str) -> u64 {
        self.net.flows().iter().filter(|((_, to, _), _)| to == host).map(|(_, flow)| flow.bytes).sum()
    }

    /// Which way so many bytes took between two hosts, by the routers' counters.
    fn way(&self, from: &str, to: &str, size: u64) -> &'static str {
        let flows = self.net.flows();
        let flow = |from: &str, to: &str, lan: bool| -> Flow {
            flows.get(&(from.to_owned(), to.to_owned(), lan)).copied().unwrap_or_default()
        };
        let enough = |flow: Flow| flow.bytes >= size;
        if enough(flow(from, to, true)) {
            "lan"
        } else if enough(flow(from, to, false)) {
            if flow(to, from, false).connections > 0 { "direct" } else { "reversed" }
        } else if enough(flow(from, "t", false)) && enough(flow("t", to, false)) {
            "relayed"
        } else {
            "none"
        }
    }
}

fn state_of(shown: &Value, file: &str) -> String {
    let rows = shown["downloads"].as_array().cloned().unwrap_or_default();
    let row = rows.iter().find(|row| row["file"] == file);
    row.and_then(|row| row["state"].as_str()).unwrap_or_default().to_owned()
}
