//! Every seed of the fuzzers, and mutations of it, through its function.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer, SigningKey};
use minicbor::Encode;
use shoal_common::folder::{Entry, ListedFile};
use shoal_common::peer_wire::{ToRequester, ToServer};
use shoal_common::storage::{ChunkId, ChunkRef, StoreManifest};
use shoal_common::tokens::{CopyOrder, SessionToken, Statement, StorageTicket, Ticket, seal};
use shoal_common::tracker_api::{Answer, Call, FileEntry, FromTracker, Reply, ToTracker};
use shoal_common::vouching::{ListedTracker, TrackerList};
use shoal_common::{Blake3, Fid, FileName, Gid, GroupName, PeerId, RequestId, Sha1, Uid, UserName};
use shoal_dfs::wire::{RemovalKey, ToClient, ToNode};
use shoal_fuzzed::TARGETS;
use shoal_replica::{Frame, Kind, Live, Row, Stamp, WriterId};

/// Mutations of each seed, unless this variable says otherwise; those of requests are connections, so a tenth of them.
const MUTATIONS: usize = 300;
const VARIABLE: &str = "SHOAL_MUTATIONS";

fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds")
}

fn mutated(bytes: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.usize(1..=4) {
        let at = random.usize(0..=bytes.len());
        match random.u8(0..6) {
            0 => bytes.insert(at, random.u8(..)),
            1 => bytes.truncate(at),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 if at < bytes.len() => {
                bytes[at] = random.choice([0, 0xff, 0x7f, b'%', b'.', b'/', b'<']).unwrap()
            }
            4 if at < bytes.len() => bytes[at] ^= 1 << random.u8(0..8),
            _ => {
                let part = bytes[at..(at + random.usize(0..40)).min(bytes.len())].to_vec();
                let to = random.usize(0..=bytes.len());
                drop(bytes.splice(to..to, part));
            }
        }
    }
    bytes
}

#[test]
fn every_seed_and_its_mutations_pass_their_function() {
    let mutations = std::env::var(VARIABLE).map_or(MUTATIONS, |count| count.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(12);
    for (name, target) in TARGETS {
        let mut files: Vec<_> =
            std::fs::read_dir(seeds().join(name)).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 3, "{name} has seeds");
        let mutations = if name == "requests" { mutations / 10 } else { mutations };
        for path in files {
            let seed = std::fs::read(&path).unwrap();
            target(&seed);
            for _ in 0..mutations {
                let bytes = mutated(&seed, &mut random);
                if std::panic::catch_unwind(|| target(&bytes)).is_err() {
                    panic!("{name}: a mutation of {}: {:?}", path.display(), String::from_utf8_lossy(&bytes));
                }
            }
        }
    }
}

