//! `fetch` against servers that work, lie, stall and die: real processes on loopback.

use std::process::Stdio;
use std::time::Duration;

use crate::support::{
    Lab, MIB, Manners, PIECE, Process, Server, assert_content, fetch, fetch_command, finish, free_port,
    names_in, ports, publishing, random, until, with,
};
use shoal_common::Sha1;

#[test]
fn both_source_systems_command_lines_work_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("film.bin");
    let bytes = random(3 * MIB + 17, 1);
    std::fs::write(&path, &*bytes).unwrap();
    let server = Server::start(&["-n", "3", "-f", path.to_str().unwrap(), "-i", "2"], 3);
    let out = folder.path().join("out.bin");
    let [one, two, three] = &server.ports.iter().map(u16::to_string).collect::<Vec<_>>()[..] else {
        unreachable!()
    };
    let to = out.to_str().unwrap();
    fetch(&["-r", "-p", one, two, three, "-o", to, "-i", "2", "-a", "127.0.0.1"]).succeeded();
    assert_content(&out, &bytes);
    std::fs::remove_file(&out).unwrap();
    let long = ["--resume", "true", "--list_of_ports", one, two, three, "--output_location", to];
    let more = ["--metric_interval", "1", "--server_ip_address", "127.0.0.1"];
    fetch(&[&long[..], &more[..]].concat()).succeeded();
    assert_content(&out, &bytes);

    let list = folder.path().join("servers.txt");
    let silent = free_port();
    std::fs::write(&list, format!("# three\n127.0.0.1 {one}\nlocalhost {two} # same\n127.0.0.1:{silent}\n"))
        .unwrap();
    let into = folder.path().join("into");
    std::fs::create_dir(&into).unwrap();
    let ended = fetch(&[
        "--servers",
        list.to_str().unwrap(),
        "--file",
        "film.bin",
        "-c",
        "8",
        "-o",
        into.to_str().unwrap(),
    ]);
    ended.succeeded();
    assert!(ended.stderr.contains(&format!("skipped 127.0.0.1:{silent}")), "{ended:?}");
    assert_content(&into.join("film.bin"), &bytes);
    assert_eq!(names_in(&into), ["film.bin"]);
    let missing =
        fetch(&["--servers", list.to_str().unwrap(), "--file", "none.bin", "-o", into.to_str().unwrap()]);
    missing.failed_saying("no server has the file none.bin");
}

#[test]
fn files_of_every_edge_come_whole() {
    let folder = tempfile::tempdir().unwrap();
    for size in [0, 1, 65_535, 65_536, 65_537, 5 * 65_536] {
        let bytes = random(size, 2);
        let path = folder.path().join(format!("f{size}"));
        std::fs::write(&path, &*bytes).unwrap();
        let server = Server::of_file(&path, 2);
        let out = folder.path().join("out");
        let ports = server.ports.iter().map(u16::to_string).collect::<Vec<_>>();
        let ended = fetch(&["-p", &ports[0], &ports[1], "-o", out.to_str().unwrap(), "--json"]);
        let end = ended.succeeded().json();
        assert_eq!((end["ok"].as_bool(), end["size"].as_u64()), (Some(true), Some(size as u64)), "{ended:?}");
        assert_eq!(end["sha1"], Sha1::of(&bytes).to_string());
        assert_content(&out, &bytes);
        let lab = Lab::start(&bytes, Manners::default());
        let ended = fetch(&[lab.url("f"), "-o".into(), out.to_str().unwrap().into()]);
        ended.succeeded();
        assert_content(&out, &bytes);
    }
}

#[test]
fn a_majority_of_liars_wins_and_the_minority_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (right, wrong) = (random(200_000, 3), random(200_000, 4));
    let labs: Vec<Lab> =
        [&right, &wrong, &wrong].iter().map(|&bytes| Lab::start(bytes, publishing())).collect();
    let out = folder.path().join("out");
    let to = out.to_str().unwrap();
    let all = ports(&labs.iter().collect::<Vec<_>>());
    let ended = fetch(&with(all.clone(), &["-o", to]));
    ended.succeeded();
    assert!(ended.stderr.contains(&format!("refused 127.0.0.1:{}", labs[0].port)), "{ended:?}");
    assert_content(&out, &wrong);
    assert_eq!(labs[0].served(), 0);
    // The user knows better.
    fetch(&with(all, &["-o", to, "--sha1", &Sha1::of(&right).to_string()])).succeeded();
    assert_content(&out, &right);
    // Half is no majority: who said what is listed.
    std::fs::remove_file(&out).unwrap();
    let ended = fetch(&with(ports(&[&labs[0], &labs[1]]), &["-o", to]));
    ended.failed_saying("do not agree").failed_saying(&format!("127.0.0.1:{}", labs[1].port));
    ended.failed_saying(&Sha1::of(&wrong).to_string()).failed_saying(&Sha1::of(&right).to_string());
    assert!(!out.exists());
}

