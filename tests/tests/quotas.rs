//! How much users and groups may have on the trackers' disks and the storage nodes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::thread;

use shoal_common::storage::{ChunkId, ChunkRef, PointerKey, StoreManifest};
use shoal_common::tracker_api::storage::{NodeEntry, StoreAnswer, StoreCall};
use shoal_common::tracker_api::{Answer, Call, QuotaAnswer, Refusal, RefusalKind};
use shoal_common::{Blake3, Fid, FileDigest, FileName, Gid, GroupName, Layout, Manifest, RequestId, Sha1};
use shoal_dfs::connection::{NodeConnection, RequestError};
use shoal_dfs::wire::Failure;
use shoal_tests::{Client, Member, Store, Trackers, random_file, until};
use tokio_util::task::TaskTracker;

/// Types a line at a tracker's prompt and waits for an answer with these words that was not there before.
fn say(trackers: &mut Trackers, number: usize, line: &str, words: &str) -> String {
    let before = trackers.said(number).len();
    trackers.say(number, line);
    until(&format!("{line:?} is answered with {words:?}"), || {
        trackers.said(number)[before..].contains(words)
    });
    trackers.said(number)[before..].to_owned()
}

/// A call that shares a file of so many of the smallest pieces in g.
fn share(name: &str, pieces: usize) -> Call {
    let digest = FileDigest { sha1: Sha1::of(name.as_bytes()), blake3: Blake3::of(name.as_bytes()) };
    let layout = Layout::new(pieces as u64 * 65_536, 65_536).unwrap();
    let digests = vec![digest.sha1; pieces];
    let (manifest, piece_list) =
        Manifest::new(FileName::create(name).unwrap(), layout, &digests, digest, vec![]);
    let group = GroupName::refer("g").unwrap();
    Call::Share { request: RequestId::random(), group, manifest, piece_list }
}

fn stop_share((group, file): (Gid, Fid)) -> Call {
    Call::StopShare { request: RequestId::random(), group, file }
}

fn shared(answer: Result<Answer, Refusal>) -> Option<(Gid, Fid)> {
    match answer {
        Ok(Answer::Shared { group, file }) => Some((group, file)),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => {
            assert_eq!(refusal.kind, RefusalKind::Limit, "{refusal:?}");
            None
        }
    }
}

fn quota(member: &mut Member, group: Option<&str>) -> QuotaAnswer {
    let group = group.map(|name| GroupName::refer(name).unwrap());
    match member.done(Call::Quota { group }) {
        Answer::Quota(quota) => *quota,
        other => panic!("{other:?}"),
    }
}

