//! The file of the trackers' keys, and connections to none but those who bear them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::os::unix::fs::PermissionsExt;

use shoal_common::{PeerId, TrackerInfo};
use shoal_net::{Control, ControlConfig, ControlLimits, Identity, KnownError, KnownTrackers, ReachError};

fn info(text: &str) -> TrackerInfo {
    TrackerInfo::parse(text).unwrap()
}

#[tokio::test]
async fn a_pin_is_kept_for_its_owner_alone_and_counts_until_its_line_goes() {
    let dir = tempfile::tempdir().unwrap();
    let info = info("t1:1\nt2:2\n");
    let line = info.tracker(1).unwrap();
    let known = KnownTrackers::open(dir.path(), &info, None).unwrap();
    let (key, other) = (Identity::generate().peer_id(), Identity::generate().peer_id());
    assert!(known.met(line, key).await.unwrap(), "the first contact");
    assert!(!known.met(line, key).await.unwrap());
    let error = known.met(line, other).await.unwrap_err().to_string();
    let path = known.path().display().to_string();
    assert!(error.starts_with("t1:1 shows another key than before") && error.contains(&path), "{error}");
    assert_eq!(std::fs::metadata(known.path()).unwrap().permissions().mode() & 0o777, 0o600);
    // Another process with the same folder, and a later one.
    let again = KnownTrackers::open(dir.path(), &info, None).unwrap();
    assert_eq!((again.keys(), again.key(line)), (vec![(1, key)], Some(key)));
    // Somebody removes the line while both run.
    std::fs::write(known.path(), "# nothing\n").unwrap();
    assert!(known.met(line, other).await.unwrap());
    assert!(
        matches!(again.met(line, key).await, Err(KnownError::OtherKey { pinned, .. }) if pinned == other)
    );
    std::fs::write(known.path(), "# mine\nt1:1\n").unwrap();
    let error = KnownTrackers::open(dir.path(), &info, None).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains(&path), "{error}");
}

#[tokio::test]
async fn nobody_is_connected_with_but_the_bearer_of_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let plane = async |identity: Identity, listen: Option<&str>| {
        let listen = listen.map(|listen| listen.parse().unwrap());
        let config = ControlConfig { identity, listen, protocols: vec![], limits: ControlLimits::default() };
        Control::start(config).await.unwrap()
    };
    let tracker = Identity::generate();
    let (there, _incoming) = plane(tracker.clone(), Some("127.0.0.1:0")).await;
    let (here, _) = plane(Identity::generate(), None).await;
    let at = there.local_addr().unwrap();
    let plain = info(&at.to_string());
    let line = plain.tracker(1).unwrap();
    let known = KnownTrackers::open(dir.path(), &plain, None).unwrap();
    let dialled = known.dial(&here, line).await.unwrap();
    assert_eq!(
        (dialled, known.key(line)),
        (tracker.peer_id(), None),
        "it is pinned when it has shown what it is"
    );
    known.accept(line, PeerId([7; 32])).await.unwrap();
    let refused = known.dial(&here, line).await.unwrap_err();
    assert!(matches!(refused, ReachError::Known(KnownError::OtherKey { .. })), "{refused}");
    // What the file names counts, whatever was pinned.
    let named = info(&format!("{at} {}", tracker.peer_id()));
    let known = KnownTrackers::open(dir.path(), &named, None).unwrap();
    assert_eq!(known.dial(&here, named.tracker(1).unwrap()).await.unwrap(), tracker.peer_id());
    let wrong = info(&format!("{at} {}", Identity::generate().peer_id()));
    let known = KnownTrackers::open(dir.path(), &wrong, None).unwrap();
    let refused = known.dial(&here, wrong.tracker(1).unwrap()).await.unwrap_err();
    assert!(matches!(refused, ReachError::Dial(_)), "{refused}");
    here.shutdown().await;
    there.shutdown().await;
}
