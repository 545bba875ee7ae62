//! A group's file from HTTP mirrors (P10): with no sharer online, with one mirror that lies, and only from where a member's
//! word may lead a client.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use shoal_tests::{
    Client, Trackers, binary, finish, free_port, in_own_network, random_file, same_content, until,
};

const SIZE: usize = 5 << 20;

/// A `server` that dies with this value.
struct Mirror(Child, String);

impl Mirror {
    fn of(path: &Path, cache: &Path) -> Self {
        Self::start(&["-f", path.to_str().unwrap()], path.file_name().unwrap().to_str().unwrap(), cache)
    }

    /// One that serves what `arguments` say, a file of that name among it.
    fn start(arguments: &[&str], name: &str, cache: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new(binary("server"));
        command.args(["-i", "0"]).args(arguments).args(["-p", &port.to_string()]);
        command.env("XDG_CACHE_HOME", cache).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Before that it may tell how far it is with the digests.
        assert!(lines.map(Result::unwrap).any(|line| line.starts_with("serving")));
        Self(child, format!("http://127.0.0.1:{port}/{name}"))
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Listens, counts the connections that come, and answers none of them, or with what `answer` makes of the request.
struct Listener {
    port: u16,
    seen: Arc<AtomicUsize>,
    /// Connections wait for this before they are answered.
    open: Arc<AtomicBool>,
}

impl Listener {
    fn start(at: IpAddr, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((at, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
        let (counted, opened, answer) = (seen.clone(), open.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                let (opened, answer) = (opened.clone(), answer.clone());
                std::thread::spawn(move || converse(&stream.unwrap(), &opened, &*answer));
            }
        });
        Self { port, seen, open }
    }

    /// Listens on loopback and never answers.
    fn silent() -> Self {
        let listener = Self::start(loopback(), |_| Vec::new());
        listener.open.store(false, Ordering::SeqCst);
        listener
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

fn converse(stream: &TcpStream, open: &AtomicBool, answer: &dyn Fn(&str) -> Vec<u8>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        while !open.load(Ordering::SeqCst) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let mut stream = stream;
        if stream.write_all(&answer(&head)).is_err() {
            return;
        }
    }
}

fn loopback() -> IpAddr {
    "127.0.0.1".parse().unwrap()
}

/// The bytes that a request's range asks for.
fn part(head: &str, bytes: &[u8]) -> Vec<u8> {
    let range = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let (first, last) =
        range.unwrap().split_once('-').map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())).unwrap();
    let (first, last): (usize, usize) = (first, last);
    let size = bytes.len();
    let mut answer = format!(
        "HTTP/1.1 206 Part\r\nContent-Range: bytes {first}-{last}/{size}\r\nContent-Length: {}\r\n\r\n",
        last + 1 - first
    )
    .into_bytes();
    answer.extend_from_slice(&bytes[first..=last]);
    answer
}

/// Ann, who owns g, and bob, whose client was started with these options.
fn ann_and_bob(dir: &Path, info: &Path, options: &[&str]) -> (Client, Client) {
    let mut ann = Client::enter(dir, "ann", info);
    let mut bob = Client::start_with(dir, "bob", info, options).entered();
    ann.ok("create_group g");
    ann.let_in("g", &mut [&mut bob]);
    (ann, bob)
}

fn share_with(ann: &mut Client, path: &Path, mirrors: &[String]) {
    let options: Vec<String> = mirrors.iter().map(|url| format!("--mirror {url}")).collect();
    ann.ok(&format!("upload_file {} g {}", path.display(), options.join(" ")));
}

#[test]
fn a_file_without_a_sharer_comes_from_its_mirrors_and_a_liar_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = ann_and_bob(dir.path(), &trackers.info(), &["--private-mirrors"]);
    let (right, wrong) = (dir.path().join("m.bin"), dir.path().join("w.bin"));
    random_file(&right, SIZE, 1);
    random_file(&wrong, SIZE, 2);
    let (honest, liar) = (Mirror::of(&right, dir.path()), Mirror::of(&wrong, dir.path()));
    share_with(&mut ann, &right, &[liar.1.clone(), honest.1.clone()]);
    ann.ok("logout");
    until("nobody shares it", || bob.sharers("g", "m.bin") == 0);
    let to = dir.path().join("copy.bin");
    // So slowly that the liar is asked, and waited for.
    bob.ok("limit down 500K");
    bob.ok(&format!("download_file g m.bin {}", to.display()));
    bob.until_event("source_banned");
    bob.ok("limit down 0");
    bob.until_download("m.bin", "C");
    assert!(same_content(&right, &to));
}