#[test]
fn a_server_that_is_listed_twice_has_one_vote_and_is_one_source() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let to = out.to_str().unwrap();
    let (right, wrong) = (random(200_000, 3), random(200_000, 4));
    let (honest, liar) = (Lab::start(&right, publishing()), Lab::start(&wrong, publishing()));
    fetch(&with(ports(&[&honest, &liar, &liar]), &["-o", to])).failed_saying("do not agree");
    let elsewhere = honest.url("file.bin").replace("127.0.0.1", "localhost");
    let ended = fetch(&[&honest.url("file.bin"), &elsewhere, "-o", to, "--json"]);
    assert_eq!(ended.succeeded().json()["sources"].as_array().unwrap().len(), 1, "{ended:?}");
    assert!(ended.stderr.contains(&format!("{elsewhere} is the same server")), "{ended:?}");
    assert_content(&out, &right);
}

/// One of four misbehaves, the others are right: the file is too, and the culprit is named where it must be.
fn one_of_four(culprit: Manners, dropped: bool) {
    let folder = tempfile::tempdir().unwrap();
    let bytes = random(24 * MIB, 5);
    let pace = |manners: Manners| Manners { block_time: Duration::from_micros(1_000), ..manners };
    let block_time = culprit.block_time.max(Duration::from_micros(1_000));
    let mut labs = vec![Lab::start(&bytes, Manners { block_time, ..culprit })];
    labs.extend((0..3).map(|_| Lab::start(&bytes, pace(publishing()))));
    let out = folder.path().join("out");
    let all = ports(&labs.iter().collect::<Vec<_>>());
    let ended = fetch(&with(all, &["-o", out.to_str().unwrap(), "--json", "-i", "0"]));
    assert_content(&out, &bytes);
    let end = ended.succeeded().json();
    let states: Vec<&str> =
        end["sources"].as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap()).collect();
    assert_eq!(matches!(states[0], "dropped" | "gone"), dropped, "{end}");
    assert!(states[1..].iter().all(|state| matches!(*state, "active" | "idle" | "waiting")), "{end}");
    // What is not the culprit's is not fetched again.
    let fetched = end["fetched"].as_u64().unwrap();
    assert!(fetched < bytes.len() as u64 + 6 * MIB as u64, "{fetched} bytes were fetched");
}

#[test]
fn one_of_four_is_slow() {
    one_of_four(Manners { block_time: Duration::from_millis(16), ..publishing() }, false);
}

#[test]
fn one_of_four_is_killed_midway() {
    one_of_four(Manners { gone_after: Some(2 * MIB as u64), ..publishing() }, false);
}

#[test]
fn one_of_four_answers_wrong_bytes_in_one_range() {
    one_of_four(Manners { wrong: Some(0..24 * MIB as u64), ..publishing() }, true);
}

#[test]
fn one_of_four_hangs_after_the_headers() {
    one_of_four(Manners { hangs: true, ..publishing() }, false);
}

#[test]
fn one_of_four_closes_after_every_response() {
    one_of_four(Manners { closes: true, ..publishing() }, false);
}

#[test]
fn one_of_four_is_replaced_midway() {
    one_of_four(Manners { replaced_after: Some(2 * MIB as u64), ..publishing() }, true);
}

#[test]
fn one_of_four_refuses_with_an_error_page() {
    one_of_four(Manners { refuses: Some("404 Not Found".into()), ..publishing() }, true);
}

