//! Servers that hold only a part of the file: of each what it has, rarest first, until all of it is there.

use std::ops::Range;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use shoal_common::Sha1;

use crate::support::{
    Lab, MIB, Manners, PIECE, Process, Server, assert_content, fetch, fetch_command, finish, names_in, ports,
    publishing, random, run, until, with,
};

fn holding(part: Range<usize>) -> Manners {
    Manners { holds: Some(part.start as u64..part.end as u64), ..publishing() }
}

/// An unfinished download of the file, with these bytes of it, in a folder of its own.
fn part_of(bytes: &std::sync::Arc<Vec<u8>>, part: Range<usize>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::start(bytes, holding(part));
    let out = folder.path().join("film.mkv");
    let ended = fetch(&with(ports(&[&lab]), &["-o", out.to_str().unwrap(), "--retry-time", "1"]));
    ended.failed_saying("no server has the last").failed_saying("continue with -r");
    folder
}

fn fetch_from(servers: &[&Server], out: &Path, more: &[&str]) -> Child {
    let ports = servers.iter().map(|server| server.ports[0].to_string());
    let arguments: Vec<String> = std::iter::once("-p".to_owned()).chain(ports).collect();
    fetch_command(&with(with(arguments, &["-o", out.to_str().unwrap()]), more)).spawn().unwrap()
}

#[test]
fn the_rarest_pieces_come_first() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(48 * MIB, 91));
    // Requests grow with the rate: the file is large enough for many.
    let paced = |manners| Manners { block_time: Duration::from_millis(1), ..manners };
    let one = Lab::start(&bytes, paced(holding(0..32 * MIB)));
    let two = Lab::start(&bytes, paced(holding(16 * MIB..48 * MIB)));
    let three = Lab::start(&bytes, paced(holding(16 * MIB..32 * MIB)));
    let out = folder.path().join("out");
    let ended = fetch(&with(ports(&[&one, &two, &three]), &["-o", out.to_str().unwrap(), "--json"]));
    assert_eq!(ended.succeeded().json()["verified"], true, "{ended:?}");
    assert_content(&out, &bytes);
    // What only one of them has is asked for before what all have, but for what was asked before the others were known.
    for (lab, rare) in [(&one, 0..16 * MIB as u64), (&two, 32 * MIB as u64..48 * MIB as u64)] {
        let asked = lab.asked();
        let count = asked.iter().filter(|first| rare.contains(first)).count();
        let early = asked.iter().take(count).filter(|first| rare.contains(first)).count();
        assert!(count > 4 && early + 2 >= count, "{early} of {count} rare parts first: {asked:?}");
    }
}

#[test]
fn three_unfinished_downloads_are_served_and_make_the_whole() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(6 * MIB, 92));
    let parts =
        [part_of(&bytes, 3 * MIB..6 * MIB), part_of(&bytes, 0..2 * MIB), part_of(&bytes, MIB..4 * MIB)];
    // By the file's own name, by the partial file's, and as one of a folder.
    let [one, two, three] = parts.each_ref().map(tempfile::TempDir::path);
    let one = Server::of_file(&one.join("film.mkv"), 1);
    let two = Server::of_file(&two.join("film.mkv.part"), 1);
    let three = Server::start(&["--root", three.to_str().unwrap()], 1);
    let out = folder.path().join("out");
    let ended = finish(fetch_from(&[&one, &two, &three], &out, &["--json"]));
    let end = ended.succeeded().json();
    assert_eq!((end["verified"].as_bool(), &end["sha1"]), (Some(true), &Sha1::of(&bytes).to_string().into()));
    assert_content(&out, &bytes);
    // One that does not have all of it says so, to other programs too.
    let said = |url: String| {
        let out = run("curl", &["-s", "-i", "-r", "0-99", &url]);
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let refused = said(one.url("film.mkv"));
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("not here yet"), "{refused}");
    assert!(refused.contains("shoal-have: film.mkv.have") && refused.contains("retry-after: 2"), "{refused}");
    assert!(said(two.url("film.mkv")).starts_with("HTTP/1.1 206"));
    let have = said(one.url("film.mkv.have"));
    assert!(have.ends_with(&format!("bytes {}-{}/{}\n", 3 * MIB, 6 * MIB - 1, 6 * MIB)), "{have}");
    // The files of the download itself are not served, and the folder shows what it will be.
    for own in ["film.mkv.part", "film.mkv.pstate", "film.mkv.pinfo"] {
        assert!(said(three.url(own)).starts_with("HTTP/1.1 404"), "{own}");
    }
    let page = said(three.url(""));
    assert!(page.contains("still being downloaded") && !page.contains(".part"), "{page}");
    // Without the others it ends, and says who has what.
    let ended = finish(fetch_from(&[&one, &two], &folder.path().join("other"), &["--retry-time", "1"]));
    ended.failed_saying(&format!("no server has the last {MIB} bytes"));
    ended.failed_saying("has 48 of 96 pieces").failed_saying("has 32 of 96 pieces");
    assert_eq!(PIECE, 65_536);
}

