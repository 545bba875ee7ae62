//! Requesters that mean harm. Whatever they send costs them their connection and nobody else anything.

use std::time::Duration;

use proptest::prelude::*;
use shoal_common::limits::{MAX_CHANNELS, MAX_PEER_REQUESTS};
use shoal_common::peer_wire::{DATA, Refused, TO_REQUESTER, TO_SERVER, ToRequester, ToServer};
use shoal_net::Identity;

use crate::support::{KEY, LATER, Member, RawClient, file, ticket, until};

struct Attack {
    seeder: Member,
    identity: Identity,
    bytes: std::sync::Arc<[u8]>,
}

impl Attack {
    async fn new(size: usize) -> Self {
        let (bytes, content) = file(size);
        let seeder = Member::new().await;
        seeder.share(&bytes, content.layout().clone());
        Self { seeder, identity: Identity::generate(), bytes }
    }

    fn ticket(&self) -> Vec<u8> {
        ticket(1, self.identity.peer_id(), KEY.group, LATER)
    }

    async fn opened(&self) -> RawClient {
        let mut client = RawClient::connect(&self.identity, &self.seeder).await;
        client.open(1, self.ticket()).await;
        assert_eq!(client.hear().await, Some(ToRequester::Opened { channel: 1, have: None }));
        client
    }

    /// Others are served as if nothing had happened.
    async fn others_are_served(&self) {
        let identity = Identity::generate();
        let mut client = RawClient::connect(&identity, &self.seeder).await;
        client.open(1, ticket(1, identity.peer_id(), KEY.group, LATER)).await;
        assert_eq!(client.hear().await, Some(ToRequester::Opened { channel: 1, have: None }));
        let end = self.bytes.len().min(65_536);
        assert_eq!(client.piece(1, 0, end).await.unwrap(), self.bytes[..end]);
    }
}

/// Listens until the server hangs up.
async fn hung_up(client: &mut RawClient) {
    while client.hear().await.is_some() {}
}

#[tokio::test]
async fn malformed_frames_end_the_connection() {
    let attack = Attack::new(100_000).await;
    let huge = vec![0; 40_000];
    let frames: [(u8, &[u8]); 7] = [
        (TO_SERVER, b""),
        (TO_SERVER, b"\xff\xff\xff"),
        (TO_SERVER, &[0x82, 99, 0x80]),
        (TO_SERVER, &huge),
        (TO_REQUESTER, b"\x80"),
        (DATA, &[0; 100]),
        (77, b"what"),
    ];
    for (kind, payload) in frames {
        for member in [true, false] {
            let mut client = match member {
                true => attack.opened().await,
                false => RawClient::connect(&attack.identity, &attack.seeder).await,
            };
            client.frame(kind, payload).await;
            hung_up(&mut client).await;
        }
    }
    attack.others_are_served().await;
}

#[tokio::test]
async fn messages_out_of_bounds_end_the_connection() {
    let attack = Attack::new(100_000).await;
    let messages = [
        ToServer::Request { channel: 1, piece: 2 },
        ToServer::Request { channel: 1, piece: u32::MAX },
        ToServer::Cancel { channel: 1, piece: 2 },
        ToServer::Have { channel: 1, pieces: vec![0, 2] },
        ToServer::Have { channel: 1, pieces: vec![0; 100] },
        ToServer::Open { channel: 1, group: KEY.group, file: KEY.file, ticket: attack.ticket() },
    ];
    for message in messages {
        let mut client = attack.opened().await;
        client.say(&message).await;
        hung_up(&mut client).await;
    }
    attack.others_are_served().await;
}

#[tokio::test]
async fn messages_on_channels_that_are_not_open_mean_nothing() {
    let attack = Attack::new(100_000).await;
    let mut client = attack.opened().await;
    for message in [
        ToServer::Request { channel: 9, piece: 0 },
        ToServer::Cancel { channel: 9, piece: 0 },
        ToServer::Have { channel: 9, pieces: vec![1] },
        ToServer::Ticket { channel: 9, ticket: Vec::new() },
        ToServer::Close { channel: 9 },
        ToServer::Cancel { channel: 1, piece: 1 },
    ] {
        client.say(&message).await;
    }
    assert!(client.piece(1, 0, 65_536).await.is_some());
    client.say(&ToServer::Close { channel: 1 }).await;
    client.say(&ToServer::Request { channel: 1, piece: 0 }).await;
    client.open(1, attack.ticket()).await;
    assert_eq!(client.hear().await, Some(ToRequester::Opened { channel: 1, have: None }));
}

