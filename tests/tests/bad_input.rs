//! Bad input of every kind, from users and from strangers: one clear line, nothing left half-done, nothing given away
//! (P17, X1, X2).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use shoal_common::limits::{MAX_PEER_DATA, MAX_PEER_MESSAGE};
use shoal_common::peer_wire::{DATA, TO_REQUESTER, TO_SERVER};
use shoal_common::tokens::{self, Ticket};
use shoal_common::tracker_api::{Call, Completeness, Holding, RefusalKind};
use shoal_common::{Fid, FileName, Gid, GroupName, PeerId, RequestId};
use shoal_net::Identity;
use shoal_tests::{
    Client, Finished, Member, PATIENCE, Trackers, binary, client_command, finish, random_file, run_script,
    same_content, until,
};

const MIB: usize = 1 << 20;
/// How long a stranger waits for what must not come.
const SILENCE: Duration = Duration::from_secs(2);

fn one_line(finished: &Finished, code: i32, words: &[&str]) {
    assert_eq!(finished.code, Some(code), "{finished:?}");
    let complaint = finished.stderr.trim_end();
    assert!(code == 2 || complaint.lines().count() == 1, "one clear line: {complaint:?}");
    for word in words {
        assert!(complaint.to_lowercase().contains(word), "{word:?} is not in {complaint:?}");
    }
    assert!(!complaint.contains("panicked"), "{complaint}");
}

/// Numbers, times and addresses on every command line: an error says what to type, in our words.
#[test]
fn values_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("comma"), "127.0.0.1,7001\n").unwrap();
    for line in [
        "tracker i x",
        "tracker i 1 --metrics x",
        "tracker i 1 --grace 5",
        "tracker i 1 --repair-after x",
        "tracker i 1 --accounts-per-address x",
        "client 127.0.0.1,7001 i",
        "client 127.0.0.1:x i",
        "client 127.0.0.1:1 i --upload-slots x",
        "server -f f -p 1 -n x",
        "server -f f -p 1 -i x",
        "server -f f -p 1 -a 127.0.0.1,1",
        "fetch -p x",
        "fetch -p 1 -a 127.0.0.1,1",
        "fetch -p 1 -i x",
        "fetch -p 1 -c x",
        "fetch -p 1 --connections x",
        "fetch -p 1 --retry-time x",
        "fetch -p 1 --limit-rate x",
        "dfs-server x",
        "dfs-server 1 -i x",
        "dfs-server 1 --bind 127.0.0.1,1",
        "dfs-server 1 --metrics x",
        "dfs-server 1 --capacity x",
        "dfs-server 1 --min-age x",
        "dfs-server 1 --keep-deleted 5",
        "dfs-server 1 --daily-deletions x",
        "dfs-server 1 --scrub-rate x",
        "dfs-server 1 --scrub-pause x",
        "dfs c --retry-time x list",
        "dfs c put f --copies x",
        "dfs c pause x",
        "dfs c resume x",
        "dfs c cancel x",
        "dfs c wait x",
    ] {
        let (program, arguments) = line.split_once(' ').unwrap();
        let mut command = Command::new(binary(program));
        let finished = finish(command.args(arguments.split(' ')).current_dir(dir.path()), "");
        one_line(&finished, 2, &[]);
        let ours = ["write ", "give ", "is no", "take"].iter().any(|word| finished.stderr.contains(word));
        let raw = ["invalid digit", "invalid float", "invalid IP", "invalid socket", "expected number"];
        let raw = raw.iter().any(|words| finished.stderr.contains(words));
        assert!(ours && !raw, "{line}: {}", finished.stderr);
    }
    for line in ["tracker comma 1", "client 127.0.0.1:1 comma"] {
        let (program, arguments) = line.split_once(' ').unwrap();
        let mut command = Command::new(binary(program));
        let finished = finish(command.args(arguments.split(' ')).current_dir(dir.path()), "");
        one_line(&finished, 1, &["has a comma; write for example: 127.0.0.1 7001"]);
    }
}

