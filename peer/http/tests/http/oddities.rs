//! Servers that answer in ways of their own, as many do: `fetch` gets from them what curl gets.

use std::io::{BufRead, BufReader};
use std::process::Command;
use std::time::{Duration, Instant};

use shoal_common::Sha1;
use shoal_tests::{Mount, Terminal, root_or_skip};

use crate::support::{
    Lab, MIB, Manners, assert_content, fetch, fetch_command, finish, names_in, random, until,
};

fn odd(manners: Manners) -> Manners {
    Manners { untagged: true, ..manners }
}

#[test]
fn a_server_that_dislikes_ranges_is_asked_without() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    for refusal in ["416 No", "403 Forbidden", "400 Bad", "501 Not Implemented", "405 No"] {
        for size in [0, 1, 300_000] {
            let bytes = random(size, 61);
            let lab = Lab::start(
                &bytes,
                odd(Manners { refuses_ranges: Some(refusal.into()), ..Manners::default() }),
            );
            fetch(&[lab.url("f"), "-o".into(), out.to_str().unwrap().into()]).succeeded();
            assert_content(&out, &bytes);
        }
    }
}

#[test]
fn a_file_of_unknown_size_comes_as_one_stream() {
    let folder = tempfile::tempdir().unwrap();
    let (out, to) = (folder.path().join("f"), folder.path().to_str().unwrap().to_owned());
    for size in [0, 1, 2 * MIB + 7] {
        let bytes = random(size, 62);
        let sizeless = || odd(Manners { sizeless: true, no_ranges: true, ..Manners::default() });
        let (one, two) = (Lab::start(&bytes, sizeless()), Lab::start(&bytes, sizeless()));
        let sha1 = Sha1::of(&bytes).to_string();
        let urls = vec![one.url("f"), two.url("f"), "-o".into(), to.clone()];
        let ended = fetch(&[&urls[..], &["--sha1".into(), sha1, "--json".into()]].concat());
        let end = ended.succeeded().json();
        assert_eq!(
            (end["size"].as_u64(), end["verified"].as_bool()),
            (Some(size as u64), Some(true)),
            "{end}"
        );
        assert_content(&out, &bytes);
        // Nor does it replace anything.
        fetch(&urls).failed_saying("--overwrite");
        let wrong = fetch(&[&urls[..], &["--overwrite".into(), "--sha1".into(), "0".repeat(40)]].concat());
        wrong.failed_saying("nothing of it is kept");
        assert_content(&out, &bytes);
        fetch(&[&urls[..], &["--overwrite".into()]].concat()).succeeded();
        std::fs::remove_file(&out).unwrap();
        assert!(names_in(folder.path()).is_empty(), "{:?}", names_in(folder.path()));
    }
}

#[test]
fn a_stream_that_breaks_off_is_begun_again_at_another_server() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(2 * MIB, 63));
    let sizeless = odd(Manners { sizeless: true, no_ranges: true, ..Manners::default() });
    let breaking = Lab::start(&bytes, Manners { gone_after: Some(MIB as u64), ..sizeless.clone() });
    let whole = Lab::start(&bytes, sizeless);
    let out = folder.path().join("out");
    fetch(&[breaking.url("f"), whole.url("f"), "-o".into(), out.to_str().unwrap().into()]).succeeded();
    assert_content(&out, &bytes);
    assert_eq!(names_in(folder.path()), ["out"]);
}

#[test]
fn a_size_that_one_answer_does_not_give_is_looked_for_in_others() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(300_000, 64));
    let out = folder.path().join("out");
    let to = out.to_str().unwrap().to_owned();
    // It gives parts, and no total; another server knows the size.
    let sizeless = Lab::start(&bytes, odd(Manners { sizeless: true, ..Manners::default() }));
    let other = Lab::start(&bytes, odd(Manners::default()));
    let ended = fetch(&[sizeless.url("f"), other.url("f"), "-o".into(), to, "--json".into()]);
    assert_eq!(ended.succeeded().json()["sources"].as_array().unwrap().len(), 2, "{ended:?}");
    assert_content(&out, &bytes);
}

#[test]
fn a_size_that_is_too_small_cuts_nothing_off() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(200_000, 67));
    let out = folder.path().join("out");
    let to = out.to_str().unwrap().to_owned();
    for (says, no_ranges) in [(20, true), (20, false), (199_999, true), (199_999, false)] {
        let manners = Manners { sizeless: true, no_ranges, head_says: Some(says), ..Manners::default() };
        let lab = Lab::start(&bytes, odd(manners));
        let ended = fetch(&[lab.url("f"), "-o".into(), to.clone(), "--json".into()]);
        assert_eq!(ended.succeeded().json()["size"], 200_000, "{says}, {no_ranges}: {ended:?}");
        assert_content(&out, &bytes);
        assert_eq!(names_in(folder.path()), ["out"]);
        std::fs::remove_file(&out).unwrap();
    }
    // The right size is used as before.
    let manners = Manners { sizeless: true, no_ranges: true, head_says: Some(200_000), ..Manners::default() };
    let lab = Lab::start(&bytes, odd(manners));
    let ended = fetch(&[lab.url("f"), "-o".into(), to, "--json".into()]);
    assert_eq!(ended.succeeded().json()["sources"].as_array().unwrap().len(), 1, "{ended:?}");
    assert_content(&out, &bytes);
}

