//! A small HTTP/1.1 server on threads that misbehaves as a test asks, and counts the bytes of content that it sends.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use shoal_common::{Digests, FileName, Sha1};
use shoal_http::metalink::{self, MetalinkFile, Pieces};

use crate::support::{Manners, Node};

const BLOCK: usize = 16 * 1024;

/// See the module.
pub(crate) struct Lab {
    pub(crate) port: u16,
    shared: Arc<LabState>,
    accepting: Option<std::thread::JoinHandle<()>>,
}

struct LabState {
    bytes: Arc<Vec<u8>>,
    manners: Manners,
    down: AtomicBool,
    stopped: AtomicBool,
    served: AtomicU64,
    requests: AtomicU64,
    /// Requests with credentials.
    authorized: AtomicU64,
    /// Signatures that were made.
    signed: AtomicU64,
    /// Answers that each signature was used for.
    used: Mutex<BTreeMap<u64, u64>>,
    /// Answers about the file.
    answers: AtomicU64,
    /// Answers of more than a byte of which more than the last block is to be sent; and their greatest number.
    sending: AtomicU64,
    peak: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
    /// First bytes of the parts that were asked for, in order.
    asked: Mutex<Vec<u64>>,
}

impl Lab {
    pub(crate) fn start(bytes: &Arc<Vec<u8>>, manners: Manners) -> Self {
        Self::start_at(0, bytes, manners)
    }

    /// Starts at this port, which another may have been at before.
    pub(crate) fn start_at(port: u16, bytes: &Arc<Vec<u8>>, manners: Manners) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(LabState {
            bytes: bytes.clone(),
            manners,
            down: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            served: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            authorized: AtomicU64::new(0),
            signed: AtomicU64::new(0),
            used: Mutex::default(),
            answers: AtomicU64::new(0),
            sending: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            open: Mutex::default(),
            asked: Mutex::default(),
        });
        let for_all = shared.clone();
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if for_all.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let mut open = for_all.open.lock().unwrap();
                if for_all.down.load(Ordering::SeqCst) {
                    continue;
                }
                open.push(stream.try_clone().unwrap());
                drop(open);
                let shared = for_all.clone();
                std::thread::spawn(move || {
                    let _ = shared.converse(&stream);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Self { port, shared, accepting: Some(accepting) }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Bytes of the file that were sent.
    pub(crate) fn served(&self) -> u64 {
        self.shared.served.load(Ordering::SeqCst)
    }

    /// First bytes of the parts that were asked for, in order; the question for one byte is left out.
    pub(crate) fn asked(&self) -> Vec<u64> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Requests that came with credentials.
    pub(crate) fn authorized(&self) -> u64 {
        self.shared.authorized.load(Ordering::SeqCst)
    }

    /// Signatures that were made.
    pub(crate) fn signed(&self) -> u64 {
        self.shared.signed.load(Ordering::SeqCst)
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
        // Then the port is free for another.
        let _ = self.accepting.take().map(std::thread::JoinHandle::join);
    }
}

impl LabState {
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
            let (mut cookie, mut closes) = (String::new(), self.manners.closes);
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
                let lower = header.to_ascii_lowercase();
                if let Some(value) = lower.strip_prefix("cookie: ") {
                    value.trim().clone_into(&mut cookie);
                }
                closes |= lower.trim() == "connection: close";
                if let Some(value) = lower.strip_prefix("range: bytes=") {
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
            } else if allowed && let Some(refusal) = self.unsigned(&path, range, &cookie) {
                let mut stream = stream;
                stream.write_all(refusal.as_bytes())?;
            } else if allowed {
                self.answer(stream, &path, range, head_only)?;
            } else {
                let refusal = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n";
                let mut stream = stream;
                stream.write_all(refusal.as_bytes())?;
            }
            if closes {
                return Ok(());
            }
        }
    }

