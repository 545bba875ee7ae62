//! A small HTTP/1.1 server on threads that misbehaves as it is told, and counts the bytes of content that it sends.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shoal_common::{Digests, FileName, Sha1};
use shoal_segment::metalink::{self, MetalinkFile, Pieces};

const BLOCK: usize = 16 * 1024;

/// How it behaves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manners {
    /// Publishes digests and pieces of this length in a Metalink.
    pub(crate) publishes: Option<u32>,
    /// The name in that Metalink.
    pub(crate) name: Option<String>,
    /// Time for each 16 KiB.
    pub(crate) block_time: Duration,
    /// Ignores ranges.
    pub(crate) no_ranges: bool,
    /// Closes the connection after every answer.
    pub(crate) closes: bool,
    /// Sends headers and nothing more.
    pub(crate) hangs: bool,
    /// Inverts the bytes of this part of the file.
    pub(crate) wrong: Option<std::ops::Range<u64>>,
    /// Sends one byte less than asked for, as if that were all; or one more.
    pub(crate) short: bool,
    pub(crate) long: bool,
    /// Answers every request for the file with this status and these headers.
    pub(crate) refuses: Option<String>,
    /// Has another file, with another tag, after that many bytes.
    pub(crate) replaced_after: Option<u64>,
    /// Falls silent after that many bytes; or is gone.
    pub(crate) silent_after: Option<u64>,
    pub(crate) gone_after: Option<u64>,
    /// Sends a 302 to another URL first.
    pub(crate) redirects_to: Option<String>,
    /// Sends no ETag.
    pub(crate) untagged: bool,
    /// Answers that many requests in no way but by closing the connection, and as many after them with 503.
    pub(crate) fails_first: u64,
    /// Answers every request for a part with this status.
    pub(crate) refuses_ranges: Option<String>,
    /// Says neither how long the file is nor, in `Content-Range`, what its size is.
    pub(crate) sizeless: bool,
    /// Names this size to a question for the headers alone.
    pub(crate) head_says: Option<u64>,
    /// Cuts the connection after that many bytes of each answer.
    pub(crate) breaks_at: Option<u64>,
    /// Time before each answer about the file begins.
    pub(crate) thinks: Duration,
    /// Calls the file coded so.
    pub(crate) coding: Option<String>,
    /// Answers 401 unless asked with this value of `Authorization`.
    pub(crate) demands: Option<String>,
}

