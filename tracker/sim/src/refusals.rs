//! What a tracker refuses: from its own service, from its disk, and from peers.

use shoal_replica::{
    Alarm, BlobHash, Bounds, Config, Event, Frame, Hello, Kind, Now, OpenError, Output, Reason, Refusal,
    Replica, TrackerNo, Write, WriteError, WriterId, memory::Memory, vote_key,
};

use crate::scenarios::{ANNA, cluster, value, write};
use crate::world::{Input, TxFate, delete, put};

#[test]
fn what_cannot_be_written_is_refused_and_changes_nothing() {
    let mut world = cluster(1, &[]);
    let now = world.now(0);
    let it = &mut world.nodes[0];
    let blob = |hash| Write { blobs: vec![(hash, vec![1])], ..put(b"k", b"") };
    let vote = Write { kind: Kind::USER_VOTE, key: vote_key(ANNA, TrackerNo(1)), ..Write::default() };
    let first_stays = Write { kind: Kind::FIRST_STAYS, tombstone: true, ..Write::default() };
    for (writes, refusal) in [
        (Vec::new(), Refusal::TooLarge),
        (vec![put(&[0; 513], b"")], Refusal::TooLarge),
        (vec![put(b"k", &vec![0; 65_537])], Refusal::TooLarge),
        (vec![put(b"k", &vec![0; 60_000]); 3], Refusal::TooLarge),
        (vec![put(b"k", b""); 65], Refusal::TooLarge),
        (vec![vote], Refusal::Invalid),
        (vec![first_stays], Refusal::Invalid),
        (vec![Write { kind: Kind::USER_CLAIM, key: vec![9], ..Write::default() }], Refusal::Invalid),
        (vec![Write { value: vec![1], ..delete(b"k") }], Refusal::Invalid),
        (vec![blob(BlobHash([0; 32]))], Refusal::Blob),
    ] {
        let outcome = it.replica.as_mut().unwrap().write(&mut it.store, writes, now);
        assert!(
            matches!(outcome, Err(WriteError::Refused(reason)) if reason == refusal),
            "{outcome:?} {refusal:?}"
        );
    }
    assert_eq!(it.store.rows().count(), 0);
}

#[test]
fn strangers_are_disconnected() {
    let good = Hello {
        version: 1,
        min_version: 1,
        cluster: [7; 16],
        no: TrackerNo(2),
        writer: WriterId([9; 16]),
        wall_ms: 1_700_000_000_000,
    };
    for (frame, reason) in [
        (Frame::Hello(Hello { cluster: [8; 16], ..good.clone() }), Reason::ForeignCluster),
        (Frame::Hello(Hello { no: TrackerNo(3), ..good.clone() }), Reason::NotConfigured),
        (Frame::Hello(Hello { min_version: 2, version: 2, ..good.clone() }), Reason::Version),
        (Frame::Ping, Reason::Malformed),
        (Frame::Ready, Reason::Malformed),
    ] {
        let mut world = cluster(2, &[]);
        let peer = TrackerNo(2);
        let events = [Event::LinkUp { peer }, Event::Frame { peer, frame }].map(Input::Event);
        world.transact(0, events.into(), TxFate::Commit).unwrap();
        assert_eq!(world.closed, [(TrackerNo(1), peer, reason)]);
    }
}

#[test]
fn only_its_own_store_is_opened() {
    let now = Now { wall_ms: 0, mono_ms: 0 };
    let config = |me: u8, configured: &[u8]| Config {
        me: TrackerNo(me),
        configured: configured.iter().copied().map(TrackerNo).collect(),
        writer: WriterId([me; 16]),
        cluster: [7; 16],
        bounds: Bounds::default(),
    };
    let mut store = Memory::new();
    assert!(Replica::open(&mut store, config(1, &[1, 2]), now).is_ok());
    assert!(matches!(
        Replica::open(&mut store, config(2, &[1, 2]), now),
        Err(OpenError::OtherTracker(TrackerNo(1)))
    ));
    assert!(matches!(Replica::open(&mut store, config(3, &[1, 2]), now), Err(OpenError::Config { .. })));
}

#[test]
fn a_blob_with_another_content_is_refused() {
    let mut world = cluster(2, &[(0, 1)]);
    let content = vec![5; 100];
    write(&mut world, 0, vec![Write { blobs: vec![(BlobHash::of(&content), content)], ..put(b"list", b"") }]);
    let peer = TrackerNo(1);
    loop {
        let mut events = world.next_event(1, 0);
        if events.is_empty() {
            world.transact(0, Vec::new(), TxFate::Commit).unwrap();
            let back = world.next_event(0, 1).into_iter().map(Input::Event).collect();
            world.transact(0, back, TxFate::Commit).unwrap();
        }
        let lie = events.iter_mut().any(|event| match event {
            Event::Frame { frame: Frame::Chunk(chunk), .. } => {
                chunk.data[0] ^= 1;
                true
            }
            _ => false,
        });
        world.transact(1, events.into_iter().map(Input::Event).collect(), TxFate::Commit).unwrap();
        if lie {
            break;
        }
    }
    assert!(matches!(world.alarms[..], [Alarm::BadBlob { peer: from, .. }] if from == peer));
    assert_eq!(world.closed, [(TrackerNo(2), peer, Reason::Malformed)]);
    assert_eq!(value(&world, 1, b"list"), None);
}

#[test]
fn a_replica_without_links_gives_out_nothing() {
    let mut world = cluster(2, &[]);
    let now = world.now(0);
    let it = &mut world.nodes[0];
    let replica = it.replica.as_mut().unwrap();
    replica.handle(&mut it.store, Event::Frame { peer: TrackerNo(2), frame: Frame::Ping }, now).unwrap();
    replica.handle(&mut it.store, Event::LinkDown { peer: TrackerNo(2) }, now).unwrap();
    assert_eq!(replica.poll_output(), None);
    replica.handle(&mut it.store, Event::LinkUp { peer: TrackerNo(7) }, now).unwrap();
    let refused = Output::Disconnect { peer: TrackerNo(7), reason: Reason::NotConfigured };
    assert_eq!(replica.poll_output(), Some(refused));
}
