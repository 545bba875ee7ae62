//! Servers that give other parts than those that were asked for.

use crate::support::{Lab, MIB, Manners, assert_content, fetch, random};

/// Fetches from one server; bytes that it sent.
fn fetched(size: usize, seed: u64, manners: Manners) -> u64 {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(size, seed));
    let lab = Lab::start(&bytes, Manners { untagged: true, ..manners });
    let out = folder.path().join("out");
    fetch(&[lab.url("f"), "-o".into(), out.to_str().unwrap().into()]).succeeded();
    assert_content(&out, &bytes);
    lab.served()
}

#[test]
fn a_short_part_is_used_and_the_rest_is_asked_for() {
    for most in [60_000, 65_536, 65_537, 100_000, 1_000_003] {
        let served = fetched(2 * MIB + 7, 81, Manners { cuts_at: Some(most), ..Manners::default() });
        // The first question is for a byte.
        assert_eq!(served, 2 * MIB as u64 + 8, "cut at {most}");
    }
}

#[test]
fn a_server_that_sends_next_to_nothing_at_a_time_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::start(&random(MIB, 82), Manners { cuts_at: Some(10), ..Manners::default() });
    let to = folder.path().join("out");
    let ended = fetch(&[&lab.url("f"), "-o", to.to_str().unwrap(), "--retry-time", "2"]);
    ended.failed_saying("sends only 10 bytes at a time");
    assert!(lab.served() < 1_000, "{}", lab.served());
}

#[test]
fn whole_blocks_are_used_as_far_as_they_were_asked_for() {
    for block in [1_000, 65_536, 100_000, 1 << 20] {
        fetched(2 * MIB + 7, 83, Manners { whole_blocks: Some(block), ..Manners::default() });
    }
}

#[test]
fn a_server_that_dislikes_long_parts_is_asked_for_shorter_ones() {
    for longest in [65_536, 300_000, 1 << 20] {
        let served = fetched(4 * MIB + 7, 84, Manners { longest_part: Some(longest), ..Manners::default() });
        assert_eq!(served, 4 * MIB as u64 + 8, "at most {longest}");
    }
}

#[test]
fn a_whole_file_that_is_called_a_part_is_read_on_in() {
    let served = fetched(2 * MIB, 85, Manners { calls_whole_a_part: true, ..Manners::default() });
    assert!(served < 3 * 2 * MIB as u64, "{served}");
}

#[test]
fn a_range_that_is_written_as_in_a_request_is_understood() {
    fetched(300_000, 86, Manners { writes_range_with_equals: true, ..Manners::default() });
}

#[test]
fn a_server_that_does_not_say_which_part_it_sends_is_asked_for_the_whole_file() {
    let served = fetched(2 * MIB, 87, Manners { omits_range: true, ..Manners::default() });
    assert!(served < 3 * 2 * MIB as u64, "{served}");
}