#[test]
fn servers_that_ignore_ranges_do_as_well_as_they_can() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = random(5 * MIB, 6);
    let (plain, ranged) = (
        Lab::start(&bytes, Manners { no_ranges: true, ..Manners::default() }),
        Lab::start(&bytes, Manners::default()),
    );
    let out = folder.path().join("out");
    let to = out.to_str().unwrap().to_owned();
    let ended = fetch(&[plain.url("f"), ranged.url("f"), "-o".into(), to.clone()]);
    ended.succeeded();
    assert!(
        ended.stderr.contains("does not serve ranges") && ended.stdout.contains("not verified"),
        "{ended:?}"
    );
    assert_content(&out, &bytes);
    let second = Lab::start(&bytes, Manners { no_ranges: true, ..Manners::default() });
    fetch(&[plain.url("f"), second.url("f"), "-o".into(), to]).succeeded();
    assert_content(&out, &bytes);
}

#[test]
fn no_digest_is_computed_that_nobody_published_or_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, small) = (random(3 * MIB, 61), random(1_000, 62));
    let (file, sizeless) = (
        Lab::start(&bytes, Manners::default()),
        Lab::start(&small, Manners { sizeless: true, no_ranges: true, ..Manners::default() }),
    );
    for (lab, bytes) in [(&file, &bytes), (&sizeless, &small)] {
        let out = folder.path().join("out");
        let fetched = |more: &[&str]| {
            let url = lab.url("f");
            let arguments = [&[url.as_str(), "-o", out.to_str().unwrap()], more].concat();
            let ended = fetch(&arguments);
            assert_content(&out, bytes);
            ended.succeeded().stdout.clone()
        };
        let sha1 = Sha1::of(bytes).to_string();
        let said = fetched(&[]);
        assert!(said.contains("--sha1 auto computes one") && !said.contains(&sha1), "{said}");
        let said = fetched(&["--sha1", "auto"]);
        assert!(said.contains("not verified") && said.contains(&sha1), "{said}");
        let said = fetched(&["--sha1", &sha1]);
        assert!(said.contains(&format!("verified by SHA-1 {sha1}")), "{said}");
        // What is there already is hashed for one who wants to see it.
        let said = fetched(&["-r", "--json"]);
        assert!(said.contains(&sha1), "{said}");
    }
}

#[test]
fn a_mirror_without_digests_that_changes_is_not_mixed_in() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = random(8 * MIB, 7);
    let paced = Manners { block_time: Duration::from_micros(500), ..Manners::default() };
    let changing = Lab::start(&bytes, Manners { replaced_after: Some(MIB as u64), ..paced.clone() });
    let steady = Lab::start(&bytes, paced);
    let out = folder.path().join("out");
    let to = out.to_str().unwrap().to_owned();
    let sha1 = Sha1::of(&bytes).to_string();
    let ended = fetch(&[changing.url("f"), steady.url("f"), "-o".into(), to, "--sha1".into(), sha1]);
    // What was under way when it changed may be wrong, and then the digest says so; what came later never is.
    match ended.code {
        Some(0) => assert_content(&out, &bytes),
        _ => {
            ended.failed_saying("sent wrong bytes");
            assert!(!out.exists());
        }
    }
}

#[test]
fn sizes_of_mirrors_must_agree() {
    let (one, two) = (
        Lab::start(&random(1_000, 8), Manners::default()),
        Lab::start(&random(1_001, 8), Manners::default()),
    );
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().to_str().unwrap().to_owned();
    fetch(&[one.url("f"), two.url("f"), "-o".into(), to.clone()]).failed_saying("do not agree");
    let page =
        Lab::start(&random(1_000, 8), Manners { refuses: Some("500 Oops".into()), ..Manners::default() });
    let ended = fetch(&[one.url("f"), page.url("f"), "-o".into(), to]);
    ended.succeeded();
    assert!(ended.stderr.contains("answers 500"), "{ended:?}");
}

#[test]
fn a_server_that_fails_the_first_question_is_asked_again() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(MIB, 22));
    let good = Lab::start(&bytes, publishing());
    let shaky = Lab::start(&bytes, Manners { fails_first: 1, ..publishing() });
    let out = folder.path().join("out");
    let ended = fetch(&with(ports(&[&good, &shaky]), &["-o", out.to_str().unwrap()]));
    assert!(!ended.succeeded().stderr.contains(&shaky.port.to_string()), "{ended:?}");
    assert_content(&out, &bytes);
    // Alone, and asked for the file itself.
    let shaky = Lab::start(&bytes, Manners { fails_first: 1, ..Manners::default() });
    let out = folder.path().join("alone");
    fetch(&[shaky.url("f"), "-o".into(), out.to_str().unwrap().into()]).succeeded();
    assert_content(&out, &bytes);
}

