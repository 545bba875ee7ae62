//! No one takes over a user or a group: neither by sending its id, nor through another tracker. What the version before
//! wrote lives on.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod common;

use std::path::Path;
use std::time::Instant;

use common::{Client, free_ports, group, in_sync, start, until, user};
use shoal_common::credentials::{Account, Secrets};
use shoal_common::tracker_api::{Answer, Call, RefusalKind, Session};
use shoal_common::{AccountDigest, Gid, Nonce, PeerId, RequestId, Uid};
use shoal_replica::{Bounds, Config, Kind, Now, Replica, TrackerNo, Write, WriterId, claim_key};
use shoal_tracker::clock;
use shoal_tracker::record::{
    ACCOUNT, ALLOWANCE, AccountRecord, Allowance, Birth, CAUTION, Caution, Change, Founding, History,
    INVITATION, Invitation, SIGN_OUT, SignOut, account_key, encode, sign_out_key,
};
use shoal_tracker::store::Store;
use shoal_tracker::tracker::Tracker;

fn fresh(password: &str) -> Account {
    Secrets::create(password).unwrap().2
}

async fn start_all(dir: &Path, ports: &[u16]) -> Vec<Tracker> {
    let mut trackers = Vec::new();
    for number in 1..=ports.len() {
        trackers.push(start(dir, ports, u8::try_from(number).unwrap()).await);
    }
    for tracker in &trackers {
        in_sync(tracker, ports.len() - 1).await;
    }
    trackers
}

async fn stop_all(trackers: Vec<Tracker>) {
    for tracker in trackers {
        tracker.shutdown().await;
    }
}

async fn login(port: u16, name: &str, password: &str) -> Result<Session, RefusalKind> {
    let mut client = Client::connect(port).await;
    let session = client.login(name, password).await.map_err(|refusal| refusal.kind);
    client.close().await;
    session
}

/// Asks for a change of password by hand.
async fn change(
    client: &mut Client,
    name: &str,
    old: &str,
    new: &Account,
    sign: bool,
) -> Result<Answer, RefusalKind> {
    let challenge = Call::Challenge { name: user(name), candidate: 0 };
    let Answer::Challenge { salt, challenge } = client.ok(challenge).await else { panic!("no challenge") };
    let secrets = Secrets::derive(old, &salt).unwrap();
    let signature = secrets.answer(&challenge, client.identity.peer_id(), client.tracker);
    let change = sign.then(|| secrets.sign_change(client.user.unwrap(), &new.digest()));
    let call = Call::ChangePassword { request: RequestId::random(), signature, account: new.clone(), change };
    client.call(call).await.map_err(|refusal| refusal.kind)
}

async fn owner(port: u16, name: &str) -> String {
    let Answer::Groups { groups, .. } =
        Client::connect(port).await.ok(Call::ListGroups { after: None }).await
    else {
        panic!("no groups")
    };
    groups.into_iter().find(|entry| entry.name == group(name)).unwrap().owner.to_string()
}

/// Writes into the database of a tracker that is down what it will send the others: such a tracker lies.
fn lie(dir: &Path, (number, of): (u8, u8), writes: Vec<Write>) {
    let mut store = Store::open(&dir.join(number.to_string())).unwrap();
    let configured = (1..=of).map(TrackerNo).collect();
    let writer = WriterId(fastrand::u128(..).to_be_bytes());
    let (cluster, bounds) = (*b"shoal tracker  1", Bounds::default());
    let config = Config { me: TrackerNo(number), configured, writer, cluster, bounds };
    let now = Now { wall_ms: clock::wall_ms(), mono_ms: 0 };
    store.begin().unwrap();
    let mut replica = Replica::open(&mut store, config, now).unwrap();
    replica.write(&mut store, writes, now).unwrap();
    store.commit().unwrap();
}

fn account_write(user: Uid, record: &AccountRecord) -> Write {
    Write { kind: ACCOUNT, key: account_key(user), value: encode(record), ..Write::default() }
}

fn claim_write(kind: Kind, name: &str, id: [u8; 16], value: Vec<u8>) -> Write {
    Write { kind, key: claim_key(name.as_bytes(), shoal_replica::Uid(id)), value, ..Write::default() }
}