    /// What is answered instead of the file, where signatures are asked for.
    fn unsigned(&self, path: &str, range: Option<(u64, u64)>, cookie: &str) -> Option<String> {
        let signs = self.manners.signs.as_ref()?;
        let redirect = |to: &str, more: &str| {
            Some(format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\n{more}Content-Length: 0\r\n\r\n"))
        };
        if path == "/login" {
            let page = "<html>log in</html>";
            return Some(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{page}\r\n0\r\n\r\n",
                page.len()
            ));
        }
        let (bare, query) = path.split_once('?').unwrap_or((path, ""));
        if let Some(hop) = query.strip_prefix("hop=").and_then(|hop| hop.parse::<u64>().ok())
            && hop < signs.hops
        {
            return redirect(&format!("{bare}?hop={}", hop + 1), "");
        }
        if query.is_empty() && signs.hops > 0 {
            return redirect(&format!("{bare}?hop=1"), "");
        }
        let Some(number) = query.strip_prefix("signature=").and_then(|number| number.parse::<u64>().ok())
        else {
            let number = self.signed.fetch_add(1, Ordering::SeqCst) + 1;
            let turn = usize::try_from(number).unwrap() % signs.to.len().max(1);
            let host = signs.to.get(turn).map(|port| format!("http://127.0.0.1:{port}")).unwrap_or_default();
            let set =
                if signs.cookie { format!("Set-Cookie: pass={number}; Path=/\r\n") } else { String::new() };
            return redirect(&format!("{host}{bare}?signature={number}"), &set);
        };
        let mut used = self.used.lock().unwrap();
        let times = used.entry(number).or_default();
        *times += u64::from(range.is_none_or(|(first, last)| last > first));
        let good = *times <= signs.good_for && number <= signs.most;
        if good && (!signs.cookie || cookie.contains(&format!("pass={number}"))) {
            return None;
        }
        match signs.then.as_str() {
            "login" => redirect("/login", ""),
            status => Some(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")),
        }
    }

    /// What is answered instead of a part that is not there.
    fn lacking(&self, range: Option<(u64, u64)>, have: &str) -> Option<String> {
        if let Some((first, last)) = range.filter(|(first, last)| last > first) {
            self.asked.lock().unwrap().push(first);
            let overlaps = |part: &std::ops::Range<u64>| first < part.end && last >= part.start;
            if self.manners.lacks.iter().any(overlaps) {
                let (status, size) = (&self.manners.lacks_as, self.bytes.len());
                return Some(format!(
                    "HTTP/1.1 {status} No\r\nContent-Range: bytes */{size}\r\nContent-Length: 0\r\n\r\n"
                ));
            }
        }
        let held = self.manners.holds.as_ref()?;
        let missing = range.is_none_or(|(first, _)| !held.contains(&first));
        missing.then(|| format!("HTTP/1.1 503 Later\r\n{have}Retry-After: 2\r\nContent-Length: 0\r\n\r\n"))
    }

    fn answer(
        &self,
        mut stream: &TcpStream,
        path: &str,
        range: Option<(u64, u64)>,
        head_only: bool,
    ) -> std::io::Result<()> {
        let says = self.manners.says_it_holds.as_ref().or(self.manners.holds.as_ref());
        if let Some(says) = says.filter(|_| path.ends_with(".have")) {
            let text = format!("bytes {}-{}/{}\n", says.start, says.end - 1, self.bytes.len());
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
            return stream.write_all((head + &text).as_bytes());
        }
        let have = if says.is_some() { "Shoal-Have: file.bin.have\r\n" } else { "" };
        if path == "/" || path.ends_with(".meta4") {
            let Some(length) = self.manners.publishes else {
                return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
            };
            let text = self.metalink(length);
            let head = format!("HTTP/1.1 200 OK\r\n{have}Content-Length: {}\r\n\r\n", text.len());
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
        if let Some(refusal) = self.lacking(range, have) {
            return stream.write_all(refusal.as_bytes());
        }
        let range = match (&self.manners.holds, range) {
            (Some(held), Some((first, last))) => Some((first, last.min(held.end - 1))),
            _ => range,
        };
        let size = self.bytes.len() as u64;
        let whole = (0, size.saturating_sub(1));
        let long = self
            .manners
            .longest_part
            .is_some_and(|most| range.is_none_or(|(first, last)| last.min(size) - first.min(size) >= most));
        if long {
            return stream.write_all(b"HTTP/1.1 403 Too Long\r\nContent-Length: 0\r\n\r\n");
        }
        let (mut first, last) = range.filter(|_| !self.manners.no_ranges).unwrap_or(whole);
        if self.manners.calls_whole_a_part {
            first = 0;
        }
        if first >= size && size > 0 {
            let head =
                format!("HTTP/1.1 416 No\r\nContent-Range: bytes */{size}\r\nContent-Length: 0\r\n\r\n");
            return stream.write_all(head.as_bytes());
        }
        let mut last =
            if self.manners.calls_whole_a_part { size - 1 } else { last.min(size.saturating_sub(1)) };
        if let Some(most) = self.manners.cuts_at.filter(|_| range.is_some()) {
            last = last.min(first + most - 1);
        }
        if let Some(block) = self.manners.whole_blocks.filter(|_| range.is_some()) {
            first -= first % block;
            last = (last - last % block + block).min(size) - 1;
        }
        let mut length = if size == 0 { 0 } else { last - first + 1 };
        length -= u64::from(self.manners.short && length > 1);
        let sent = length + u64::from(self.manners.long);
        let node = self.node();
        let status = match range.is_some() && !self.manners.no_ranges && size > 0 {
            true if self.manners.sizeless => format!("206 Partial\r\nContent-Range: bytes {first}-{last}/*"),
            true => format!("206 Partial\r\nContent-Range: bytes {first}-{last}/{size}"),
            false => "200 OK".into(),
        };
        let status =
            if self.manners.writes_range_with_equals { status.replace("bytes ", "bytes=") } else { status };
        let status = match status.split_once("\r\n") {
            Some((status, _)) if self.manners.omits_range => status.to_owned(),
            _ => status,
        };
        let tag = match &node {
            Some(node) => node.head(self.answers.load(Ordering::SeqCst)),
            None if self.manners.untagged => String::new(),
            None => format!("ETag: \"{}\"\r\n", self.version()),
        };
        let other = node.is_some_and(|node| node.other);
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
                self.send(stream, first, length, other)?;
                stream.write_all(b"\r\n")?;
            }
            return stream.write_all(b"0\r\n\r\n");
        }
        if self.manners.hangs && length > 1 {
            return hang(stream);
        }
        self.send(stream, first, length, other)?;
        if self.manners.long { stream.write_all(b"x") } else { Ok(()) }
    }

    /// The node whose turn it is.
    fn node(&self) -> Option<Node> {
        let turn = usize::try_from(self.answers.fetch_add(1, Ordering::SeqCst)).unwrap();
        let nodes = &self.manners.nodes;
        nodes.get(turn.checked_rem(nodes.len())?).cloned()
    }

    fn send(&self, mut stream: &TcpStream, first: u64, length: u64, other: bool) -> std::io::Result<()> {
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
                other
                    || self.version() > 0
                    || self.manners.wrong.as_ref().is_some_and(|wrong| wrong.contains(&at))
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
            size: Some(self.bytes.len() as u64),
            digests,
            pieces: Some(Pieces { length: u64::from(length), digests: pieces }),
            ..MetalinkFile::named(FileName::create("placeholder").unwrap())
        };
        metalink::write(&[file]).replace("placeholder", &name)
    }
}

/// One of the answers being sent, as long as it lives.
struct Sending<'a>(&'a LabState);

impl<'a> Sending<'a> {
    fn new(shared: &'a LabState) -> Self {
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
