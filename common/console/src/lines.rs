//! Lines from standard input for scripts and answers, which may hold passwords: of what was given out, nothing stays in memory.
//!
//! The standard library's buffer keeps what was read until something else takes its place.

use std::io;
use std::sync::{Mutex, PoisonError};

use shoal_wipe::without_traces;
use zeroize::{Zeroize, Zeroizing};

/// Bytes read at a time.
const BUFFER_BYTES: usize = 4_096;

/// What was read from standard input and not given out yet.
static INPUT: Mutex<Buffer> = Mutex::new(Buffer::new());

struct Buffer {
    bytes: [u8; BUFFER_BYTES],
    from: usize,
    until: usize,
}

/// The next line of standard input without its end; `None` at the end of input. Of one that has more than `most` bytes, just enough to
/// show that. Blocks.
///
/// # Errors
/// When standard input cannot be read.
pub fn read_line(most: usize) -> io::Result<Option<Zeroizing<String>>> {
    let mut input = INPUT.lock().unwrap_or_else(PoisonError::into_inner);
    let read = |bytes: &mut [u8]| loop {
        match rustix::io::read(io::stdin(), &mut *bytes) {
            Err(rustix::io::Errno::INTR) => {}
            read => return Ok(read?),
        }
    };
    without_traces(|| input.line(most, read))
}

impl Buffer {
    const fn new() -> Self {
        Self { bytes: [0; BUFFER_BYTES], from: 0, until: 0 }
    }

    fn line(
        &mut self,
        most: usize,
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Option<Zeroizing<String>>> {
        let mut line = Zeroizing::new(Vec::new());
        let mut ended = false;
        while !ended {
            if self.from == self.until {
                (self.from, self.until) = (0, read(&mut self.bytes)?);
                if self.until == 0 {
                    break;
                }
            }
            let waiting = &mut self.bytes[self.from..self.until];
            let end = waiting.iter().position(|&byte| byte == b'\n');
            let length = end.map_or(waiting.len(), |at| at + 1);
            let taken = &mut waiting[..length];
            let room = (most + 1).saturating_sub(line.len());
            line.extend_from_slice(&taken[..room.min(taken.len())]);
            self.from += taken.len();
            taken.zeroize();
            ended = end.is_some();
        }
        if line.is_empty() && !ended {
            return Ok(None);
        }
        let text = Zeroizing::new(String::from_utf8_lossy(&line).into_owned());
        Ok(Some(Zeroizing::new(text.trim_end_matches(['\n', '\r']).to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_where_they_are_too_long_and_nothing_of_them_stays_in_the_buffer() {
        let most = 2 * BUFFER_BYTES;
        let long = "x".repeat(10 * most);
        let text = format!("one\r\n\n{long}\nlast");
        let mut input = text.as_bytes();
        let mut buffer = Buffer::new();
        let mut next = || {
            let line = buffer.line(most, |bytes| io::Read::read(&mut input, bytes)).unwrap();
            let left = buffer.bytes[..buffer.from].iter().any(|&byte| byte != 0);
            assert!(!left, "what was given out is wiped");
            line.map(|line| line.as_str().to_owned())
        };
        assert_eq!(next().as_deref(), Some("one"));
        assert_eq!(next().as_deref(), Some(""));
        assert_eq!(next().map(|line| line.len()), Some(most + 1));
        assert_eq!(next().as_deref(), Some("last"));
        assert_eq!(next(), None);
    }
}