/// The files of g that are listed.
fn listed(member: &mut Member) -> usize {
    match member.done(Call::ListFiles { group: GroupName::refer("g").unwrap(), after: None }) {
        Answer::Files { files, .. } => files.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_user_at_the_quota_is_told_and_may_share_again_after_stop_share_or_when_an_operator_allows_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    say(&mut trackers, 1, "quota users files 2", "each user: 2 files");
    ann.share("g", "one", 1_000);
    ann.share("g", "two", 1_000);
    let path = dir.path().join("three");
    random_file(&path, 1_000, 3);
    let third = format!("upload_file {} g", path.display());
    let error = ann.fails(&third);
    assert!(error.contains("your quota of 2 files is used up; stop sharing something"), "{error}");
    let quota = ann.ok("quota");
    assert_eq!((&quota["files"]["used"], &quota["files"]["limit"]), (&2.into(), &2.into()), "{quota}");
    assert_eq!((&quota["groups"]["used"], &quota["stored"]["used"]), (&1.into(), &0.into()), "{quota}");
    assert_eq!(ann.ok("quota g")["files"]["used"], 2);
    assert!(bob.ok("quota g").get("stored").is_none());
    // What is shared already is no more, whatever happens to the client.
    let (stopped, _) = ann.quit();
    let mut ann = stopped.restart();
    ann.ok("login ann secret");
    until("it is shared again", || ann.sharers("g", "two") == 1);
    let status = trackers.status(1);
    assert_eq!((&status["users_near_quota"], &status["users_at_quota"]), (&1.into(), &1.into()));
    assert!(say(&mut trackers, 1, "status", "near a quota").contains("users 1 (1 at it or over)"));
    assert!(say(&mut trackers, 1, "quota", "each group").contains("100 %  user ann: 2 files"));
    ann.ok("stop_share g one");
    ann.ok(&third);
    // Room for one user, also after a restart; and it is taken back.
    say(&mut trackers, 1, "quota user ann files 3", "of 3 files");
    trackers.kill(1);
    trackers.restart(1);
    until("ann is back", || ann.run_any("quota")["files"]["limit"] == 3);
    ann.share("g", "four", 1_000);
    say(&mut trackers, 1, "quota user ann default", "of 2 files");
    assert_eq!(ann.ok("quota")["files"], serde_json::json!({ "used": 3, "limit": 2 }));
    ann.fails(&format!("upload_file {} g", dir.path().join("bob.log").display()));
    bob.share("g", "bobs", 1_000);
    ann.ok("stop_share g two");
    ann.ok("stop_share g three");
    ann.share("g", "five", 1_000);
    for (line, words) in
        [("quota ann", "type quota users"), ("quota user nobody files 1", "there is no user nobody")]
    {
        trackers.say(1, line);
        until("the mistake is explained", || trackers.log(1).contains(words));
    }
}

#[test]
fn many_sessions_on_three_trackers_together_keep_to_a_quota_that_was_set_at_one() {
    const QUOTA: usize = 30;
    const EACH: usize = 40;
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 3);
    trackers.until_in_step();
    let mut ann = Member::connect(trackers.address(1));
    ann.enter("ann");
    ann.create_group("g");
    say(&mut trackers, 2, &format!("quota users files {QUOTA}"), "each user: 30 files");
    until("all know the quota", || {
        (1..=3).all(|number| {
            let mut ann = Member::connect(trackers.address(number));
            ann.login("ann", "secret").unwrap();
            quota(&mut ann, None).files.most == Some(QUOTA as u64)
        })
    });
    let sessions = (0..6).map(|session| {
        let address = trackers.address(session % 3 + 1);
        thread::spawn(move || {
            let mut ann = Member::connect(address);
            ann.login("ann", "secret").unwrap();
            let calls = (0..EACH).map(|file| share(&format!("f-{session}-{file}"), 1)).collect();
            let done: Vec<_> = ann.calls_at_once(calls).into_iter().filter_map(shared).collect();
            (ann, done)
        })
    });
    let sessions: Vec<_> = sessions.collect();
    let sessions: Vec<_> = sessions.into_iter().map(|session| session.join().unwrap()).collect();
    let done: usize = sessions.iter().map(|(_, done)| done.len()).sum();
    // Each admits up to the quota of what it knows then; what is on its way from another it does not know yet.
    assert!((QUOTA..=3 * QUOTA).contains(&done), "{done}");
    for number in 1..=3 {
        let mut ann = Member::connect(trackers.address(number));
        ann.login("ann", "secret").unwrap();
        until("all have what was acknowledged", || listed(&mut ann) == done);
        assert_eq!(quota(&mut ann, None).files.used, done as u64);
        let refusal = ann.refused(share("one more", 1));
        assert!(refusal.text.contains("your quota of 30 files is used up"), "{refusal:?}");
    }
    // Anyone who is over may delete, one by one, and is refused until there is room.
    let mut left = done;
    for (mut ann, files) in sessions {
        for file in files {
            if left < QUOTA {
                break;
            }
            ann.done(stop_share(file));
            left -= 1;
            assert_eq!(ann.call(share("again", 1)).is_ok(), left < QUOTA, "{left}");
        }
    }
    assert_eq!(left, QUOTA - 1);
}

#[test]
fn each_side_of_a_partition_admits_up_to_the_quota_and_nothing_acknowledged_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let mut ann = Member::connect(trackers.address(1));
    ann.enter("ann");
    ann.create_group("g");
    say(&mut trackers, 1, "quota users files 3", "each user: 3 files");
    let key = ann.identity().clone();
    let again = |trackers: &Trackers, number| {
        let mut ann = Member::connect_as(key.clone(), trackers.address(number));
        ann.login("ann", "secret").unwrap();
        ann
    };
    let mut files = Vec::new();
    for (number, other) in [(1, 2), (2, 1)] {
        if number == 2 {
            trackers.restart(2);
        }
        // The first time the other one knows everything; the second time it is down with what only it knows.
        trackers.kill(other);
        let mut ann = again(&trackers, number);
        let shares = (0..5).map(|file| share(&format!("{number}-{file}"), 1)).collect();
        let done: Vec<_> = ann.calls_at_once(shares).into_iter().filter_map(shared).collect();
        assert_eq!(done.len(), 3, "at {number}");
        files.extend(done);
    }
    trackers.restart(1);
    trackers.until_in_step();
    for number in [1, 2] {
        let mut ann = again(&trackers, number);
        until("everything that was acknowledged is there", || listed(&mut ann) == 6);
        assert_eq!(quota(&mut ann, None).files.used, 6);
        ann.refused(share("more", 1));
    }
    let mut ann = again(&trackers, 2);
    for file in files.drain(..4) {
        ann.done(stop_share(file));
    }
    ann.done(share("room again", 1));
}

