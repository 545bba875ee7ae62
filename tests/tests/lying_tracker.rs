//! A tracker whose key was stolen gets no name past a client that leads out of the folder a user chose.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::net::SocketAddr;

use shoal_net::Identity;
use shoal_tests::{Client, Forger, Trackers, files_below, free_port};

#[test]
fn a_files_name_from_a_tracker_never_leads_out_of_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    ann.ok("create_group g");
    ann.share("g", "harmless.file", 100_000);

    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let key = Identity::load_or_create(&trackers.data(1).join("identity.key")).unwrap();
    let folder = dir.path().join("bob");
    std::fs::create_dir(&folder).unwrap();
    let bobs = Identity::load_or_create(&folder.join("identity.key")).unwrap();
    let forger = Forger::start(at, (trackers.address(1), key), bobs);
    let info = dir.path().join("forged_info.txt");
    std::fs::write(&info, format!("{at}\n")).unwrap();
    let mut bob = Client::enter(dir.path(), "bob", &info);
    ann.let_in("g", &mut [&mut bob]);
    let chosen = dir.path().join("chosen");
    std::fs::create_dir(&chosen).unwrap();
    // Through it everything works for as long as it does not lie.
    bob.ok(&format!("download_file g harmless.file {}", chosen.display()));
    bob.until_download("harmless.file", "C");
    std::fs::remove_file(chosen.join("harmless.file")).unwrap();

    let before = files_below(dir.path());
    for name in [
        "../../../etcx",
        "/etc/passwd-x",
        "..\u{5c}..\u{5c}..\u{5c}etcx",
        "harm\u{0}ess.file",
        "harm\u{1b}ess.file",
    ] {
        forger.replace("harmless.file", name);
        for command in ["list_files g", &format!("download_file g harmless.file {}", chosen.display())] {
            let answer = bob.run_any(command);
            assert_eq!(answer["ok"], false, "{name:?}: {command}: {answer}");
            let error = answer["error"].as_str().unwrap();
            assert!(!error.contains(name) && !error.is_empty(), "{error}");
        }
    }
    let after = files_below(dir.path());
    assert!(after.iter().all(|path| before.contains(path) || path.starts_with(&folder)), "{after:?}");
    // Nor does another name for the file that the user asked for put it where nobody looks for it.
    forger.replace("harmless.file", ".harmlessfile");
    bob.ok(&format!("download_file g harmless.file {}", chosen.display()));
    bob.until_download("harmless.file", "C");
    assert!(chosen.join("harmless.file").exists() && !chosen.join(".harmlessfile").exists());
    forger.replace("harmless.file", "harmless.file");
    assert_eq!(bob.ok("list_files g")["files"][0]["name"], "harmless.file");
}
