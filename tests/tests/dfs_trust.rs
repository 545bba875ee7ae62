//! Storage nodes among those who lie: a tracker that orders everything deleted, and strangers that pass for nodes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use shoal_common::NodeName;
use shoal_common::tokens::StorageTicket;
use shoal_common::tracker_api::storage::{NodeCall, Order};
use shoal_common::tracker_api::{Call, RefusalKind};
use shoal_dfs::connection::{NodeConnection, RequestError};
use shoal_dfs::wire::{Failure, RemovalKey};
use shoal_net::Identity;
use shoal_tests::{
    Liar, Member, Mount, Store, Trackers, binary, free_port, node_secret, random_file, root_or_skip,
    same_content, until,
};
use tokio_util::task::TaskTracker;

/// Nodes of a cluster with so many trackers, of which the last ones lie; six files of four parts are stored in two copies, so
/// that each node holds twelve.
struct Scene {
    /// Ends first: its nodes use the disk, and their logs are in the folder.
    store: Store,
    liars: Vec<Liar>,
    /// Under the first node's data, where a test wants it small.
    disk: Option<Mount>,
    dir: tempfile::TempDir,
    files: Vec<PathBuf>,
}

const PARTS: usize = 24;
const NODES: usize = 4;

impl Scene {
    fn new(trackers: usize, lying: usize, for_nodes: &[&str]) -> Self {
        Self::begin((trackers, lying), for_nodes, false)
    }

    fn begin((trackers, lying): (usize, usize), for_nodes: &[&str], small_disk: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = small_disk.then(|| Mount::new(&dir.path().join("node-1"), "size=4m"));
        let mut cluster = Trackers::stopped(dir.path(), trackers);
        let secret = node_secret(dir.path());
        let honest: Vec<usize> = (1..=trackers - lying).collect();
        for &number in &honest {
            cluster.set_arguments(number, &["--node-secret", secret.to_str().unwrap()]);
            cluster.restart(number);
        }
        let lines: Vec<String> = honest.iter().map(|&number| cluster.address(number).to_string()).collect();
        std::fs::write(dir.path().join("clients_info.txt"), lines.join("\n") + "\n").unwrap();
        let liars: Vec<Liar> =
            (honest.len() + 1..=trackers).map(|number| Liar::start(cluster.address(number))).collect();
        let store = Store::begin(dir.path(), cluster, NODES, for_nodes, &[]);
        store.enter();
        let files: Vec<PathBuf> = (0..6).map(|number| dir.path().join(format!("film-{number}"))).collect();
        for (file, seed) in files.iter().zip(0..) {
            random_file(file, 100_000, seed);
        }
        let paths: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
        store.ok(&[&["put"], &paths[..]].concat());
        let scene = Self { disk, dir, store, liars, files };
        until("the liars know what is held", || scene.liars.iter().all(|liar| liar.held() == 2 * PARTS));
        scene
    }

    /// Chunk files on all nodes' disks.
    fn held(&self) -> usize {
        (1..=NODES).map(|number| self.store.chunks(number).len()).sum()
    }

    fn fetch(&self) {
        let to = tempfile::tempdir_in(self.dir.path()).unwrap();
        for file in &self.files {
            let name = file.file_name().unwrap().to_str().unwrap();
            self.store.ok(&["get", name, "-o", to.path().to_str().unwrap()]);
            assert!(same_content(file, &to.path().join(name)), "{name} came back different");
        }
    }

    fn restart_all(&mut self) {
        for number in 1..=NODES {
            self.store.kill(number);
            self.store.restart(number);
        }
        self.store.until_up(NODES);
    }
}

#[test]
fn one_lying_tracker_of_two_or_three_deletes_nothing_also_after_the_nodes_restarted() {
    for trackers in [2, 3] {
        let mut scene = Scene::new(trackers, 1, &["--min-age", "0s"]);
        for _ in 0..2 {
            scene.liars[0].have_all_deleted();
            until("it insisted", || scene.liars[0].held() == 2 * PARTS && scene.liars[0].insisted(3));
            assert_eq!(scene.held(), 2 * PARTS);
            assert_eq!(scene.liars[0].gone(), [0; NODES], "with {trackers} trackers");
            scene.restart_all();
        }
        scene.fetch();
    }
}