#[test]
fn a_member_cannot_fill_the_trackers_disks_with_piece_lists_not_even_by_taking_them_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 1);
    let mut ann = Member::connect(trackers.address(1));
    ann.enter("ann");
    ann.create_group("g");
    say(&mut trackers, 1, "quota users bytes 10M", "10.0 MiB of metadata");
    // 2 MB each.
    let mut shares: Vec<_> =
        (0..4).filter_map(|file| shared(ann.call(share(&format!("f{file}"), 100_000)))).collect();
    let usage = quota(&mut ann, None).bytes;
    assert!(shares.len() == 4 && usage.used > 8_000_000, "{usage:?}");
    shares.extend(shared(ann.call(share("f4", 100_000))));
    assert_eq!(shares.len(), 5);
    let refusal = ann.refused(share("f5", 100_000));
    assert!(refusal.kind == RefusalKind::Limit && refusal.text.contains("10.0 MiB"), "{refusal:?}");
    // Freed, and used again, and again: until the day's share of writing is used up too.
    let mut again = 0;
    let last = loop {
        ann.done(stop_share(shares.remove(0)));
        again += 1;
        match ann.call(share(&format!("again {again}"), 100_000)) {
            Ok(answer) => shares.extend(shared(Ok(answer))),
            Err(refusal) => break refusal,
        }
        assert!(again < 10, "nothing stops it");
    };
    assert!(last.kind == RefusalKind::Wait && last.retry_after_ms.is_some(), "{last:?}");
    let status = trackers.status(1);
    let bytes = status["database_bytes"].as_u64().unwrap();
    assert!(bytes < 100 << 20, "{bytes}");
    // Deleting is never refused.
    for share in shares.drain(..) {
        ann.done(stop_share(share));
    }
    // For a founder of many groups as for one: what nobody shares is dropped beyond a bound.
    say(&mut trackers, 1, "quota user ann bytes none", "of 20,000 files, any size");
    for file in 0..20 {
        let share = shared(ann.call(share(&format!("idle {file}"), 100_000))).unwrap();
        ann.done(stop_share(share));
        shares.push(share);
    }
    ann.done(share("last", 1));
    let kept = |ann: &mut Member, share: &(Gid, Fid)| {
        ann.call(Call::PieceList { group: share.0, file: share.1 }).is_ok()
    };
    let kept = shares.iter().filter(|share| kept(&mut ann, share)).count();
    assert!(kept < 20, "{kept}");
}

#[test]
fn a_user_founds_so_many_groups_and_what_was_left_behind_gives_way() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    say(&mut trackers, 1, "quota users groups 2 files 3", "2 groups founded");
    ann.ok("create_group h");
    let error = ann.fails("create_group i");
    assert!(error.contains("you founded 2 groups, which is your quota"), "{error}");
    ann.let_in("h", &mut [&mut bob]);
    for file in ["one", "two", "three"] {
        bob.share("g", file, 1_000);
    }
    let path = dir.path().join("four");
    random_file(&path, 1_000, 3);
    let fourth = format!("upload_file {} h", path.display());
    bob.fails(&fourth);
    bob.ok("leave_group g");
    bob.ok(&fourth);
    assert_eq!(bob.ok("quota")["files"]["used"], 1);
    // A group's quota is the members' together.
    say(&mut trackers, 1, "quota group g files 1", "group g has 0 files");
    ann.share("g", "five", 1_000);
    let error = ann.fails(&format!("upload_file {} g", path.display()));
    assert!(error.contains("the group's quota of 1 files is used up"), "{error}");
    ann.ok("stop_share g five");
    ann.ok(&format!("upload_file {} g", path.display()));
    assert_eq!(trackers.status(1)["groups_at_quota"], 1);
}

