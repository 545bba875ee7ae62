//! The page "A tracker was stolen" of docs/operating.md, step by step: with a copy of its data folder the thief gets no
//! session, no piece, no chunk, no order and no record once its line is gone, and honest users notice nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shoal_common::storage::ChunkId;
use shoal_common::tokens::{self, CopyOrder, SessionToken, Statement, StorageTicket, Ticket};
use shoal_common::tracker_api::storage::{NodeEntry, Order, OwnedChunk, StoreAnswer, StoreCall};
use shoal_common::tracker_api::{Answer, Call, RefusalKind, Session};
use shoal_common::{Fid, Gid, PeerId, Uid, UserName};
use shoal_dfs::connection::NodeConnection;
use shoal_net::Identity;
use shoal_tests::{Client, Impostor, Member, Store, random_file, same_content, tracker_command, until};
use tokio_util::task::TaskTracker;

/// How long a forged statement is good for, by its own word.
const LONG: Duration = Duration::from_secs(600);

fn in_ten_minutes() -> u64 {
    let then = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + LONG;
    u64::try_from(then.as_millis()).unwrap()
}

fn sealed<S: Statement>(key: &Identity, statement: &S) -> Vec<u8> {
    tokens::seal(statement, key.peer_id(), |message| key.sign(message))
}

/// What the thief wants, and whose names he knows.
struct Thief {
    /// The trackers' ports.
    trackers: [u16; 3],
    identity: Identity,
    victim: Session,
    file: (Gid, Fid),
    /// A peer that has it.
    holder: (u16, PeerId),
    node: NodeEntry,
    chunk: OwnedChunk,
    sealed_bytes: u32,
}

impl Thief {
    fn member(&self, tracker: usize) -> Member {
        Member::connect_as(self.identity.clone(), self.trackers[tracker - 1])
    }

    /// Whether a session as the victim begins at that tracker.
    fn gets_a_session(&self, key: &Identity, tracker: usize) -> bool {
        let token = SessionToken {
            user: self.victim.user,
            peer: self.identity.peer_id(),
            login_key: self.victim.account.login_key,
            expires_ms: in_ten_minutes(),
            since_ms: None,
        };
        match self.member(tracker).call(Call::Resume { token: sealed(key, &token) }) {
            Ok(_) => true,
            Err(refusal) => {
                assert_eq!(refusal.kind, RefusalKind::NotLoggedIn);
                false
            }
        }
    }

    fn gets_a_piece(&self, key: &Identity) -> bool {
        let ticket = Ticket {
            user: self.victim.user,
            name: UserName::create("amy").unwrap(),
            peer: self.identity.peer_id(),
            group: self.file.0,
            expires_ms: in_ten_minutes(),
        };
        let member = self.member(1);
        let mut wire = member.dial_peer(self.holder.0, self.holder.1);
        let heard = wire.try_for_a_piece(self.file, &sealed(key, &ticket), Duration::from_secs(10));
        assert!(!heard.is_empty());
        heard.contains(&"a piece".to_owned())
    }

    /// Whether a storage node gives a chunk for a ticket, and for an order to copy.
    fn gets_a_chunk(&self, key: &Identity) -> (bool, bool) {
        let (own, expires_ms) = (self.identity.peer_id(), in_ten_minutes());
        let OwnedChunk { owner, chunk } = self.chunk;
        let ticket = sealed(key, &StorageTicket { user: owner, peer: own, expires_ms, allowance: None });
        let from = self.node.peer;
        let order = sealed(key, &CopyOrder { owner, chunk, from, to: own, expires_ms });
        let (member, tasks) = (self.member(1), TaskTracker::new());
        let address = self.node.address.parse().unwrap();
        member.handle().block_on(async {
            let connection = NodeConnection::connect(address, from, &self.identity, &tasks).await.unwrap();
            let by_order = connection.fetch(chunk, self.sealed_bytes, Some(order), None).await.is_ok();
            (connection.show(ticket).await.is_ok(), by_order)
        })
    }
}