#[test]
fn a_stream_that_always_breaks_off_at_the_same_place_ends_and_says_why() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(2 * MIB, 68));
    let manners =
        Manners { sizeless: true, no_ranges: true, breaks_at: Some(MIB as u64), ..Manners::default() };
    let lab = Lab::start(&bytes, odd(manners));
    let out = folder.path().join("out");
    let arguments =
        [lab.url("f"), "-o".into(), out.to_str().unwrap().into(), "--retry-time".into(), "2".into()];
    let ended = fetch(&arguments);
    ended.failed_saying("no server sent all of the file");
    assert_eq!(ended.stderr.matches("begun again").count(), 1, "{ended:?}");
    assert!(names_in(folder.path()).is_empty(), "{:?}", names_in(folder.path()));
}

#[test]
fn a_stream_that_is_terminated_leaves_nothing() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(2 * MIB, 69));
    let sizeless = Manners { sizeless: true, no_ranges: true, ..Manners::default() };
    let lab = Lab::start(&bytes, odd(Manners { silent_after: Some(MIB as u64), ..sizeless }));
    let out = folder.path().join("out");
    let child = fetch_command(&[lab.url("f"), "-o".into(), out.to_str().unwrap().into()]).spawn().unwrap();
    until("it receives", || lab.served() >= MIB as u64 && !names_in(folder.path()).is_empty());
    let terminated = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(terminated.success());
    finish(child).failed_saying("nothing is kept");
    assert!(names_in(folder.path()).is_empty(), "{:?}", names_in(folder.path()));
}

#[test]
fn a_stream_waits_for_space_and_says_what_is_lacking() {
    if !root_or_skip("a_stream_waits_for_space_and_says_what_is_lacking") {
        return;
    }
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(2 * MIB, 70));
    let sizeless = Manners { sizeless: true, no_ranges: true, ..Manners::default() };
    let lab = Lab::start(&bytes, odd(sizeless));
    let mount = Mount::new(&folder.path().join("small"), "size=3m");
    let ballast = mount.path().join("ballast");
    std::fs::write(&ballast, vec![1; 2 * MIB]).unwrap();
    let out = mount.path().join("out");
    let with = |seconds: &str| {
        let fetch = fetch_command(&[&lab.url("f"), "-o", out.to_str().unwrap(), "--retry-time", seconds]);
        { fetch }.spawn().unwrap()
    };
    let ended = finish(with("1"));
    ended.failed_saying("no space left on the drive").failed_saying("fetch it again");
    assert_eq!(names_in(mount.path()), ["ballast"]);
    // Room is made while it waits.
    let mut child = with("60");
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("trying again for 60 s")));
    std::fs::remove_file(&ballast).unwrap();
    assert!(child.wait().unwrap().success());
    assert_content(&out, &bytes);
}

#[test]
fn a_streams_progress_claims_no_size() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(MIB, 71));
    let sizeless = Manners { sizeless: true, no_ranges: true, ..Manners::default() };
    let lab = Lab::start(&bytes, odd(Manners { block_time: Duration::from_millis(20), ..sizeless }));
    let out = folder.path().join("out");
    let mut terminal = Terminal::start(&fetch_command(&[&lab.url("f"), "-o", out.to_str().unwrap()]));
    terminal.expect("KiB/s");
    assert_eq!(terminal.wait(), 0);
    let shown = terminal.text();
    assert!(!shown.contains('%') && !shown.contains("of 0 B"), "{shown}");
}

#[test]
fn thinking_is_not_stalling() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(MIB, 65));
    let out = folder.path().join("out");
    let to = out.to_str().unwrap().to_owned();
    let thinks = || odd(Manners { thinks: Duration::from_secs(6), ..Manners::default() });
    let thinking = Lab::start(&bytes, thinks());
    fetch(&[thinking.url("f"), "-o".into(), to.clone()]).succeeded();
    assert_content(&out, &bytes);
    // A faster server does not wait for it.
    let (thinking, quick) = (Lab::start(&bytes, thinks()), Lab::start(&bytes, odd(Manners::default())));
    let started = Instant::now();
    fetch(&[thinking.url("f"), quick.url("f"), "-o".into(), to]).succeeded();
    // The first question takes six seconds, and the answers to others would take as much again.
    assert!(started.elapsed() < Duration::from_secs(11), "{:?}", started.elapsed());
    assert_content(&out, &bytes);
}

#[test]
fn what_is_called_coded_is_saved_byte_for_byte() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(300_000, 66));
    let to = folder.path().to_str().unwrap().to_owned();
    for (coding, ranges) in [("x-gzip", true), ("gzip", true), ("gzip", false), ("br", true)] {
        let manners = Manners { coding: Some(coding.into()), no_ranges: !ranges, ..Manners::default() };
        let lab = Lab::start(&bytes, odd(manners));
        let ended = fetch(&[lab.url("a.tar.gz"), "-o".into(), to.clone(), "--overwrite".into()]);
        assert!(ended.succeeded().stderr.contains(&format!("coded as {coding}")), "{ended:?}");
        assert_content(&folder.path().join("a.tar.gz"), &bytes);
    }
}
