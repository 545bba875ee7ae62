//! Under which names `fetch` puts files: one that the user typed is replaced, one that the network chose never is, and that
//! is never hidden, no other folder's, and none of our own.

use std::path::Path;
use std::time::Duration;

use shoal_common::Sha1;

use crate::support::{
    Ended, Lab, MIB, Manners, PIECE, Process, assert_content, fetch_command, finish, names_in, ports,
    publishing, random, until, with,
};

/// `fetch` with these arguments, run in a folder.
fn fetch_in(folder: &Path, arguments: &[String]) -> Ended {
    finish(fetch_command(arguments).current_dir(folder).spawn().unwrap())
}

/// A server that publishes digests and calls the file so.
fn calling_it(name: &str) -> Manners {
    Manners { name: Some(name.into()), ..publishing() }
}

/// A Metalink of the lab's file, in a folder of its own.
fn metalink(folder: &Path, lab: &Lab, name: &str, bytes: &[u8]) -> String {
    let path = folder.join("of.meta4");
    let text = format!(
        "<metalink xmlns=\"urn:ietf:params:xml:ns:metalink\"><file name=\"{name}\"><hash type=\"sha-1\">{}</hash>\
         <url>{}</url></file></metalink>",
        Sha1::of(bytes),
        lab.url("x")
    );
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_the_network_calls_a_file_replaces_nothing_and_is_complete_at_once_where_it_is_the_same() {
    let (bytes, elsewhere) = (random(300_000, 51), tempfile::tempdir().unwrap());
    let plain = Lab::start(&bytes, Manners::default());
    let named = Lab::start(&bytes, calling_it("film.mkv"));
    let redirecting =
        Lab::start(&bytes, Manners { redirects_to: Some(plain.url("film.mkv")), ..Manners::default() });
    let sha1 = Sha1::of(&bytes).to_string();
    let ways: [Vec<String>; 4] = [
        vec![plain.url("film.mkv"), "--sha1".into(), sha1.clone()],
        ports(&[&named]),
        vec![metalink(elsewhere.path(), &plain, "film.mkv", &bytes)],
        vec![redirecting.url("film.mkv?x"), "--sha1".into(), sha1],
    ];
    for way in ways {
        let folder = tempfile::tempdir().unwrap();
        let film = folder.path().join("film.mkv");
        std::fs::write(&film, b"mine").unwrap();
        for more in [&[][..], &["-r"], &["-o", "."], &["-r", "-o", "./"]] {
            let ended = fetch_in(folder.path(), &with(way.clone(), more));
            ended
                .failed_saying("film.mkv exists already")
                .failed_saying("--overwrite")
                .failed_saying("-o FILE");
        }
        assert_content(&film, b"mine");
        assert_eq!(names_in(folder.path()), ["film.mkv"], "{way:?}");
        fetch_in(folder.path(), &with(way.clone(), &["--overwrite"])).succeeded();
        assert_content(&film, &bytes);
        let served = plain.served() + named.served();
        let again = fetch_in(folder.path(), &way);
        assert!(again.succeeded().stdout.contains("complete already"), "{again:?}");
        // The first byte is asked for to learn what there is.
        assert!(plain.served() + named.served() <= served + 1, "{way:?}");
    }
}

#[test]
fn what_is_no_file_is_not_replaced_either() {
    let (bytes, folder) = (random(1_000, 52), tempfile::tempdir().unwrap());
    let lab = Lab::start(&bytes, Manners::default());
    std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    for name in ["link", "folder"] {
        fetch_in(folder.path(), &[lab.url(name)]).failed_saying(&format!("{name} exists already (a {name})"));
    }
    assert_eq!(names_in(folder.path()), ["folder", "link"]);
}

#[test]
fn a_name_that_the_user_typed_is_replaced_after_the_check() {
    let (bytes, folder) = (random(300_000, 53), tempfile::tempdir().unwrap());
    let (named, plain) = (Lab::start(&bytes, calling_it(".bashrc")), Lab::start(&bytes, Manners::default()));
    let film = folder.path().join("film.mkv");
    let typed = |way: Vec<String>| {
        std::fs::write(&film, b"mine").unwrap();
        let wrong = "0".repeat(40);
        let refused = fetch_in(folder.path(), &with(way.clone(), &["--sha1", &wrong]));
        assert_ne!(refused.code, Some(0), "{refused:?}");
        assert_content(&film, b"mine");
        fetch_in(folder.path(), &way).succeeded();
        assert_content(&film, &bytes);
    };
    typed(with(ports(&[&named]), &["-o", "film.mkv"]));
    typed(vec![plain.url("other"), "-o".into(), "film.mkv".into()]);
    // Whatever the server calls it.
    typed(with(ports(&[&named]), &["--file", "film.mkv"]));
    typed(with(ports(&[&named]), &["--file", "some/folder/film.mkv", "-o", "."]));
    assert_eq!(names_in(folder.path()), ["film.mkv"]);
}

#[test]
fn a_name_from_the_network_is_never_hidden_and_never_one_of_ours() {
    let bytes = random(1_000, 54);
    let plain = Lab::start(&bytes, Manners::default());
    for (name, url, saved) in [
        (".bashrc", ".bashrc", "_bashrc"),
        ("..profile", "%2e%2eprofile", "_profile"),
        ("film.mkv.pstate", "film.mkv.pstate", "film.mkv.pstate_"),
        ("film.mkv.part", "film.mkv.part", "film.mkv.part_"),
        ("a&#9;b", "a%09b", "a_b"),
        ("con.txt", "con.txt", "_con.txt"),
    ] {
        let (elsewhere, named) = (tempfile::tempdir().unwrap(), Lab::start(&bytes, calling_it(name)));
        let ways =
            [vec![plain.url(url)], ports(&[&named]), vec![metalink(elsewhere.path(), &plain, name, &bytes)]];
        for way in ways {
            let folder = tempfile::tempdir().unwrap();
            for mine in [".bashrc", "..profile", ".profile", "film.mkv.pstate", "film.mkv.part"] {
                std::fs::write(folder.path().join(mine), b"mine").unwrap();
            }
            let before = names_in(folder.path()).len();
            let ended = fetch_in(folder.path(), &way);
            ended.succeeded();
            assert_content(&folder.path().join(saved), &bytes);
            assert_eq!(names_in(folder.path()).len(), before + 1, "{way:?}");
            assert_content(&folder.path().join(".bashrc"), b"mine");
        }
    }
}

#[test]
fn long_names_are_cut_and_typed_ones_are_kept() {
    let (bytes, folder) = (random(1_000, 55), tempfile::tempdir().unwrap());
    let lab = Lab::start(&bytes, Manners::default());
    fetch_in(folder.path(), &[lab.url(&format!("{}.tar.gz", "x".repeat(300)))]).succeeded();
    let [name] = &names_in(folder.path())[..] else { panic!("{:?}", names_in(folder.path())) };
    assert!(name.len() <= 255 && name.ends_with("xx.tar.gz"), "{name}");
    let typed = format!("{}.bin", "é".repeat(125));
    assert_eq!(typed.len(), 254);
    fetch_in(folder.path(), &[lab.url("f"), "-o".into(), typed.clone()]).succeeded();
    assert_content(&folder.path().join(typed), &bytes);
    assert_eq!(names_in(folder.path()).len(), 2);
}

#[test]
fn what_appears_under_the_name_during_the_download_stays_and_the_download_goes_on_later() {
    let (bytes, folder) = (random(4 * MIB, 56), tempfile::tempdir().unwrap());
    let slow = Manners { block_time: Duration::from_millis(8), ..Manners::default() };
    let lab = Lab::start(&bytes, Manners { publishes: Some(PIECE), ..slow });
    let arguments = with(ports(&[&lab]), &["-i", "0"]);
    let running = fetch_command(&arguments).current_dir(folder.path()).spawn().unwrap();
    until("it has begun", || lab.served() > MIB as u64);
    let film = folder.path().join("file.bin");
    std::fs::write(&film, b"mine").unwrap();
    finish(running).failed_saying("appeared there during the download").failed_saying("-r --overwrite");
    assert_content(&film, b"mine");
    let served = lab.served();
    fetch_in(folder.path(), &with(arguments, &["-r", "--overwrite"])).succeeded();
    assert_content(&film, &bytes);
    assert_eq!((lab.served(), names_in(folder.path())), (served, vec!["file.bin".to_owned()]));
}

#[test]
fn an_unfinished_download_of_ours_is_nothing_in_the_way() {
    let (bytes, folder) = (random(4 * MIB, 57), tempfile::tempdir().unwrap());
    let lab = Lab::start(&bytes, Manners { block_time: Duration::from_millis(8), ..publishing() });
    let mut first = Process(fetch_command(&ports(&[&lab])).current_dir(folder.path()).spawn().unwrap());
    until("a part is there", || lab.served() > MIB as u64);
    first.kill();
    let end = fetch_in(folder.path(), &with(ports(&[&lab]), &["-r", "--json"]));
    assert!(end.succeeded().json()["resumed"].as_u64().unwrap() > 0, "{end:?}");
    assert_content(&folder.path().join("file.bin"), &bytes);
}