fn copy_folder(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

fn sole_chunk(store: &Store, node: usize, owner: Uid) -> (OwnedChunk, u32, PathBuf) {
    let path = store.chunks(node).first().unwrap().clone();
    let bytes = std::fs::read(&path).unwrap();
    (OwnedChunk { owner, chunk: ChunkId::of(&bytes) }, u32::try_from(bytes.len()).unwrap(), path)
}

/// A process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cluster of three with users at work, and a copy of the second tracker's folder.
struct Scene {
    store: Store,
    amy: Client,
    bob: Client,
    /// The trackers' addresses as bob's file has them: the second first.
    bobs: [String; 3],
    shared: PathBuf,
    copy: PathBuf,
    dir: tempfile::TempDir,
}

/// Sets the scene: amy shares a file, ann has stored one, bob uses the tracker that is stolen.
fn steal() -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::start(dir.path(), 3, 2);
    store.trackers.until_in_step();
    let secret = dir.path().join("secret.txt");
    random_file(&secret, 200_000, 5);
    store.ok(&["put", secret.to_str().unwrap()]);
    let mut amy = Client::enter(dir.path(), "amy", &store.trackers.info());
    amy.ok("create_group g");
    let (shared, _) = amy.share("g", "film.bin", 300_000);
    let info = dir.path().join("bobs_info.txt");
    let bobs = [2, 1, 3].map(|number| store.trackers.address(number).to_string());
    std::fs::write(&info, bobs.join("\n")).unwrap();
    let mut bob = Client::enter(dir.path(), "bob", &info);
    amy.let_in("g", &mut [&mut bob]);
    // The copy is taken while it is down, and nobody sees it.
    assert!(store.trackers.stop(2));
    let copy = dir.path().join("stolen");
    copy_folder(&store.trackers.data(2), &copy);
    store.trackers.restart(2);
    store.trackers.until_in_step();
    until("bob uses it again", || {
        let _ = bob.run("list_groups");
        if bob.ok("whoami")["tracker"] == bobs[0].as_str() {
            return true;
        }
        for number in [1, 3] {
            assert!(store.trackers.stop(number));
            let _ = bob.run("list_groups");
            store.trackers.restart(number);
        }
        store.trackers.until_in_step();
        false
    });
    Scene { store, amy, bob, bobs, shared, copy, dir }
}

/// What the page says: its line goes, the others are restarted one by one, and if it still runs, it is stopped.
fn take_the_line_away(store: &mut Store) {
    let [one, three] = [1, 3].map(|number| store.trackers.address(number).to_string());
    store.trackers.write_info(&[one, "-".into(), three]);
    for number in [1, 3] {
        assert!(store.trackers.stop(number));
        store.trackers.restart(number);
    }
    assert!(store.trackers.stop(2));
    store.trackers.until_in_step();
}

impl Scene {
    /// All that the thief has to know; the trackers still list the stolen one.
    fn thief(&mut self) -> (Thief, PathBuf) {
        let port = self.store.trackers.port(1);
        let mut ann = Member::connect(port);
        let owner = ann.login("ann", "secret").unwrap().user;
        let nodes = match ann.done(Call::Store(StoreCall::Nodes)) {
            Answer::Store(StoreAnswer::Nodes(nodes)) => nodes,
            other => panic!("{other:?}"),
        };
        let node = nodes.into_iter().find(|node| node.name.as_str() == "DFS1").unwrap();
        let (chunk, sealed_bytes, path) = sole_chunk(&self.store, 1, owner);
        let mut victim = Member::connect(port);
        let session = victim.login("amy", "secret").unwrap();
        let (group, file, _) = victim.find("g", "film.bin");
        let amys = Identity::load_or_create(&self.amy.data().join("identity.key")).unwrap().peer_id();
        let thief = Thief {
            trackers: [1, 2, 3].map(|number| self.store.trackers.port(number)),
            identity: Identity::generate(),
            victim: session,
            file: (group, file),
            holder: (self.amy.port(), amys),
            node,
            chunk,
            sealed_bytes,
        };
        (thief, path)
    }