/// See the module.
pub(crate) struct Lab {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    bytes: Arc<Vec<u8>>,
    manners: Manners,
    down: AtomicBool,
    stopped: AtomicBool,
    served: AtomicU64,
    requests: AtomicU64,
    /// Requests with credentials.
    authorized: AtomicU64,
    /// Answers of more than a byte of which more than the last block is to be sent; and their greatest number.
    sending: AtomicU64,
    peak: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl Lab {
    pub(crate) fn start(bytes: &Arc<Vec<u8>>, manners: Manners) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            bytes: bytes.clone(),
            manners,
            down: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            served: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            authorized: AtomicU64::new(0),
            sending: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let mut open = accepting.open.lock().unwrap();
                if accepting.down.load(Ordering::SeqCst) {
                    continue;
                }
                open.push(stream.try_clone().unwrap());
                drop(open);
                let shared = accepting.clone();
                std::thread::spawn(move || {
                    let _ = shared.converse(&stream);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Self { port, shared }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Bytes of the file that were sent.
    pub(crate) fn served(&self) -> u64 {
        self.shared.served.load(Ordering::SeqCst)
    }

    /// Requests that came with credentials.
    pub(crate) fn authorized(&self) -> u64 {
        self.shared.authorized.load(Ordering::SeqCst)
    }

    /// Answers of more than a byte that were being sent at the same time, at most.
    pub(crate) fn peak(&self) -> u64 {
        self.shared.peak.load(Ordering::SeqCst)
    }

    /// Cuts all connections, and every new one; or takes them again.
    pub(crate) fn set_down(&self, down: bool) {
        let mut open = self.shared.open.lock().unwrap();
        self.shared.down.store(down, Ordering::SeqCst);
        if down {
            for stream in open.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.set_down(true);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn converse(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
            let head_only = line.starts_with("HEAD ");
            let (mut range, mut allowed) = (None, self.manners.demands.is_none());
            loop {
                let mut header = String::new();
                if reader.read_line(&mut header)? == 0 || header == "\r\n" {
                    break;
                }
                if let Some((name, value)) = header.split_once(": ")
                    && name.eq_ignore_ascii_case("authorization")
                {
                    self.authorized.fetch_add(1, Ordering::SeqCst);
                    allowed |= self.manners.demands.as_deref() == Some(value.trim());
                }
                if let Some(value) = header.to_ascii_lowercase().strip_prefix("range: bytes=") {
                    let (first, last) = value.trim().split_once('-').unwrap();
                    range = Some((first.parse().unwrap(), last.parse().unwrap_or(u64::MAX)));
                }
            }
            let (number, failing) = (self.requests.fetch_add(1, Ordering::SeqCst), self.manners.fails_first);
            if number < failing {
                return Ok(());
            }
            if number < failing * 2 {
                let mut stream = stream;
                stream.write_all(b"HTTP/1.1 503 Not Now\r\nContent-Length: 0\r\n\r\n")?;
            } else if allowed {
                self.answer(stream, &path, range, head_only)?;
            } else {
                let refusal = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n";
                let mut stream = stream;
                stream.write_all(refusal.as_bytes())?;
            }
            if self.manners.closes {
                return Ok(());
            }
        }
    }

    fn answer(
        &self,
        mut stream: &TcpStream,
        path: &str,
        range: Option<(u64, u64)>,
        head_only: bool,
    ) -> std::io::Result<()> {
        if path == "/" || path.ends_with(".meta4") {
            let Some(length) = self.manners.publishes else {
                return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
            };
            let text = self.metalink(length);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
            return stream.write_all((head + &text).as_bytes());
        }
        if let Some(url) = &self.manners.redirects_to {
            let head = format!("HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n");
            return stream.write_all(head.as_bytes());
        }
        if let Some(refusal) = &self.manners.refuses {
            let head = format!("HTTP/1.1 {refusal}\r\nContent-Length: 0\r\n\r\n");
            return stream.write_all(head.as_bytes());
        }
        if let Some(size) = self.manners.head_says.filter(|_| head_only) {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
            return stream.write_all(head.as_bytes());
        }
        // How slow it is, is the fault that it plays.
        std::thread::sleep(self.manners.thinks);
        if let Some(refusal) = self.manners.refuses_ranges.as_ref().filter(|_| range.is_some()) {
            let head = format!("HTTP/1.1 {refusal}\r\nContent-Length: 0\r\n\r\n");
            return stream.write_all(head.as_bytes());
        }
        let size = self.bytes.len() as u64;
        let whole = (0, size.saturating_sub(1));
        let (first, last) = range.filter(|_| !self.manners.no_ranges).unwrap_or(whole);
        if first >= size && size > 0 {
            let head =
                format!("HTTP/1.1 416 No\r\nContent-Range: bytes */{size}\r\nContent-Length: 0\r\n\r\n");
            return stream.write_all(head.as_bytes());
        }
        let mut last = last.min(size.saturating_sub(1));
        last -= u64::from(self.manners.short && last > first);
        let length = if size == 0 { 0 } else { last - first + 1 };
        let sent = length + u64::from(self.manners.long);
        let status = match range.is_some() && !self.manners.no_ranges && size > 0 {
            true if self.manners.sizeless => format!("206 Partial\r\nContent-Range: bytes {first}-{last}/*"),
            true => format!("206 Partial\r\nContent-Range: bytes {first}-{last}/{size}"),
            false => "200 OK".into(),
        };
        let tag =
            if self.manners.untagged { String::new() } else { format!("ETag: \"{}\"\r\n", self.version()) };
        let coding = self.manners.coding.as_ref().map(|coding| format!("Content-Encoding: {coding}\r\n"));
        // Chunked, in one chunk.
        let chunked = self.manners.sizeless && status.starts_with("200");
        let framing =
            if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {sent}") };
        let head = format!("HTTP/1.1 {status}\r\n{framing}\r\n{}{tag}\r\n", coding.unwrap_or_default());
        stream.write_all(head.as_bytes())?;
        if head_only {
            return Ok(());
        }
        if chunked {
            if length > 0 {
                stream.write_all(format!("{length:x}\r\n").as_bytes())?;
                self.send(stream, first, length)?;
                stream.write_all(b"\r\n")?;
            }
            return stream.write_all(b"0\r\n\r\n");
        }
        if self.manners.hangs && length > 1 {
            return hang(stream);
        }
        self.send(stream, first, length)?;
        if self.manners.long { stream.write_all(b"x") } else { Ok(()) }
    }

    fn send(&self, mut stream: &TcpStream, first: u64, length: u64) -> std::io::Result<()> {
        let start = usize::try_from(first).unwrap();
        let part = &self.bytes[start..start + usize::try_from(length).unwrap()];
        let mut sending = (length > 1).then(|| Sending::new(self));
        let last = (part.len().max(1) - 1) / BLOCK;
        for (block, index) in part.chunks(BLOCK).zip(0u64..) {
            // How slow it is, is the fault that it plays.
            if !self.manners.block_time.is_zero() && length > 1 {
                std::thread::sleep(self.manners.block_time);
            }
            let served = self.served.load(Ordering::SeqCst);
            if self.manners.silent_after.is_some_and(|after| served >= after) {
                return hang(stream);
            }
            if self.manners.gone_after.is_some_and(|after| served >= after) {
                self.down.store(true, Ordering::SeqCst);
            }
            let broken = self.manners.breaks_at.is_some_and(|at| index * BLOCK as u64 >= at);
            if broken || self.down.load(Ordering::SeqCst) {
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
            let offset = first + index * BLOCK as u64;
            let wrong = |at: u64| {
                self.version() > 0 || self.manners.wrong.as_ref().is_some_and(|wrong| wrong.contains(&at))
            };
            let block: Vec<u8> =
                block.iter().zip(offset..).map(|(&byte, at)| if wrong(at) { !byte } else { byte }).collect();
            if index == last as u64 {
                // Who has read this may ask for the next before this thread goes on.
                drop(sending.take());
            }
            // Nor is it to find it uncounted.
            self.served.fetch_add(block.len() as u64, Ordering::SeqCst);
            stream.write_all(&block)?;
        }
        Ok(())
    }

    fn version(&self) -> u32 {
        let after = self.manners.replaced_after;
        u32::from(after.is_some_and(|after| self.served.load(Ordering::SeqCst) >= after))
    }

    fn metalink(&self, length: u32) -> String {
        let name = self.manners.name.clone().unwrap_or_else(|| "file.bin".into());
        let digests = Digests { sha1: Some(Sha1::of(&self.bytes)), ..Digests::default() };
        let pieces = self.bytes.chunks(length as usize).map(Sha1::of).collect();
        let file = MetalinkFile {
            name: FileName::create("placeholder").unwrap(),
            size: Some(self.bytes.len() as u64),
            digests,
            pieces: Some(Pieces { length: u64::from(length), digests: pieces }),
            urls: vec![],
        };
        metalink::write(&[file]).replace("placeholder", &name)
    }
}

/// One of the answers being sent, as long as it lives.
struct Sending<'a>(&'a Shared);

impl<'a> Sending<'a> {
    fn new(shared: &'a Shared) -> Self {
        let sending = shared.sending.fetch_add(1, Ordering::SeqCst) + 1;
        shared.peak.fetch_max(sending, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.sending.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Says nothing until the connection is closed, by the other end or by [`Lab::set_down`].
fn hang(mut stream: &TcpStream) -> std::io::Result<()> {
    std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
}