#[test]
fn lines_that_are_no_commands() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    ann.ok("create_group g");
    let long = "x".repeat(10_000);
    for (line, word) in [
        ("frobnicate", "help"),
        ("list_grops", "list_groups"),
        ("login", "user_id"),
        ("create_group", "group_id"),
        ("create_group a b", "create_group"),
        ("accept_request g", "user_id"),
        ("download_file g", "file_name"),
        ("download_file g f /tmp --nonsense", "nonsense"),
        ("upload_file", "file_path"),
        ("create_group 'unfinished", "quot"),
        ("wait soon", "soon"),
        ("help frobnicate", "frobnicate"),
    ] {
        let error = ann.fails(line);
        assert!(error.contains(word), "{line}: {error}");
    }
    for command in [
        "create_user NAME secret",
        "create_group NAME",
        "join_group NAME",
        "download_file g NAME /tmp",
        "list_files NAME",
        "accept_request g NAME",
        "NAME",
    ] {
        for name in [&long, "'a\u{1}b'", "'a\u{202e}b'", "'\u{1b}[2J'"] {
            let line = command.replace("NAME", name);
            let answer = ann.run_any(&line);
            assert_eq!(answer["ok"], false, "{answer}");
            let error = answer["error"].as_str().unwrap();
            assert!(error.len() < 600, "not the whole name again: {} bytes", error.len());
            assert!(!error.chars().any(char::is_control), "{error:?}");
        }
    }
    for name in ["..", ".", "../../etc/x", "a/b"] {
        ann.fails(&format!("download_file g {name} /tmp"));
    }
    assert_eq!(
        ann.ok("list_groups")["groups"].as_array().unwrap().len(),
        1,
        "nothing was created by all this"
    );
}

#[test]
fn files_that_cannot_be_shared() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    ann.ok("create_group g");
    let renamed = dir.path().join("film~12abef");
    std::fs::write(&renamed, b"content").unwrap();
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [&dir.path().join("no-such"), &renamed, &pipe, &"/dev/zero".into(), &"/".into()] {
        let error = ann.fails(&format!("upload_file {} g", path.display()));
        assert!(error.contains(path.to_str().unwrap()) || error.contains("film~12abef"), "{error}");
        assert_eq!(ann.ok("list_files g")["files"], serde_json::json!([]));
    }
    let file = dir.path().join("a.bin");
    std::fs::write(&file, b"content").unwrap();
    let error = ann.fails(&format!("upload_file {} nosuch", file.display()));
    assert!(error.contains("nosuch"), "{error}");
}

#[test]
fn a_file_that_changes_while_it_is_hashed_is_not_shared() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    ann.ok("create_group g");
    let path = dir.path().join("growing.bin");
    random_file(&path, 64 * MIB, 3);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (growing, stopped) = (path.clone(), stop.clone());
    let grower = std::thread::spawn(move || {
        let mut file = std::fs::File::options().append(true).open(growing).unwrap();
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            file.write_all(&[7; 4096]).unwrap();
            std::thread::yield_now();
        }
    });
    let error = ann.fails(&format!("upload_file {} g", path.display()));
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    grower.join().unwrap();
    assert!(error.contains("chang"), "{error}");
    assert_eq!(ann.ok("list_files g")["files"], serde_json::json!([]));
    ann.ok(&format!("upload_file {} g", path.display()));
}

#[test]
fn a_client_that_cannot_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let info = trackers.info();
    let bad = dir.path().join("bad.txt");
    std::fs::write(&bad, "# trackers\n127.0.0.1 9001\n127.0.0.1 nine\n").unwrap();
    one_line(&run_script(dir.path(), "a", &bad, &[], ""), 1, &["bad.txt", "line 3"]);
    one_line(&run_script(dir.path(), "a", &dir.path().join("missing.txt"), &[], ""), 1, &["missing.txt"]);
    one_line(&run_script(dir.path(), "a", dir.path(), &[], ""), 1, &[]);
    let empty = dir.path().join("empty.txt");
    std::fs::write(&empty, "# nobody\n").unwrap();
    one_line(&run_script(dir.path(), "a", &empty, &[], ""), 1, &["empty.txt"]);
    // A port in use, a folder in use, a file as a folder.
    let ann = Client::start(dir.path(), "ann", &info);
    let port = ann.port().to_string();
    until("it listens", || TcpStream::connect(("127.0.0.1", ann.port())).is_ok());
    one_line(&finish(&mut client_command(dir.path(), "b", &info, ann.port()), ""), 1, &["in use", &port]);
    one_line(&run_script(dir.path(), "ann", &info, &[], ""), 1, &["in use", "--data-dir"]);
    std::fs::write(dir.path().join("file"), b"").unwrap();
    one_line(&run_script(dir.path(), "file", &info, &[], ""), 1, &["file"]);
    // Usage errors exit with 2.
    for arguments in [&["nonsense"][..], &[], &["127.0.0.1:1"], &["127.0.0.1:99999", "x"], &["--no-such"]] {
        let finished = finish(std::process::Command::new(binary("client")).args(arguments), "");
        one_line(&finished, 2, &[]);
        assert!(!finished.stderr.is_empty());
    }
    for option in ["--help", "--version"] {
        let finished = finish(std::process::Command::new(binary("client")).arg(option), "");
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert!(finished.stdout.contains("client"), "{finished:?}");
    }
}