    /// He answers at its address, with its key: nobody asks him, though the nodes' and bob's files name it still.
    fn nobody_asks_at_its_address(&mut self, stolen: Identity, chunk: OwnedChunk) {
        let (store, bob) = (&mut self.store, &mut self.bob);
        until("the node knows that it is no tracker", || store.log(1).contains("is no tracker any more"));
        let orders = vec![Order::Delete { chunk, min_age_ms: 0 }];
        let impostor = Impostor::start(store.trackers.address(2), stolen, orders);
        // Bob's client goes from the first to the third and round again, past the second.
        for number in [1, 3] {
            assert!(store.trackers.stop(number));
            assert_eq!(bob.ok("list_groups")["groups"][0]["member"], true);
            store.trackers.restart(number);
            store.trackers.until_in_step();
        }
        assert_eq!(bob.ok("list_groups")["groups"][0]["member"], true);
        let pins = std::fs::read_to_string(bob.data().join("known_trackers")).unwrap();
        assert!(pins.contains(&format!("{} removed", self.bobs[0])), "{pins}");
        assert_eq!(impostor.heard(), Vec::<String>::new());
    }

    /// He starts a tracker on the copy, with the file of before.
    fn no_tracker_links_with_it(&self, file: &str) {
        let (trackers, info) = (&self.store.trackers, self.dir.path().join("thiefs_info.txt"));
        std::fs::write(&info, file).unwrap();
        let mut command = tracker_command(&info, 2, &self.copy);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let tracker = Running(command.spawn().unwrap());
        until("it listens", || std::net::TcpStream::connect(trackers.address(2)).is_ok());
        let before = trackers.status(2)["users"].as_u64().unwrap();
        Member::connect(trackers.port(1)).enter("zoe");
        until("it has tried for a while", || trackers.status(2)["uptime_s"].as_u64().unwrap() >= 5);
        let status = trackers.status(2);
        let linked =
            status["members"].as_array().unwrap().iter().filter(|member| member["up"] == true).count();
        drop(tracker);
        assert_eq!((linked, status["users"].as_u64().unwrap()), (1, before), "{status}");
    }
}

#[test]
fn a_stolen_tracker_gives_no_authority_once_its_line_is_gone() {
    let mut scene = steal();
    let stolen = Identity::load_or_create(&scene.copy.join("identity.key")).unwrap();
    let honest = Identity::load_or_create(&scene.store.trackers.data(1).join("identity.key")).unwrap();
    let file_of_before = std::fs::read_to_string(scene.store.trackers.info()).unwrap();
    let (thief, chunk_path) = scene.thief();
    take_the_line_away(&mut scene.store);

    // Bob's token is signed by the stolen key; he goes on without being asked for anything.
    assert_eq!(scene.bob.ok("whoami")["user"], "bob");
    assert_eq!(scene.bob.ok("list_groups")["groups"][0]["member"], true);
    let got = scene.dir.path().join("got.bin");
    scene.bob.ok(&format!("download_file g film.bin {}", got.display()));
    scene.bob.until_download("film.bin", "C");
    assert!(same_content(&scene.shared, &got));

    for tracker in [1, 3] {
        assert!(!thief.gets_a_session(&stolen, tracker), "tracker {tracker} takes the stolen key's token");
    }
    until("amy's client has learnt it", || !thief.gets_a_piece(&stolen));
    until("the node has learnt it", || thief.gets_a_chunk(&stolen) == (false, false));
    // The same with the key of a tracker that still is one: what was refused was the key.
    assert!(thief.gets_a_session(&honest, 1) && thief.gets_a_session(&honest, 3));
    assert!(thief.gets_a_piece(&honest));
    assert_eq!(thief.gets_a_chunk(&honest), (true, true));

    scene.nobody_asks_at_its_address(stolen, thief.chunk);
    assert!(chunk_path.exists());
    scene.no_tracker_links_with_it(&file_of_before);
    scene.store.ok(&["get", "secret.txt", "-o", scene.dir.path().join("again.txt").to_str().unwrap()]);
}