#[test]
fn a_download_under_way_is_served_as_it_grows_and_when_it_is_finished() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = random(4 * MIB, 93);
    // About five seconds; without piece digests a checkpoint is made each second.
    let slow = Manners { block_time: Duration::from_millis(20), ..Manners::default() };
    let origin = Lab::start(&bytes, slow);
    let (first, second) = (folder.path().join("film.mkv"), elsewhere.path().join("film.mkv"));
    let sha1 = Sha1::of(&bytes).to_string();
    let arguments = [&origin.url("film.mkv"), "-o", first.to_str().unwrap(), "--sha1", &sha1];
    let downloading = Process(fetch_command(&arguments).spawn().unwrap());
    until("it has begun", || first.with_file_name("film.mkv.pinfo").exists());
    let server = Server::of_file(&first, 1);
    let ended = finish(fetch_from(&[&server], &second, &["--json"]));
    let end = ended.succeeded().json();
    assert_eq!(end["sha1"], sha1);
    assert_content(&second, &bytes);
    until("the first is complete", || first.exists());
    assert_content(&first, &bytes);
    assert_eq!((names_in(folder.path()).len(), names_in(elsewhere.path()).len()), (1, 1));
    // It is served on, now as a whole.
    let again = fetch(&[server.url("film.mkv"), "-o".into(), second.to_str().unwrap().into()]);
    assert!(again.succeeded().stdout.contains("verified by"), "{again:?}");
    assert!(origin.served() < 5 * MIB as u64, "{}", origin.served());
    drop(downloading);
}

#[test]
fn a_download_that_was_killed_is_served_and_finished_by_another() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = random(4 * MIB, 94);
    let (whole, sha1) = (Lab::start(&bytes, Manners::default()), Sha1::of(&bytes).to_string());
    let slow = Lab::start(&bytes, Manners { block_time: Duration::from_millis(20), ..Manners::default() });
    let first = folder.path().join("film.mkv");
    let arguments = [&slow.url("film.mkv"), "-o", first.to_str().unwrap(), "--sha1", &sha1];
    let mut downloading = Process(fetch_command(&arguments).spawn().unwrap());
    until("some of it is there", || slow.served() > 2 * MIB as u64);
    downloading.kill();
    let server = Server::of_file(&first, 1);
    let second = elsewhere.path().join("film.mkv");
    let both = [server.url("film.mkv"), whole.url("film.mkv")];
    let arguments = [&both[0], &both[1], "-o", second.to_str().unwrap(), "--sha1", &sha1];
    fetch(&arguments).succeeded();
    assert_content(&second, &bytes);
}

#[test]
fn one_that_lies_about_what_it_has_is_set_aside() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(4 * MIB, 95));
    let lies = Manners { says_it_holds: Some(0..4 * MIB as u64), ..holding(0..MIB) };
    let (liar, honest) = (Lab::start(&bytes, lies), Lab::start(&bytes, publishing()));
    let out = folder.path().join("out");
    let to = ["-o", out.to_str().unwrap(), "--json"];
    fetch(&with(ports(&[&liar, &honest]), &to)).succeeded();
    assert_content(&out, &bytes);
    std::fs::remove_file(&out).unwrap();
    let ended = fetch(&with(ports(&[&liar]), &to));
    ended.failed_saying("says that it has parts which it does not send");
}

