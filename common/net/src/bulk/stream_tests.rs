use std::time::Duration;

use super::*;
use crate::bulk::tls::{ALPN, client_config, no_name, server_config};
use crate::bulk::{Way, connect, handshake};
use crate::identity::Identity;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// Long enough for both ends to change their keys several times, and nothing that divides evenly into records.
const BYTES: usize = 3 * 256 * MAX_PLAIN + 12_345;

fn content() -> Vec<u8> {
    (0..=250).cycle().take(BYTES).collect()
}

/// A connection of ours, dialled or accepted, to one that rustls carries from end to end.
async fn ours_and_rustls(dial: bool) -> (BulkStream, TlsStream<TcpStream>) {
    let (us, them) = (Identity::generate(), Identity::generate());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (mut near, (far, _)) = (near.unwrap(), far.unwrap());
    let (our_key, their_key) = (us.certified_key().unwrap(), them.certified_key().unwrap());
    let (established, theirs) = if dial {
        let config = Arc::new(client_config(our_key, them.peer_id(), ALPN).unwrap());
        let acceptor = TlsAcceptor::from(Arc::new(server_config(their_key).unwrap()));
        let (ours, theirs) = tokio::join!(handshake::connect(&mut near, config), acceptor.accept(far));
        (ours.unwrap(), theirs.unwrap().into())
    } else {
        let config = Arc::new(server_config(our_key).unwrap());
        let connector = TlsConnector::from(Arc::new(client_config(their_key, us.peer_id(), ALPN).unwrap()));
        let (ours, theirs) =
            tokio::join!(handshake::accept(&mut near, config), connector.connect(no_name(), far));
        (ours.unwrap(), theirs.unwrap().into())
    };
    assert_eq!(established.peer, them.peer_id());
    let (input, output) = near.into_split();
    (BulkStream::new(input, output, established).unwrap(), theirs)
}

fn refresh(stream: &mut TlsStream<TcpStream>) {
    match stream {
        TlsStream::Client(stream) => stream.get_mut().1.refresh_traffic_keys().unwrap(),
        TlsStream::Server(stream) => stream.get_mut().1.refresh_traffic_keys().unwrap(),
    }
}

#[tokio::test]
async fn rustls_understands_us_and_we_it_through_changes_of_keys() {
    for dial in [true, false] {
        let (mut ours, mut theirs) = ours_and_rustls(dial).await;
        let content = content();
        let (there, back) = (content.clone(), content.clone());
        let us = async {
            let mut received = vec![0; BYTES];
            for (out, into) in there.chunks(700_000).zip(received.chunks_mut(700_000)) {
                ours.write_all(out).await.unwrap();
                ours.flush().await.unwrap();
                ours.read_exact(into).await.unwrap();
            }
            assert!(received == there);
            ours.shutdown().await.unwrap();
            assert_eq!(ours.read(&mut [0]).await.unwrap(), 0, "rustls said that it ends");
        };
        let they = async {
            let mut received = vec![0; BYTES];
            for (out, into) in back.chunks(700_000).zip(received.chunks_mut(700_000)) {
                theirs.read_exact(into).await.unwrap();
                refresh(&mut theirs);
                theirs.write_all(out).await.unwrap();
                theirs.flush().await.unwrap();
            }
            assert!(received == back);
            assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0, "we said that we end");
            theirs.shutdown().await.unwrap();
        };
        tokio::join!(us, they);
    }
}

#[tokio::test]
async fn what_nobody_reads_is_not_taken_without_end() {
    let (ours, theirs) = ours_and_rustls(true).await;
    let (_reader, mut writer) = ours.into_split();
    let block = vec![1; 64 * 1024];
    let mut taken = 0;
    // The system's own buffers take some megabytes.
    while let Some(count) = futures::FutureExt::now_or_never(writer.write(&block)) {
        taken += count.unwrap();
        assert!(taken < 64 << 20, "the writer takes whatever comes");
    }
    for _ in 0..50 {
        assert!(futures::FutureExt::now_or_never(writer.write(&block)).is_none());
    }
    assert!(writer.buffer.capacity() <= 4 * WRITE_BATCH, "{}", writer.buffer.capacity());
    drop(theirs);
}

