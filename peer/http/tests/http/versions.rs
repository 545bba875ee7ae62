//! Nodes behind one address that name different validators of one file, and those that have another file.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use shoal_common::Sha1;

use crate::support::{
    Lab, MIB, Manners, Node, Process, assert_content, fetch, fetch_command, free_port, random, until,
};

const DAY: &str = "Mon, 01 Jan 2024 00:00:00 GMT";
const OTHER_DAY: &str = "Tue, 02 Jan 2024 00:00:00 GMT";

fn node(etag: &str, modified: &str) -> Node {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Node { etag: some(etag), modified: some(modified), other: false }
}

fn other(node: Node) -> Node {
    Node { other: true, ..node }
}

fn nodes(nodes: &[Node]) -> Manners {
    Manners { nodes: nodes.to_vec(), cuts_at: Some(200_000), closes: true, ..Manners::default() }
}

#[test]
fn nodes_with_one_differing_validator_are_joined_and_it_is_said() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(2 * MIB, 91));
    let out = folder.path().join("out");
    for (list, said) in [
        (vec![node("a", DAY), node("b", DAY)], "2 different"),
        (vec![node("a", DAY), node("b", DAY), node("c", DAY)], "3 different"),
        (vec![node("a", DAY), node("a", OTHER_DAY)], "2 different"),
        (vec![node("*", DAY)], "a new ETag with each answer"),
        (vec![node("a", DAY), node("", DAY)], ""),
    ] {
        let lab = Lab::start(&bytes, nodes(&list));
        let ended = fetch(&[lab.url("f"), "-o".into(), out.to_str().unwrap().into()]);
        assert!(ended.succeeded().stderr.contains(said), "{list:?}: {ended:?}");
        assert_eq!(ended.stderr.contains("one version"), !said.is_empty(), "{ended:?}");
        assert_content(&out, &bytes);
        // Samples are all that is asked for twice.
        assert!(lab.served() < 2 * MIB as u64 + 500_000, "{}", lab.served());
        std::fs::remove_file(&out).unwrap();
    }
}

#[test]
fn nodes_that_differ_in_more_or_in_content_are_not_mixed() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(2 * MIB, 92));
    let out = folder.path().join("out");
    for list in [
        vec![node("a", DAY), node("b", OTHER_DAY)],
        vec![node("a", ""), node("b", "")],
        vec![node("a", DAY), other(node("b", DAY))],
        vec![node("a", DAY), other(node("a", OTHER_DAY))],
    ] {
        let lab = Lab::start(&bytes, nodes(&list));
        let ended = fetch(&[lab.url("f"), "-o".into(), out.to_str().unwrap().into()]);
        ended.failed_saying("has another version of the file now");
        assert!(!out.exists(), "{list:?}");
    }
}

#[test]
fn a_known_digest_overrides_all_validators() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(2 * MIB, 93));
    let out = folder.path().join("out");
    let sha1 = Sha1::of(&bytes).to_string();
    for list in [vec![node("a", DAY), node("b", OTHER_DAY)], vec![node("a", ""), node("b", "")]] {
        let lab = Lab::start(&bytes, nodes(&list));
        let ended = fetch(&[&lab.url("f"), "-o", out.to_str().unwrap(), "--sha1", &sha1]);
        ended.succeeded();
        assert_content(&out, &bytes);
        std::fs::remove_file(&out).unwrap();
    }
}

#[test]
fn across_resumes_a_changed_validator_is_a_new_version_unless_it_was_joined_or_a_digest_is_known() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(6 * MIB, 94));
    let out = folder.path().join("out");
    let sha1 = Sha1::of(&bytes).to_string();
    let port = free_port();
    let (a, b, c) = (node("a", DAY), node("b", DAY), node("c", DAY));
    for (first, second, digest, done) in [
        (vec![a.clone()], vec![a.clone()], false, true),
        (vec![a.clone()], vec![b.clone()], false, false),
        (vec![a.clone()], vec![b.clone()], true, true),
        (vec![a.clone(), b.clone()], vec![b.clone()], false, true),
        (vec![a.clone(), b.clone()], vec![c.clone()], false, false),
    ] {
        let mut arguments =
            vec![format!("http://127.0.0.1:{port}/f"), "-o".into(), out.to_str().unwrap().into()];
        if digest {
            arguments.extend(["--sha1".into(), sha1.clone()]);
        }
        let slow = Manners { block_time: Duration::from_millis(25), ..nodes(&first) };
        let lab = Lab::start_at(port, &bytes, slow);
        let mut running = Process(fetch_command(&arguments).spawn().unwrap());
        // A checkpoint takes the place of the file that was begun with, in which nothing is there.
        let mut states = BTreeSet::new();
        until("some parts are known to be there", || {
            states.extend(std::fs::metadata(out.with_file_name("out.pstate")).map(|state| state.ino()));
            states.len() > 1
        });
        until("the nodes are known", || {
            let kept = std::fs::read_to_string(out.with_file_name("out.pfrom")).unwrap_or_default();
            first.len() < 2 || kept.contains("\\\"b\\\"")
        });
        running.kill();
        drop(lab);
        let lab = Lab::start_at(port, &bytes, nodes(&second));
        arguments.push("-r".into());
        let ended = fetch(&arguments);
        if done {
            ended.succeeded();
            assert_content(&out, &bytes);
            assert!(lab.served() < 6 * MIB as u64, "started again: {}", lab.served());
            std::fs::remove_file(&out).unwrap();
        } else {
            ended.failed_saying("has changed since");
            for ours in ["out.part", "out.pstate", "out.pfrom"] {
                std::fs::remove_file(out.with_file_name(ours)).unwrap();
            }
        }
    }
}

#[test]
fn mirrors_without_digests_are_put_together_only_if_their_bytes_agree() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let (bytes, changed) = (random(4 * MIB, 95), random(4 * MIB, 96));
    let mirror = |bytes, etag: &str, day: &str| {
        Lab::start(bytes, Manners { nodes: vec![node(etag, day)], ..Manners::default() })
    };
    let (one, two, liar) =
        (mirror(&bytes, "a", DAY), mirror(&bytes, "b", OTHER_DAY), mirror(&changed, "c", DAY));
    let urls = |labs: &[&Lab]| {
        let urls = labs.iter().map(|lab| lab.url("f"));
        urls.chain(["-o".into(), out.to_str().unwrap().into()]).collect::<Vec<_>>()
    };
    let ended = fetch(&urls(&[&one, &two]));
    let said = "the files of 2 servers were taken for one where the size and two sampled ranges agree";
    assert!(ended.succeeded().stderr.contains(said), "{ended:?}");
    assert_content(&out, &bytes);
    let ended = fetch(&urls(&[&liar, &one, &two]));
    assert!(ended.succeeded().stderr.contains("another file of the same size"), "{ended:?}");
    assert_content(&out, &bytes);
    fetch(&urls(&[&one, &liar])).failed_saying("different files of the same size");
    // The others do not wait for a slow one. It is compared before anything of it is used.
    let thinks =
        Manners { thinks: Duration::from_secs(3), nodes: vec![node("d", DAY)], ..Manners::default() };
    let paced = Manners { block_time: Duration::from_millis(40), ..Manners::default() };
    let (slow, quick) = (Lab::start(&changed, thinks), Lab::start(&bytes, paced));
    let ended = fetch(&urls(&[&slow, &quick]));
    assert!(ended.succeeded().stdout.contains("has another file of the same size"), "{ended:?}");
    assert_content(&out, &bytes);
}
