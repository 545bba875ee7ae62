//! Data folders of trackers, clients, storage nodes and of a user of the store, as an earlier version wrote them: kept in
//! `tests/data/`, they open with this version, and everything in them goes on. Databases are kept as SQL.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use shoal_tests::{
    Client, Earlier, Member, Store, Trackers, binary, download, files_below, node_secret, random_file,
    same_content, until,
};

/// The folders that are kept.
const FOLDERS: [&str; 7] = ["tracker-1", "tracker-2", "ann", "bob", "node-1", "node-2", "dfs-state"];
/// Where the scratch folder's path and the trackers' ports stood in what is kept.
const DIR: &str = "@DIR@";
/// The same where the path is a blob.
const HEX: &str = "@HEX@";
const PORTS: [&str; 2] = ["@PORT1@", "@PORT2@"];
/// Sizes of the two shared files and of the stored one. Their content comes of the seed of `random_file`.
const SIZES: [usize; 3] = [300_000, 200_000, 3_000];
/// The name of a user who was created when tracker 2 had been updated and tracker 1 had not. It has another skeleton, and the
/// earlier version votes by name: each tracker's vote counts apart.
const PROVISIONAL: &str = "mm";

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/2026-11-27")
}

/// The files that ann shares and stores.
fn contents(dir: &Path) -> [PathBuf; 3] {
    let paths = ["one.bin", "two.bin", "stored.bin"].map(|name| dir.join("files").join(name));
    std::fs::create_dir_all(dir.join("files")).unwrap();
    for ((path, size), seed) in paths.iter().zip(SIZES).zip(1..) {
        random_file(path, size, seed);
    }
    paths
}

#[test]
fn data_folders_of_an_earlier_version_open_and_everything_in_them_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::stopped(dir.path(), 2);
    restore(dir.path(), [trackers.port(1), trackers.port(2)]);
    let [one, two, stored] = contents(dir.path());
    for number in [1, 2] {
        trackers.set_arguments(number, &["--node-secret", node_secret(dir.path()).to_str().unwrap()]);
        trackers.restart(number);
    }
    trackers.until_in_step();
    until("the name is definite", || {
        [1, 2].iter().all(|&number| {
            !Member::connect(trackers.port(number)).login(PROVISIONAL, "secret").unwrap().provisional
        })
    });

    let mut bob = Client::start(dir.path(), "bob", &trackers.info());
    bob.ok("login bob secret");
    assert!(same_content(&one, &dir.path().join("bob-one.bin")), "the test's own copy");
    assert_eq!(bob.download("two.bin")["state"], "D", "it waits for a sharer");
    let mut ann = Client::start(dir.path(), "ann", &trackers.info());
    ann.ok("login ann secret");
    bob.until_download("two.bin", "C");
    assert!(same_content(&two, &dir.path().join("bob-two.bin")));
    until("both share the first file", || ann.sharers("g", "one.bin") == 2);
    // And what is new works in the old folders.
    let mut cid = Client::enter(dir.path(), "cid", &trackers.info());
    ann.let_in("g", &mut [&mut cid]);
    download(&mut cid, "one.bin", &dir.path().join("cid-one.bin"));
    cid.until_download("one.bin", "C");

    let store = Store::begin(dir.path(), trackers, 2, &[], &[]);
    store.until_up(2);
    assert_eq!(store.ok(&["list"])["files"][0]["name"], "stored.bin");
    let to = dir.path().join("to");
    std::fs::create_dir(&to).unwrap();
    store.ok(&["get", "stored.bin", "-o", to.to_str().unwrap()]);
    assert!(same_content(&stored, &to.join("stored.bin")));
    store.ok(&["rm", "stored.bin"]);
    for number in [1, 2] {
        assert_eq!(store.trackers.status(number)["alarms"], 0, "{}", store.trackers.log(number));
    }
}