#[test]
fn garbage_on_the_clients_port_disturbs_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    let (path, _) = ann.share("g", "a.bin", 2 * MIB);
    let mut held = Vec::new();
    for number in 0..60_u8 {
        let mut socket = TcpStream::connect(("127.0.0.1", ann.port())).unwrap();
        let garbage: Vec<u8> = (0..500).map(|at: u16| at.to_le_bytes()[0].wrapping_mul(number)).collect();
        // It may have hung up already.
        let _ = socket.write_all(if number % 3 == 0 { b"GET / HTTP/1.1\r\n\r\n" } else { &garbage });
        held.push(socket);
    }
    // Garbage behind a proper handshake.
    let peer: PeerId = ann.ok("whoami")["peer"].as_str().unwrap().parse().unwrap();
    let stranger = Member::connect(trackers.port(1));
    let long = vec![0xff; MAX_PEER_DATA];
    for (kind, payload) in [
        (TO_SERVER, &[0xff; 10][..]),
        (TO_SERVER, &[]),
        (TO_SERVER, &long[..MAX_PEER_MESSAGE]),
        (TO_SERVER, &long),
        (TO_REQUESTER, &[0x80]),
        (DATA, &[0; 12]),
        (DATA, &[]),
        (200, b"what?"),
    ] {
        let mut wire = stranger.dial_peer(ann.port(), peer);
        wire.say_raw(kind, payload);
        match wire.hear(SILENCE) {
            Ok(Some(_)) | Err(_) => {}
            Ok(None) => panic!("a piece for garbage"),
        }
    }
    let copy = dir.path().join("copy.bin");
    bob.ok(&format!("download_file g a.bin {}", copy.display()));
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &copy));
    let mut bytes = Vec::new();
    for mut socket in held {
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let _ = socket.read_to_end(&mut bytes);
    }
    assert_eq!(ann.ok("whoami")["user"], "ann");
}

#[test]
fn who_is_no_member_gets_nothing_from_the_tracker() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    ann.ok("create_group g");
    ann.share("g", "a.bin", 100_000);
    let mut member = Member::connect(trackers.port(1));
    member.enter("mia");
    member.join("g");
    ann.ok("accept_request g mia");
    let (group, file, manifest) = member.find("g", "a.bin");
    let name = GroupName::refer("g").unwrap();
    let all = |request: RequestId| {
        vec![
            Call::ListFiles { group: name.clone(), after: None },
            Call::ListMembers { group: name.clone(), after: None },
            Call::ListRequests { group: name.clone(), after: None },
            Call::Find { group: name.clone(), file: FileName::refer("a.bin").unwrap() },
            Call::PieceList { group, file },
            Call::Holders { group, file },
            Call::ShareKnown { request, group, file },
            Call::Share { request, group: name.clone(), manifest: manifest.clone(), piece_list: vec![0; 40] },
            Call::LeaveGroup { request, group: name.clone() },
        ]
    };
    // Not logged in at all, and logged in but no member.
    let mut stranger = Member::connect(trackers.port(1));
    for call in all(RequestId::random()) {
        assert_eq!(stranger.refused(call).kind, RefusalKind::NotLoggedIn);
    }
    let session = stranger.enter("eve");
    assert!(session.tickets.is_empty());
    for call in all(RequestId::random()) {
        let refusal = stranger.refused(call);
        assert!(matches!(refusal.kind, RefusalKind::NotAllowed | RefusalKind::NotFound), "{refusal:?}");
    }
    // Announcing what one may not hold makes nobody come.
    let holdings = vec![Holding { group, file, completeness: Completeness::Complete }];
    let _ = stranger.call(Call::Announce { reset: true, holdings });
    let peers = ann.ok("show_peers g a.bin")["peers"].clone();
    assert_eq!(peers.as_array().unwrap().len(), 1, "{peers}");
    assert_eq!(peers[0]["self"], true, "{peers}");
    until("the true sharer counts", || ann.sharers("g", "a.bin") == 1);
    // Who left is no member any more.
    member.done(Call::LeaveGroup { request: RequestId::random(), group: name.clone() });
    for call in [Call::PieceList { group, file }, Call::Holders { group, file }] {
        member.refused(call);
    }
    assert!(member.renew().tickets.is_empty(), "leaving ends the renewals");
}