#[test]
fn what_a_client_has_of_an_unfinished_download_is_served_from_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    let (source, _) = ann.share("g", "a.bin", 4 * SIZE);
    bob.ok("limit down 4M");
    let folder = dir.path().join("folder");
    bob.ok(&format!("download_file g a.bin {}/", folder.display()));
    until("some of it is durable", || folder.join("a.bin.pinfo").exists());
    let server = Mirror::start(&["--root", folder.to_str().unwrap()], "a.bin", dir.path());
    let out = dir.path().join("out");
    let fetched = finish(Command::new(binary("fetch")).arg(&server.1).arg("-o").arg(&out).arg("--json"), "");
    assert_eq!(fetched.code, Some(0), "{fetched:?}");
    assert!(fetched.stdout.contains("\"verified\":true"), "{fetched:?}");
    assert!(same_content(&source, &out));
    bob.until_download("a.bin", "C");
}

#[test]
fn who_names_a_mirror_that_others_do_not_use_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    ann.ok("create_group g");
    let path = dir.path().join("m.bin");
    random_file(&path, 1_000, 1);
    let upload = format!("upload_file {} g", path.display());
    let shared = ann.ok(&format!("{upload} --mirror http://192.168.0.1:8001/m --mirror http://a.example/m"));
    let warned = shared["private_mirrors"].as_array().unwrap();
    assert_eq!(warned.len(), 1, "{shared}");
    let expected = "the mirror http://192.168.0.1:8001/m leads to 192.168.0.1, which is no public address";
    assert!(warned[0].as_str().unwrap().starts_with(expected), "{shared}");
    let shared = ann.ok(&format!("{upload} --mirror http://a.example/m"));
    assert!(shared.get("private_mirrors").is_none(), "{shared}");
}

#[test]
fn a_members_word_starts_no_request_into_somebodys_network_however_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = ann_and_bob(dir.path(), &trackers.info(), &[]);
    let path = dir.path().join("m.bin");
    random_file(&path, SIZE, 1);
    let private = Listener::silent();
    let hosts = ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "[::ffff:127.0.0.1]", "0", "localhost"];
    let urls: Vec<String> =
        hosts.iter().map(|host| format!("http://{host}:{}/m.bin", private.port)).collect();
    share_with(&mut ann, &path, &urls);
    ann.ok("logout");
    bob.ok(&format!("download_file g m.bin {}", dir.path().join("copy.bin").display()));
    let refused =
        |bob: &Client| bob.events().iter().filter(|event| event["event"] == "mirror_refused").count();
    until("all are refused", || {
        bob.ok("show_downloads");
        refused(&bob) == urls.len()
    });
    let event = bob.until_event("mirror_refused");
    assert!(event["reason"].as_str().unwrap().contains("--private-mirrors"), "{event}");
    assert_eq!((private.seen(), bob.download("m.bin")["state"].as_str()), (0, Some("D")));
}