#[test]
fn redirects_are_followed_and_loops_are_not() {
    let bytes = random(300_000, 9);
    let there = Lab::start(&bytes, Manners::default());
    let here =
        Lab::start(&bytes, Manners { redirects_to: Some(there.url("real.bin")), ..Manners::default() });
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().to_str().unwrap().to_owned();
    fetch(&[here.url("named.bin"), "-o".into(), to.clone()]).succeeded();
    assert_content(&folder.path().join("named.bin"), &bytes);
    let round = Lab::start(&bytes, Manners { redirects_to: Some("/again".into()), ..Manners::default() });
    fetch(&[round.url("f"), "-o".into(), to]).failed_saying("redirect");
}

#[test]
fn so_many_chunks_come_in_parallel_as_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let bytes = random(6 * MIB, 19);
    // At most 1 MB/s a connection.
    let paced =
        || Lab::start(&bytes, Manners { block_time: Duration::from_millis(16), ..Manners::default() });
    let seconds = |labs: &[Lab], more: &[&str]| {
        let urls: Vec<String> = labs.iter().map(|lab| lab.url("f")).collect();
        let ended = fetch(&with(urls, &[&["-o", out.to_str().unwrap(), "--json", "-i", "0"], more].concat()));
        assert_content(&out, &bytes);
        ended.succeeded().json()["seconds"].as_f64().unwrap()
    };
    let (one, four, eight) = ([paced()], [paced()], [paced()]);
    let usual = seconds(&one, &[]);
    assert!(one[0].peak() <= 2, "{} connections at once", one[0].peak());
    assert!(seconds(&four, &["--connections", "4"]) < usual / 2.0);
    let fastest = seconds(&eight, &["-c", "8"]);
    assert!(fastest < usual / 4.0, "{fastest} s with eight connections, {usual} s as usual");
    assert_eq!((four[0].peak(), eight[0].peak()), (4, 8));
    // All servers together.
    let two = [paced(), paced()];
    seconds(&two, &["-c", "5"]);
    assert_eq!((two[0].peak(), two[1].peak()), (3, 2));
}

#[test]
fn a_password_in_the_url_goes_to_that_origin_with_every_request_and_to_no_other() {
    let bytes = random(3 * MIB, 18);
    let demands = Some("Basic YW5uOnNlY3JldA==".to_owned());
    let guarded = Lab::start(&bytes, Manners { demands: demands.clone(), ..Manners::default() });
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().to_str().unwrap().to_owned();
    let with_password = |url: String| url.replace("http://", "http://ann:secret@");
    let ended = fetch(&[with_password(guarded.url("a.bin")), "-o".into(), to.clone()]);
    ended.succeeded();
    assert!(!format!("{ended:?}").contains("secret"), "{ended:?}");
    assert_content(&folder.path().join("a.bin"), &bytes);
    assert!(guarded.authorized() > 1);
    fetch(&[guarded.url("b.bin"), "-o".into(), to.clone()]).failed_saying("401");
    // Who is redirected to learns nothing of it.
    let open = Lab::start(&bytes, Manners::default());
    let redirects_to = Some(open.url("real.bin"));
    let guard = Lab::start(&bytes, Manners { demands, redirects_to, ..Manners::default() });
    fetch(&[with_password(guard.url("c.bin")), "-o".into(), to]).succeeded();
    assert_content(&folder.path().join("c.bin"), &bytes);
    assert!(guard.authorized() > 0 && open.authorized() == 0);
}

#[test]
fn the_environments_proxy_is_asked_and_its_exceptions_hold() {
    let bytes = random(300_000, 9);
    let proxy = Lab::start(&bytes, Manners::default());
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().to_str().unwrap();
    let through = |url: &str, exceptions: &str| {
        let mut command = fetch_command(&[url, "-o", to]);
        command.env("http_proxy", proxy.url("")).env("no_proxy", exceptions).env_remove("NO_PROXY");
        finish(command.spawn().unwrap())
    };
    // Nobody but the proxy knows such a host.
    through("http://files.invalid/far.bin", "").succeeded();
    assert_content(&folder.path().join("far.bin"), &bytes);
    let served = proxy.served();
    assert!(served >= bytes.len() as u64);
    through("http://files.invalid/near.bin", "files.invalid").failed_saying("files.invalid");
    assert_eq!(proxy.served(), served);
}

