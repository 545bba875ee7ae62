//! What a client's memory holds of passwords and keys: nothing once the session is over, whoever ended it.
//!
//! Memory is read where a core dump would take it from. The keys are made here as `docs/formats.md` says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Stdio};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use memchr::memmem::Finder;
use sha2::Sha256;
use shoal_common::tracker_api::{Answer, Call, Session};
use shoal_common::{RequestId, UserName};
use shoal_tests::{Client, Member, Service, Store, Trackers, until};

/// Longest mapping that is read, in bytes: more than a client's heap and stacks have.
const MAX_MAPPING: u64 = 1 << 30;
/// Bytes read at a time, with some of the last ones before, so that nothing is missed in between.
const AT_A_TIME: usize = 1 << 20;
const OVERLAP: usize = 64;

/// What must not stay, by name.
struct Secrets(Vec<(&'static str, Vec<u8>)>);

impl Secrets {
    /// Those of an account, as anyone can compute them who knows the password.
    fn of(member: &mut Member, name: &str, password: &str) -> Self {
        let challenge = member.done(Call::Challenge { name: UserName::refer(name).unwrap(), candidate: 0 });
        let Answer::Challenge { salt, .. } = challenge else { panic!("{challenge:?}") };
        let Session { account, .. } = member.login(name, password).unwrap();
        let params = Params::new(19 * 1024, 2, 1, Some(32)).unwrap();
        let mut root = [0; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(password.as_bytes(), &salt, &mut root)
            .unwrap();
        let key = |info: &[u8]| {
            let mut key = [0; 32];
            Hkdf::<Sha256>::new(None, &root).expand(info, &mut key).unwrap();
            key
        };
        let (seed, wrapping) = (key(b"shoal login key 1"), key(b"shoal wrapping key 1"));
        let (nonce, sealed) = account.sealed_account_key.split_at(24);
        let payload = Payload { msg: sealed, aad: &account.salt };
        let nonce = XNonce::try_from(nonce).unwrap();
        let account_key = XChaCha20Poly1305::new(&Key::from(wrapping)).decrypt(&nonce, payload).unwrap();
        let mut descriptions = [0; 32];
        Hkdf::<Sha256>::new(None, &account_key)
            .expand(b"shoal dfs descriptions 1", &mut descriptions)
            .unwrap();
        Self(vec![
            ("the key of stored files' descriptions", descriptions.to_vec()),
            ("the password", password.as_bytes().to_vec()),
            ("the root of the keys", root.to_vec()),
            ("the login key's seed", seed.to_vec()),
            ("the wrapping key", wrapping.to_vec()),
            ("the account key", account_key),
        ])
    }

    /// How often the process of that id has each of them in its memory.
    fn in_memory_of(&self, pid: u32) -> Vec<(&'static str, usize)> {
        let finders: Vec<_> = self.0.iter().map(|(what, secret)| (*what, Finder::new(secret))).collect();
        let mut found: Vec<_> = self.0.iter().map(|(what, _)| (*what, 0)).collect();
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        for line in std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
            let mut words = line.split_whitespace();
            let (range, rights) = (words.next().unwrap(), words.next().unwrap());
            let (from, to) = range.split_once('-').unwrap();
            let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
            if !rights.starts_with("rw") || to - from > MAX_MAPPING {
                continue;
            }
            let (mut at, mut bytes) = (from, vec![0; AT_A_TIME]);
            while at < to {
                let length = usize::try_from(to - at).unwrap().min(AT_A_TIME);
                // A mapping may have gone meanwhile.
                let Ok(read) = memory.read_at(&mut bytes[..length], at) else { break };
                for ((_, finder), (_, count)) in finders.iter().zip(&mut found) {
                    *count += finder.find_iter(&bytes[..read]).count();
                }
                at += if length < AT_A_TIME { length } else { AT_A_TIME - OVERLAP } as u64;
            }
        }
        found
    }

    /// Waits until that process has none of them; what ends a session may run on for a moment.
    fn until_gone(&self, pid: u32, when: &str) {
        let mut last = Vec::new();
        until(when, || {
            let found = self.in_memory_of(pid);
            if found != last {
                eprintln!("{when}: {found:?}");
                last.clone_from(&found);
            }
            found.iter().all(|(_, count)| *count == 0)
        });
    }

    /// Whether it has the login key's seed, as it must while it is logged in. So the search can find something.
    fn is_logged_in(&self, pid: u32) {
        let found = self.in_memory_of(pid);
        let count = |wanted| found.iter().find(|(what, _)| *what == wanted).unwrap().1;
        assert_eq!(
            (count("the login key's seed"), count("the wrapping key")),
            (1, 1),
            "one place: {found:?}"
        );
        for gone in ["the password", "the root of the keys", "the account key"] {
            assert_eq!(count(gone), 0, "{gone} is needed for a moment only: {found:?}");
        }
    }
}

#[test]
fn after_logout_a_clients_memory_holds_neither_passwords_nor_keys() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Client::start(dir.path(), "ann", &trackers.info());
    ann.ok("create_user ann first-Password-of-ann-5417");
    ann.ok("login ann first-Password-of-ann-5417");
    let mut member = Member::connect(trackers.port(1));
    let first = Secrets::of(&mut member, "ann", "first-Password-of-ann-5417");
    first.is_logged_in(ann.pid());
    // Wrong ones and slips leave as little.
    let mut slips = Secrets(vec![("a wrong one", b"wrong-Password-5417".to_vec())]);
    slips.0.push(("one too many", b"another-Password-5417".to_vec()));
    ann.fails("login ann wrong-Password-5417");
    ann.fails("login ann wrong-Password-5417 another-Password-5417");
    ann.fails("change_password wrong-Password-5417 another-Password-5417");
    slips.until_gone(ann.pid(), "after slips");
    ann.ok("change_password first-Password-of-ann-5417 'second Password of ann 5417'");
    let mut member = Member::connect(trackers.port(1));
    let second = Secrets::of(&mut member, "ann", "second Password of ann 5417");
    first.until_gone(ann.pid(), "after a change of the password");
    second.is_logged_in(ann.pid());
    ann.ok("logout");
    second.until_gone(ann.pid(), "after logout");
    // The same when another client ends the session.
    ann.ok("login ann 'second Password of ann 5417'");
    second.is_logged_in(ann.pid());
    sign_out_others(&mut member);
    until("it is logged out", || ann.ok("whoami")["user"].is_null());
    second.until_gone(ann.pid(), "after it was logged out from elsewhere");
}

#[test]
fn what_came_through_the_socket_or_was_kept_leaves_as_little() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    let ask = |ann: &Service, line: &str, passwords: &[&str]| {
        ann.ask(&serde_json::json!({ "line": line, "passwords": passwords })).status
    };
    let first = "first-Password-of-ann-9316";
    assert_eq!(ask(&ann, "create_user ann", &[first]), 200);
    assert_eq!(ask(&ann, "login ann --keep", &[first]), 200);
    let mut member = Member::connect(trackers.port(1));
    let secrets = Secrets::of(&mut member, "ann", first);
    let mut slips = Secrets(vec![("a wrong one", b"wrong-Password-9316".to_vec())]);
    slips.0.push(("one in the line", b"another-Password-9316".to_vec()));
    assert_eq!(ask(&ann, "change_password", &["wrong-Password-9316", "another-Password-9316"]), 422);
    assert_eq!(ask(&ann, "login ann another-Password-9316", &[]), 422);
    assert_eq!(ask(&ann, "login ann another-Password-9316 wrong-Password-9316", &[]), 422);
    slips.until_gone(ann.child().id(), "after slips");
    let pid = ann.child().id();
    secrets.is_logged_in(pid);
    ann.kill();
    drop(ann);
    let mut ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    // Said when the file is written anew, which holds the keys for that moment.
    until("it goes on with what was kept", || ann.log().contains("logged in again as ann"));
    let pid = ann.child().id();
    secrets.is_logged_in(pid);
    ann.ok("logout");
    secrets.until_gone(pid, "after logout");
}