#[test]
fn most_trackers_lying_get_a_tenth_a_day_into_a_bin_from_which_it_comes_back() {
    let mut scene = Scene::new(3, 2, &["--min-age", "0s"]);
    scene.liars.iter().for_each(Liar::have_all_deleted);
    let gone = |scene: &Scene| scene.liars[0].gone();
    until("they insisted", || scene.liars.iter().all(|liar| liar.insisted(3)));
    until("something went into the bin", || gone(&scene).iter().any(|&gone| gone > 0));
    // A tenth of twelve, begun.
    assert!(gone(&scene).iter().all(|&gone| gone <= 2), "{:?}", gone(&scene));
    assert_eq!(scene.held(), 2 * PARTS, "all of it is on the disks");
    scene.fetch();
    scene.restart_all();
    until("they insisted again", || scene.liars.iter().all(|liar| liar.insisted(6)));
    assert!(gone(&scene).iter().all(|&gone| gone <= 2), "a restart begins no new day: {:?}", gone(&scene));
    assert_eq!(scene.held(), 2 * PARTS);
    // An operator takes everything out of the bin.
    scene.liars.iter().for_each(|liar| liar.lie(|_, _| Vec::new()));
    scene.store.set_arguments(&["--restore-bin"]);
    scene.restart_all();
    until("all is held again", || scene.liars[0].held() == 2 * PARTS);
    scene.fetch();
}

#[test]
fn a_node_whose_disk_is_full_starts_and_its_bin_works() {
    if !root_or_skip("a_node_whose_disk_is_full_starts_and_its_bin_works") {
        return;
    }
    let mut scene = Scene::begin((3, 2), &["--min-age", "0s"], true);
    let before = scene.liars[0].nodes();
    scene.liars.iter().for_each(Liar::have_all_deleted);
    // By the nodes' logs: a chunk that is needed again at once is never reported gone.
    let binned = |scene: &Scene, number| scene.store.log(number).matches(": into the bin, by").count();
    let all_binned = |scene: &Scene, each: usize| (1..=NODES).all(|number| binned(scene, number) >= each);
    until("every node's share is in its bin", || all_binned(&scene, 2));
    scene.liars.iter().for_each(|liar| liar.lie(|_, _| Vec::new()));
    let ballast = scene.disk.as_ref().unwrap().path().join("ballast");
    let filled = std::fs::write(&ballast, vec![1; 8 << 20]);
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    scene.store.set_arguments(&["--min-age", "0s", "--daily-deletions", "50"]);
    scene.restart_all();
    assert!(scene.store.log(1).contains("2 chunks in the bin"), "{}", scene.store.log(1));
    // More goes into the bin, and all of it comes back.
    scene.liars.iter().for_each(Liar::have_all_deleted);
    until("half is in the bins", || all_binned(&scene, 6));
    scene.liars.iter().for_each(|liar| liar.lie(|_, _| Vec::new()));
    scene.fetch();
    scene.store.set_arguments(&["--restore-bin"]);
    scene.restart_all();
    // Each node holds again what it held; and a copy too many, if there was one in its bin already.
    until("all is held again", || {
        let now = scene.liars[0].nodes();
        let held = |key, parts| now.iter().any(|(peer, _, held)| *peer == key && held.is_superset(parts));
        before.iter().all(|(peer, _, parts)| held(*peer, parts))
    });
    scene.fetch();
}

#[test]
fn what_is_young_stays_whoever_orders_it_away() {
    let scene = Scene::new(3, 2, &[]);
    scene.liars.iter().for_each(Liar::have_all_deleted);
    until("they insisted", || scene.liars.iter().all(|liar| liar.insisted(3)));
    assert_eq!((scene.held(), scene.liars[0].gone()), (2 * PARTS, vec![0; NODES]), "all of it is young");
}