#[test]
fn a_public_mirror_that_redirects_into_somebodys_network_is_not_followed() {
    if !in_own_network("a_public_mirror_that_redirects_into_somebodys_network_is_not_followed") {
        return;
    }
    // An address that is anybody's, on a network where nobody else is.
    let public = "9.9.9.9";
    for arguments in [&["link", "set", "lo", "up"][..], &["addr", "add", "9.9.9.9/32", "dev", "lo"]] {
        assert!(Command::new("ip").args(arguments).status().unwrap().success());
    }
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = ann_and_bob(dir.path(), &trackers.info(), &[]);
    let path = dir.path().join("m.bin");
    random_file(&path, SIZE, 1);
    let bytes = std::fs::read(&path).unwrap();
    let private = Listener::silent();
    let (port, round) = (private.port, AtomicUsize::new(0));
    let redirecting = Listener::start(public.parse().unwrap(), move |head| {
        // Some go to themselves once before.
        let host = match (head.contains("/again"), round.fetch_add(1, Ordering::SeqCst) % 3) {
            (false, 0) => "127.0.0.1".to_owned(),
            (false, 1) => "2130706433".to_owned(),
            (false, _) => "localhost".to_owned(),
            (true, _) => "[::ffff:7f00:1]".to_owned(),
        };
        format!("HTTP/1.1 302 Found\r\nLocation: http://{host}:{port}/m.bin\r\nContent-Length: 0\r\n\r\n")
            .into_bytes()
    });
    let honest = Listener::start(public.parse().unwrap(), move |head| part(head, &bytes));
    let mut urls: Vec<String> = (0..3).map(|n| format!("http://{public}:{}/{n}", redirecting.port)).collect();
    urls.push(format!("http://{public}:{}/again", redirecting.port));
    urls.push(format!("http://[::ffff:{public}]:{}/m.bin", honest.port));
    share_with(&mut ann, &path, &urls);
    ann.ok("logout");
    let to = dir.path().join("copy.bin");
    bob.ok("limit down 500K");
    bob.ok(&format!("download_file g m.bin {}", to.display()));
    until("all four are refused", || {
        bob.ok("show_downloads");
        bob.events().iter().filter(|event| event["event"] == "mirror_refused").count() == 4
    });
    // The one that is anybody's, written as another address that contains it, is used.
    bob.ok("limit down 0");
    bob.until_download("m.bin", "C");
    assert!(same_content(&path, &to));
    assert_eq!(private.seen(), 0);
}

#[test]
fn a_mirror_gets_one_connection_until_a_piece_from_there_was_verified() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = ann_and_bob(dir.path(), &trackers.info(), &["--private-mirrors"]);
    let path = dir.path().join("m.bin");
    random_file(&path, SIZE, 1);
    let bytes = std::fs::read(&path).unwrap();
    let mirror = Listener::start(loopback(), move |head| part(head, &bytes));
    mirror.open.store(false, Ordering::SeqCst);
    share_with(&mut ann, &path, &[format!("http://127.0.0.1:{}/m.bin", mirror.port)]);
    ann.ok("logout");
    let to = dir.path().join("copy.bin");
    bob.ok(&format!("download_file g m.bin {}", to.display()));
    until("the mirror is asked", || mirror.seen() > 0);
    // Long enough for a second one, had it been allowed: the commands take longer than a connection.
    (0..20).for_each(|_| drop(bob.ok("show_downloads -v")));
    assert_eq!(mirror.seen(), 1);
    mirror.open.store(true, Ordering::SeqCst);
    bob.until_download("m.bin", "C");
    assert!(same_content(&path, &to));
}

#[test]
fn a_mirror_ends_with_the_share_of_the_one_who_named_it_and_not_when_they_are_offline() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = ann_and_bob(dir.path(), &trackers.info(), &["--private-mirrors"]);
    let path = dir.path().join("m.bin");
    random_file(&path, SIZE, 1);
    let mirror = Mirror::of(&path, dir.path());
    share_with(&mut ann, &path, std::slice::from_ref(&mirror.1));
    ann.ok("logout");
    bob.ok("limit down 100K");
    bob.ok(&format!("download_file g m.bin {}", dir.path().join("copy.bin").display()));
    until("it comes from the mirror", || bob.download("m.bin")["sources"] == 1);
    ann.ok("login ann secret");
    ann.ok("stop_share g m.bin");
    until("the mirror is used no longer", || bob.download("m.bin")["sources"] == 0);
    assert_eq!(bob.download("m.bin")["state"], "D");
}

#[test]
fn a_password_in_a_mirror_goes_to_nobody_and_silly_mirrors_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    ann.ok("create_group g");
    let path = dir.path().join("m.bin");
    random_file(&path, 1_000, 1);
    for (url, said) in [
        ("http://ann:hush@one.example/m.bin", "without user and password"),
        ("http://ann@one.example/m.bin", "without user and password"),
        ("http://one.example:25/m.bin", "port 25"),
        ("http://:80/m.bin", "no http:// or https:// URL"),
        ("ftp://one.example/m.bin", "http:// or https://"),
    ] {
        let error = ann.fails(&format!("upload_file {} g --mirror {url}", path.display()));
        assert!(error.contains(said) && !error.contains("hush"), "{url}: {error}");
    }
}
