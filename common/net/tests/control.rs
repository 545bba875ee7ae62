//! The control plane over real loopback sockets.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test and its helpers fail by panicking")]

mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shoal_net::{
    Channel, ChannelError, Control, ControlConfig, ControlLimits, DialError, Identity, NetError, Protocol,
};
use support::{ECHO, Mode, Wire, client, echo, server, soon, until, within};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

async fn round_trip(channel: &mut Channel, message: &[u8]) {
    channel.send(message).await.unwrap();
    assert_eq!(soon("the echo", channel.recv()).await.unwrap().unwrap(), message);
}

#[tokio::test]
async fn both_ends_learn_who_the_other_is_and_messages_go_both_ways() {
    let (server, mut incoming, address) = server(ControlLimits::default()).await;
    let identity = Identity::generate();
    let config = ControlConfig {
        identity: identity.clone(),
        listen: None,
        protocols: vec![],
        limits: ControlLimits::default(),
    };
    let (client, _) = Control::start(config).await.unwrap();
    let peer = client.dial("127.0.0.1", address.port(), None).await.unwrap();
    let again = client.dial("localhost", address.port(), Some(peer)).await.unwrap();
    assert_eq!(peer, again);

    let mut near = client.open(peer, ECHO).await.unwrap();
    assert_eq!((near.peer(), near.remote()), (peer, address));
    let inbound = soon("the channel", incoming.next()).await.unwrap();
    assert_eq!((inbound.peer, inbound.protocol), (identity.peer_id(), ECHO));
    assert!(inbound.remote.ip().is_loopback());

    let (mut sender, mut receiver) = inbound.channel.split();
    near.send(b"there").await.unwrap();
    assert_eq!(soon("a message", receiver.recv()).await.unwrap().unwrap(), b"there");
    sender.send(b"back").await.unwrap();
    sender.close().await.unwrap();
    assert_eq!(soon("a message", near.recv()).await.unwrap().unwrap(), b"back");
    assert!(soon("the end", near.recv()).await.unwrap().is_none());
    client.shutdown().await;
    server.shutdown().await;
}

#[tokio::test]
async fn long_messages_pass_once_allowed_and_not_before() {
    let (_server, incoming, address) = server(ControlLimits::default()).await;
    echo(incoming);
    let client = client().await;
    let peer = client.dial("127.0.0.1", address.port(), None).await.unwrap();
    let long = vec![7; 2_000_000];

    let mut channel = client.open(peer, ECHO).await.unwrap();
    channel.set_limit(long.len());
    round_trip(&mut channel, &long).await;
    round_trip(&mut channel, b"").await;

    let mut strict = client.open(peer, ECHO).await.unwrap();
    strict.send(&long).await.unwrap();
    let error = soon("the refusal", strict.recv()).await.unwrap_err();
    assert!(matches!(error, ChannelError::TooLarge { length: 2_000_000, .. }), "{error}");
    round_trip(&mut channel, b"the others are not concerned").await;
}

#[tokio::test]
async fn a_failed_dial_says_why() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let client = client().await;
    let error = client.dial("127.0.0.1", closed, None).await.unwrap_err();
    assert_eq!(error, DialError::Refused { at: format!("127.0.0.1:{closed}") });
    let error = client.dial("::1", closed, None).await.unwrap_err();
    assert!(matches!(error, DialError::Refused { .. } | DialError::Unreachable { .. }), "{error}");
    // Longer than a label may be, so that nobody is asked.
    let error = client.dial(&format!("{}.invalid", "x".repeat(64)), 1, None).await.unwrap_err();
    assert!(matches!(error, DialError::Unresolved { .. }), "{error}");

    let (server, _incoming, address) = server(ControlLimits::default()).await;
    let wrong = Identity::generate().peer_id();
    let error = client.dial("127.0.0.1", address.port(), Some(wrong)).await.unwrap_err();
    assert!(matches!(error, DialError::WrongKey { expected, .. } if expected == wrong), "{error}");
    let error = server.dial("127.0.0.1", address.port(), None).await.unwrap_err();
    assert_eq!(error, DialError::Myself { at: address.to_string() });

    let hangs_up = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = hangs_up.local_addr().unwrap().port();
    let dial = client.dial("127.0.0.1", port, None);
    let (result, _) = tokio::join!(dial, async { drop(hangs_up.accept().await.unwrap()) });
    assert!(matches!(result, Err(DialError::Handshake { .. })), "{result:?}");

    client.shutdown().await;
    let error = client.dial("127.0.0.1", address.port(), None).await.unwrap_err();
    assert!(matches!(error, DialError::Closed { .. }), "{error}");
}

