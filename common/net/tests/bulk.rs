//! Bulk connections over real loopback sockets: that it carries, and that strangers do not stop it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test and its helpers fail by panicking")]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use shoal_net::bulk::frame::{FrameReader, FrameWriter};
use shoal_net::bulk::{self, BulkError, BulkLimits, Listener};
use shoal_net::{Identity, NetError};
use support::{soon, until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

fn listener(limits: BulkLimits) -> (Listener, Identity, SocketAddr) {
    let identity = Identity::generate();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), &identity, limits).unwrap();
    let address = listener.local_addr();
    (listener, identity, address)
}

/// Connects from 127.0.0.2, so that it counts as another machine.
async fn from_elsewhere(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test]
async fn both_ends_prove_who_they_are_and_bytes_go_both_ways() {
    let (mut listener, server, address) = listener(BulkLimits::default());
    let client = Identity::generate();
    let (near, far) = tokio::join!(bulk::connect(address, server.peer_id(), &client), listener.accept());
    let (mut near, (mut far, from)) = (near.unwrap(), far.unwrap());
    assert_eq!(near.peer(), server.peer_id());
    assert_eq!((far.peer(), from.ip()), (client.peer_id(), address.ip()));

    near.write_all(b"there").await.unwrap();
    near.flush().await.unwrap();
    near.shutdown().await.unwrap();
    let mut received = Vec::new();
    soon("the end", far.read_to_end(&mut received)).await.unwrap();
    assert_eq!(received, b"there");
    far.write_all(b"back").await.unwrap();
    far.shutdown().await.unwrap();
    received.clear();
    soon("the end", near.read_to_end(&mut received)).await.unwrap();
    assert_eq!(received, b"back");
}

#[tokio::test]
async fn frames_go_both_ways_at_once_through_halves() {
    const FRAMES: u32 = 500;
    let (mut listener, server, address) = listener(BulkLimits::default());
    let client = Identity::generate();
    let (near, far) = tokio::join!(bulk::connect(address, server.peer_id(), &client), listener.accept());
    let both = [near.unwrap(), far.unwrap().0].map(|stream| async move {
        let (read, write) = stream.into_split();
        let (mut reader, mut writer) = (FrameReader::new(read, 64 * 1024), FrameWriter::new(write));
        let send = async {
            for number in 0..FRAMES {
                let body = vec![number.to_le_bytes()[0]; 16 * 1024];
                writer.data(1, &number.to_le_bytes(), &body).await.unwrap();
            }
            writer.close().await.unwrap();
        };
        let receive = async {
            let mut body = vec![0; 16 * 1024];
            for number in 0..FRAMES {
                let header = reader.next().await.unwrap().unwrap();
                assert_eq!((header.kind, header.length), (1, 16 * 1024 + 4));
                let mut head = [0; 4];
                reader.read_into(&mut head).await.unwrap();
                assert_eq!(u32::from_le_bytes(head), number);
                reader.read_into(&mut body).await.unwrap();
                assert!(body.iter().all(|byte| *byte == number.to_le_bytes()[0]));
            }
            assert!(reader.next().await.unwrap().is_none());
        };
        tokio::join!(send, receive);
    });
    soon("all frames", futures::future::join_all(both)).await;
}

