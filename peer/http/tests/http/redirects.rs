//! Servers that redirect to targets which expire: the URL that was given is asked again.

use std::time::{Duration, Instant};

use crate::support::{
    Lab, MIB, Manners, Node, Process, Signs, assert_content, fetch, fetch_command, free_port, names_in,
    random, until,
};

fn signing(signs: Signs) -> Manners {
    Manners { untagged: true, signs: Some(signs), cuts_at: Some(200_000), ..Manners::default() }
}

#[test]
fn a_target_that_expires_is_asked_for_again() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(MIB, 71));
    let out = folder.path().join("out");
    let statuses =
        ["403 Forbidden", "410 Gone", "401 No", "404 No", "400 Expired", "416 No", "451 No", "login"];
    for then in statuses {
        for (good_for, hops, cookie) in [(1, 0, false), (2, 4, true)] {
            let signs = Signs { good_for, hops, cookie, ..Signs::until(then) };
            let lab = Lab::start(&bytes, signing(signs));
            let ended = fetch(&[lab.url("f"), "-o".into(), out.to_str().unwrap().into()]);
            ended.succeeded();
            assert_content(&out, &bytes);
            // What came is not asked for again.
            assert_eq!(lab.served(), MIB as u64 + 1, "{then}");
            std::fs::remove_file(&out).unwrap();
        }
    }
}

#[test]
fn a_target_that_is_good_for_many_questions_is_asked_directly() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(MIB, 72));
    let out = folder.path().join("out");
    let lab = Lab::start(&bytes, signing(Signs { good_for: u64::MAX, ..Signs::until("403 No") }));
    fetch(&[lab.url("f"), "-o".into(), out.to_str().unwrap().into()]).succeeded();
    assert_content(&out, &bytes);
    assert_eq!(lab.signed(), 1);
}

#[test]
fn a_target_may_move_to_another_host_and_hosts_may_go() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(4 * MIB, 73));
    let out = folder.path().join("out");
    let slow = Manners { untagged: true, block_time: Duration::from_millis(2), ..Manners::default() };
    let (one, two) = (Lab::start(&bytes, slow.clone()), Lab::start(&bytes, slow));
    let signs = Signs { to: vec![two.port, one.port], ..Signs::until("") };
    let front = Lab::start(&bytes, signing(signs));
    let mut running =
        Process(fetch_command(&[&front.url("f"), "-o", out.to_str().unwrap()]).spawn().unwrap());
    until("the first host sends", || one.served() > MIB as u64);
    one.set_down(true);
    until("the other host takes over", || two.served() > 2);
    assert!(running.0.wait().unwrap().success());
    assert_content(&out, &bytes);
}

#[test]
fn nodes_behind_targets_that_are_good_for_one_question_are_joined() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(MIB, 77));
    let out = folder.path().join("out");
    let day = Some("Mon, 01 Jan 2024 00:00:00 GMT".to_owned());
    let nodes = ["a", "b", "a", "a", "b"];
    let nodes = nodes.map(|etag| Node { etag: Some(etag.into()), modified: day.clone(), other: false });
    for cuts_at in [2_000, 200_000] {
        let signs = signing(Signs::until("403 Forbidden"));
        let lab = Lab::start(&bytes, Manners { nodes: nodes.to_vec(), cuts_at: Some(cuts_at), ..signs });
        let ended = fetch(&[lab.url("f"), "-o".into(), out.to_str().unwrap().into()]);
        assert!(ended.succeeded().stderr.contains("2 different ETags"), "{ended:?}");
        assert_content(&out, &bytes);
    }
}

#[test]
fn a_target_that_only_says_no_ends_the_download_after_a_few_tries() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let to = out.to_str().unwrap().to_owned();
    let bytes = random(2 * MIB, 74);
    let lab = Lab::start(&bytes, signing(Signs { most: 2, ..Signs::until("403 Forbidden") }));
    let started = Instant::now();
    fetch(&[lab.url("f"), "-o".into(), to.clone()]).failed_saying("answers 403");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert!(lab.signed() < 40, "asked {} times", lab.signed());
    // What came is kept, and with -r the rest is fetched.
    let there = lab.served();
    let again = Lab::start(&bytes, signing(Signs::until("403 Forbidden")));
    let ended = fetch(&[again.url("f"), "-o".into(), to, "-r".into()]);
    ended.succeeded();
    assert_content(&out, &bytes);
    assert!(again.served() < (2 * MIB) as u64, "{} and {there}", again.served());
}

#[test]
fn a_stream_of_unknown_length_is_asked_for_where_it_was_given() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(300_000, 75));
    let out = folder.path().join("out");
    let manners = Manners { sizeless: true, no_ranges: true, ..signing(Signs::until("403 Forbidden")) };
    let lab = Lab::start(&bytes, manners);
    fetch(&[lab.url("f"), "-o".into(), out.to_str().unwrap().into()]).succeeded();
    assert_content(&out, &bytes);
    assert_eq!(names_in(folder.path()), ["out"]);
}

#[test]
fn targets_with_other_signatures_are_one_place_across_resumes_and_another_version_is_noticed() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(4 * MIB, 76));
    let out = folder.path().join("out");
    let port = free_port();
    let node = |etag: &str, date: &str, other| {
        vec![Node { etag: Some(etag.into()), modified: Some(date.into()), other }]
    };
    let day = |day: u32| format!("Mon, {day:02} Jan 2024 00:00:00 GMT");
    for (etag, date, other, done) in [
        ("a", day(1), false, true),
        ("b", day(1), false, false),
        ("a", day(2), false, false),
        ("b", day(8), true, false),
    ] {
        let slow = Duration::from_millis(8);
        let begun =
            Manners { nodes: node("a", &day(1), false), block_time: slow, ..signing(Signs::until("")) };
        let lab = Lab::start_at(port, &bytes, begun);
        let arguments = [lab.url("f"), "-o".into(), out.to_str().unwrap().into()];
        let mut first = Process(fetch_command(&arguments).spawn().unwrap());
        until("a part is there", || lab.served() > MIB as u64);
        first.kill();
        drop(lab);
        let now = Manners { nodes: node(etag, &date, other), ..signing(Signs::until("403 No")) };
        let lab = Lab::start_at(port, &bytes, now);
        let ended = fetch(&[&arguments[..], &["-r".into()]].concat());
        if done {
            ended.succeeded();
            assert_content(&out, &bytes);
            std::fs::remove_file(&out).unwrap();
        } else {
            ended.failed_saying("has changed since");
            assert!(!out.exists());
        }
        drop(lab);
    }
}