#[test]
fn only_a_members_own_valid_ticket_opens_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    ann.ok("create_group g");
    ann.ok("create_group other");
    ann.share("g", "a.bin", 100_000);
    let peer: PeerId = ann.ok("whoami")["peer"].as_str().unwrap().parse().unwrap();
    let mut mia = Member::connect(trackers.port(1));
    let user = mia.enter("mia").user;
    mia.join("g");
    ann.ok("accept_request g mia");
    let (group, file, _) = mia.find("g", "a.bin");
    let mut eve = Member::connect(trackers.port(1));
    eve.enter("eve");
    eve.join("other");
    ann.ok("accept_request other eve");
    let (_, good) = mia.ticket("g");
    let (other, elsewhere) = eve.ticket("other");

    // Signed with the tracker's own key: what it says, and for whom, is all that differs.
    let key = Identity::load_or_create(&trackers.data(1).join("identity.key")).unwrap();
    let ticket: Ticket = tokens::open(&good, |_| true).unwrap();
    let signed =
        |ticket: &Ticket, key: &Identity| tokens::seal(ticket, key.peer_id(), |message| key.sign(message));
    let expired = signed(&Ticket { expires_ms: ticket.expires_ms - 20 * 60_000, ..ticket.clone() }, &key);
    let forged = signed(&ticket, mia.identity());
    let mut damaged = good.clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    assert_eq!((ticket.user, ticket.peer, ticket.group), (user, mia.identity().peer_id(), group));

    let try_it = |member: &Member, what: (Gid, Fid), ticket: &[u8]| {
        member.dial_peer(ann.port(), peer).try_for_a_piece(what, ticket, SILENCE)
    };
    for (what, heard) in [
        ("expired", try_it(&mia, (group, file), &expired)),
        ("forged", try_it(&mia, (group, file), &forged)),
        ("damaged", try_it(&mia, (group, file), &damaged)),
        ("empty", try_it(&mia, (group, file), &[])),
        ("long", try_it(&mia, (group, file), &[0xa3; 5_000])),
        ("copied to another peer id", try_it(&eve, (group, file), &good)),
        ("of another group", try_it(&eve, (group, file), &elsewhere)),
        ("of another group, which is named", try_it(&eve, (other, file), &elsewhere)),
    ] {
        assert!(!heard.iter().any(|answer| answer == "opened" || answer == "a piece"), "{what}: {heard:?}");
    }
    // The control: her own ticket on her own connection does.
    let heard = mia.dial_peer(ann.port(), peer).try_for_a_piece((group, file), &good, PATIENCE);
    assert_eq!(heard, ["opened", "a piece"], "a member is served");
    // What is not shared is not served to members either.
    let heard = try_it(&mia, (group, Fid([9; 16])), &good);
    assert!(heard.iter().all(|answer| answer != "a piece"), "{heard:?}");
    // A session at the tracker is bound to its client in the same way.
    let token = mia.renew().token;
    let mut thief = Member::connect(trackers.port(1));
    assert_eq!(thief.refused(Call::Resume { token }).kind, RefusalKind::NotLoggedIn);
}
