//! A stalled connection ends, a slow one stays.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::server::catalog::Catalog;
use crate::server::digests::DigestStore;
use crate::server::places::Places;

const STALLS: Duration = Duration::from_secs(2);
const SIZE: u64 = 64 << 20;

async fn asked(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    // As little as possible is taken without reading.
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_cut_off_and_a_slow_steady_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::File::create(folder.path().join("large")).unwrap().set_len(SIZE).unwrap();
    let catalog = Catalog::folder(folder.path()).unwrap();
    let site = Arc::new(Site::new(catalog, DigestStore::new(), Places::within(256)));
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (meter, stop) = (Arc::new(Meter::new(site.buffers())), CancellationToken::new());
    let (tasks, timeouts) = (TaskTracker::new(), Timeouts { stalled: STALLS, ..TIMEOUTS });
    let accepting = accept(listener, site, meter.clone(), timeouts, stop.clone(), tasks.clone());
    tokio::spawn(accepting);
    let connections = || meter.connections.load(Ordering::Relaxed);
    let (mut never, mut slow) = (asked(address).await, asked(address).await);
    let began = Instant::now();
    let mut ended = None;
    let mut bytes = vec![0; 64 * 1024];
    // Some 128 KiB/s, for three times as long as nothing may be taken.
    let mut pace = tokio::time::interval(Duration::from_millis(500));
    while began.elapsed() < 3 * STALLS {
        slow.read_exact(&mut bytes).await.unwrap();
        if connections() == 1 {
            ended.get_or_insert(began.elapsed());
        }
        pace.tick().await;
    }
    assert!(ended.is_some_and(|after| after >= STALLS), "{ended:?}");
    slow.read_exact(&mut bytes).await.unwrap();
    assert_eq!(connections(), 1);
    let mut rest = Vec::new();
    // What the system has for it can still be read, and then it is clear that it is not all.
    let _ = never.read_to_end(&mut rest).await;
    assert!((rest.len() as u64) < SIZE);
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_end_and_a_connection_without_requests_end() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), "a").unwrap();
    let catalog = Catalog::folder(folder.path()).unwrap();
    let site = Arc::new(Site::new(catalog, DigestStore::new(), Places::within(256)));
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (meter, stop) = (Arc::new(Meter::new(site.buffers())), CancellationToken::new());
    let timeouts = Timeouts { head: Duration::from_millis(500), ..TIMEOUTS };
    tokio::spawn(accept(listener, site, meter, timeouts, stop.clone(), TaskTracker::new()));
    for request in ["", "GET /a HTTP/1.1\r\nHost: loc", "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer));
        read.await.unwrap_or_else(|_| panic!("it stays after {request:?}")).unwrap();
    }
    // Single bytes keep it no longer.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (began, mut pace) = (Instant::now(), tokio::time::interval(Duration::from_millis(50)));
    while stream.write_all(b"G").await.is_ok() && began.elapsed() < Duration::from_secs(20) {
        pace.tick().await;
    }
    assert!(began.elapsed() < Duration::from_secs(20));
    stop.cancel();
}