#[test]
fn what_other_servers_refuse_is_taken_from_those_that_have_it() {
    let bytes = random(6 * MIB, 96);
    for status in ["416", "404"] {
        let folder = tempfile::tempdir().unwrap();
        let lacks = |part: Range<u64>| Manners { lacks: vec![part], lacks_as: status.into(), ..publishing() };
        let one = Lab::start(&bytes, lacks(MIB as u64..4 * MIB as u64));
        let two = Lab::start(&bytes, lacks(4 * MIB as u64..6 * MIB as u64));
        let out = folder.path().join("out");
        let ended = fetch(&with(ports(&[&one, &two]), &["-o", out.to_str().unwrap(), "--json"]));
        let end = ended.succeeded().json();
        assert_content(&out, &bytes);
        for source in end["sources"].as_array().unwrap() {
            assert!(matches!(source["state"].as_str().unwrap(), "active" | "idle" | "waiting"), "{end}");
        }
    }
}

#[test]
fn a_wrong_file_is_fetched_once_more_from_others_and_then_fails_clearly() {
    let bytes = random(2 * MIB, 97);
    let sha1 = Sha1::of(&bytes).to_string();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let to = ["-o", out.to_str().unwrap(), "--sha1", &sha1, "--json"];
    let plain = || Manners { untagged: true, ..Manners::default() };
    let wrong = || Manners { wrong: Some(1_000_000..1_000_001), ..plain() };
    let start = |manners| Lab::start(&bytes, manners);
    // Slower, so that it has the smaller part in the first run.
    let (bad, good) = (start(wrong()), start(Manners { block_time: Duration::from_millis(2), ..plain() }));
    let ended = fetch(&with(vec![bad.url("f"), good.url("f")], &to));
    let end = ended.succeeded().json();
    assert_eq!((end["verified"].as_bool(), end["resumed"].as_u64()), (Some(true), Some(0)), "{end}");
    assert_content(&out, &bytes);
    std::fs::remove_file(&out).unwrap();
    // Two that are wrong: once more, and no third time.
    let (one, two) = (start(wrong()), start(wrong()));
    let ended = fetch(&with(vec![one.url("f"), two.url("f")], &to));
    ended.failed_saying("in a second run").failed_saying("nothing of it is kept");
    assert_eq!(ended.stderr.matches("once more").count(), 1, "{ended:?}");
    let sent = one.served() + two.served();
    assert!(sent < 2 * bytes.len() as u64 + MIB as u64, "{sent}");
    // One alone is named at once.
    let ended = fetch(&with(vec![one.url("f")], &to));
    ended.failed_saying(&format!("{} sent wrong bytes", one.url("f")));
    assert!(!out.exists());
}

#[test]
fn without_r_a_download_starts_again_and_says_so() {
    let bytes = random(MIB, 95);
    let folder = part_of(&bytes, 0..MIB / 2);
    let lab = Lab::start(&bytes, publishing());
    let out = folder.path().join("film.mkv");
    let ended = fetch(&with(ports(&[&lab]), &["-o", out.to_str().unwrap()]));
    assert!(ended.succeeded().stderr.contains("was unfinished and starts from the beginning"), "{ended:?}");
    assert_content(&out, &bytes);
}

#[test]
fn of_a_file_that_another_program_writes_a_download_never_says_more_than_was_there() {
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};
    let folder = tempfile::tempdir().unwrap();
    let written = folder.path().join("film.mkv.part");
    let mut file = std::fs::File::create(&written).unwrap();
    let bytes = random(8 * MIB, 96);
    file.write_all(&bytes[..MIB]).unwrap();
    let server = Server::start(&["--root", folder.path().to_str().unwrap()], 1);
    let done = AtomicBool::new(false);
    let out = folder.path().join("out");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for block in bytes[MIB..].chunks(16 * 1024) {
                file.write_all(block).unwrap();
                // A program that writes as its data come.
                std::thread::sleep(Duration::from_millis(2));
            }
            done.store(true, Ordering::Relaxed);
        });
        let arguments = [server.url("film.mkv.part"), "-o".into(), out.to_str().unwrap().into()];
        let arguments = with(arguments.to_vec(), &["--overwrite", "--retry-time", "1"]);
        while !done.load(Ordering::Relaxed) {
            let ended = fetch(&arguments);
            if ended.code == Some(0) {
                // All that was there at some moment, and nothing else.
                let got = std::fs::read(&out).unwrap();
                assert!(got.len() >= MIB && bytes.starts_with(&got), "{} bytes: {ended:?}", got.len());
            }
        }
    });
    fetch(&[server.url("film.mkv.part"), "-o".into(), out.to_str().unwrap().into()]).succeeded();
    assert_content(&out, &bytes);
}