#[tokio::test]
async fn a_dial_to_somebody_who_says_nothing_ends_by_itself() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let client = client().await;
    let started = Instant::now();
    let error = client.dial("127.0.0.1", port, None).await.unwrap_err();
    assert_eq!(error, DialError::TimedOut { at: format!("127.0.0.1:{port}") });
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let (_server, _incoming, address) = server(ControlLimits::default()).await;
    let config = ControlConfig {
        identity: Identity::generate(),
        listen: Some(address),
        protocols: vec![],
        limits: ControlLimits::default(),
    };
    let error = Control::start(config.clone()).await.unwrap_err();
    assert!(matches!(error, NetError::PortInUse { .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let listen = Some("192.0.2.1:0".parse().unwrap());
    let error = Control::start(ControlConfig { listen, ..config }).await.unwrap_err();
    assert!(matches!(error, NetError::NotOurAddress { .. }), "{error}");
}

#[tokio::test]
async fn opening_needs_a_connection_and_a_common_protocol() {
    let (_server, _incoming, address) = server(ControlLimits::default()).await;
    let client = client().await;
    let stranger = Identity::generate().peer_id();
    assert!(matches!(client.open(stranger, ECHO).await, Err(NetError::NotConnected { .. })));
    let peer = client.dial("127.0.0.1", address.port(), None).await.unwrap();
    let other = Protocol("/test/other/1");
    assert!(matches!(client.open(peer, other).await, Err(NetError::Unsupported { .. })));
    assert!(matches!(client.open(peer, Protocol("x")).await, Err(NetError::BadProtocol { .. })));
    client.disconnect(peer).await;
    soon("the disconnection", async { while client.open(peer, ECHO).await.is_ok() {} }).await;
    client.shutdown().await;
    assert!(matches!(client.open(peer, ECHO).await, Err(NetError::Closed)));
}

#[tokio::test]
async fn a_cut_connection_is_noticed_at_once_by_both() {
    let (_server, mut incoming, address) = server(ControlLimits::default()).await;
    let wire = Wire::to(address).await;
    let client = client().await;
    let peer = client.dial("127.0.0.1", wire.address.port(), None).await.unwrap();
    let mut near = client.open(peer, ECHO).await.unwrap();
    let mut far = soon("the channel", incoming.next()).await.unwrap().channel;
    wire.mode.send(Mode::Cut).unwrap();
    let limit = Duration::from_secs(2);
    assert!(!matches!(within(limit, "the near end", near.recv()).await, Ok(Some(_))));
    assert!(!matches!(within(limit, "the far end", far.recv()).await, Ok(Some(_))));
    soon("the failure of sending", async { while near.send(b"x").await.is_ok() {} }).await;
    assert!(matches!(client.open(peer, ECHO).await, Err(NetError::NotConnected { .. })));
}

#[tokio::test]
async fn silence_is_noticed_within_five_seconds_by_both() {
    let (_server, mut incoming, address) = server(ControlLimits::default()).await;
    let wire = Wire::to(address).await;
    let client = client().await;
    let peer = client.dial("127.0.0.1", wire.address.port(), None).await.unwrap();
    let mut near = client.open(peer, ECHO).await.unwrap();
    let mut far = soon("the channel", incoming.next()).await.unwrap().channel;
    wire.mode.send(Mode::Silent).unwrap();
    let limit = Duration::from_millis(5_500);
    let (near, far) =
        tokio::join!(within(limit, "the near end", near.recv()), within(limit, "the far end", far.recv()),);
    assert!(!matches!(near, Ok(Some(_))) && !matches!(far, Ok(Some(_))));
}

#[tokio::test]
async fn an_idle_connection_stays_while_a_channel_is_open_and_else_goes() {
    let (_server, incoming, address) = server(ControlLimits::default()).await;
    echo(incoming);
    let (user, idler) = (client().await, client().await);
    let peer = user.dial("127.0.0.1", address.port(), None).await.unwrap();
    let mut channel = user.open(peer, ECHO).await.unwrap();
    let wire = Wire::to(address).await;
    idler.dial("127.0.0.1", wire.address.port(), None).await.unwrap();
    // The one without a channel is the clock: when it has been closed, the other was as idle for as long.
    until("the end of the idle connection", || wire.closed.load(Ordering::SeqCst) == 1).await;
    assert!(matches!(idler.open(peer, ECHO).await, Err(NetError::NotConnected { .. })));
    round_trip(&mut channel, b"still here").await;
}

#[tokio::test]
async fn a_dropped_dial_leaves_no_connection() {
    let (_server, _incoming, address) = server(ControlLimits::default()).await;
    let wire = Wire::to(address).await;
    wire.mode.send(Mode::Silent).unwrap();
    let client = client().await;
    {
        let dial = client.dial("127.0.0.1", wire.address.port(), None);
        let begun = until("the connection", || wire.opened.load(Ordering::SeqCst) == 1);
        tokio::select! {
            biased;
            () = begun => {}
            dialled = dial => panic!("dialled over a silent wire: {dialled:?}"),
        }
    }
    // Now the handshakes go through, and nobody waits for them any more.
    wire.mode.send(Mode::Pass).unwrap();
    let closed = until("the end of the connection", || wire.closed.load(Ordering::SeqCst) == 1);
    within(Duration::from_secs(6), "closing it before it would count as idle", closed).await;
}

#[tokio::test]
async fn a_connection_has_its_share_of_channels_and_not_more() {
    let limits = ControlLimits { channels_per_connection: 3, ..ControlLimits::default() };
    let (_server, incoming, address) = server(limits).await;
    echo(incoming);
    let client = client().await;
    let peer = client.dial("127.0.0.1", address.port(), None).await.unwrap();
    let mut channels = Vec::new();
    for _ in 0..3 {
        let mut channel = client.open(peer, ECHO).await.unwrap();
        round_trip(&mut channel, b"one of three").await;
        channels.push(channel);
    }
    let refused = client.open(peer, ECHO).await;
    if let Ok(mut channel) = refused {
        assert!(!matches!(soon("the end", channel.recv()).await, Ok(Some(_))));
    }
    channels.pop();
    soon("room for another channel", async {
        loop {
            if let Ok(mut channel) = client.open(peer, ECHO).await
                && channel.send(b"x").await.is_ok()
                && matches!(channel.recv().await, Ok(Some(_)))
            {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_opens_channel_after_channel_is_disconnected() {
    let (_server, incoming, address) = server(ControlLimits::default()).await;
    echo(incoming);
    let client = client().await;
    let peer = client.dial("127.0.0.1", address.port(), None).await.unwrap();
    let mut opened = 0;
    let opening = async {
        while let Ok(mut channel) = client.open(peer, ECHO).await {
            if channel.send(b"x").await.is_err() || !matches!(channel.recv().await, Ok(Some(_))) {
                break;
            }
            opened += 1;
        }
    };
    within(Duration::from_secs(60), "the end of it", opening).await;
    assert!((250..2_000).contains(&opened), "{opened}");
    let gone = async || matches!(client.open(peer, ECHO).await, Err(NetError::NotConnected { .. }));
    within(Duration::from_secs(10), "the end of the connection", async { while !gone().await {} }).await;
}

#[tokio::test]
async fn a_peer_that_dials_again_and_again_keeps_its_newest_connections() {
    let (_server, incoming, address) = server(ControlLimits::default()).await;
    echo(incoming);
    let wire = Wire::to(address).await;
    let client = client().await;
    let mut peer = None;
    for _ in 0..6 {
        peer = Some(client.dial("127.0.0.1", wire.address.port(), peer).await.unwrap());
    }
    until("the end of the two oldest", || wire.closed.load(Ordering::SeqCst) == 2).await;
    let mut channel = client.open(peer.unwrap(), ECHO).await.unwrap();
    round_trip(&mut channel, b"on the newest").await;
}

#[tokio::test]
async fn no_channel_is_lost_when_many_come_at_once() {
    const PEERS: usize = 40;
    const CHANNELS: usize = 8;
    let (_server, mut incoming, address) = server(ControlLimits::default()).await;
    let dialler = async {
        let one = || async {
            let client = client().await;
            let peer = client.dial("127.0.0.1", address.port(), None).await.unwrap();
            let opens = (0..CHANNELS).map(|_| client.open(peer, ECHO));
            let channels = futures::future::join_all(opens).await;
            let channels: Vec<_> = channels.into_iter().map(Result::unwrap).collect();
            (client, channels)
        };
        futures::future::join_all((0..PEERS).map(|_| one())).await
    };
    let clients = soon("all dials and channels", dialler).await;
    // Only now is anything taken: more wait than `Incoming` holds.
    let mut taken = Vec::new();
    for _ in 0..PEERS * CHANNELS {
        taken.push(soon("every channel", incoming.next()).await.unwrap());
    }
    drop(clients);
}

#[tokio::test]
async fn half_open_and_garbage_connections_do_not_keep_others_out() {
    let limits = ControlLimits { pending_per_address: 8, ..ControlLimits::default() };
    let (_server, incoming, address) = server(limits).await;
    echo(incoming);
    let mut held = Vec::new();
    for number in 0..100_u8 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        if number % 2 == 0 {
            let garbage: Vec<u8> = (0..200).map(|i| number.wrapping_mul(31).wrapping_add(i)).collect();
            // The server may have hung up already.
            let _ = stream.write_all(&garbage).await;
        }
        held.push(stream);
    }
    let client = client().await;
    let peer = client.dial("127.0.0.1", address.port(), None).await.unwrap();
    let mut channel = client.open(peer, ECHO).await.unwrap();
    round_trip(&mut channel, b"served all the same").await;
    drop(held);
}

#[tokio::test]
async fn shutdown_sends_what_was_queued_frees_the_port_and_leaves_no_task() {
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    let (server, mut incoming, address) = server(ControlLimits::default()).await;
    let client = client().await;
    let peer = client.dial("127.0.0.1", address.port(), None).await.unwrap();
    let mut channel = client.open(peer, ECHO).await.unwrap();
    channel.send(b"first").await.unwrap();
    let mut far = soon("the channel", incoming.next()).await.unwrap().channel;
    assert_eq!(far.recv().await.unwrap().unwrap(), b"first");

    let last = vec![1; 10_000];
    channel.send(&last).await.unwrap();
    within(Duration::from_secs(3), "the client's shutdown", client.shutdown()).await;
    assert_eq!(soon("the last message", far.recv()).await.unwrap().unwrap(), last);
    assert!(soon("the end", far.recv()).await.unwrap().is_none());
    assert!(channel.send(b"late").await.is_err() || channel.recv().await.is_ok_and(|end| end.is_none()));

    within(Duration::from_secs(3), "the server's shutdown", server.shutdown()).await;
    assert!(soon("the end", incoming.next()).await.is_none());
    assert!(TcpStream::connect(address).await.is_err());
    TcpListener::bind(address).await.unwrap();
    until("the end of every task", || metrics.num_alive_tasks() == before).await;
}