/// How `tests/data/` was made: `scripts/versions COMMIT --ignored the_data_folders`.
#[test]
#[ignore = "writes the data folders of the earlier version into tests/data"]
fn the_data_folders_of_an_earlier_version_are_written() {
    let Some(earlier) = Earlier::or_skip("the_data_folders_of_an_earlier_version_are_written") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let [one, two, stored] = contents(dir.path());
    let mut trackers = Trackers::stopped(dir.path(), 2);
    let ports = [trackers.port(1), trackers.port(2)];
    for number in [1, 2] {
        trackers.set_program(number, earlier.program("tracker"));
        trackers.set_arguments(number, &["--node-secret", node_secret(dir.path()).to_str().unwrap()]);
        trackers.restart(number);
    }
    trackers.until_in_step();
    let info = trackers.info();
    let start = |name| Client::start_program(dir.path(), name, &info, earlier.program("client")).entered();
    let (mut ann, mut bob) = (start("ann"), start("bob"));
    ann.ok("create_group g");
    ann.let_in("g", &mut [&mut bob]);
    ann.ok(&format!("upload_file {} g", one.display()));
    download(&mut bob, "one.bin", &dir.path().join("bob-one.bin"));
    bob.until_download("one.bin", "C");
    ann.ok(&format!("upload_file {} g", two.display()));
    assert!(ann.quit().1);
    download(&mut bob, "two.bin", &dir.path().join("bob-two.bin"));
    assert!(bob.quit().1);

    let mut store = Store::begin(dir.path(), trackers, 2, &[], &[]);
    for number in [1, 2] {
        store.kill(number);
        let _ = std::fs::remove_dir_all(store.data(number));
        store.set_program(number, earlier.program("dfs-server"));
        store.restart(number);
    }
    store.set_client(earlier.program("dfs"));
    store.until_up(2);
    store.ok(&["put", stored.to_str().unwrap(), "--copies", "2"]);
    store.kill(1);
    store.kill(2);
    assert!(store.trackers.stop(2));
    store.trackers.set_program(2, binary("tracker"));
    store.trackers.restart(2);
    store.trackers.until_in_step();
    let mut late = Member::connect(store.trackers.port(1));
    assert!(late.create_user(PROVISIONAL, "secret"), "the votes of two versions count apart");
    until("tracker 2 has voted", || {
        Member::connect(store.trackers.port(2)).login(PROVISIONAL, "secret").is_ok()
    });
    assert!(store.trackers.stop(1) && store.trackers.stop(2));
    keep(dir.path(), ports);
}

/// Puts the folders into `tests/data`.
fn keep(dir: &Path, ports: [u16; 2]) {
    let neutral = |text: String| {
        let mut text = text.replace(dir.to_str().unwrap(), DIR).replace(&hex(dir), HEX);
        for (port, name) in ports.iter().zip(PORTS) {
            text = text.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{name}"));
            text = text.replace(&format!("127.0.0.1 {port}"), &format!("127.0.0.1 {name}"));
        }
        text
    };
    for path in FOLDERS.iter().flat_map(|folder| files_below(&dir.join(folder))) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == "lock" || [".log", ".old", "-wal", "-shm", ".lock"].iter().any(|end| name.ends_with(end)) {
            continue;
        }
        let to = kept().join(path.strip_prefix(dir).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        if name.ends_with(".db") {
            std::fs::write(to.with_extension("sql"), neutral(dump(&path))).unwrap();
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        if bytes.iter().all(|&byte| byte == 0) {
            // A bin without records: room for them.
            continue;
        }
        match String::from_utf8(bytes) {
            Ok(text) => std::fs::write(to, neutral(text)).unwrap(),
            Err(bytes) => std::fs::write(to, bytes.as_bytes()).unwrap(),
        }
    }
}

/// Puts what is kept into a scratch folder.
fn restore(dir: &Path, ports: [u16; 2]) {
    let actual = |text: String| {
        let text = text.replace(DIR, dir.to_str().unwrap()).replace(HEX, &hex(dir));
        ports.iter().zip(PORTS).fold(text, |text, (port, name)| text.replace(name, &port.to_string()))
    };
    for path in files_below(&kept()) {
        let to = dir.join(path.strip_prefix(kept()).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        if path.extension().is_some_and(|extension| extension == "sql") {
            let sql = actual(String::from_utf8(bytes).unwrap());
            Connection::open(to.with_extension("db")).unwrap().execute_batch(&sql).unwrap();
        } else {
            let bytes =
                String::from_utf8(bytes).map_or_else(|raw| raw.into_bytes(), |text| actual(text).into());
            std::fs::write(&to, bytes).unwrap();
            // Keys that others may read are refused.
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&to, private).unwrap();
        }
    }
    random_file(&dir.join("bob-one.bin"), SIZES[0], 1);
}

/// A path as SQL writes a blob.
fn hex(path: &Path) -> String {
    path.to_str().unwrap().bytes().fold(String::new(), |text, byte| text + &format!("{byte:02X}"))
}

/// A database as the statements that make it.
fn dump(path: &Path) -> String {
    let db = Connection::open(path).unwrap();
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    let mut text = format!("PRAGMA user_version = {version};\nBEGIN;\n");
    let sql = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type = 'index', name";
    let mut made = db.prepare(sql).unwrap();
    let made = made.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    for (kind, name, sql) in made.map(Result::unwrap) {
        let (kind, name, sql): (String, String, String) = (kind, name, sql);
        writeln!(text, "{sql};").unwrap();
        if kind != "table" {
            continue;
        }
        let columns = db.prepare(&format!("SELECT * FROM \"{name}\"")).unwrap();
        let quoted: Vec<_> = columns.column_names().map(|column| format!("quote(\"{column}\")")).collect();
        let mut rows = db.prepare(&format!("SELECT {} FROM \"{name}\"", quoted.join(" || ',' || "))).unwrap();
        for row in rows.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap) {
            writeln!(text, "INSERT INTO \"{name}\" VALUES ({row});").unwrap();
        }
    }
    text + "COMMIT;\n"
}