#[test]
fn a_user_is_in_so_many_groups_and_those_that_were_left_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 1);
    let mut ann = Member::connect(trackers.address(1));
    let user = ann.enter("ann").user;
    let create =
        |number: usize| Call::create_group(user, GroupName::create(&format!("g{number}")).unwrap()).1;
    let made = ann.calls_at_once((0..1_001).map(create).collect());
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1_000, "the quota without an operator");
    say(&mut trackers, 1, "quota user ann groups none", "any number of groups");
    let refusal = ann.refused(create(1_001));
    assert!(refusal.text.contains("you are in 1000 groups"), "{refusal:?}");
    for number in 1_001..1_020 {
        let group = GroupName::refer(&format!("g{}", number - 1_000)).unwrap();
        ann.done(Call::LeaveGroup { request: RequestId::random(), group });
        ann.done(create(number));
    }
    ann.refused(create(1_020));
}

#[test]
fn stored_files_count_with_all_their_copies_and_are_refused_before_they_are_sent() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::start(dir.path(), 1, 4);
    say(&mut store.trackers, 1, "quota users stored 3M", "3.0 MiB stored");
    let file = |name: &str, size: usize| {
        let path = dir.path().join(name);
        random_file(&path, size, 5);
        path.to_str().unwrap().to_owned()
    };
    // A megabyte twice fits, two megabytes twice do not.
    store.ok(&["put", &file("one", 1_000_000)]);
    let refused = store.refused(&["put", &file("two", 2_000_000)]);
    assert!(refused.contains("your quota has 1.0 MiB left"), "{refused}");
    // What takes the file's place counts for the difference.
    store.ok(&["put", &file("one", 1_400_000)]);
    let refused = store.refused(&["put", &file("one", 1_800_000)]);
    assert!(refused.contains("your quota of 3.0 MiB of stored files"), "{refused}");
    // Tiny files take a block of the disk each: four parts, twice.
    let tiny = (0..12).map(|number| file(&format!("tiny{number}"), 100)).collect::<Vec<_>>();
    let taken = tiny.iter().filter(|path| store.run("ann", &["put", path])["ok"] == true).count();
    assert_eq!(taken, 10);
    store.ok(&["rm", "one"]);
    store.ok(&["put", &file("two", 1_400_000)]);
    // Other users are not affected.
    assert_eq!(store.run("bob", &["create_user"])["ok"], true);
    let put = store.run("bob", &["put", &file("bobs", 1_400_000)]);
    assert_eq!(put["ok"], true, "{put}");
}

#[test]
fn names_with_spaces_are_quoted_at_the_prompt_and_a_groups_quota_is_for_its_members() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 1);
    let mut ann = Member::connect(trackers.address(1));
    ann.enter("ann b");
    say(&mut trackers, 1, "quota user 'ann b' files 7", "user ann b has 0 files");
    assert_eq!(quota(&mut ann, None).files.most, Some(7));
    let refusal = ann.refused(Call::Quota { group: Some(GroupName::refer("g").unwrap()) });
    assert_eq!(refusal.kind, RefusalKind::NotFound);
}

#[test]
fn shares_of_a_lost_client_are_taken_back_and_a_download_over_the_quota_is_complete_and_not_shared() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 1);
    let info = trackers.info();
    let (mut ann, mut bob) = Client::pair(dir.path(), &info);
    say(&mut trackers, 1, "quota users files 2", "each user: 2 files");
    say(&mut trackers, 1, "quota user bob files 0", "of 0 files");
    ann.share("g", "one", 1_000);
    let (path, _) = ann.share("g", "two", 1_000);
    bob.ok(&format!("download_file g one {}", dir.path().display()));
    bob.until_download("one", "C");
    let lost = bob.until_event("share_lost");
    assert!(lost["reason"].as_str().unwrap().contains("your quota of 0 files is used up"), "{lost}");
    let mut other = Client::start(dir.path(), "other", &info);
    other.ok("login ann secret");
    let upload = format!("upload_file {} g", path.display());
    other.fails(&upload);
    let clients = other.ok("quota")["clients"].clone();
    let key = clients[0]["peer"].as_str().unwrap().to_owned();
    assert_eq!((&clients[0]["files"], &clients[0]["self"]), (&2.into(), &false.into()), "{clients}");
    let forget = format!("forget_client {}", &key[key.len() - 8..]);
    assert!(other.fails(&forget).contains("that client is online"));
    let ann = ann.kill();
    until("it is offline", || other.run_any(&forget)["ok"] == true);
    assert_eq!(other.ok("quota")["files"]["used"], 0);
    assert!(other.fails(&forget).contains("shares nothing on a client"));
    other.ok(&upload);
    // It was not lost after all: what there is room for is shared again.
    let mut ann = ann.restart();
    ann.ok("login ann secret");
    until("one of the two is shared again", || ann.ok("quota")["files"]["used"] == 2);
}