#[test]
fn a_ticket_that_a_tracker_made_up_neither_deletes_nor_empties() {
    let scene = Scene::new(2, 1, &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (identity, tasks) = (Identity::generate(), TaskTracker::new());
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let expires_ms = u64::try_from(now_ms).unwrap() + 60_000;
    for (peer, address, held) in scene.liars[0].nodes() {
        let owner = held.iter().next().unwrap().owner;
        let ticket = scene.liars[0].sign(&StorageTicket {
            user: owner,
            peer: identity.peer_id(),
            expires_ms,
            allowance: None,
        });
        let chunks: Vec<_> = held.iter().map(|chunk| chunk.chunk).collect();
        runtime.block_on(async {
            let connection =
                NodeConnection::connect(address.parse().unwrap(), peer, &identity, &tasks).await.unwrap();
            connection.show(ticket).await.unwrap();
            // With keys that are none, without any, and several times.
            let keys = vec![RemovalKey([7; 32]); chunks.len()];
            for keys in [Some(keys), None, None] {
                let refused = connection.delete(chunks.clone(), keys).await;
                assert_eq!(
                    refused.unwrap_err().to_string(),
                    RequestError::Failed(Failure::NotAllowed).to_string()
                );
            }
            connection.wait_reported().await.unwrap();
        });
    }
    assert_eq!(scene.held(), 2 * PARTS);
    assert_eq!(scene.liars[0].gone(), [0; NODES], "a ticket alone puts nothing into the bin");
    scene.fetch();
    // Their owner has the keys: all of it goes at once.
    (0..6).for_each(|number| drop(scene.store.ok(&["rm", &format!("film-{number}")])));
    until("they are gone", || scene.held() == 0);
}

#[test]
fn orders_that_lead_nowhere_neither_overwrite_nor_hold_up_repair() {
    let mut scene = Scene::new(2, 1, &["--min-age", "0s"]);
    // Accepts connections and never says a word.
    let hole = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = hole.local_addr().unwrap().to_string();
    let from = Identity::generate().peer_id();
    scene.liars[0].lie(move |_, held| {
        let made_up = (0..200_u8).flat_map(|number| {
            held.iter().next().map(|chunk| {
                let mut chunk = *chunk;
                chunk.chunk.0[31] ^= number | 1;
                chunk
            })
        });
        let all = held.iter().copied().chain(made_up);
        all.map(|chunk| Order::Copy { chunk, sealed: 100, from, address: address.clone(), order: vec![1] })
            .collect()
    });
    until("it insisted", || scene.liars[0].insisted(2));
    // A node comes back without its chunks: they are copied there as if nothing were.
    scene.store.kill(1);
    std::fs::remove_dir_all(scene.store.data(1).join("chunks")).unwrap();
    scene.store.restart(1);
    scene.store.until_up(NODES);
    scene.store.until_repaired();
    assert_eq!(scene.held(), 2 * PARTS);
    scene.fetch();
}

/// A node outside the store, started without a secret.
struct Extra(Child);

impl Extra {
    fn start(dir: &Path, name: &str, info: &Path) -> Self {
        let log = File::create(dir.join("extra.log")).unwrap();
        let mut command = Command::new(binary("dfs-server"));
        command.arg(free_port().to_string()).arg("--trackers").arg(info);
        command.args(["--bind", "127.0.0.1", "--name", name, "--data-dir"]).arg(dir.join("extra"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().unwrap())
    }

    fn log(dir: &Path) -> String {
        std::fs::read_to_string(dir.join("extra.log")).unwrap_or_default()
    }
}

impl Drop for Extra {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nodes_wait_for_an_operator_and_fakes_under_their_names_stop_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    // Strangers that call themselves DFS1 ask first.
    let mut fakes: Vec<Member> = (0..8).map(|_| Member::connect(trackers.port(1))).collect();
    for fake in &mut fakes {
        let call = NodeCall::Register { name: NodeName::create("DFS1").unwrap(), proof: None };
        let refused = fake.try_call(Call::Node(call)).unwrap().unwrap_err();
        assert_eq!(refused.kind, RefusalKind::NotAllowed);
        let command = format!("admit {}", fake.identity().peer_id());
        assert!(refused.text.contains(&command), "{}", refused.text);
    }
    let mut store = Store::begin(dir.path(), trackers, 3, &[], &[]);
    for number in 1..=3 {
        until("it says that it waits", || store.log(number).contains("waits to be admitted: type"));
    }
    assert_eq!(store.run("ann", &["create_user"])["ok"], true);
    let file = dir.path().join("f");
    random_file(&file, 5_000_000, 1);
    let error = store.refused(&["put", file.to_str().unwrap()]);
    assert!(error.contains("dfs.conf names 0 that the trackers know"), "{error}");
    assert!(error.contains("DFS1, DFS2, DFS3 are not known to them: running, and admitted?"), "{error}");
    // Of the many DFS1 the operator knows the key of the right one; the others are told by their names.
    let key = store.key(1);
    store.trackers.say(1, &format!("admit {key} DFS2 dfs3"));
    store.until_up(3);
    for number in 1..=3 {
        for tracker in [1, 2] {
            let admitted = format!("admitted by the tracker at {}", store.trackers.address(tracker));
            until("it says that it is admitted", || store.log(number).contains(&admitted));
        }
    }
    store.ok(&["put", file.to_str().unwrap()]);
    // Another node of that name that is admitted takes nothing from it either.
    let extra = Extra::start(dir.path(), "DFS1", &store.trackers.info());
    until("it waits", || Extra::log(dir.path()).contains("waits to be admitted: type"));
    let log = Extra::log(dir.path());
    let key = log.split(" as ").nth(1).unwrap().split(';').next().unwrap().to_owned();
    store.trackers.say(2, &format!("admit {key}"));
    until("it is known", || {
        store.ok(&["status"])["nodes"].to_string().contains(&key) || in_list(&store, &key)
    });
    random_file(&file, 5_000_000, 2);
    store.ok(&["put", file.to_str().unwrap()]);
    store.kill(2);
    let to = tempfile::tempdir_in(dir.path()).unwrap();
    store.ok(&["get", "f", "-o", to.path().to_str().unwrap()]);
    assert!(same_content(&file, &to.path().join("f")));
    store.restart(2);
    drop(extra);
    // What was admitted stays so, whichever tracker starts again.
    for number in [1, 2] {
        store.trackers.kill(number);
        store.trackers.restart(number);
    }
    store.until_up(3);
    store.until_repaired();
}

/// Whether the second tracker logs that the node of that key is there.
fn in_list(store: &Store, key: &str) -> bool {
    store.trackers.log(2).lines().any(|line| line.contains("storage node") && line.contains(key))
}

#[test]
fn a_node_of_two_trackers_of_which_one_was_removed_says_that_it_needs_the_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::start(dir.path(), 2, 2);
    let line = store.trackers.address(1).to_string();
    assert!(store.trackers.stop(2));
    store.trackers.write_info(&[line, "-".to_owned()]);
    assert!(store.trackers.stop(1));
    store.trackers.restart(1);
    for number in [1, 2] {
        until("it says so", || store.log(number).contains("until this node is restarted with the new file"));
        assert!(store.log(number).contains("put - in place of its line"), "{}", store.log(number));
        store.kill(number);
        store.restart(number);
        until("it took the new file", || store.log(number).contains("its word alone has chunks deleted"));
    }
    store.until_up(2);
}

#[test]
fn a_key_in_dfs_conf_is_insisted_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 2);
    let conf = dir.path().join("dfs.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    let with = |keys: [&str; 2]| {
        let mut keys = keys.into_iter();
        let lines: Vec<String> = text
            .lines()
            .map(|line| match line.starts_with("Server") {
                true => format!("{line} {}", keys.next().unwrap()),
                false => line.to_owned(),
            })
            .collect();
        std::fs::write(&conf, lines.join("\n") + "\n").unwrap();
    };
    let (one, two) = (store.key(1), store.key(2));
    let file = dir.path().join("f");
    random_file(&file, 100_000, 1);
    with([&one, &two]);
    store.ok(&["put", file.to_str().unwrap()]);
    with([&two, &one]);
    let error = store.refused(&["put", file.to_str().unwrap()]);
    assert!(error.contains("DFS1"), "{error}");
}
