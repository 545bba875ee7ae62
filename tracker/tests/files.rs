//! Files, shares and presence through two real trackers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod common;

use common::{Client, free_ports, group, in_sync, start, until, user};
use shoal_common::tracker_api::{Answer, Call, Completeness, FileEntry, Holding, REVISION, RefusalKind};
use shoal_common::{Blake3, Fid, FileDigest, FileName, Gid, Layout, Manifest, RequestId, Sha1};

fn file(name: &str, content: u8) -> (Manifest, Vec<u8>) {
    let digest = FileDigest { sha1: Sha1([content; 20]), blake3: Blake3([content; 32]) };
    let layout = Layout::for_size(100_000).unwrap();
    Manifest::new(FileName::create(name).unwrap(), layout, &[Sha1([content; 20]); 2], digest, vec![])
}

fn share(name: &str, content: u8) -> Call {
    let (manifest, piece_list) = file(name, content);
    Call::Share { request: RequestId::random(), group: group("g"), manifest, piece_list }
}

async fn share_and_announce(client: &mut Client, name: &str, content: u8) -> (Gid, Fid) {
    let Answer::Shared { group, file } = client.ok(share(name, content)).await else { panic!("not shared") };
    announce(client, group, file, Completeness::Complete).await;
    (group, file)
}

async fn announce(client: &mut Client, group: Gid, file: Fid, completeness: Completeness) {
    let holdings = vec![Holding { group, file, completeness }];
    let answer = client.ok(Call::Announce { reset: false, holdings }).await;
    assert_eq!(answer, Answer::Announced { unknown: vec![] });
}

async fn files(client: &mut Client) -> Vec<FileEntry> {
    match client.ok(Call::ListFiles { group: group("g"), after: None }).await {
        Answer::Files { files, .. } => files,
        other => panic!("{other:?}"),
    }
}

