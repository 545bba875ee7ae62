//! Whole downloads between members.

use std::time::{Duration, Instant};

use shoal_common::Layout;
use shoal_common::peer_wire::{CopyTrouble, Refused, ToRequester};
use shoal_engine::{Have, PieceSource};
use shoal_net::Identity;
use shoal_swarm::SwarmEvent;

use crate::support::{KEY, LATER, Member, RawClient, file, gone, ticket, until, within};

#[tokio::test]
async fn a_file_passes_from_one_member_to_another() {
    let (bytes, content) = file(3 << 20);
    let (seeder, leecher) = (Member::new().await, Member::new().await);
    seeder.share(&bytes, content.layout().clone());
    let fetching = leecher.download(&content, &[&seeder]).await;
    fetching.complete(&bytes).await;
    let uploaded = seeder.swarm.uploaded();
    assert_eq!((uploaded.total, uploaded.files[&KEY]), (bytes.len() as u64, bytes.len() as u64));
    assert_eq!(uploaded.peers[&leecher.id()], bytes.len() as u64);
    seeder.swarm.shutdown().await;
    leecher.swarm.shutdown().await;
}

#[tokio::test]
async fn small_files_pass_too() {
    let (seeder, leecher) = (Member::new().await, Member::new().await);
    for size in [1, 65_535, 65_536, 65_537, 131_072] {
        let (bytes, content) = file(size);
        let path = seeder.share(&bytes, content.layout().clone());
        let fetching = leecher.download(&content, &[&seeder]).await;
        fetching.complete(&bytes).await;
        seeder.swarm.stop(KEY);
        leecher.swarm.stop(KEY);
        std::fs::remove_file(path).unwrap();
        std::fs::remove_file(fetching.path).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_members_share_what_they_get() {
    let (bytes, content) = file(4 << 20);
    let seeder = Member::new().await;
    seeder.share(&bytes, content.layout().clone());
    // The narrow uplink is what makes passing on worth while.
    seeder.swarm.set_upload_limit(Some(2 << 20));
    let mut leechers = Vec::new();
    for _ in 0..6 {
        leechers.push(Member::new().await);
    }
    let mut fetchings = Vec::new();
    for leecher in &leechers {
        let others = leechers.iter().filter(|other| other.id() != leecher.id());
        let from: Vec<&Member> = std::iter::once(&seeder).chain(others).collect();
        fetchings.push(leecher.download(&content, &from).await);
    }
    for fetching in &fetchings {
        fetching.complete(&bytes).await;
    }
    let copies = seeder.swarm.uploaded().total as f64 / bytes.len() as f64;
    assert!(copies < 2.0, "the seeder sent {copies} copies to six");
}

#[tokio::test]
async fn pieces_are_offered_as_soon_as_they_are_there() {
    let (bytes, content) = file(2 << 20);
    let layout = content.layout().clone();
    let (seeder, middle, last) = (Member::new().await, Member::new().await, Member::new().await);
    seeder.share(&bytes, layout.clone());
    seeder.swarm.set_upload_limit(Some(256 << 10));
    let first = middle.download(&content, &[&seeder]).await;
    let source = last.source(&middle, layout);
    let mut have = source.have();
    let some = |have: &Have| matches!(have, Have::Bits(bits) if bits.count() > 0);
    within("the first pieces", have.wait_for(some)).await.unwrap();
    assert!(first.download.outcome().is_none());
    until("a percentage", || last.swarm.peer_percent(KEY, middle.id()).is_some()).await;
    assert_eq!(last.swarm.peer_percent(KEY, seeder.id()), None);
    // What the requester announced can be seen from the other side too.
    until("what the leecher announced", || seeder.swarm.peer_percent(KEY, middle.id()) > Some(0)).await;
    seeder.swarm.set_upload_limit(None);
    let second = last.download(&content, &[&middle]).await;
    first.complete(&bytes).await;
    second.complete(&bytes).await;
    within("the last pieces", have.wait_for(|have| *have == Have::All)).await.unwrap();
    assert_eq!(seeder.swarm.uploaded().peers.get(&last.id()), None);
}

#[tokio::test]
async fn the_upload_limit_holds() {
    let (bytes, content) = file(1 << 20);
    let (seeder, leecher) = (Member::new().await, Member::new().await);
    seeder.share(&bytes, content.layout().clone());
    seeder.swarm.set_upload_limit(Some(1 << 20));
    let start = Instant::now();
    let fetching = leecher.download(&content, &[&seeder]).await;
    fetching.complete(&bytes).await;
    let took = start.elapsed();
    assert!(took > Duration::from_millis(800), "{took:?}");
}

#[tokio::test]
async fn a_lifted_limit_is_felt_at_once() {
    let (bytes, content) = file(4 << 20);
    let (seeder, leecher) = (Member::new().await, Member::new().await);
    seeder.share(&bytes, content.layout().clone());
    seeder.swarm.set_upload_limit(Some(50_000));
    let fetching = leecher.download(&content, &[&seeder]).await;
    fetching.reach(65_536).await;
    seeder.swarm.set_upload_limit(None);
    fetching.complete(&bytes).await;
}

#[tokio::test]
async fn a_file_that_changes_is_not_served_any_longer() {
    let (bytes, content) = file(4 << 20);
    let (seeder, other, leecher) = (Member::new().await, Member::new().await, Member::new().await);
    let path = seeder.share(&bytes, content.layout().clone());
    seeder.swarm.set_upload_limit(Some(1 << 20));
    let mut events = seeder.swarm.events();
    let fetching = leecher.download(&content, &[&seeder]).await;
    fetching.reach(65_536).await;
    std::fs::write(&path, b"something else").unwrap();
    assert_eq!(within("the event", events.recv()).await.unwrap(), SwarmEvent::FileChanged(KEY));
    // Until somebody has looked at it, it may be the same.
    assert_eq!(gone(fetching.last()).await.1, Some(CopyTrouble::Checked));
    assert!(seeder.swarm.withhold(KEY, CopyTrouble::Changed));
    // Whoever tries again learns what is the matter now.
    fetching.add(1, leecher.source(&seeder, content.layout().clone())).await;
    assert_eq!(gone(fetching.last()).await.1, Some(CopyTrouble::Changed));
    // The rest comes from elsewhere.
    other.share(&bytes, content.layout().clone());
    fetching.add(7, leecher.source(&other, content.layout().clone())).await;
    fetching.complete(&bytes).await;
}

#[tokio::test]
async fn a_touched_file_is_come_back_for_once_it_was_checked() {
    let (bytes, content) = file(4 << 20);
    let (seeder, leecher) = (Member::new().await, Member::new().await);
    let path = seeder.share(&bytes, content.layout().clone());
    seeder.swarm.set_upload_limit(Some(1 << 20));
    let mut events = seeder.swarm.events();
    let fetching = leecher.download(&content, &[&seeder]).await;
    fetching.reach(65_536).await;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(within("the event", events.recv()).await.unwrap(), SwarmEvent::FileChanged(KEY));
    assert_eq!(gone(fetching.last()).await.1, Some(CopyTrouble::Checked));
    seeder.swarm.set_upload_limit(None);
    seeder.share_at(&path, content.layout().clone());
    fetching.add(1, leecher.source(&seeder, content.layout().clone())).await;
    fetching.complete(&bytes).await;
}

#[tokio::test]
async fn whoever_opens_a_withheld_file_is_told_why_and_a_download_of_it_is_served() {
    let (bytes, content) = file(65_536);
    let seeder = Member::new().await;
    let path = seeder.share(&bytes, content.layout().clone());
    let identity = Identity::generate();
    let mut client = RawClient::connect(&identity, &seeder).await;
    let refusals = [
        (CopyTrouble::Checked, Refused::Limit),
        (CopyTrouble::Missing, Refused::NotShared),
        (CopyTrouble::Unreadable, Refused::NotShared),
        (CopyTrouble::Changed, Refused::Changed),
    ];
    for (channel, (trouble, reason)) in (0..).zip(refusals) {
        seeder.swarm.withhold(KEY, trouble);
        assert!(!seeder.swarm.serves(KEY));
        client.open(channel, ticket(1, identity.peer_id(), KEY.group, LATER)).await;
        let refused = ToRequester::Refused { channel, reason, copy: Some(trouble) };
        assert_eq!(client.hear().await, Some(refused));
    }
    seeder.share_at(&path, content.layout().clone());
    client.open(9, ticket(1, identity.peer_id(), KEY.group, LATER)).await;
    assert_eq!(client.hear().await, Some(ToRequester::Opened { channel: 9, have: None }));
    seeder.swarm.stop(KEY);
    let stopped = ToRequester::Refused { channel: 9, reason: Refused::NotShared, copy: None };
    assert_eq!(client.hear().await, Some(stopped));
    let fetching = seeder.download(&content, &[]).await;
    assert!(!seeder.swarm.withhold(KEY, CopyTrouble::Missing));
    assert!(seeder.swarm.serves(KEY));
    drop(fetching);
}

#[tokio::test]
async fn a_part_never_takes_the_place_of_the_whole_and_is_served_when_that_is_gone() {
    let (bytes, content) = file(1 << 20);
    let (seeder, leecher, late) = (Member::new().await, Member::new().await, Member::new().await);
    seeder.share(&bytes, content.layout().clone());
    // Downloaded here too, from nobody.
    let idle = seeder.download(&content, &[]).await;
    let fetching = leecher.download(&content, &[&seeder]).await;
    fetching.complete(&bytes).await;
    assert!(!seeder.swarm.withhold(KEY, CopyTrouble::Missing), "the part is served on");
    assert!(seeder.swarm.serves(KEY));
    seeder.swarm.stop_part(KEY);
    assert!(!seeder.swarm.serves(KEY));

    seeder.share_at(&leecher.folder.path().join("download"), content.layout().clone());
    seeder.swarm.stop_part(KEY);
    let fetching = late.download(&content, &[&seeder]).await;
    fetching.complete(&bytes).await;
    drop(idle);
}

#[tokio::test]
async fn a_stopped_share_ends_uploads_and_can_be_taken_up_again() {
    let (bytes, content) = file(4 << 20);
    let (seeder, leecher) = (Member::new().await, Member::new().await);
    let path = seeder.share(&bytes, content.layout().clone());
    seeder.swarm.set_upload_limit(Some(1 << 20));
    let fetching = leecher.download(&content, &[&seeder]).await;
    fetching.reach(65_536).await;
    seeder.swarm.stop(KEY);
    assert_eq!(gone(fetching.last()).await.1, None);
    let before = seeder.swarm.uploaded().total;
    assert!(before < bytes.len() as u64);
    seeder.swarm.set_upload_limit(None);
    seeder.share_at(&path, content.layout().clone());
    fetching.add(1, leecher.source(&seeder, content.layout().clone())).await;
    fetching.complete(&bytes).await;
}

#[tokio::test]
async fn a_seeder_that_dies_midway_costs_nothing_but_time() {
    let (bytes, content) = file(4 << 20);
    let (mortal, other, leecher) = (Member::new().await, Member::new().await, Member::new().await);
    mortal.share(&bytes, content.layout().clone());
    other.share(&bytes, content.layout().clone());
    for seeder in [&mortal, &other] {
        seeder.swarm.set_upload_limit(Some(2 << 20));
    }
    let fetching = leecher.download(&content, &[&mortal, &other]).await;
    fetching.reach(1 << 20).await;
    mortal.swarm.shutdown().await;
    fetching.complete(&bytes).await;
}

#[tokio::test]
async fn a_liar_is_found_out_and_the_file_is_right() {
    let (bytes, content) = file(2 << 20);
    let (liar, seeder, leecher) = (Member::new().await, Member::new().await, Member::new().await);
    let wrong: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
    liar.share(&wrong, content.layout().clone());
    seeder.share(&bytes, content.layout().clone());
    let fetching = leecher.download(&content, &[&liar, &seeder]).await;
    fetching.complete(&bytes).await;
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_given_up_with_the_reason() {
    let leecher = Member::new().await;
    let away = Member::new().await;
    let (id, address) = (away.id(), away.address());
    away.swarm.shutdown().await;
    let layout = Layout::new(100, 65_536).unwrap();
    let source = leecher.swarm.source(KEY, id, &[address], layout);
    let (reason, _) = gone(source.liveness()).await;
    assert!(reason.contains(&address.to_string()), "{reason}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let member = Member::new().await;
    let config = shoal_swarm::SwarmConfig {
        identity: member.identity.clone(),
        listen: member.address(),
        upload_slots: 4,
    };
    let error = shoal_swarm::Swarm::start(config, member.book.clone()).await.unwrap_err();
    assert!(error.to_string().contains(&member.address().to_string()), "{error}");
}

#[tokio::test]
async fn after_shutdown_the_port_is_free_and_sources_are_gone() {
    let (bytes, content) = file(1 << 20);
    let (seeder, leecher) = (Member::new().await, Member::new().await);
    seeder.share(&bytes, content.layout().clone());
    let source = leecher.source(&seeder, content.layout().clone());
    within("the channel", source.have().wait_for(|have| *have == Have::All)).await.unwrap();
    within("the shutdown", seeder.swarm.shutdown()).await;
    within("the shutdown", leecher.swarm.shutdown()).await;
    assert!(std::net::TcpListener::bind(seeder.address()).is_ok());
}
