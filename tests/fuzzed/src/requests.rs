//! Requests to `server --root`: bytes on a real connection, on loopback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

/// What is in a hidden file, and in one outside of the folder.
const SECRET: &[u8] = b"nobody asked for this";
/// Ends what is left unfinished, and the connection.
const LAST: &[u8] = b"\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
/// How long an answer may take before the connection is left: a request that announces a body waits for it.
const PATIENCE: Duration = Duration::from_millis(200);

static SERVER: LazyLock<(SocketAddr, tempfile::TempDir)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    std::fs::write(root.join("a.txt"), "0123456789").unwrap();
    std::fs::write(root.join("sub/film.mkv"), vec![b'f'; 5_000]).unwrap();
    std::fs::write(root.join(".hidden"), SECRET).unwrap();
    std::fs::write(dir.path().join("outside"), SECRET).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || serve(&root, listener));
    (address, dir)
});

fn serve(root: &Path, listener: std::net::TcpListener) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        shoal_http::server::serve_folder(root, listener).await.unwrap();
    });
}

/// Whatever is asked: an answer is HTTP, and holds nothing that is hidden or outside of the folder.
pub fn requests(bytes: &[u8]) {
    let mut stream = TcpStream::connect(SERVER.0).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may have heard enough before the end, and reset the connection.
    let _ = stream.write_all(bytes).and_then(|()| stream.write_all(LAST));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{answer:?}");
    assert!(
        !answer.windows(SECRET.len()).any(|words| words == SECRET),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
}
