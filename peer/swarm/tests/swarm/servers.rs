//! Servers that mean harm, made by hand: what they send costs them their place as a source, and the download nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use shoal_common::peer_wire::{DATA, DataHead, Refused, TO_REQUESTER, TO_SERVER, ToRequester, ToServer};
use shoal_common::{Layout, PeerId};
use shoal_engine::{AnySource, Have, Outcome, Overwrite, PieceSource, SourceChange, SourceId, Target};
use shoal_net::Identity;
use shoal_net::bulk::{BulkLimits, Listener};
use shoal_swarm::PeerSource;
use tokio::sync::mpsc;

use crate::support::{KEY, Member, RawServer, end, file, gone, until, within};

/// Frames that a server sends when it is asked for a piece.
type Answer = Arc<dyn Fn(u32, u32) -> Vec<(u8, Vec<u8>)> + Send + Sync>;

struct Crooked {
    identity: Identity,
    address: std::net::SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Crooked {
    /// A server that says it has everything and answers requests with these frames.
    fn start(answer: Answer) -> Self {
        let identity = Identity::generate();
        let mut listener =
            Listener::bind("127.0.0.1:0".parse().unwrap(), &identity, BulkLimits::default()).unwrap();
        let address = listener.local_addr();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(RawServer::new(stream), answer.clone()));
            }
        });
        Self { identity, address, connections }
    }

    fn id(&self) -> PeerId {
        self.identity.peer_id()
    }

    fn source(&self, member: &Member, layout: Layout) -> PeerSource {
        member.swarm.source(KEY, self.id(), &[self.address], layout)
    }
}

async fn serve(mut server: RawServer, answer: Answer) {
    while let Some(message) = server.hear().await {
        match message {
            ToServer::Open { channel, .. } => server.say(&ToRequester::Opened { channel, have: None }).await,
            ToServer::Request { channel, piece } => {
                for (kind, payload) in answer(channel, piece) {
                    let _ = server.output.control(kind, &payload).await;
                }
                let _ = server.output.flush().await;
            }
            _ => {}
        }
    }
}

fn message(message: &ToRequester) -> (u8, Vec<u8>) {
    (TO_REQUESTER, minicbor::to_vec(message).unwrap())
}

fn block(channel: u32, piece: u32, offset: u32, length: usize) -> (u8, Vec<u8>) {
    let mut payload = DataHead { channel, piece, offset }.to_bytes().to_vec();
    payload.resize(payload.len() + length, 7);
    (DATA, payload)
}

