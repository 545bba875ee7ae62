//! Texts that users, operators and strangers write: files of settings, names, and Metalinks.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use shoal_common::names::{self, NodeName, Skeleton, is_later};
use shoal_common::storage::MAX_STORE_SERVERS;
use shoal_common::vouching::Pins;
use shoal_common::{FileName, GroupName, PeerId, TrackerInfo, UserName};
use shoal_dfs::conf::Conf;
use shoal_http::metalink::{self, MetalinkFile};

fn text(bytes: &[u8], look: impl FnOnce(&str)) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        look(text);
    }
}

/// Whether it is one component of a path.
fn is_component(name: &FileName) -> bool {
    let mut components = Path::new(name.as_str()).components();
    matches!(components.next(), Some(Component::Normal(_))) && components.next().is_none()
}

/// `tracker_info.txt`, `known_trackers`, and peer ids. What is read is read again from what is written.
pub fn tracker_info(bytes: &[u8]) {
    text(bytes, |text| {
        if let Ok(info) = TrackerInfo::parse(text) {
            for (_, line) in info.iter() {
                let written = line.peer_id.map_or_else(|| line.to_string(), |key| line.with_key(key));
                let again =
                    TrackerInfo::parse(&written).unwrap_or_else(|error| panic!("{written:?}: {error}"));
                assert_eq!(again.tracker(1), Some(line));
            }
        }
        if let Ok(pins) = Pins::parse(text) {
            let written = pins.to_string();
            assert_eq!(Pins::parse(&written).map(|pins| pins.to_string()), Ok(written));
        }
        if let Ok(id) = text.parse::<PeerId>() {
            assert_eq!(id.to_string(), text);
        }
    });
}

/// `dfs.conf`: servers have different names and addresses.
pub fn conf(bytes: &[u8]) {
    text(bytes, |text| {
        let Ok(conf) = Conf::parse(text, Path::new("folder")) else { return };
        assert!((1..=MAX_STORE_SERVERS).contains(&conf.servers.len()));
        let names: BTreeSet<_> = conf.servers.iter().map(|server| &server.name).collect();
        let places: BTreeSet<_> = conf.servers.iter().map(|server| (&server.host, server.port)).collect();
        assert_eq!((names.len(), places.len()), (conf.servers.len(), conf.servers.len()));
    });
}

/// Names of users, groups, storage nodes and files.
pub fn names(bytes: &[u8]) {
    text(bytes, |text| {
        if let Ok(name) = UserName::create(text) {
            assert!(!name.as_str().chars().any(|c| c.is_control()));
            assert_eq!(UserName::create(name.as_str()).as_ref().map(UserName::as_str), Ok(name.as_str()));
            assert!(names::is_same(text, name.as_str()) && Skeleton::of(text).is_own(name.as_str()));
            let lost = name.renamed(&[0xab; 16]);
            assert_eq!(UserName::refer(lost.as_str()).as_ref(), Ok(&lost));
            assert!(lost.is_renamed() && UserName::create(lost.as_str()).is_err());
        }
        let key = Skeleton::of(text).key().len();
        assert!(key <= 255 && (key > 0 || text.is_empty()));
        let _ = (GroupName::refer(text), NodeName::create(text), is_later(text));
        if let Ok(name) = FileName::refer(text) {
            assert!(is_component(&name));
            let shown = names::shown(name.as_str());
            assert!(!shown.chars().any(char::is_control) && names::shown(&shown) == shown, "{shown:?}");
            assert_eq!(FileName::typed(&shown).as_ref().map(FileName::as_str), Ok(name.as_str()));
            assert!(is_component(&name.renamed(&[0xab; 16])));
        }
    });
}

/// Metalinks: whatever names they have are safe, and what is read is read again from what is written.
pub fn metalink(bytes: &[u8]) {
    let Ok(files) = metalink::parse(bytes) else { return };
    for MetalinkFile { folder, name, .. } in &files {
        assert!(is_component(name) && folder.iter().all(is_component));
        assert!(!name.as_str().starts_with('.'), "{name:?}");
    }
    let written = metalink::write(&files);
    let again = metalink::parse(written.as_bytes()).unwrap_or_else(|error| panic!("{written}: {error}"));
    assert_eq!(again.iter().map(MetalinkFile::path).collect::<Vec<_>>(), paths(&files));
}

fn paths(files: &[MetalinkFile]) -> Vec<String> {
    files.iter().map(MetalinkFile::path).collect()
}
