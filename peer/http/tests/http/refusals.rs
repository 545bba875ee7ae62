//! What `fetch` refuses, keeps to and says: places in use, files that changed, names that lead elsewhere, limits, mistakes.

use std::time::Duration;

use shoal_common::Layout;

use crate::support::{
    Lab, MIB, Manners, PIECE, Process, assert_content, fetch, fetch_command, finish, free_port, names_in,
    ports, publishing, random, until, with,
};

#[test]
fn a_second_fetch_to_the_same_place_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let lab =
        Lab::start(&random(4 * MIB, 12), Manners { block_time: Duration::from_millis(40), ..publishing() });
    let arguments = with(ports(&[&lab]), &["-o", folder.path().join("out").to_str().unwrap()]);
    let mut first = Process(fetch_command(&arguments).spawn().unwrap());
    until("the first has begun", || lab.served() > 0);
    fetch(&arguments).failed_saying("being downloaded already");
    fetch(&with(arguments, &["-r"])).failed_saying("being downloaded already");
    assert!(first.0.try_wait().unwrap().is_none());
}

#[test]
fn a_file_that_changed_on_the_servers_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (random(4 * MIB, 13), random(4 * MIB, 14));
    let slow = |publishes| Manners { publishes, block_time: Duration::from_millis(4), ..Manners::default() };
    for publishes in [Some(PIECE), None] {
        let out = folder.path().join(format!("out{}", publishes.is_some()));
        let to = out.to_str().unwrap();
        let lab = Lab::start(&old, slow(publishes));
        let target = |lab: &Lab| match publishes {
            Some(_) => with(ports(&[lab]), &["-o", to]),
            None => vec![lab.url("f"), "-o".into(), to.into()],
        };
        let mut first = Process(fetch_command(&target(&lab)).spawn().unwrap());
        until("a part is there", || lab.served() > MIB as u64);
        first.kill();
        if publishes.is_some() {
            let lab = Lab::start(&new, Manners { publishes, ..Manners::default() });
            fetch(&with(target(&lab), &["-r"])).failed_saying("has changed since");
            // Without -r it starts again.
            fetch(&target(&lab)).succeeded();
            assert_content(&out, &new);
            // And with the file complete it succeeds at once.
            let served = lab.served();
            let ended = fetch(&with(target(&lab), &["-r"]));
            assert!(ended.succeeded().stdout.contains("complete already"), "{ended:?}");
            assert_eq!(lab.served(), served);
        }
    }
}

#[test]
fn names_from_servers_cannot_leave_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("into");
    std::fs::create_dir(&into).unwrap();
    for name in ["../escaped", "/tmp/escaped", "a/../b", ".."] {
        let lab = Lab::start(&random(1_000, 15), Manners { name: Some(name.into()), ..publishing() });
        let ended = fetch(&with(ports(&[&lab]), &["-o", into.to_str().unwrap()]));
        ended.failed_saying("not a safe file name");
    }
    let lab = Lab::start(&random(1_000, 15), Manners::default());
    for path in ["x%2f..%2f..%2fescaped", "dir%2f"] {
        let ended = fetch(&[lab.url(path), "-o".into(), into.to_str().unwrap().into()]);
        ended.failed_saying("no usable name");
    }
    assert!(names_in(&into).is_empty() && names_in(folder.path()) == ["into"]);
}

#[test]
fn the_rate_limit_holds() {
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::start(&random(MIB, 16), publishing());
    let out = folder.path().join("out");
    let ended =
        fetch(&with(ports(&[&lab]), &["-o", out.to_str().unwrap(), "--limit-rate", "512K", "--json"]));
    let seconds = ended.succeeded().json()["seconds"].as_f64().unwrap();
    assert!(seconds > 1.5, "1 MiB at 512 KiB/s in {seconds} s");
    assert!(ended.stdout.lines().count() > 1, "no report in between: {ended:?}");
}

#[test]
fn usage_errors_exit_2() {
    for arguments in [&["-p"][..], &[], &["-p", "99999"], &["--nonsense"], &["-r"]] {
        let ended = fetch(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
    }
    for flag in ["--help", "--version"] {
        let ended = fetch(&[flag]);
        assert!(!ended.succeeded().stdout.is_empty());
    }
}

#[test]
fn errors_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (film, page) = (folder.path().join("film.mkv"), folder.path().join("page"));
    std::fs::File::create(&film).unwrap().set_len(20 << 20).unwrap();
    std::fs::write(&page, "<html></html>").unwrap();
    for path in [film, page] {
        fetch(&[path]).failed_saying("no Metalink");
    }
    let nobody = free_port();
    let ended = fetch(&["-p", &nobody.to_string()]);
    ended.failed_saying("refused");
    assert!(!ended.stderr.contains("--file"), "{ended:?}");
    let guarded = Lab::start(&random(10, 21), Manners { demands: Some("x".into()), ..Manners::default() });
    fetch(&[guarded.url("f")]).failed_saying("USER:PASSWORD@");
    let mut command = fetch_command(&["http://files.invalid/f"]);
    command.env("http_proxy", format!("http://ann:secret@127.0.0.1:{nobody}")).env_remove("no_proxy");
    let ended = finish(command.env_remove("NO_PROXY").spawn().unwrap());
    ended.failed_saying(&format!("the proxy 127.0.0.1:{nobody}"));
    assert!(!ended.stderr.contains("secret"), "{ended:?}");
}

#[test]
fn foreign_piece_lengths_are_left_out_and_said() {
    let bytes = random(300_000, 17);
    let lab = Lab::start(&bytes, Manners { publishes: Some(100_000), ..Manners::default() });
    assert!(Layout::new(300_000, 100_000).is_err());
    let folder = tempfile::tempdir().unwrap();
    let ended = fetch(&with(ports(&[&lab]), &["-o", folder.path().to_str().unwrap()]));
    assert!(ended.succeeded().stderr.contains("piece list is left out"), "{ended:?}");
    assert!(ended.stdout.contains("verified by SHA-1"), "{ended:?}");
    assert_content(&folder.path().join("file.bin"), &bytes);
}