#[tokio::test]
async fn whoever_breaks_the_protocol_is_no_source_any_more() {
    let (bytes, content) = file(300_000);
    let answers: Vec<(&str, Answer)> = vec![
        ("a frame of no kind", Arc::new(|_, _| vec![(99, b"x".to_vec())])),
        ("a requester's frame", Arc::new(|_, _| vec![(TO_SERVER, b"x".to_vec())])),
        ("no message", Arc::new(|_, _| vec![(TO_REQUESTER, b"\xff\xff".to_vec())])),
        ("a block without a head", Arc::new(|_, _| vec![(DATA, vec![0; 11])])),
        ("an empty block", Arc::new(|channel, piece| vec![block(channel, piece, 0, 0)])),
        ("a block too far", Arc::new(|channel, piece| vec![block(channel, piece, 16_384, 16_384)])),
        (
            "a block twice",
            Arc::new(|channel, piece| {
                vec![block(channel, piece, 0, 16_384), block(channel, piece, 0, 16_384)]
            }),
        ),
        ("another piece", Arc::new(|channel, piece| vec![block(channel, (piece + 3) % 5, 0, 16_384)])),
        ("a piece that is not", Arc::new(|channel, _| vec![block(channel, 5, 0, 16_384)])),
        ("another channel", Arc::new(|channel, piece| vec![block(channel + 1, piece, 0, 16_384)])),
        (
            "a refusal of what was not asked for",
            Arc::new(|channel, piece| {
                let piece = (piece + 3) % 5;
                vec![message(&ToRequester::Busy { channel, piece, after_ms: 1 })]
            }),
        ),
        (
            "a better piece that is not",
            Arc::new(|channel, piece| {
                vec![message(&ToRequester::NotNow { channel, piece, after_ms: 1, instead: Some(5) })]
            }),
        ),
        (
            "a have of nothing",
            Arc::new(|channel, _| vec![message(&ToRequester::Have { channel, pieces: vec![5] })]),
        ),
        (
            "a second opening",
            Arc::new(|channel, _| vec![message(&ToRequester::Opened { channel, have: None })]),
        ),
    ];
    let seeder = Member::new().await;
    seeder.share(&bytes, content.layout().clone());
    for (what, answer) in answers {
        let leecher = Member::new().await;
        let crooked = Crooked::start(answer);
        let (sources, changes) = mpsc::channel(4);
        let target = Target::new(leecher.folder.path().join("file"), Overwrite::Refuse);
        let download = leecher.engine.start(content.clone(), target, changes);
        let source = crooked.source(&leecher, content.layout().clone());
        let liveness = source.liveness();
        sources.send(SourceChange::Add(SourceId(0), AnySource::new(source))).await.unwrap();
        within(what, end(liveness)).await;
        let source = leecher.source(&seeder, content.layout().clone());
        sources.send(SourceChange::Add(SourceId(1), AnySource::new(source))).await.unwrap();
        let outcome = within(what, download.wait()).await;
        assert!(matches!(outcome, Outcome::Complete { .. }), "{what}: {outcome:?}");
    }
}

/// A server of a small file whose every word the test says.
struct ByHand {
    identity: Identity,
    listener: Listener,
}

impl ByHand {
    fn new() -> Self {
        let identity = Identity::generate();
        let listener =
            Listener::bind("127.0.0.1:0".parse().unwrap(), &identity, BulkLimits::default()).unwrap();
        Self { identity, listener }
    }

    fn source(&self, leecher: &Member) -> PeerSource {
        let layout = Layout::new(300_000, 65_536).unwrap();
        leecher.swarm.source(KEY, self.identity.peer_id(), &[self.listener.local_addr()], layout)
    }

    /// A source, the server's end of its connection, and the channel that it asks to open.
    async fn opened(&mut self, leecher: &Member) -> (PeerSource, RawServer, u32) {
        let source = self.source(leecher);
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut server = RawServer::new(stream);
        let channel = opening(&mut server).await;
        (source, server, channel)
    }
}

async fn opening(server: &mut RawServer) -> u32 {
    let Some(ToServer::Open { channel, .. }) = server.hear().await else { panic!("no opening") };
    channel
}

#[tokio::test]
async fn a_malformed_opening_is_no_source() {
    let (leecher, mut by_hand) = (Member::new().await, ByHand::new());
    for have in [vec![], vec![0xff], vec![0; 2]] {
        let (source, mut server, channel) = by_hand.opened(&leecher).await;
        server.say(&ToRequester::Opened { channel, have: Some(have) }).await;
        end(source.liveness()).await;
        drop(source);
    }
}

#[tokio::test]
async fn refusals_end_a_source_with_a_reason() {
    let leecher = Member::new().await;
    for (refusal, expected) in [(Refused::NotShared, "does not share"), (Refused::Changed, "changed")] {
        let mut by_hand = ByHand::new();
        let (source, mut server, channel) = by_hand.opened(&leecher).await;
        server.say(&ToRequester::Refused { channel, reason: refusal, copy: None }).await;
        let (reason, _) = gone(source.liveness()).await;
        assert!(reason.contains(expected), "{reason}");
        drop(source);
    }
}

