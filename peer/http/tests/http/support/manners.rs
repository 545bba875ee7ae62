//! In which ways a server of the lab misbehaves.

use std::time::Duration;

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
    /// Sends one byte less than it says, as if that were all; or one more.
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
    /// Time before each answer about the file begins.
    pub(crate) thinks: Duration,
    /// Calls the file coded so.
    pub(crate) coding: Option<String>,
    /// Sends so many bytes of a part at most, and says so.
    pub(crate) cuts_at: Option<u64>,
    /// Sends parts that begin and end where blocks of that many bytes do.
    pub(crate) whole_blocks: Option<u64>,
    /// Answers every request for a part of more bytes, and every one without a range, with 403.
    pub(crate) longest_part: Option<u64>,
    /// Sends the whole file as if that were the part that was asked for.
    pub(crate) calls_whole_a_part: bool,
    /// `Content-Range` as it is written in a request: `bytes=0-9/10`.
    pub(crate) writes_range_with_equals: bool,
    /// Leaves `Content-Range` out.
    pub(crate) omits_range: bool,
    /// The nodes behind this address, which answer in turn.
    pub(crate) nodes: Vec<Node>,
    /// Answers are about targets that are signed and expire.
    pub(crate) signs: Option<Signs>,
    /// Answers 401 unless asked with this value of `Authorization`.
    pub(crate) demands: Option<String>,
    /// Names this size to a question for the headers alone.
    pub(crate) head_says: Option<u64>,
    /// Refuses parts with anything of these bytes in them, with this status.
    pub(crate) lacks: Vec<std::ops::Range<u64>>,
    pub(crate) lacks_as: String,
    /// Holds only this part of the file, and says so as `server` does; or says that it holds something else.
    pub(crate) holds: Option<std::ops::Range<u64>>,
    pub(crate) says_it_holds: Option<std::ops::Range<u64>>,
    /// Cuts the connection after that many bytes of each answer.
    pub(crate) breaks_at: Option<u64>,
}

/// One of several nodes behind one address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node {
    /// `ETag`; `*` stands for another one with each answer.
    pub(crate) etag: Option<String>,
    pub(crate) modified: Option<String>,
    /// It has another file of the same size.
    pub(crate) other: bool,
}

/// How the server signs. What is asked for without a signature is redirected to the same path with one, at `to`.
#[derive(Debug, Clone)]
pub(crate) struct Signs {
    /// Ports of the servers that files are at, in turn; none: at this server.
    pub(crate) to: Vec<u16>,
    /// Answers of more than a byte that one signature is good for.
    pub(crate) good_for: u64,
    /// What is answered then: a status, or `login` for a redirect to a page.
    pub(crate) then: String,
    /// Redirects before that with the signature.
    pub(crate) hops: u64,
    /// Signatures count only with the cookie that came with them.
    pub(crate) cookie: bool,
    /// So many signatures are good; all after them are not.
    pub(crate) most: u64,
}

impl Signs {
    /// One that expires after an answer, with this status.
    pub(crate) fn until(then: &str) -> Self {
        Self { to: vec![], good_for: 1, then: then.into(), hops: 0, cookie: false, most: u64::MAX }
    }
}

impl Node {
    /// The headers of answer number `count`.
    pub(crate) fn head(&self, count: u64) -> String {
        let etag = self.etag.as_ref().map(|etag| etag.replace('*', &count.to_string()));
        let etag = etag.map(|etag| format!("ETag: \"{etag}\"\r\n")).unwrap_or_default();
        let modified = self.modified.as_ref().map(|date| format!("Last-Modified: {date}\r\n"));
        etag + &modified.unwrap_or_default()
    }
}