#[tokio::test]
async fn a_connection_cut_short_is_told_from_one_that_ended() {
    let (mut listener, server, address) = listener(BulkLimits::default());
    let client = Identity::generate();
    let (near, far) = tokio::join!(bulk::connect(address, server.peer_id(), &client), listener.accept());
    drop(near.unwrap());
    let error = soon("the cut", far.unwrap().0.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_failed_connection_says_why() {
    let identity = Identity::generate();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = bulk::connect(free, identity.peer_id(), &identity).await.unwrap_err();
    assert_eq!(error, BulkError::Refused { way: free });

    let (_listener, server, address) = listener(BulkLimits::default());
    let wrong = Identity::generate().peer_id();
    let error = bulk::connect(address, wrong, &identity).await.unwrap_err();
    assert_eq!(error, BulkError::WrongPeer { way: address, expected: wrong, found: server.peer_id() });

    let hangs_up = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = hangs_up.local_addr().unwrap();
    let connecting = bulk::connect(target, wrong, &identity);
    let (result, _) = tokio::join!(connecting, async { drop(hangs_up.accept().await.unwrap()) });
    assert!(matches!(result, Err(BulkError::Handshake { .. })), "{result:?}");

    let error = Listener::bind(address, &identity, BulkLimits::default()).unwrap_err();
    assert!(matches!(error, NetError::PortInUse { .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn connecting_to_somebody_who_says_nothing_ends_by_itself() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let identity = Identity::generate();
    let started = Instant::now();
    let error = bulk::connect(address, identity.peer_id(), &identity).await.unwrap_err();
    assert_eq!(error, BulkError::TimedOut { way: address });
    assert!(started.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn half_open_handshakes_and_garbage_do_not_keep_others_out() {
    let limits = BulkLimits { pending: 16, pending_per_address: 8, ..BulkLimits::default() };
    let (mut listener, server, address) = listener(limits);
    let mut held = Vec::new();
    for number in 0..100_u8 {
        let mut stream = from_elsewhere(address).await;
        if number % 2 == 0 {
            let garbage: Vec<u8> = (0..200).map(|i| number.wrapping_mul(31).wrapping_add(i)).collect();
            // The listener may have hung up already.
            let _ = stream.write_all(&garbage).await;
        }
        held.push(stream);
    }
    let client = Identity::generate();
    let (near, far) = tokio::join!(
        bulk::connect(address, server.peer_id(), &client),
        within(Duration::from_secs(5), "the connection of the honest peer", listener.accept()),
    );
    assert_eq!((near.unwrap().peer(), far.unwrap().0.peer()), (server.peer_id(), client.peer_id()));

    // Of the stranger's handshakes only their share is left: the oldest had to go, long before its time.
    let first_silent = &mut held[1];
    let end = within(Duration::from_secs(5), "the end of the oldest", first_silent.read(&mut [0; 8])).await;
    assert!(!matches!(end, Ok(1..)), "{end:?}");
}

#[tokio::test]
async fn a_handshake_from_the_strangers_own_address_still_gets_through() {
    let limits = BulkLimits { pending_per_address: 4, ..BulkLimits::default() };
    let (mut listener, server, address) = listener(limits);
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    let client = Identity::generate();
    let (near, far) = tokio::join!(
        bulk::connect(address, server.peer_id(), &client),
        within(Duration::from_secs(5), "the connection of the honest peer", listener.accept()),
    );
    near.unwrap();
    assert_eq!(far.unwrap().0.peer(), client.peer_id());
}

#[tokio::test]
async fn a_peer_has_its_share_of_connections_and_gets_it_back() {
    let limits = BulkLimits { established_per_peer: 2, ..BulkLimits::default() };
    let (mut listener, server, address) = listener(limits);
    let (alice, bob) = (Identity::generate(), Identity::generate());
    let mut near = Vec::new();
    let mut far = Vec::new();
    for _ in 0..2 {
        near.push(bulk::connect(address, server.peer_id(), &alice).await.unwrap());
        far.push(soon("a connection", listener.accept()).await.unwrap().0);
    }
    let mut third = bulk::connect(address, server.peer_id(), &alice).await.unwrap();
    assert!(!matches!(soon("being turned away", third.read(&mut [0; 1])).await, Ok(1..)));
    bulk::connect(address, server.peer_id(), &bob).await.unwrap();
    assert_eq!(soon("bob", listener.accept()).await.unwrap().0.peer(), bob.peer_id());

    far.pop();
    let _again = bulk::connect(address, server.peer_id(), &alice).await.unwrap();
    assert_eq!(soon("alice", listener.accept()).await.unwrap().0.peer(), alice.peer_id());
}

#[tokio::test]
async fn connections_that_nobody_accepts_wait_without_loss() {
    const PEERS: usize = 100;
    let (mut listener, server, address) = listener(BulkLimits::default());
    let clients: Vec<_> = (0..PEERS).map(|_| Identity::generate()).collect();
    let id = server.peer_id();
    let connecting = clients.chunks(10).map(|some| async move {
        let mut open = Vec::new();
        for client in some {
            open.push(bulk::connect(address, id, client).await.unwrap());
        }
        open
    });
    let accepting = async {
        let mut peers = Vec::new();
        for _ in 0..PEERS {
            peers.push(listener.accept().await.unwrap().0.peer());
        }
        peers
    };
    let (_open, mut peers) =
        soon("all connections", async { tokio::join!(futures::future::join_all(connecting), accepting) })
            .await;
    let mut expected: Vec<_> = clients.iter().map(Identity::peer_id).collect();
    expected.sort();
    peers.sort();
    assert_eq!(peers, expected);
}

#[tokio::test]
async fn closing_frees_the_port_and_leaves_no_task() {
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    let (listener, _, address) = listener(BulkLimits::default());
    let held = TcpStream::connect(address).await.unwrap();
    until("the handshake", || metrics.num_alive_tasks() >= before + 2).await;
    within(Duration::from_secs(1), "closing", listener.close()).await;
    TcpListener::bind(address).await.unwrap();
    until("the end of every task", || metrics.num_alive_tasks() == before).await;
    drop(held);
}