#[tokio::test]
async fn a_dropped_source_closes_its_channel_and_its_connection() {
    let (leecher, mut by_hand) = (Member::new().await, ByHand::new());
    let (first, mut server, channel) = by_hand.opened(&leecher).await;
    server.say(&ToRequester::Opened { channel, have: None }).await;
    within("the channel", first.have().wait_for(|have| *have == Have::All)).await.unwrap();
    // A second source of the same peer shares the connection, and keeps it when the first goes.
    let second = by_hand.source(&leecher);
    let other = opening(&mut server).await;
    assert_ne!(channel, other);
    drop(first);
    assert_eq!(within("the closing", server.hear()).await, Some(ToServer::Close { channel }));
    drop(second);
    within("the end", async { while server.hear().await.is_some() {} }).await;
}

#[tokio::test]
async fn a_peer_that_is_away_counts_as_one_that_holds_nothing() {
    let (leecher, mut by_hand) = (Member::new().await, ByHand::new());
    let (source, mut server, channel) = by_hand.opened(&leecher).await;
    server.say(&ToRequester::Opened { channel, have: None }).await;
    let mut have = source.have();
    within("the channel", have.wait_for(|have| *have == Have::All)).await.unwrap();
    drop(server);
    let nothing = |have: &Have| matches!(have, Have::Bits(bits) if bits.is_empty());
    within("the end", have.wait_for(nothing)).await.unwrap();
}

#[tokio::test]
async fn the_next_file_of_a_peer_finds_the_connection_that_the_last_one_left() {
    let (leecher, mut by_hand) = (Member::new().await, ByHand::new());
    let (first, mut server, channel) = by_hand.opened(&leecher).await;
    server.say(&ToRequester::Opened { channel, have: None }).await;
    within("the channel", first.have().wait_for(|have| *have == Have::All)).await.unwrap();
    drop(first);
    assert_eq!(within("the closing", server.hear()).await, Some(ToServer::Close { channel }));
    let _next = by_hand.source(&leecher);
    within("the opening", opening(&mut server)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_peer_gets_a_second_connection_and_no_third() {
    let (bytes, content) = file(64 << 20);
    let leecher = Member::new().await;
    let layout = content.layout().clone();
    let (file, of_file) = (bytes.clone(), layout.clone());
    let crooked = Crooked::start(Arc::new(move |channel, piece| {
        let start = usize::try_from(of_file.offset(of_file.piece(piece).unwrap())).unwrap();
        let blocks = file[start..].chunks(16_384).take(4).enumerate();
        let framed = blocks.map(|(number, bytes)| {
            let offset = u32::try_from(number * 16_384).unwrap();
            let mut payload = DataHead { channel, piece, offset }.to_bytes().to_vec();
            payload.extend(bytes);
            (DATA, payload)
        });
        framed.collect()
    }));
    let (sources, changes) = mpsc::channel(4);
    let target = Target::new(leecher.folder.path().join("file"), Overwrite::Refuse);
    let download = leecher.engine.start(content.clone(), target, changes);
    let source = crooked.source(&leecher, layout);
    sources.send(SourceChange::Add(SourceId(0), AnySource::new(source))).await.unwrap();
    let outcome = within("the download", download.wait()).await;
    assert!(matches!(outcome, Outcome::Complete { .. }), "{outcome:?}");
    until("a second connection", || crooked.connections.load(Ordering::Relaxed) == 2).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_frames_never_harm_the_requester(
        frames in proptest::collection::vec((0u8..5, proptest::collection::vec(any::<u8>(), 0..200)), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (bytes, content) = file(100_000);
            let (seeder, leecher) = (Member::new().await, Member::new().await);
            seeder.share(&bytes, content.layout().clone());
            let crooked = Crooked::start(Arc::new(move |_, _| frames.clone()));
            let fetching = leecher.download(&content, &[]).await;
            fetching.add(0, crooked.source(&leecher, content.layout().clone())).await;
            until("a connection", || crooked.connections.load(Ordering::Relaxed) > 0).await;
            fetching.add(1, leecher.source(&seeder, content.layout().clone())).await;
            fetching.complete(&bytes).await;
            leecher.swarm.shutdown().await;
        });
    }
}
