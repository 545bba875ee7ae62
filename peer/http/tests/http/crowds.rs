//! Crowds of connections at a `server`: hostile ones that take nothing or never finish asking, and honest ones.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::{MIB, PATIENCE, Server, random, until};

/// More than the server has places for.
const HOSTILE: usize = 1_100;
/// What the `server` process may have in memory, whatever the crowd does: 64 MiB of blocks, 64 MiB of long texts, small
/// blocks and heads for all places (64 MiB), and the program itself with its threads.
const MOST_MEMORY: u64 = 256 << 20;
/// The same where nobody takes anything: large blocks are not for such clients, so that they are there for the others.
const MOST_UNREAD: u64 = 128 << 20;

/// Opens a connection and sends this.
fn ask(address: SocketAddr, request: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

/// The answer's body, as an honest client takes it.
fn download(address: SocketAddr, path: &str) -> std::io::Result<Vec<u8>> {
    let request = format!("GET /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut stream = ask(address, &request)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap_or(answer.len());
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..head]));
    Ok(answer.split_off(head + 4))
}

/// Raises this process's limit of open files: it has both crowds.
fn many_descriptors(server: &Server) -> (SocketAddr, SocketAddr) {
    assert!(shoal_console::descriptors::raise() >= 4_096, "the test needs more open files");
    let at = |host: &str| format!("{host}:{}", server.ports[0]).parse().unwrap();
    (at("127.0.0.1"), at("127.0.0.2"))
}

#[test]
fn a_crowd_that_never_reads_or_never_finishes_asking_leaves_honest_clients_served_in_bounded_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (large, small) = (folder.path().join("large"), random(3 * MIB, 5));
    File::create(&large).unwrap().set_len(256 << 20).unwrap();
    std::fs::write(folder.path().join("small"), &*small).unwrap();
    let server = Server::start(&["--root", folder.path().to_str().unwrap()], 1);
    let (near, other) = many_descriptors(&server);
    // An honest client that is in the middle of the large file when the crowd comes.
    let mut honest =
        ask(near, "GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    honest.set_read_timeout(Some(PATIENCE)).unwrap();
    honest.read_exact(&mut vec![0; MIB]).unwrap();
    let rest = std::thread::spawn(move || std::io::copy(&mut honest, &mut std::io::sink()));
    let never_read = "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut crowd: Vec<TcpStream> = (0..HOSTILE).map(|_| ask(near, never_read).unwrap()).collect();
    crowd.extend((0..HOSTILE).map(|_| ask(near, "GET /large HTTP/1.1\r\nHost: loc").unwrap()));
    crowd.extend((0..HOSTILE / 2).map(|_| ask(near, never_read).unwrap()));
    let mut most = 0;
    for _ in 0..5 {
        for address in [near, other] {
            assert!(download(address, "small").unwrap() == *small);
            most = most.max(server.memory());
        }
    }
    let rest = rest.join().unwrap().unwrap();
    assert!(rest > (256 << 20) - MIB as u64, "what was on its way goes on: {rest}");
    assert!(most < MOST_UNREAD, "{} MiB", most >> 20);
    drop(crowd);
}

#[test]
fn a_school_behind_one_address_is_served() {
    const CURLS: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let content = random(2 * MIB, 6);
    std::fs::write(folder.path().join("a.bin"), &*content).unwrap();
    let server = Server::of_file(&folder.path().join("a.bin"), 1);
    let (near, _) = many_descriptors(&server);
    let curls: Vec<_> =
        (0..CURLS).map(|_| std::thread::spawn(move || download(near, "a.bin").unwrap())).collect();
    for curl in curls {
        assert!(curl.join().unwrap() == *content);
    }
    assert!(server.memory() < MOST_MEMORY);
}

#[test]
fn long_lists_that_nobody_takes_are_bounded_and_give_way() {
    let folder = tempfile::tempdir().unwrap();
    // A list has a megabyte: the escaped names stand there three times.
    for number in 0..1_000 {
        File::create(folder.path().join(format!("{}{number}", "é".repeat(60)))).unwrap();
    }
    let server = Server::start(&["--root", folder.path().to_str().unwrap()], 1);
    let (near, other) = many_descriptors(&server);
    let crowd: Vec<_> =
        (0..150).map(|_| ask(near, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap()).collect();
    let mut most = 0;
    until("somebody else has the list", || {
        most = most.max(server.memory());
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let mut answer = Vec::new();
        let read = ask(other, request).and_then(|mut stream| stream.read_to_end(&mut answer));
        read.is_ok() && answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"</html>\n")
    });
    assert!(most < MOST_MEMORY, "{} MiB", most >> 20);
    drop(crowd);
}

#[test]
fn a_request_without_measure_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.bin"), b"abc").unwrap();
    let server = Server::of_file(&folder.path().join("a.bin"), 1);
    let (near, _) = many_descriptors(&server);
    let answer_to = |request: String| {
        let mut stream = ask(near, "").unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The server may have ended it before all was sent.
        let _ = stream.write_all(request.as_bytes());
        let mut start = [0; 12];
        stream.read_exact(&mut start).map(|()| String::from_utf8_lossy(&start).into_owned())
    };
    let long = format!("GET /a.bin HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(1 << 20));
    let many = format!("GET /a.bin HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(5_000));
    for request in [long, many] {
        // An end without an answer is one, too.
        if let Ok(answer) = answer_to(request) {
            assert_eq!(answer, "HTTP/1.1 431");
        }
    }
    // Requests one after another, and no answer is read.
    let request = "GET /a.bin HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1_000);
    let mut pipelined = ask(near, "").unwrap();
    pipelined.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut sent = 0;
    while sent < 256 * MIB {
        match pipelined.write(request.as_bytes()) {
            Ok(bytes) => sent += bytes,
            Err(_) => break,
        }
    }
    assert!(server.memory() < MOST_MEMORY && sent < 256 * MIB, "{sent} bytes of requests were taken");
    assert_eq!(download(near, "a.bin").unwrap(), b"abc");
}