#[tokio::test]
async fn too_many_requests_end_the_connection() {
    // A requester that does not read, so that nothing it asks for can end.
    let attack = Attack::new(65_536 * 600).await;
    let mut client = attack.opened().await;
    for piece in 0..=u32::try_from(2 * MAX_PEER_REQUESTS).unwrap() {
        client.say(&ToServer::Request { channel: 1, piece }).await;
    }
    hung_up(&mut client).await;
    attack.others_are_served().await;
}

#[tokio::test]
async fn too_many_channels_and_refusals_are_refused() {
    let attack = Attack::new(100_000).await;
    let mut client = attack.opened().await;
    for channel in 2..=u32::try_from(MAX_CHANNELS).unwrap() {
        client.open(channel, attack.ticket()).await;
        assert_eq!(client.hear().await, Some(ToRequester::Opened { channel, have: None }));
    }
    // However often: it is no attack to have much to ask for.
    for channel in 10_000..10_100 {
        client.open(channel, attack.ticket()).await;
        assert_eq!(
            client.hear().await,
            Some(ToRequester::Refused { channel, reason: Refused::Limit, copy: None })
        );
    }
    for channel in 0..=64 {
        client.say(&ToServer::Close { channel: channel + 2 }).await;
        client.open(20_000 + channel, b"no ticket".to_vec()).await;
    }
    hung_up(&mut client).await;
}

#[tokio::test]
async fn requesters_that_do_not_read_leave_others_served() {
    let attack = Attack::new(65_536 * 500).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        let identity = Identity::generate();
        let mut client = RawClient::connect(&identity, &attack.seeder).await;
        client.open(1, ticket(1, identity.peer_id(), KEY.group, LATER)).await;
        for piece in 0..u32::try_from(MAX_PEER_REQUESTS).unwrap() {
            client.say(&ToServer::Request { channel: 1, piece }).await;
        }
        silent.push(client);
    }
    // All slots are taken by those; when they are found to be stuck, it is somebody else's turn.
    let identity = Identity::generate();
    let mut client = RawClient::connect(&identity, &attack.seeder).await;
    client.open(1, ticket(1, identity.peer_id(), KEY.group, LATER)).await;
    assert!(matches!(client.hear().await, Some(ToRequester::Opened { .. })));
    let start = std::time::Instant::now();
    loop {
        client.say(&ToServer::Request { channel: 1, piece: 499 }).await;
        if client.block().await.is_some() {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(40), "never served");
    }
}

#[tokio::test]
async fn a_thousand_connections_leave_others_served() {
    let attack = Attack::new(100_000).await;
    let mut strangers = Vec::new();
    for _ in 0..100 {
        let identity = Identity::generate();
        strangers.push(RawClient::connect(&identity, &attack.seeder).await);
    }
    let mut crowd = Vec::new();
    for _ in 0..20 {
        crowd.push(attack.opened().await);
    }
    attack.others_are_served().await;
    // Of one peer's connections only the newest few are left.
    for client in &mut crowd[..14] {
        hung_up(client).await;
    }
    for client in &mut strangers[..60] {
        hung_up(client).await;
    }
}

#[tokio::test]
async fn a_stranger_that_says_nothing_is_shown_the_door() {
    let attack = Attack::new(100_000).await;
    let mut client = RawClient::connect(&attack.identity, &attack.seeder).await;
    hung_up(&mut client).await;
}

#[tokio::test]
async fn a_requester_that_vanishes_frees_what_it_held() {
    let attack = Attack::new(65_536 * 100).await;
    let mut client = attack.opened().await;
    for piece in 0..100 {
        client.say(&ToServer::Request { channel: 1, piece }).await;
    }
    drop(client);
    until("the end of it", || attack.seeder.swarm.peer_percent(KEY, attack.identity.peer_id()).is_none())
        .await;
    attack.others_are_served().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_frames_never_harm_the_server(
        frames in proptest::collection::vec((0u8..5, proptest::collection::vec(any::<u8>(), 0..200)), 1..20),
        opened in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let attack = Attack::new(100_000).await;
            let mut client = match opened {
                true => attack.opened().await,
                false => RawClient::connect(&attack.identity, &attack.seeder).await,
            };
            for (kind, payload) in &frames {
                client.frame(*kind, payload).await;
            }
            drop(client);
            attack.others_are_served().await;
            attack.seeder.swarm.shutdown().await;
        });
    }
}
