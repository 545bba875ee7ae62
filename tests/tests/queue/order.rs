//! Which downloads run, and which wait.

use serde_json::Value;
use shoal_tests::{Client, Manners, World, download, same_content, until};

const MIB: usize = 1 << 20;

fn downloads(client: &mut Client) -> Vec<Value> {
    client.ok("show_downloads -v")["downloads"].as_array().unwrap().clone()
}

fn row(client: &mut Client, file: &str) -> Value {
    downloads(client).into_iter().find(|row| row["file"] == file).unwrap_or(Value::Null)
}

/// The files that are being downloaded and do not wait for their turn.
fn running(client: &mut Client) -> Vec<String> {
    let runs = |row: &Value| row["state"] == "D" && row.get("queued").is_none();
    let rows = downloads(client);
    rows.iter().filter(|row| runs(row)).map(|row| row["file"].as_str().unwrap().to_owned()).collect()
}

/// The places of those that wait.
fn queued(client: &mut Client) -> Vec<(String, u64)> {
    let rows = downloads(client);
    let place = |row: &Value| Some((row["file"].as_str()?.to_owned(), row["queued"].as_u64()?));
    rows.iter().filter_map(place).collect()
}

fn until_running(client: &mut Client, files: &[&str]) {
    let mut last = Vec::new();
    until(&format!("{files:?} run"), || {
        last = running(client);
        last == files
    });
}

#[test]
fn no_more_than_the_bound_run_the_others_wait_in_order_also_over_kill_9_and_all_end_well() {
    let mut world = World::new();
    let files: Vec<_> = (0..5)
        .map(|number| {
            let file = format!("f{number}.bin");
            let (path, _) = world.ann.share("g", &file, 2 * MIB);
            (file, path)
        })
        .collect();
    let mut bob = world.member("bob");
    assert_eq!(bob.ok("set")["active_downloads"], 0, "no bound by default");
    assert_eq!(bob.ok("set active_downloads 2")["active_downloads"], 2);
    bob.ok("limit down 200K");
    for (file, _) in &files {
        download(&mut bob, file, &world.path(&format!("bob-{file}")));
    }
    until_running(&mut bob, &["f0.bin", "f1.bin"]);
    let waits =
        |pairs: &[(&str, u64)]| pairs.iter().map(|&(file, at)| (file.to_owned(), at)).collect::<Vec<_>>();
    assert_eq!(queued(&mut bob), waits(&[("f2.bin", 1), ("f3.bin", 2), ("f4.bin", 3)]));
    let last = row(&mut bob, "f4.bin");
    assert_eq!((&last["state"], &last["activity"]), (&"D".into(), &"waits its turn: 2 before it".into()));
    assert!(bob.fails("wait 0.1").contains("5 downloads still running"), "those that wait count");

    // The order is the user's.
    bob.ok("prioritize g f4.bin first");
    assert_eq!(queued(&mut bob), waits(&[("f2.bin", 2), ("f3.bin", 3), ("f4.bin", 1)]));
    bob.ok("prioritize g f3.bin low");
    let answer = bob.ok("prioritize g f2.bin HIGH");
    assert_eq!(
        (&answer["priority"], answer.get("queued")),
        (&"high".into(), None),
        "it takes a place: {answer}"
    );
    until_running(&mut bob, &["f0.bin", "f2.bin"]);
    assert_eq!(row(&mut bob, "f2.bin")["priority"], "high");
    bob.ok("pause_download g f0.bin");
    until_running(&mut bob, &["f2.bin", "f4.bin"]);
    bob.ok("resume_download g f0.bin");

    // And stays after kill -9.
    let before = queued(&mut bob);
    assert_eq!(before, waits(&[("f0.bin", 1), ("f1.bin", 2), ("f3.bin", 3)]));
    let mut bob = bob.kill().restart();
    bob.ok("login bob secret");
    until_running(&mut bob, &["f2.bin", "f4.bin"]);
    assert_eq!(queued(&mut bob), before);
    assert!(bob.fails("set active_downloads many").contains("no number of downloads"));
    bob.ok("cancel_download g f1.bin");
    bob.ok("limit down 0");
    bob.ok("wait 60");
    for (file, path) in &files {
        let copy = world.path(&format!("bob-{file}"));
        assert_eq!(same_content(path, &copy), file != "f1.bin", "{file}");
    }
}

#[test]
fn one_without_a_sharer_lets_the_next_go_and_goes_on_when_a_sharer_is_back() {
    let mut world = World::new();
    let mut carol = world.member("carol");
    let (lone, _) = carol.share("g", "lone.bin", MIB);
    let (path, _) = world.ann.share("g", "next.bin", 8 * MIB);
    world.ann.share("g", "last.bin", MIB);
    carol.ok("logout");
    let mut bob = world.member("bob");
    bob.ok("set active_downloads 1");
    bob.ok("limit down 1M");
    for file in ["lone.bin", "next.bin", "last.bin"] {
        download(&mut bob, file, &world.path(&format!("bob-{file}")));
    }
    until_running(&mut bob, &["lone.bin", "next.bin"]);
    assert!(row(&mut bob, "lone.bin")["activity"].as_str().unwrap().contains("waiting for a sharer"));
    // Its sharer is back while the place is taken: it waits before the others, and nobody is sent back.
    carol.ok("login carol secret");
    until("it waits its turn", || row(&mut bob, "lone.bin")["queued"] == 1);
    assert_eq!(running(&mut bob), ["next.bin"]);
    assert_eq!(queued(&mut bob), [("lone.bin".to_owned(), 1), ("last.bin".to_owned(), 2)]);
    bob.ok("limit down 0");
    bob.ok("wait 60");
    assert!(
        same_content(&path, &world.path("bob-next.bin")) && same_content(&lone, &world.path("bob-lone.bin"))
    );
}

#[test]
fn one_whose_sources_deliver_nothing_keeps_nobody_waiting() {
    let mut world = World::new();
    let (stuck, _) = world.ann.share("g", "stuck.bin", MIB);
    let seeder = world.seeder("seeder", "stuck.bin", &stuck, Manners::NeverNow, usize::MAX);
    let (mut carol, mut bob) = (world.member("carol"), world.member("bob"));
    let (path, _) = carol.share("g", "next.bin", MIB);
    world.ann.ok("logout");
    bob.ok("set active_downloads 1");
    for file in ["stuck.bin", "next.bin"] {
        download(&mut bob, file, &world.path(&format!("bob-{file}")));
    }
    assert_eq!(row(&mut bob, "next.bin")["queued"], 1);
    bob.until_download("next.bin", "C");
    assert!(same_content(&path, &world.path("bob-next.bin")));
    assert_eq!(bob.download("stuck.bin")["state"], "D");
    drop(seeder);
}