fn nodes(member: &mut Member) -> Vec<NodeEntry> {
    match member.done(Call::Store(StoreCall::Nodes)) {
        Answer::Store(StoreAnswer::Nodes(nodes)) => nodes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_of_many_tiny_chunks_is_refused_by_every_tracker_and_one_of_few_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 2, 2);
    let names = |chunks: u32, length: u32, last: u32| {
        let id = |number: u32| ChunkId::of(&[number.to_le_bytes(), length.to_le_bytes()].concat());
        let sealed = |number| if number + 1 == chunks { last } else { length };
        (0..chunks).map(|number| ChunkRef { id: id(number), sealed: sealed(number) }).collect::<Vec<_>>()
    };
    for number in [1, 2] {
        let mut eve = Member::connect(store.trackers.address(number));
        eve.enter(&format!("eve{number}"));
        let servers: Vec<_> = nodes(&mut eve).into_iter().map(|node| node.peer).collect();
        let put = |chunks| {
            let manifest = StoreManifest { copies: 2, servers: servers.clone(), shift: 0, chunks }.encode();
            let key = PointerKey(Blake3::of(&manifest).0);
            Call::Store(StoreCall::Put { request: RequestId::random(), key, manifest, sealed: vec![1] })
        };
        // 20,000 chunks of 3 bytes; all but one long enough; one more than a few.
        let almost: Vec<_> = names(40, 1 << 20, 3).into_iter().chain(names(1, 5, 5)).collect();
        for chunks in [names(20_000, 3, 3), almost, names(17, 100, 100)] {
            let refusal = eve.refused(put(chunks));
            assert_eq!(refusal.kind, RefusalKind::Malformed, "{refusal:?}");
            assert!(refusal.text.contains("its chunks are too short for so many"), "{refusal:?}");
        }
        assert_eq!(quota(&mut eve, None).files.used, 0);
        // A small file has few, and a long one's last chunk is what is left.
        eve.done(put(names(4, 51, 49)));
        eve.done(put(names(40, 1 << 20, 49)));
        assert_eq!(quota(&mut eve, None).files.used, 2);
    }
}

#[test]
fn a_user_who_wants_all_leases_leaves_others_theirs_at_every_tracker() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 2, 2);
    let lease = || Call::Store(StoreCall::Lease { id: RequestId::random(), end: false });
    let mut eve = Member::connect(store.trackers.address(1));
    eve.enter("eve");
    let taken = eve.calls_at_once((0..500).map(|_| lease()).collect());
    assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 64);
    let mut elsewhere = Member::connect(store.trackers.address(2));
    elsewhere.login("eve", "secret").unwrap();
    until("the other tracker counts them too", || {
        elsewhere.call(lease()).is_err_and(|refusal| refusal.kind == RefusalKind::Limit)
    });
    let path = dir.path().join("film");
    random_file(&path, 100_000, 1);
    store.ok(&["put", path.to_str().unwrap()]);
    let to = tempfile::tempdir_in(dir.path()).unwrap();
    store.ok(&["get", "film", "-o", to.path().to_str().unwrap()]);
}

#[test]
fn a_client_that_tells_no_tracker_what_it_stores_fills_no_node() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::start(dir.path(), 1, 1);
    say(&mut store.trackers, 1, "quota users stored 100K", "100.0 KiB stored");
    let mut eve = Member::connect(store.trackers.address(1));
    eve.enter("eve");
    let nodes = nodes(&mut eve);
    let Answer::Store(StoreAnswer::Ticket { ticket, .. }) = eve.done(Call::Store(StoreCall::Ticket)) else {
        panic!("no answer")
    };
    let (address, tasks) = (nodes[0].address.parse().unwrap(), TaskTracker::new());
    eve.handle().block_on(async {
        let connection =
            NodeConnection::connect(address, nodes[0].peer, eve.identity(), &tasks).await.unwrap();
        connection.show(ticket).await.unwrap();
        let mut taken = 0;
        for number in 0..100_u8 {
            let bytes = vec![number; 10];
            match connection.put(ChunkId::of(&bytes), bytes.into()).await {
                Ok(()) => taken += 1,
                Err(error) => assert!(matches!(error, RequestError::Failed(Failure::Quota)), "{error}"),
            }
        }
        // Twice the quota, in blocks of the disk.
        assert_eq!(taken, 50);
    });
}