#[test]
fn all_servers_gone_at_half_and_back_later() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = random(8 * MIB, 10);
    let paced = Manners { block_time: Duration::from_millis(8), ..publishing() };
    let labs = [Lab::start(&bytes, paced.clone()), Lab::start(&bytes, paced)];
    let out = folder.path().join("out");
    let to = out.to_str().unwrap();
    let all = ports(&[&labs[0], &labs[1]]);
    let arguments = with(all.clone(), &["-o", to, "--retry-time", "2"]);
    let running = fetch_command(&arguments).spawn().unwrap();
    until("half is there", || labs[0].served() + labs[1].served() > bytes.len() as u64 / 2);
    labs.iter().for_each(|lab| lab.set_down(true));
    let ended = finish(running);
    ended.failed_saying("no source is left").failed_saying("continue with -r");
    assert!(!out.exists());
    labs.iter().for_each(|lab| lab.set_down(false));
    let again = fetch(&with(all, &["-o", to, "-r", "--json"]));
    let end = again.succeeded().json();
    assert!(end["resumed"].as_u64().unwrap() > MIB as u64, "{end}");
    assert_content(&out, &bytes);
    assert_eq!(names_in(folder.path()), ["out"]);
}

#[test]
fn a_server_that_is_back_is_used_again_alone_and_beside_others() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = random(16 * MIB, 20);
    let slow = Manners { block_time: Duration::from_millis(6), ..publishing() };
    for others in [0, 1] {
        let out = folder.path().join(format!("out{others}"));
        let mut labs = vec![Lab::start(&bytes, slow.clone())];
        labs.extend((0..others).map(|_| Lab::start(&bytes, slow.clone())));
        let arguments =
            with(ports(&labs.iter().collect::<Vec<_>>()), &["-o", out.to_str().unwrap(), "-i", "0"]);
        let running = fetch_command(&arguments).spawn().unwrap();
        until("it has begun", || labs[0].served() > MIB as u64);
        labs[0].set_down(true);
        let (before, since) = (labs[0].served(), std::time::Instant::now());
        // How long it is away is the fault that it plays.
        until("it is away for a while", || since.elapsed() >= Duration::from_millis(1_500));
        labs[0].set_down(false);
        let ended = finish(running);
        assert_content(&out, &bytes);
        assert!(labs[0].served() >= before + MIB as u64, "{} bytes after {before}", labs[0].served());
        let label = format!("127.0.0.1:{}", labs[0].port);
        ended.succeeded();
        assert!(
            ended.stderr.contains(&format!("{label}: ")) && ended.stderr.contains("tried again"),
            "{ended:?}"
        );
        assert!(ended.stderr.contains(&format!("{label} is back")), "{ended:?}");
    }
}

#[test]
fn killed_twenty_times_it_fetches_nothing_verified_again() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = random(12 * MIB, 11);
    let paced = Manners { block_time: Duration::from_millis(2), ..publishing() };
    let labs = [Lab::start(&bytes, paced.clone()), Lab::start(&bytes, paced)];
    let out = folder.path().join("out");
    let arguments =
        with(ports(&[&labs[0], &labs[1]]), &["-o", out.to_str().unwrap(), "-r", "--json", "-i", "0"]);
    let served = || labs[0].served() + labs[1].served();
    for _ in 0..20 {
        let before = served();
        let mut running = Process(fetch_command(&arguments).stderr(Stdio::null()).spawn().unwrap());
        until("some more came", || {
            served() > before + MIB as u64 / 4 || running.0.try_wait().unwrap().is_some()
        });
        running.kill();
    }
    fetch(&arguments).succeeded();
    assert_content(&out, &bytes);
    // A kill costs what was under way: a piece a request and what lay in sockets, at two servers.
    let most = bytes.len() as u64 + 20 * 8 * u64::from(PIECE);
    assert!(served() < most, "{} of at most {most} bytes were sent", served());
}