/// What a client may send that wants another user's id.
fn takeovers_of(anns: Uid, name: &str, nonce: Nonce) -> Vec<Call> {
    let nonces = [None, Some(Nonce::random()), Some(nonce)];
    let call = |nonce| Call::CreateUser {
        id: anns,
        name: user(name),
        account: fresh("eve"),
        nonce,
        invitation: None,
    };
    nonces.into_iter().map(call).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_over_a_user_or_a_group_by_sending_its_id() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(3));
    let trackers = start_all(dir.path(), &ports).await;
    let mut ann = Client::connect(ports[0]).await;
    let (anns, create) = Call::create_user(user("ann"), fresh("ann"));
    let Call::CreateUser { nonce: Some(nonce), .. } = create else { panic!("no nonce") };
    ann.ok(create.clone()).await;
    let before = ann.login("ann", "ann").await.unwrap();
    let (gid, found) = Call::create_group(anns, group("g"));
    let Call::CreateGroup { nonce: Some(group_nonce), .. } = found else { panic!("no nonce") };
    ann.ok(found.clone()).await;
    ann.close().await;
    Client::connect(ports[1]).await.enter("ben").await;

    let mut trackers = Some(trackers);
    for restarted in [false, true] {
        if restarted {
            stop_all(trackers.take().unwrap()).await;
            trackers = Some(start_all(dir.path(), &ports).await);
        }
        for port in &ports {
            let mut stranger = Client::connect(*port).await;
            let mut ben = Client::connect(*port).await;
            ben.login("ben", "secret").await.unwrap();
            for name in ["aaa", "ann", "zzz"] {
                for call in takeovers_of(anns, name, nonce) {
                    for client in [&mut stranger, &mut ben] {
                        let refusal = client.refused(call.clone()).await;
                        assert!(
                            matches!(refusal.kind, RefusalKind::Malformed | RefusalKind::Exists),
                            "{refusal:?}"
                        );
                    }
                }
                assert!(login(*port, name, "eve").await.is_err());
            }
            for name in ["aaa", "g", "zzz"] {
                for nonce in [None, Some(Nonce::random()), Some(group_nonce)] {
                    let call = Call::CreateGroup { id: gid, name: group(name), nonce };
                    assert_eq!(stranger.refused(call.clone()).await.kind, RefusalKind::NotLoggedIn);
                    ben.refused(call).await;
                }
            }
            let Answer::LoggedIn(session) = ben.ok(Call::Renew).await else { panic!("no session") };
            assert!(session.tickets.is_empty(), "ben is in no group");
            // Ann's own requests, repeated as a client carries them from tracker to tracker, change nothing.
            stranger.ok(create.clone()).await;
            let mut ann = Client::connect(*port).await;
            let session = ann.login("ann", "ann").await.unwrap();
            assert_eq!((session.user, &session.account), (anns, &before.account));
            ann.ok(found.clone()).await;
            assert_eq!(owner(*port, "g").await, "ann");
            for client in [stranger, ben, ann] {
                client.close().await;
            }
        }
    }
    stop_all(trackers.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tracker_takes_anothers_word_for_an_account_or_a_group() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(3));
    let mut trackers = start_all(dir.path(), &ports).await;
    let mut ann = Client::connect(ports[0]).await;
    let (anns, create) = Call::create_user(user("ann"), fresh("ann"));
    let Call::CreateUser { nonce: Some(nonce), ref account, .. } = create else { panic!("no nonce") };
    let first = account.digest();
    ann.ok(create.clone()).await;
    let before = ann.login("ann", "ann").await.unwrap();
    let gid = ann.create_group("g").await;
    ann.close().await;

    let eves = fresh("eve");
    let birth = || Some(Birth { nonce, name: "ann".into() });
    let record = |first, birth, changes| {
        account_write(anns, &AccountRecord::new(eves.clone(), Some(History { first, birth, changes })))
    };
    let signed = |old: &AccountDigest| {
        let (eve, _, _) = Secrets::create("eve").unwrap();
        let _ = old;
        vec![Change { to: eves.digest(), signature: eve.sign_change(anns, &eves.digest()) }]
    };
    let eve_user = Uid([0xee; 16]);
    let founding = |nonce| encode(&Founding { founder: eve_user, nonce, skeleton: None });
    let lies = [
        vec![account_write(anns, &AccountRecord::new(eves.clone(), None))],
        vec![record(first, birth(), Vec::new())],
        vec![record(first, birth(), signed(&first))],
        vec![record(eves.digest(), None, Vec::new())],
        vec![record(eves.digest(), birth(), Vec::new())],
        vec![Write { kind: ACCOUNT, key: account_key(anns), tombstone: true, ..Write::default() }],
        vec![
            claim_write(Kind::USER_CLAIM, "aaa", anns.0, Vec::new()),
            claim_write(Kind::GROUP_CLAIM, "aaa", gid.0, founding(None)),
            claim_write(Kind::GROUP_CLAIM, "aab", gid.0, founding(Some(Nonce::random()))),
        ],
    ];
    for (number, lie_of_three) in lies.into_iter().enumerate() {
        trackers.pop().unwrap().shutdown().await;
        lie(dir.path(), (3, 3), lie_of_three);
        trackers.push(start(dir.path(), &ports, 3).await);
        for tracker in &trackers {
            in_sync(tracker, 2).await;
        }
        // It is listened to in all else.
        let name = format!("ben{number}");
        Client::connect(ports[2]).await.enter(&name).await;
        for port in &ports[..2] {
            until("what is true arrives", async || login(*port, &name, "secret").await.is_ok()).await;
            let session = login(*port, "ann", "ann").await.unwrap();
            assert_eq!((session.user, &session.account), (anns, &before.account));
            assert_eq!(session.name, user("ann"));
            assert!(login(*port, "ann", "eve").await.is_err() && login(*port, "aaa", "eve").await.is_err());
            assert_eq!(owner(*port, "g").await, "ann");
        }
        for tracker in &trackers[..2] {
            assert!(tracker.status().await.unwrap().alarms > 0, "the operator sees it");
        }
    }
    stop_all(trackers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_changed_on_both_sides_of_a_partition_become_one() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    stop_all({
        let trackers = start_all(dir.path(), &ports).await;
        Client::connect(ports[0]).await.create_user("ann", "first").await;
        trackers
    })
    .await;
    // The side that knows of more changes is right, though the other's is later.
    for (number, passwords) in [(2, &["two", "three"][..]), (1, &["other"])] {
        let tracker = start(dir.path(), &ports, number).await;
        let port = ports[usize::from(number) - 1];
        let mut old = "first";
        for new in passwords {
            let mut ann = Client::connect(port).await;
            ann.login("ann", old).await.unwrap();
            change(&mut ann, "ann", old, &fresh(new), true).await.unwrap();
            old = new;
        }
        tracker.shutdown().await;
    }
    let trackers = start_all(dir.path(), &ports).await;
    for port in &ports {
        login(*port, "ann", "three").await.unwrap();
        for lost in ["first", "two", "other"] {
            assert_eq!(login(*port, "ann", lost).await, Err(RefusalKind::WrongPassword));
        }
    }
    let mut ann = Client::connect(ports[0]).await;
    ann.login("ann", "three").await.unwrap();
    change(&mut ann, "ann", "three", &fresh("four"), true).await.unwrap();
    login(ports[1], "ann", "four").await.unwrap();
    for tracker in &trackers {
        assert_eq!(tracker.status().await.unwrap().alarms, 0);
    }
    stop_all(trackers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_version_before_wrote_lives_on_and_is_nobody_elses() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    std::fs::create_dir(dir.path().join("1")).unwrap();
    let db = rusqlite::Connection::open(dir.path().join("1/tracker.db")).unwrap();
    db.execute_batch(include_str!("data/earlier-version.sql")).unwrap();
    drop(db);
    let mut trackers = start_all(dir.path(), &ports).await;
    let anns = login(ports[1], "ann", "annold").await.unwrap().user;
    assert_eq!(login(ports[0], "ben", "benold").await.unwrap().tickets.len(), 1);
    let mut ann = Client::connect(ports[0]).await;
    let session = ann.login("ann", "annold").await.unwrap();
    let elders = session.tickets[0].group;
    assert_eq!(owner(ports[1], "elders").await, "ann");

    // The client of the version before gets an answer that says what to do, and its logins go on working.
    let create = Call::CreateUser {
        id: Uid::random(),
        name: user("eve"),
        account: fresh("eve"),
        nonce: None,
        invitation: None,
    };
    let refusal = Client::connect(ports[0]).await.refused(create).await;
    assert!(refusal.text.contains("update the client"), "{refusal:?}");
    let found = Call::CreateGroup { id: Gid::random(), name: group("new"), nonce: None };
    assert!(ann.refused(found).await.text.contains("update the client"));
    assert_eq!(change(&mut ann, "ann", "annold", &fresh("x"), false).await, Err(RefusalKind::Malformed));
    for call in takeovers_of(anns, "aaa", Nonce::random()) {
        Client::connect(ports[1]).await.refused(call).await;
    }

    let founding = encode(&Founding { founder: Uid([0xee; 16]), nonce: None, skeleton: None });
    let lies = [
        vec![account_write(anns, &AccountRecord::new(fresh("eve"), None))],
        vec![
            claim_write(Kind::USER_CLAIM, "aaa", anns.0, Vec::new()),
            claim_write(Kind::GROUP_CLAIM, "aaa", elders.0, founding),
        ],
    ];
    for (number, lie_of_two) in lies.into_iter().enumerate() {
        trackers.pop().unwrap().shutdown().await;
        lie(dir.path(), (2, 2), lie_of_two);
        trackers.push(start(dir.path(), &ports, 2).await);
        in_sync(&trackers[0], 1).await;
        let name = format!("new{number}");
        Client::connect(ports[1]).await.enter(&name).await;
        until("what is true arrives", async || login(ports[0], &name, "secret").await.is_ok()).await;
        assert_eq!(login(ports[0], "ann", "annold").await.unwrap().user, anns);
        assert!(login(ports[0], "ann", "eve").await.is_err());
        assert_eq!(owner(ports[0], "elders").await, "ann");
    }
    // A tracker that has lost its disk gets everything back.
    trackers.pop().unwrap().shutdown().await;
    let key = std::fs::read(dir.path().join("2/identity.key")).unwrap();
    std::fs::remove_dir_all(dir.path().join("2")).unwrap();
    let replacement = start(dir.path(), &ports, 2).await;
    replacement.shutdown().await;
    // Its operator kept the key, so the other one knows it.
    std::fs::write(dir.path().join("2/identity.key"), key).unwrap();
    trackers.push(start(dir.path(), &ports, 2).await);
    in_sync(&trackers[0], 1).await;
    in_sync(&trackers[1], 1).await;
    ann.close().await;
    let mut ann = Client::connect(ports[1]).await;
    ann.login("ann", "annold").await.unwrap();
    change(&mut ann, "ann", "annold", &fresh("annnew"), true).await.unwrap();
    for port in &ports {
        assert_eq!(login(*port, "ann", "annnew").await.unwrap().user, anns);
        assert_eq!(login(*port, "ann", "annold").await, Err(RefusalKind::WrongPassword));
    }
    stop_all(trackers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_count_for_the_account_that_they_are_about() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    for (number, password) in [(1, "first"), (2, "second")] {
        let tracker = start(dir.path(), &ports, number).await;
        Client::connect(ports[usize::from(number) - 1]).await.create_user("sam", password).await;
        tracker.shutdown().await;
    }
    let trackers = start_all(dir.path(), &ports).await;
    let mut eve = Client::connect(ports[0]).await;
    let began = Instant::now();
    let mut waits = false;
    // The second account is the guesser's own: logging in to it clears nothing of the first's.
    for _ in 0..40 {
        let challenge = Call::Challenge { name: user("sam"), candidate: 0 };
        let Ok(Answer::Challenge { .. }) = eve.call(challenge).await else {
            waits = true;
            break;
        };
        let guess = Call::Login { name: user("sam"), candidate: 0, signature: [7; 64] };
        assert_eq!(eve.refused(guess).await.kind, RefusalKind::TryNext);
        let Answer::Challenge { salt, challenge } =
            eve.ok(Call::Challenge { name: user("sam"), candidate: 1 }).await
        else {
            panic!("no challenge")
        };
        let own = Secrets::derive("second", &salt).unwrap();
        let signature = own.answer(&challenge, eve.identity.peer_id(), eve.tracker);
        eve.ok(Call::Login { name: user("sam"), candidate: 1, signature }).await;
        eve.ok(Call::Logout).await;
    }
    assert!(waits, "after {:?}", began.elapsed());
    stop_all(trackers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_a_lying_tracker_writes_locks_nobody_out_and_holds_nothing_for_good() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let mut trackers = start_all(dir.path(), &ports).await;
    let mut ann = Client::connect(ports[0]).await;
    let anns = ann.enter("ann").await.user;
    let laptop = ann.identity.clone();
    ann.close().await;
    let never = u64::MAX;
    let put = |kind, key, value| Write { kind, key, value, ..Write::default() };
    trackers.pop().unwrap().shutdown().await;
    let sign_out =
        |key: PeerId, until_ms| put(SIGN_OUT, sign_out_key(anns, key), encode(&SignOut { until_ms }));
    let mut writes = vec![
        sign_out(laptop.peer_id(), never),
        put(CAUTION, vec![2], encode(&Caution { since_ms: never })),
        put(ALLOWANCE, Vec::new(), encode(&Allowance { at_ms: never })),
        put(INVITATION, vec![7; 16], encode(&Invitation { until_ms: never })),
    ];
    writes.extend((0..256).map(|number: u16| {
        let key = [&number.to_be_bytes()[..], &[1; 30]].concat();
        sign_out(PeerId(key.try_into().unwrap()), never)
    }));
    for some in writes.chunks(64) {
        lie(dir.path(), (2, 2), some.to_vec());
    }
    trackers.push(start(dir.path(), &ports, 2).await);
    in_sync(&trackers[0], 1).await;
    Client::connect(ports[1]).await.enter("ben").await;
    until("the lies arrive", async || login(ports[0], "ben", "secret").await.is_ok()).await;

    // Ann comes in, and what she signs out is out.
    let mut lost = Client::connect_as(laptop.clone(), ports[0]).await;
    let token = lost.login("ann", "secret").await.unwrap().token;
    lost.close().await;
    let mut lost = Client::connect_as(laptop.clone(), ports[1]).await;
    lost.ok(Call::Resume { token: token.clone() }).await;
    let mut home = Client::connect(ports[0]).await;
    home.login("ann", "secret").await.unwrap();
    home.ok(Call::SignOut { request: RequestId::random(), peer: laptop.peer_id() }).await;
    for port in &ports {
        let mut lost = Client::connect_as(laptop.clone(), *port).await;
        assert_eq!(lost.refused(Call::Resume { token: token.clone() }).await.kind, RefusalKind::SignedOut);
        lost.login("ann", "secret").await.unwrap();
    }
    // Nothing is allowed in advance, and what is held is released by an operator.
    until("deletions rest", async || trackers[0].store_status().deletions_held.is_some()).await;
    trackers[0].allow_deletions().await.unwrap();
    until("deletions go on", async || trackers[0].store_status().deletions_held.is_none()).await;
    stop_all(trackers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_signed_out_long_ago_can_be_signed_out_again() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(1));
    let mut trackers = start_all(dir.path(), &ports).await;
    let mut lost = Client::connect(ports[0]).await;
    let anns = lost.enter("ann").await.user;
    let laptop = lost.identity.clone();
    trackers.pop().unwrap().shutdown().await;
    let key = sign_out_key(anns, laptop.peer_id());
    let value = encode(&SignOut { until_ms: 1 });
    lie(dir.path(), (1, 1), vec![Write { kind: SIGN_OUT, key, value, ..Write::default() }]);
    trackers.push(start(dir.path(), &ports, 1).await);
    let mut lost = Client::connect_as(laptop.clone(), ports[0]).await;
    let token = lost.login("ann", "secret").await.unwrap().token;
    let mut home = Client::connect(ports[0]).await;
    home.login("ann", "secret").await.unwrap();
    home.ok(Call::SignOut { request: RequestId::random(), peer: laptop.peer_id() }).await;
    let mut lost = Client::connect_as(laptop, ports[0]).await;
    assert_eq!(lost.refused(Call::Resume { token }).await.kind, RefusalKind::SignedOut);
    stop_all(trackers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_kinds_that_this_version_does_not_know_are_kept_and_relayed() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(3));
    std::fs::create_dir(dir.path().join("1")).unwrap();
    // As a tracker of a later version writes them: of one that stays, and of one that is replaced.
    let record =
        |kind| Write { kind: Kind(kind), key: b"later".to_vec(), value: vec![7; 40], ..Write::default() };
    lie(dir.path(), (1, 3), vec![record(63), record(250)]);
    let (one, two) = (start(dir.path(), &ports, 1).await, start(dir.path(), &ports, 2).await);
    in_sync(&two, 1).await;
    one.shutdown().await;
    // The third has them of the second, which does not know them either; so they are the same after a restart.
    two.shutdown().await;
    let (two, three) = (start(dir.path(), &ports, 2).await, start(dir.path(), &ports, 3).await);
    in_sync(&three, 1).await;
    for number in [2, 3] {
        let db = rusqlite::Connection::open(dir.path().join(format!("{number}/tracker.db"))).unwrap();
        let sql = "SELECT count(*) FROM rec WHERE kind IN (63, 250) AND key = x'6c61746572'";
        assert_eq!(db.query_row(sql, [], |row| row.get::<_, u64>(0)).unwrap(), 2, "at tracker {number}");
    }
    for tracker in [two, three] {
        assert_eq!(tracker.status().await.unwrap().alarms, 0);
        tracker.shutdown().await;
    }
}
