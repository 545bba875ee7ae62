//! The command that is run when a download is complete.

use std::path::Path;

use shoal_tests::{Client, World, download, random_file, until};

/// A script that writes its environment and its words into files beside itself.
fn script(folder: &Path) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("on complete.sh");
    let text = "#!/bin/sh\nset -e\nhere=$(dirname \"$0\")\nenv -0 > \"$here/env.new\"\nprintf '%s\\n' \"$@\" > \"$here/words\"\n\
                echo said it\nmv \"$here/env.new\" \"$here/env\"\n";
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_command_runs_with_what_others_named_as_data_and_without_secrets() {
    let mut world = World::new();
    let file = "$(touch hacked) `touch hacked`; touch hacked & '.bin";
    let folder = world.path("shared");
    std::fs::create_dir(&folder).unwrap();
    random_file(&folder.join(file), 300_000, 3);
    let quoted = format!("\"{}\"", file.replace('"', "\\\""));
    world.ann.ok(&format!("upload_file \"{}\" g", folder.join(file).display()));
    let variables = [
        ("SHOAL_PASSWORD", "secret"),
        ("AWS_SECRET_ACCESS_KEY", "key"),
        ("LC_ALL", "C.UTF-8"),
        ("RUST_LOG", "info"),
    ];
    let mut bob =
        Client::start_in(world.path("").as_path(), "bob", &world.trackers.info(), &variables).entered();
    world.ann.let_in("g", &mut [&mut bob]);
    let command = format!("'{}' $SHOAL_FILE '*' %F", script(&world.path("")));
    let set = bob.ok(&format!("set on_complete \"{command}\""));
    assert_eq!(set["on_complete"], command.as_str());
    bob.ok(&format!("download_file g {quoted} '{}'", world.path("got.bin").display()));
    bob.until_download(file, "C");
    until("the command ran", || world.path("env").exists());
    let seen = String::from_utf8(std::fs::read(world.path("env")).unwrap()).unwrap();
    let value = |name: &str| {
        let start = format!("{name}=");
        seen.split('\0').find_map(|line| line.strip_prefix(start.as_str())).map(str::to_owned)
    };
    assert_eq!(value("SHOAL_FILE").as_deref(), Some(file));
    assert_eq!(value("SHOAL_GROUP").as_deref(), Some("g"));
    assert_eq!(value("SHOAL_PATH").as_deref(), world.path("got.bin").to_str());
    assert_eq!(value("SHOAL_SIZE").as_deref(), Some("300000"));
    assert_eq!(value("SHOAL_SHA1"), Some(shoal_tests::sha1_of(&world.path("got.bin"))));
    assert_eq!((value("SHOAL_PASSWORD"), value("AWS_SECRET_ACCESS_KEY")), (None, None));
    assert_eq!(value("LC_ALL").as_deref(), Some("C.UTF-8"));
    let words = std::fs::read_to_string(world.path("words")).unwrap();
    assert_eq!(words, "$SHOAL_FILE\n*\n%F\n", "nothing in them is replaced");
    for folder in [world.path(""), world.path("shared"), std::env::current_dir().unwrap()] {
        assert!(!folder.join("hacked").exists(), "{}", folder.display());
    }
    until("what it said is in the log", || bob.log().contains("said it"));

    // One that fails is told of; one that is not there is refused.
    assert!(bob.fails("set on_complete 'no-such-program-here x'").contains("no program"));
    bob.ok("set on_complete 'sh -c \"exit 7\"'");
    world.ann.share("g", "second.bin", 1_000);
    download(&mut bob, "second.bin", &world.path("second.bin"));
    let failed = bob.until_event("command_failed");
    assert_eq!(failed["file"], "second.bin");
    assert!(failed["reason"].as_str().unwrap().contains("exit status: 7"), "{failed}");
    assert_eq!(bob.ok("set on_complete ''")["on_complete"], serde_json::Value::Null);
}

#[test]
fn no_command_runs_for_a_file_that_was_there_already() {
    let mut world = World::new();
    let (whole, _) = world.ann.share("g", "there.bin", 2_000_000);
    world.ann.share("g", "fetched.bin", 1_000);
    let mut bob = world.member("bob");
    bob.ok(&format!("set on_complete 'sh -c \"touch $0/$SHOAL_FILE.ran\" {}'", world.path("").display()));
    bob.ok("limit down 20K");
    download(&mut bob, "there.bin", &world.path("there.bin"));
    bob.ok("pause_download g there.bin");
    // It comes another way.
    std::fs::copy(whole, world.path("there.bin")).unwrap();
    bob.ok("resume_download g there.bin");
    bob.until_download("there.bin", "C");
    bob.ok("limit down 0");
    download(&mut bob, "fetched.bin", &world.path("fetched.bin"));
    until("the command ran for what was fetched", || world.path("fetched.bin.ran").exists());
    assert!(!world.path("there.bin.ran").exists());
}

#[test]
fn a_command_that_waits_when_the_client_is_killed_runs_once_after_the_next_start() {
    let mut world = World::new();
    for name in ["a.bin", "b.bin", "c.bin", "d.bin"] {
        world.ann.share("g", name, 1_000);
    }
    let here = world.path("");
    let mut bob = world.member("bob");
    let command = format!(
        "sh -c 'cd \"{}\"; echo begun >> $SHOAL_FILE.ran; for i in $(seq 2000); do [ -e go ] && exit; sleep 0.05; done'",
        here.display()
    );
    bob.ok(&format!("set on_complete '{}'", command.replace('\'', "'\"'\"'")));
    for name in ["a.bin", "b.bin", "c.bin", "d.bin"] {
        download(&mut bob, name, &world.path(name));
        bob.until_download(name, "C");
    }
    let ran = |name: &str| std::fs::read_to_string(here.join(format!("{name}.ran"))).unwrap_or_default();
    let begun =
        || ["a.bin", "b.bin", "c.bin", "d.bin"].into_iter().filter(|name| ran(name) == "begun\n").count();
    until("two of them run", || begun() == 2);
    // What ran goes on; what waited is run now, although nobody has logged in.
    let bob = bob.kill().restart();
    until("all of them ran", || begun() == 4);
    std::fs::write(here.join("go"), "").unwrap();
    drop(bob);
    // And not again.
    assert_eq!(begun(), 4);
}