#[tokio::test]
async fn new_keys_without_end_end_the_connection_and_some_do_not() {
    for (count, ends) in [(200, false), (20_000, true)] {
        let (mut ours, mut theirs) = ours_and_rustls(false).await;
        let flood = tokio::spawn(async move {
            for _ in 0..count {
                refresh(&mut theirs);
                theirs.flush().await?;
            }
            theirs.write_all(b"x").await?;
            theirs.flush().await.map(|()| theirs)
        });
        let read = tokio::time::timeout(Duration::from_secs(60), ours.read(&mut [0; 8])).await.unwrap();
        match read {
            Ok(1) => assert!(!ends),
            Err(error) if ends => assert_eq!(error.to_string(), "too many records that carry nothing"),
            other => panic!("{other:?}"),
        }
        drop(ours);
        flood.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn records_that_carry_little_are_read_no_faster_than_so_many_per_second() {
    let mut budget = RecordBudget::new();
    let start = tokio::time::Instant::now();
    for _ in 0..600_000 {
        budget.count(1).unwrap();
        budget.count(MAX_PLAIN).unwrap();
        std::future::poll_fn(|cx| budget.poll_paid(cx)).await;
    }
    let took = start.elapsed();
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(12), "{took:?}");
}

#[tokio::test]
async fn altered_bytes_end_the_connection() {
    let (mut ours, mut theirs) = ours_and_rustls(true).await;
    theirs.write_all(b"in order").await.unwrap();
    theirs.flush().await.unwrap();
    ours.read_exact(&mut [0; 8]).await.unwrap();
    let (tcp, _) = theirs.get_mut();
    tcp.write_all(&[23, 3, 3, 0, 40]).await.unwrap();
    tcp.write_all(&[7; 40]).await.unwrap();
    let error = ours.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
}

#[tokio::test]
async fn a_handshake_with_any_byte_altered_fails_or_proves_the_same_peer() {
    let (us, them) = (Identity::generate(), Identity::generate());
    let server = Arc::new(server_config(us.certified_key().unwrap()).unwrap());
    let client = Arc::new(client_config(them.certified_key().unwrap(), us.peer_id(), ALPN).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // A relay that alters one byte of what the client says: its hello, and what it sends once it has seen ours.
    for position in (0..1_500).step_by(7) {
        let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relayed = relay.local_addr().unwrap();
        let between = tokio::spawn(async move {
            let (near, _) = relay.accept().await.unwrap();
            let far = TcpStream::connect(address).await.unwrap();
            let ((mut from, mut back), (mut answers, mut to)) = (near.into_split(), far.into_split());
            let answering = tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
            let (mut seen, mut buffer) = (0, [0; 1_000]);
            while let Ok(count @ 1..) = from.read(&mut buffer).await {
                if (seen..seen + count).contains(&position) {
                    buffer[position - seen] ^= 0x41;
                }
                seen += count;
                if to.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
            }
            drop(to);
            let _ = answering.await;
        });
        let dial = async {
            let mut tcp = TcpStream::connect(relayed).await.unwrap();
            let shaken = handshake::connect(&mut tcp, client.clone()).await;
            // Only an end tells a server that is waiting for a longer message.
            tcp.shutdown().await.unwrap();
            shaken.map(|established| established.peer)
        };
        let answer = async {
            let (mut tcp, _) = listener.accept().await.unwrap();
            handshake::accept(&mut tcp, server.clone()).await.map(|established| established.peer)
        };
        let (dialled, answered) = tokio::time::timeout(Duration::from_secs(10), async {
            tokio::join!(tokio::time::timeout(Duration::from_millis(300), dial), answer)
        })
        .await
        .unwrap();
        assert!(!matches!(dialled, Ok(Ok(peer)) if peer != us.peer_id()), "byte {position}");
        assert!(!matches!(answered, Ok(peer) if peer != them.peer_id()), "byte {position}");
        between.abort();
    }
}

/// A way that leads through memory: the other end is in this process.
#[derive(Debug, Clone)]
struct Memory(Arc<Mutex<Option<DuplexStream>>>);

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("memory")
    }
}

impl Way for Memory {
    type Reader = ReadHalf<DuplexStream>;
    type Writer = WriteHalf<DuplexStream>;

    async fn open(&self) -> io::Result<(Self::Reader, Self::Writer)> {
        let near = self.0.lock().unwrap().take().ok_or(io::ErrorKind::ConnectionRefused)?;
        Ok(tokio::io::split(near))
    }
}

#[tokio::test]
async fn a_connection_runs_over_any_way_to_the_peer() {
    let (us, them) = (Identity::generate(), Identity::generate());
    let (near, mut far) = tokio::io::duplex(1_024);
    let way = Memory(Arc::new(Mutex::new(Some(near))));
    let config = Arc::new(server_config(them.certified_key().unwrap()).unwrap());
    let answer = async {
        let established = handshake::accept(&mut far, config).await.unwrap();
        let (input, output) = tokio::io::split(far);
        BulkStream::new(input, output, established).unwrap()
    };
    let (ours, mut theirs) = tokio::join!(connect(way.clone(), them.peer_id(), &us), answer);
    let mut ours = ours.unwrap();
    assert_eq!((ours.peer(), theirs.peer()), (them.peer_id(), us.peer_id()));
    let content = content();
    let sending = async {
        ours.write_all(&content).await.unwrap();
        ours.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let (_, read) = tokio::join!(sending, theirs.read_to_end(&mut received));
    read.unwrap();
    assert!(received == content);
    let refused = connect(way, them.peer_id(), &us).await.unwrap_err();
    assert_eq!(refused.to_string(), "memory refuses connections");
}