#[test]
fn every_target_has_a_fuzz_target_and_seeds_and_no_others_are_there() {
    let names = |folder: &str| {
        let entries = std::fs::read_dir(seeds().join("..").join(folder)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let targets: Vec<_> = TARGETS.iter().map(|(name, _)| std::ffi::OsString::from(name)).collect();
    assert_eq!(names("seeds"), targets);
    assert_eq!(names("fuzz_targets"), targets);
}

/// What folders hold; the last leads out of its folder.
fn listings() -> [(&'static str, Vec<Entry>); 3] {
    let file = |path: &str, content: &[u8], size| {
        let (sha1, blake3) = (Sha1::of(content), Blake3::of(content));
        let file = ListedFile { size, sha1, blake3, exec: size == 1, mtime_s: 1_700_000_000 };
        Entry { path: path.into(), file: Some(file) }
    };
    let empty = Entry { path: "photos/2026/empty".into(), file: None };
    let photos = vec![file("photos/2026/one.jpg", b"x", 1), empty, file("photos/nothing", b"", 0)];
    let large = vec![file("film.mkv", b"y", 40 << 30), file("notes.txt", b"x", 1)];
    [("folder", photos), ("large", large), ("outside", vec![file("../outside", b"x", 1)])]
}

/// How the seeds that are not text were made: `cargo test -p shoal-fuzzed -- --ignored`.
#[test]
#[ignore = "writes fuzz/seeds"]
fn the_binary_seeds_are_written() {
    fn write(target: &str, name: &str, value: impl Encode<()>) {
        put(target, name, &minicbor::to_vec(value).unwrap());
    }
    fn put(target: &str, name: &str, bytes: &[u8]) {
        std::fs::create_dir_all(seeds().join(target)).unwrap();
        std::fs::write(seeds().join(target).join(name), bytes).unwrap();
    }
    fn sign(name: &str, statement: &impl Statement) {
        let key = SigningKey::from_bytes(&[9; 32]);
        let signer = PeerId(key.verifying_key().to_bytes());
        put(
            "tokens",
            &format!("{name}-signed"),
            &seal(statement, signer, |words| key.sign(words).to_bytes()),
        );
        write("tokens", name, statement);
    }
    let (user, group, peer) = (Uid([1; 16]), Gid([2; 16]), PeerId([3; 32]));
    let (films, chunk) = (GroupName::create("films").unwrap(), ChunkId([5; 32]));
    let file = FileName::create("film.mkv").unwrap();
    let call = |body| ToTracker { call: 7, body };
    write("messages", "hello", call(Call::Hello { listen: "127.0.0.1:7001".into(), revision: Some(3) }));
    write("messages", "find", call(Call::Find { group: films.clone(), file: file.clone() }));
    write("messages", "join", call(Call::JoinGroup { request: RequestId([4; 16]), group: films }));
    let files = vec![FileEntry { name: file, size: 1_000, sha1: Sha1([6; 20]), sharers: 2 }];
    let body = Reply::Done(Answer::Files { files, more: false });
    write("messages", "files", FromTracker { call: 7, body });
    write("messages", "open", ToServer::Open { channel: 1, group, file: Fid([8; 16]), ticket: vec![9; 40] });
    write("messages", "have", ToRequester::Have { channel: 1, pieces: vec![1, 2, 3] });
    let name = UserName::create("ann").unwrap();
    sign("ticket", &Ticket { user, name, peer, group, expires_ms: 4 });
    sign("session", &SessionToken { user, peer, login_key: peer, expires_ms: 4, since_ms: Some(1) });
    sign("storage", &StorageTicket { user, peer, expires_ms: 4, allowance: Some(1 << 40) });
    sign("order", &CopyOrder { owner: user, chunk, from: peer, to: PeerId([4; 32]), expires_ms: 4 });
    let trackers = vec![ListedTracker { number: 1, address: "127.0.0.1:9001".into(), key: Some(peer) }];
    sign("list", &TrackerList { made_ms: 5, trackers });
    for (name, entries) in listings() {
        write("listing", name, entries);
    }
    write("storage", "show", ToNode::Show { ticket: vec![9; 40] });
    write(
        "storage",
        "fetch",
        ToNode::Fetch { request: 1, chunk, offset: 0, length: 4096, order: Some(vec![7; 30]) },
    );
    let keys = Some(vec![RemovalKey([6; 32])]);
    write("storage", "delete", ToNode::Delete { request: 2, chunks: vec![chunk], keys });
    write("storage", "done", ToClient::Done { request: 2 });
    let chunks = vec![ChunkRef { id: chunk, sealed: 4_000 }];
    write(
        "storage",
        "manifest",
        StoreManifest { copies: 2, servers: vec![peer, PeerId([4; 32])], shift: 1, chunks },
    );
    put("frames", "ready", &Frame::Ready.encode());
    put("frames", "ping", &Frame::Ping.encode());
    let row = Row {
        kind: Kind(70),
        key: b"key".to_vec(),
        stamp: Stamp::at_ms(1_800_000_000_000),
        writer: WriterId([7; 16]),
        seq: 1,
        born: Stamp::at_ms(1_800_000_000_000),
        tombstone: false,
        value: b"value".to_vec(),
        blobs: Vec::new(),
    };
    put("frames", "live", &Frame::Live(Live { id: 1, from: 0, to: 1, rows: vec![row] }).encode());
    put("frames", "digest", &Frame::Digest { root: [4; 16] }.encode());
}