/// Ends the account's sessions on all clients but the member's.
fn sign_out_others(member: &mut Member) {
    let Answer::Sessions(sessions) = member.done(Call::Sessions) else { panic!("no list") };
    for session in sessions.into_iter().filter(|session| !session.own) {
        member.done(Call::SignOut { request: RequestId::random(), peer: session.peer });
    }
}

/// `dfs` with its prompt in a pipe.
struct Dfs(Child);

impl Dfs {
    fn start(dir: &Path, store: &Store, lines: &str) -> Self {
        let said = File::create(dir.join("dfs.said")).unwrap();
        let mut command = std::process::Command::new(shoal_tests::binary("dfs"));
        command.args(store.dfs("ann", &[]).get_args().take(3)).current_dir(dir);
        command.env_remove("SHOAL_PASSWORD").env_remove("RUST_LOG");
        let child =
            command.stdin(Stdio::piped()).stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap();
        let mut dfs = Self(child);
        dfs.say(lines);
        dfs
    }

    fn say(&mut self, lines: &str) {
        self.0.stdin.as_mut().unwrap().write_all(lines.as_bytes()).unwrap();
    }
}

impl Drop for Dfs {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn after_the_end_of_a_login_dfs_memory_holds_neither_passwords_nor_keys() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 2);
    let mut member = Member::connect(store.trackers.port(1));
    member.create_user("bob", "Password-of-bob-in-a-pipe-86");
    let secrets = Secrets::of(&mut member, "bob", "Password-of-bob-in-a-pipe-86");
    let mut dfs = Dfs::start(dir.path(), &store, "bob\nPassword-of-bob-in-a-pipe-86\n");
    let said = || std::fs::read_to_string(dir.path().join("dfs.said")).unwrap();
    until("it is logged in", || said().contains("From DFS2: Authorization Granted."));
    dfs.say("list\n");
    until("it lists", || said().contains("you have no stored files"));
    secrets.is_logged_in(dfs.0.id());
    sign_out_others(&mut member);
    until("it says so", || {
        dfs.say("list\n");
        said().contains("signed out") || said().contains("log in")
    });
    secrets.until_gone(dfs.0.id(), "after it was logged out from elsewhere");
}