/// Alice, who owns g, at the first port and Bob, a member, at the second.
async fn alice_and_bob(ports: &[u16]) -> (Client, Client) {
    let mut alice = Client::connect(ports[0]).await;
    let mut bob = Client::connect(*ports.last().unwrap()).await;
    alice.enter("alice").await;
    bob.enter("bob").await;
    alice.create_group("g").await;
    bob.ok(Call::JoinGroup { request: RequestId::random(), group: group("g") }).await;
    let request = RequestId::random();
    alice.ok(Call::Decide { request, group: group("g"), user: user("bob"), accept: true }).await;
    (alice, bob)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_is_found_through_the_other_tracker_while_its_sharer_is_online() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let (one, two) = (start(dir.path(), &ports, 1).await, start(dir.path(), &ports, 2).await);
    in_sync(&one, 1).await;
    in_sync(&two, 1).await;
    let (mut alice, mut bob) = alice_and_bob(&ports).await;
    let (gid, fid) = share_and_announce(&mut alice, "song.flac", 1).await;
    in_sync(&one, 1).await;
    in_sync(&two, 1).await;

    let found = bob.ok(Call::Find { group: group("g"), file: FileName::refer("song.flac").unwrap() }).await;
    let Answer::Found { group: found_group, file: found_file, manifest } = found else { panic!("not found") };
    assert_eq!((found_group, found_file), (gid, fid));
    let Answer::PieceList(list) = bob.ok(Call::PieceList { group: gid, file: fid }).await else {
        panic!("no list")
    };
    assert_eq!(manifest.read_piece_list(&list).unwrap(), [Sha1([1; 20]); 2]);

    let mut holders = Vec::new();
    let deadline = std::time::Instant::now() + common::PATIENCE;
    while holders.is_empty() && std::time::Instant::now() < deadline {
        match bob.ok(Call::Holders { group: gid, file: fid }).await {
            Answer::Holders { holders: found, .. } => holders = found,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((holders[0].peer, holders[0].user.as_str()), (alice.identity.peer_id(), "alice"));
    assert_eq!(holders[0].address, "127.0.0.1:7777");
    assert_eq!(files(&mut bob).await[0].sharers, 1);

    // Alice's connection breaks: no client shares it now, but the record of the share stays.
    alice.close().await;
    until("alice is offline", async || two.online() == 1).await;
    let left = files(&mut bob).await;
    assert_eq!((left.len(), left[0].sharers), (1, 0));
    one.shutdown().await;
    two.shutdown().await;
}

/// Who holds a file, and whether it is said that they may not be at their address.
async fn holders_of(client: &mut Client, (group, file): (Gid, Fid)) -> Vec<(String, bool)> {
    let Answer::Holders { holders, .. } = client.ok(Call::Holders { group, file }).await else {
        panic!("no holders")
    };
    holders.iter().map(|holder| (holder.address.clone(), holder.is_unproven())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_a_client_does_not_come_from_is_named_last_and_until_three_users_failed() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let (one, two) = (start(dir.path(), &ports, 1).await, start(dir.path(), &ports, 2).await);
    in_sync(&one, 1).await;
    in_sync(&two, 1).await;
    let mut mallory = Client::connect(ports[0]).await;
    mallory.ok(Call::Hello { listen: "192.0.2.1:25".into(), revision: Some(REVISION) }).await;
    mallory.enter("mallory").await;
    mallory.create_group("g").await;
    let file = share_and_announce(&mut mallory, "song.flac", 1).await;
    let mut others = Vec::new();
    for name in ["ann", "bob", "eve"] {
        let mut other = Client::connect(ports[1]).await;
        other.enter(name).await;
        other.ok(Call::JoinGroup { request: RequestId::random(), group: group("g") }).await;
        let request = RequestId::random();
        mallory.ok(Call::Decide { request, group: group("g"), user: user(name), accept: true }).await;
        others.push(other);
    }
    let (ann, rest) = others.split_first_mut().unwrap();
    let lie = ("192.0.2.1:25".to_owned(), true);
    until("the other tracker names her", async || holders_of(ann, file).await == [lie.clone()]).await;
    ann.ok(Call::ShareKnown { request: RequestId::random(), group: file.0, file: file.1 }).await;
    announce(ann, file.0, file.1, Completeness::Complete).await;
    let both = [("127.0.0.1:7777".to_owned(), false), lie];
    until("both are named, hers last", async || holders_of(&mut rest[0], file).await == both).await;

    let report = |peers| Call::Unreached { group: file.0, file: file.1, peers };
    let peers = vec![mallory.identity.peer_id(), ann.identity.peer_id()];
    for _ in 0..3 {
        rest[0].ok(report(peers.clone())).await;
        ann.ok(report(peers.clone())).await;
    }
    assert_eq!(holders_of(&mut rest[0], file).await, both, "two users are too few");
    rest[1].ok(report(peers)).await;
    assert_eq!(holders_of(&mut rest[0], file).await, both[..1], "what is proven stays");
    let mut stranger = Client::connect(ports[1]).await;
    stranger.enter("stranger").await;
    let refused = stranger.refused(report(vec![ann.identity.peer_id()])).await;
    assert_eq!(refused.kind, RefusalKind::NotAllowed);
    one.shutdown().await;
    two.shutdown().await;
}

/// Shares "m" with these mirrors.
async fn share_with(client: &mut Client, mirrors: &[String]) -> (Gid, Fid) {
    let Call::Share { request, group, mut manifest, piece_list } = share("m", 1) else { unreachable!() };
    manifest.mirrors = mirrors.to_vec();
    match client.ok(Call::Share { request, group, manifest, piece_list }).await {
        Answer::Shared { group, file } => (group, file),
        other => panic!("{other:?}"),
    }
}

/// The mirrors of "m", which are the same however they are asked for.
async fn mirrors(client: &mut Client, (group_id, file): (Gid, Fid)) -> Vec<String> {
    let found = client.ok(Call::Find { group: group("g"), file: FileName::refer("m").unwrap() }).await;
    let Answer::Found { manifest, .. } = found else { panic!("{found:?}") };
    let held = client.ok(Call::Holders { group: group_id, file }).await;
    let Answer::Holders { mirrors, .. } = held else { panic!("{held:?}") };
    assert_eq!(mirrors.as_ref(), Some(&manifest.mirrors));
    manifest.mirrors
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_end_with_the_share_of_who_named_them_and_push_nobody_elses_out() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let (one, two) = (start(dir.path(), &ports, 1).await, start(dir.path(), &ports, 2).await);
    in_sync(&one, 1).await;
    in_sync(&two, 1).await;
    let (mut alice, mut bob) = alice_and_bob(&ports).await;
    let of = |who: &str, count: usize| {
        (0..count).map(|n| format!("https://{who}.example/{n}")).collect::<Vec<_>>()
    };
    let (owners, strangers) = (of("alice", 2), of("bob", 16));
    let file = share_with(&mut alice, &owners).await;
    assert_eq!(share_with(&mut bob, &strangers).await, file);
    in_sync(&one, 1).await;
    in_sync(&two, 1).await;
    for client in [&mut alice, &mut bob] {
        let found = mirrors(client, file).await;
        assert!(found.len() == 16 && owners.iter().all(|url| found.contains(url)), "{found:?}");
    }
    // What he names last counts, and a password is not passed on.
    share_with(&mut bob, &strangers[..1]).await;
    assert_eq!(mirrors(&mut bob, file).await, [&owners[..1], &strangers[..1], &owners[1..]].concat());
    let Call::Share { request, group: g, mut manifest, piece_list } = share("m", 1) else { unreachable!() };
    manifest.mirrors = vec!["http://bob:secret@bob.example/m".into()];
    let refused = bob.refused(Call::Share { request, group: g, manifest, piece_list }).await;
    assert!(refused.kind == RefusalKind::Malformed && refused.text.contains("password"), "{refused:?}");
    // Offline is not gone; the record is what counts.
    bob.close().await;
    until("bob is offline", async || one.online() == 1).await;
    assert_eq!(mirrors(&mut alice, file).await.len(), 3);
    let mut bob = Client::connect(ports[1]).await;
    bob.enter("bob2").await;
    bob.ok(Call::JoinGroup { request: RequestId::random(), group: group("g") }).await;
    let request = RequestId::random();
    alice.ok(Call::Decide { request, group: group("g"), user: user("bob2"), accept: true }).await;
    share_with(&mut bob, &of("bob2", 1)).await;
    assert_eq!(mirrors(&mut alice, file).await.len(), 4);
    bob.ok(Call::LeaveGroup { request: RequestId::random(), group: group("g") }).await;
    assert_eq!(mirrors(&mut alice, file).await.len(), 3);
    let (group, fid) = file;
    alice.ok(Call::StopShare { request: RequestId::random(), group, file: fid }).await;
    assert_eq!(mirrors(&mut alice, file).await, strangers[..1]);
    one.shutdown().await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_belongs_to_the_first_content_while_somebody_shares_it() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(1));
    let one = start(dir.path(), &ports, 1).await;
    let (mut alice, mut bob) = alice_and_bob(&ports).await;
    let (gid, fid) = share_and_announce(&mut alice, "a", 1).await;
    assert_eq!(bob.refused(share("a", 2)).await.kind, RefusalKind::Exists);
    // The same content under the same name adds a sharer.
    share_and_announce(&mut bob, "a", 1).await;
    assert_eq!(files(&mut bob).await.iter().map(|file| file.sharers).collect::<Vec<_>>(), [2]);
    for client in [&mut alice, &mut bob] {
        client.ok(Call::StopShare { request: RequestId::random(), group: gid, file: fid }).await;
        announce(client, gid, fid, Completeness::None).await;
    }
    assert_eq!(files(&mut bob).await, []);
    share_and_announce(&mut bob, "a", 2).await;
    assert_eq!(files(&mut alice).await[0].sha1, Sha1([2; 20]));
    one.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_contents_let_in_by_a_partition_both_stay() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let (one, two) = (start(dir.path(), &ports, 1).await, start(dir.path(), &ports, 2).await);
    in_sync(&one, 1).await;
    in_sync(&two, 1).await;
    let (alice, mut bob) = alice_and_bob(&ports).await;
    let alice_key = alice.identity.clone();
    one.shutdown().await;
    share_and_announce(&mut bob, "a", 2).await;
    two.shutdown().await;
    let one = start(dir.path(), &ports, 1).await;
    let mut alice = Client::connect_as(alice_key, ports[0]).await;
    alice.login("alice", "secret").await.unwrap();
    share_and_announce(&mut alice, "a", 1).await;
    let two = start(dir.path(), &ports, 2).await;
    in_sync(&one, 1).await;
    let listed = files(&mut alice).await;
    assert_eq!(listed.len(), 2);
    assert_eq!(
        (listed[0].name.as_str(), listed[0].sha1),
        ("a", Sha1([2; 20])),
        "the first content keeps the name"
    );
    assert!(listed[1].name.is_renamed() && listed[1].sha1 == Sha1([1; 20]));
    let find = Call::Find { group: group("g"), file: listed[1].name.clone() };
    assert!(matches!(alice.ok(find).await, Answer::Found { manifest, .. } if manifest.sha1 == Sha1([1; 20])));
    one.shutdown().await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_liars_learn_and_record_nothing() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(1));
    let one = start(dir.path(), &ports, 1).await;
    let (mut alice, _bob) = alice_and_bob(&ports).await;
    let (gid, fid) = share_and_announce(&mut alice, "a", 1).await;

    let mut eve = Client::connect(ports[0]).await;
    let list = Call::ListFiles { group: group("g"), after: None };
    assert_eq!(eve.refused(list.clone()).await.kind, RefusalKind::NotLoggedIn);
    eve.enter("eve").await;
    let find = Call::Find { group: group("g"), file: FileName::refer("a").unwrap() };
    for call in [
        list,
        find,
        Call::PieceList { group: gid, file: fid },
        Call::Holders { group: gid, file: fid },
        Call::ListMembers { group: group("g"), after: None },
        Call::ShareKnown { request: RequestId::random(), group: gid, file: fid },
        share("mine", 3),
    ] {
        let refusal = eve.refused(call).await;
        assert_eq!(refusal.kind, RefusalKind::NotAllowed);
        assert_eq!(refusal.text, "you are not a member of g; ask with: join_group g");
    }
    let lie = Holding { group: gid, file: fid, completeness: Completeness::Complete };
    let answer = eve.ok(Call::Announce { reset: true, holdings: vec![lie] }).await;
    assert_eq!(answer, Answer::Announced { unknown: vec![lie] });
    assert_eq!(files(&mut alice).await[0].sharers, 1);

    // A manifest that contradicts itself.
    let (manifest, mut list) = file("b", 9);
    list[0] ^= 1;
    let broken = Call::Share { request: RequestId::random(), group: group("g"), manifest, piece_list: list };
    assert_eq!(alice.refused(broken).await.kind, RefusalKind::Malformed);
    one.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ownership_passes_on_and_an_empty_group_is_gone_for_good() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(1));
    let one = start(dir.path(), &ports, 1).await;
    let (mut alice, mut bob) = alice_and_bob(&ports).await;
    let requests = Call::ListRequests { group: group("g"), after: None };
    assert_eq!(bob.refused(requests.clone()).await.kind, RefusalKind::NotAllowed);
    let leave = || Call::LeaveGroup { request: RequestId::random(), group: group("g") };
    alice.ok(leave()).await;
    bob.ok(requests).await;
    assert_eq!(alice.refused(leave()).await.kind, RefusalKind::NotAllowed);
    bob.ok(leave()).await;
    let Answer::Groups { groups, .. } = bob.ok(Call::ListGroups { after: None }).await else {
        panic!("no groups")
    };
    assert_eq!(groups, []);
    let again = Call::create_group(bob.user.unwrap(), group("g")).1;
    assert_eq!(bob.refused(again).await.kind, RefusalKind::Exists);
    let join = Call::JoinGroup { request: RequestId::random(), group: group("g") };
    assert_eq!(bob.refused(join).await.kind, RefusalKind::NotFound);
    one.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_change_and_guesses_must_wait() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(1));
    let one = start(dir.path(), &ports, 1).await;
    let mut alice = Client::connect(ports[0]).await;
    let session = alice.enter("alice").await;
    let Answer::Challenge { salt, challenge } =
        alice.ok(Call::Challenge { name: user("alice"), candidate: 0 }).await
    else {
        panic!("no challenge")
    };
    let old = shoal_common::credentials::Secrets::derive("secret", &salt).unwrap();
    let key = old.open(&session.account).unwrap();
    let (_, account) = shoal_common::credentials::Secrets::rewrap("new", &key).unwrap();
    let signature = old.answer(&challenge, alice.identity.peer_id(), alice.tracker);
    let request = RequestId::random();
    let change = Some(old.sign_change(session.user, &account.digest()));
    alice.ok(Call::ChangePassword { request, signature, account, change }).await;

    let mut elsewhere = Client::connect(ports[0]).await;
    assert_eq!(elsewhere.refused(Call::Resume { token: session.token }).await.kind, RefusalKind::NotLoggedIn);
    for _ in 0..5 {
        assert_eq!(elsewhere.login("alice", "secret").await.unwrap_err().kind, RefusalKind::WrongPassword);
    }
    let refusal = elsewhere.login("alice", "new").await.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Wait);
    assert!(refusal.retry_after_ms.unwrap() <= 1_000);
    // A name that does not exist looks like one that does.
    let Answer::Challenge { salt: first, .. } =
        elsewhere.ok(Call::Challenge { name: user("nobody"), candidate: 0 }).await
    else {
        panic!("no challenge")
    };
    let Answer::Challenge { salt: second, .. } =
        elsewhere.ok(Call::Challenge { name: user("nobody"), candidate: 0 }).await
    else {
        panic!("no challenge")
    };
    assert_eq!(first, second);
    until("the right password opens", async || elsewhere.login("alice", "new").await.is_ok()).await;
    one.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_an_earlier_version_gets_lists_without_what_it_cannot_read_or_hears_what_to_update() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(1));
    let tracker = start(dir.path(), &ports, 1).await;
    let (mut alice, mut bob) = alice_and_bob(&ports).await;
    let mut zwnj = Client::connect(ports[0]).await;
    zwnj.enter("می\u{200c}خواهم").await;
    zwnj.create_group("👩\u{200d}🚀").await;
    zwnj.ok(Call::JoinGroup { request: RequestId::random(), group: group("g") }).await;
    let long = format!("{}.bin", "n".repeat(251));
    let (gid, fid) = share_and_announce(&mut alice, "song.flac", 1).await;
    share_and_announce(&mut bob, &long, 2).await;
    let requests = || Call::ListRequests { group: group("g"), after: None };
    let count = |answer| match answer {
        Answer::Users { users, .. } => users.len(),
        Answer::Groups { groups, .. } => groups.len(),
        other => panic!("{other:?}"),
    };
    for (revision, seen) in [(REVISION, 1), (2, 0)] {
        alice.ok(Call::Hello { listen: "127.0.0.1:7777".into(), revision: Some(revision) }).await;
        assert_eq!(count(alice.ok(requests()).await), seen, "revision {revision}");
        assert_eq!(count(alice.ok(Call::ListGroups { after: None }).await), 1 + seen);
        assert_eq!(files(&mut alice).await.len(), 1 + seen);
    }
    let find = Call::Find { group: group("g"), file: FileName::refer(&long).unwrap() };
    let refusal = alice.refused(find).await;
    assert!(refusal.text.contains("update the client"), "{refusal:?}");

    // In a group with such a name, or beside such a member, the rest goes on.
    let accept = Call::Decide {
        request: RequestId::random(),
        group: group("g"),
        user: user("می\u{200c}خواهم"),
        accept: true,
    };
    let mut ben = Client::connect(ports[0]).await;
    ben.ok(Call::Hello { listen: "127.0.0.1:7778".into(), revision: Some(2) }).await;
    ben.enter("ben").await;
    let rocket = || group("👩\u{200d}🚀");
    ben.ok(Call::JoinGroup { request: RequestId::random(), group: rocket() }).await;
    let request = RequestId::random();
    zwnj.ok(Call::Decide { request, group: rocket(), user: user("ben"), accept: true }).await;
    let Answer::LoggedIn(session) = ben.ok(Call::Renew).await else { panic!("not renewed") };
    assert_eq!(session.tickets, []);
    alice.ok(accept).await;
    zwnj.ok(Call::ShareKnown { request: RequestId::random(), group: gid, file: fid }).await;
    announce(&mut zwnj, gid, fid, Completeness::Complete).await;
    assert_eq!(holders_of(&mut alice, (gid, fid)).await, []);
    tracker.shutdown().await;
}
