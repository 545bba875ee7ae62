//! Nothing without a ticket: who is served, until when, and what happens when a ticket runs out.

use std::time::Duration;

use shoal_common::Gid;
use shoal_common::peer_wire::{Refused, ToRequester, ToServer};
use shoal_common::tokens::CLOCK_TOLERANCE_MS;
use shoal_net::Identity;

use crate::support::{KEY, LATER, Member, NOW, RawClient, file, grant, ticket, tracker, until, within};

async fn seeder() -> Member {
    let (bytes, content) = file(300_000);
    let seeder = Member::new().await;
    seeder.share(&bytes, content.layout().clone());
    seeder
}

#[tokio::test]
async fn a_good_ticket_opens_the_file() {
    let (bytes, _) = file(300_000);
    let seeder = seeder().await;
    let identity = Identity::generate();
    let mut client = RawClient::connect(&identity, &seeder).await;
    client.open(5, ticket(1, identity.peer_id(), KEY.group, LATER)).await;
    assert_eq!(client.hear().await, Some(ToRequester::Opened { channel: 5, have: None }));
    assert_eq!(client.piece(5, 1, 65_536).await.unwrap(), bytes[65_536..131_072]);
}

#[tokio::test]
async fn other_tickets_open_nothing() {
    let seeder = seeder().await;
    let identity = Identity::generate();
    let me = identity.peer_id();
    let mut forged = ticket(1, me, KEY.group, LATER);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let cases: [(&str, Vec<u8>, Refused); 7] = [
        ("expired", ticket(1, me, KEY.group, NOW - CLOCK_TOLERANCE_MS - 1_000), Refused::Expired),
        ("of another group", ticket(1, me, Gid([9; 16]), LATER), Refused::Ticket),
        ("of another peer", ticket(1, Identity::generate().peer_id(), KEY.group, LATER), Refused::Ticket),
        ("of the server itself", ticket(1, seeder.id(), KEY.group, LATER), Refused::Ticket),
        ("forged", forged, Refused::Ticket),
        ("none", Vec::new(), Refused::Ticket),
        ("by a stranger", ticket(2, me, KEY.group, LATER), Refused::Ticket),
    ];
    for (what, ticket, reason) in cases {
        let mut client = RawClient::connect(&identity, &seeder).await;
        client.open(1, ticket).await;
        // What follows without an answer to wait for is as if it had not been said.
        client.say(&ToServer::Request { channel: 1, piece: 0 }).await;
        assert_eq!(
            client.hear().await,
            Some(ToRequester::Refused { channel: 1, reason, copy: None }),
            "{what}"
        );
    }
    assert_eq!(seeder.swarm.uploaded().total, 0);
}

#[tokio::test]
async fn a_file_that_is_not_shared_says_so_to_members_only() {
    let member = Member::new().await;
    let identity = Identity::generate();
    let mut client = RawClient::connect(&identity, &member).await;
    client.open(1, ticket(2, identity.peer_id(), KEY.group, LATER)).await;
    assert_eq!(
        client.hear().await,
        Some(ToRequester::Refused { channel: 1, reason: Refused::Ticket, copy: None })
    );
    client.open(2, ticket(1, identity.peer_id(), KEY.group, LATER)).await;
    assert_eq!(
        client.hear().await,
        Some(ToRequester::Refused { channel: 2, reason: Refused::NotShared, copy: None })
    );
}

#[tokio::test]
async fn a_new_trackers_key_is_asked_for() {
    let seeder = seeder().await;
    let mut questions = seeder.book.key_requests().unwrap();
    let book = seeder.book.clone();
    tokio::spawn(async move {
        let question = questions.recv().await.unwrap();
        book.set_keys(&[tracker(1).1, tracker(2).1]);
        question.send(()).unwrap();
    });
    let identity = Identity::generate();
    let mut client = RawClient::connect(&identity, &seeder).await;
    client.open(1, ticket(2, identity.peer_id(), KEY.group, LATER)).await;
    assert_eq!(client.hear().await, Some(ToRequester::Opened { channel: 1, have: None }));
}

#[tokio::test]
async fn a_ticket_that_runs_out_closes_the_channel_and_a_newer_one_keeps_it_open() {
    let seeder = seeder().await;
    let identity = Identity::generate();
    let me = identity.peer_id();
    let soon = NOW - CLOCK_TOLERANCE_MS + 3_000;
    let mut client = RawClient::connect(&identity, &seeder).await;
    client.open(1, ticket(1, me, KEY.group, soon)).await;
    client.open(2, ticket(1, me, KEY.group, soon)).await;
    assert_eq!(client.hear().await, Some(ToRequester::Opened { channel: 1, have: None }));
    assert_eq!(client.hear().await, Some(ToRequester::Opened { channel: 2, have: None }));
    client.say(&ToServer::Ticket { channel: 2, ticket: ticket(1, me, KEY.group, LATER) }).await;
    assert_eq!(
        client.hear().await,
        Some(ToRequester::Refused { channel: 1, reason: Refused::Expired, copy: None })
    );
    assert!(client.piece(2, 0, 65_536).await.is_some());
    client.say(&ToServer::Ticket { channel: 2, ticket: ticket(2, me, KEY.group, LATER) }).await;
    assert_eq!(
        client.hear().await,
        Some(ToRequester::Refused { channel: 2, reason: Refused::Ticket, copy: None })
    );
}

#[tokio::test]
async fn a_download_whose_ticket_ran_out_waits_for_a_new_one() {
    let (bytes, content) = file(8 << 20);
    let (seeder, leecher) = (Member::new().await, Member::new().await);
    seeder.share(&bytes, content.layout().clone());
    seeder.swarm.set_upload_limit(Some(1 << 20));
    grant(&leecher.book, NOW - CLOCK_TOLERANCE_MS + 3_000);
    let fetching = leecher.download(&content, &[&seeder]).await;
    fetching.reach(65_536).await;
    until("the end of the ticket", || leecher.swarm.peer_percent(KEY, seeder.id()).is_none()).await;
    assert!(fetching.download.outcome().is_none());
    assert!(seeder.swarm.uploaded().total < bytes.len() as u64);
    seeder.swarm.set_upload_limit(None);
    grant(&leecher.book, LATER);
    fetching.complete(&bytes).await;
}

#[tokio::test]
async fn a_renewed_ticket_is_shown_before_the_old_one_runs_out() {
    let (bytes, content) = file(4 << 20);
    let (seeder, leecher) = (Member::new().await, Member::new().await);
    seeder.share(&bytes, content.layout().clone());
    seeder.swarm.set_upload_limit(Some(2 << 20));
    grant(&leecher.book, NOW - CLOCK_TOLERANCE_MS + 1_000);
    let mut events = leecher.swarm.events();
    let fetching = leecher.download(&content, &[&seeder]).await;
    fetching.reach(65_536).await;
    grant(&leecher.book, LATER);
    fetching.complete(&bytes).await;
    assert!(events.try_recv().is_err());
}

#[tokio::test]
async fn without_a_ticket_a_source_waits_and_starts_when_there_is_one() {
    let (bytes, content) = file(300_000);
    let (seeder, leecher) = (Member::new().await, Member::new().await);
    seeder.share(&bytes, content.layout().clone());
    leecher.book.clear();
    let fetching = leecher.download(&content, &[&seeder]).await;
    let waited = tokio::time::timeout(Duration::from_millis(300), fetching.download.wait()).await;
    assert!(waited.is_err());
    grant(&leecher.book, LATER);
    within("the download", fetching.complete(&bytes)).await;
}
