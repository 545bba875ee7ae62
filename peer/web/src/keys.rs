//! What opens the API on loopback: a code that `shoal web` shows, good once and for a minute, and the token that it is traded for. Only
//! hashes of either are kept, those of tokens in a file, so that a token outlives the daemon.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shoal_common::Blake3;
use zeroize::Zeroizing;

use crate::redirect::Redirect;

/// The file in the data folder: one hash per line.
const FILE: &str = "web_tokens";
/// How long a code is good.
pub(crate) const CODE_LIFE: Duration = Duration::from_secs(60);
/// Codes that were not used yet; further ones take the place of the oldest.
const MAX_CODES: usize = 16;
/// Tokens, one per browser or program; further ones take the place of the oldest.
const MAX_TOKENS: usize = 64;
/// Bytes of a code and of a token.
const SECRET_BYTES: usize = 16;
/// Characters of a hash.
const HASH_CHARS: usize = 64;

/// The codes and tokens of a daemon.
pub(crate) struct Keys {
    path: PathBuf,
    codes: Mutex<VecDeque<Code>>,
    tokens: Mutex<VecDeque<String>>,
}

/// A code that was not used yet.
struct Code {
    hash: String,
    since: Instant,
    /// The file that leads a browser there; it goes with the code.
    _file: Option<Redirect>,
}

impl Keys {
    /// Those of the client with that data folder. Lines that are no hashes are left out.
    pub(crate) fn open(data: &Path) -> Self {
        let path = data.join(FILE);
        let mut text = String::new();
        let most = MAX_TOKENS as u64 * (HASH_CHARS as u64 + 1);
        // Without the file nobody has a token.
        let _ = std::fs::File::open(&path).and_then(|file| file.take(most).read_to_string(&mut text));
        let is_hash =
            |line: &&str| line.len() == HASH_CHARS && line.bytes().all(|byte| byte.is_ascii_hexdigit());
        let tokens = text.lines().filter(is_hash).map(str::to_owned).collect();
        Self { path, codes: Mutex::default(), tokens: Mutex::new(tokens) }
    }

    /// A new code.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn code(&self, now: Instant) -> io::Result<Zeroizing<String>> {
        let code = secret()?;
        self.add(&code, now, None);
        Ok(code)
    }

    /// A new code in a file that leads a browser to `base` with it: the code is in no command line. Gives the file, which goes with the
    /// code: when that is used, or by [`Self::forget_old`]. Blocks on the disk.
    ///
    /// # Errors
    /// When the system has no randomness, or the file cannot be written.
    pub(crate) fn code_in_file(&self, base: &str, now: Instant) -> io::Result<PathBuf> {
        let code = secret()?;
        let data = self.path.parent().unwrap_or(Path::new("."));
        let file = Redirect::write(data, &format!("{base}{}", code.as_str()))?;
        let path = file.path().to_owned();
        self.add(&code, now, Some(file));
        Ok(path)
    }

    fn add(&self, code: &str, now: Instant, file: Option<Redirect>) {
        let mut codes = lock(&self.codes);
        if codes.len() == MAX_CODES {
            codes.pop_front();
        }
        codes.push_back(Code { hash: hash(code), since: now, _file: file });
    }

    /// Forgets codes that are no good any more, and removes their files.
    pub(crate) fn forget_old(&self, now: Instant) {
        lock(&self.codes).retain(|code| now.saturating_duration_since(code.since) < CODE_LIFE);
    }

    /// Uses a code up; whether it was one. Blocks on the disk.
    pub(crate) fn take(&self, code: &str, now: Instant) -> bool {
        let given = hash(code);
        self.forget_old(now);
        let mut codes = lock(&self.codes);
        let place = codes.iter().position(|code| code.hash == given);
        place.and_then(|place| codes.remove(place)).is_some()
    }

    /// A token for a code, which is used up by that; nothing if there is no such code. Blocks on the disk.
    ///
    /// # Errors
    /// When the token cannot be kept.
    pub(crate) fn trade(&self, code: &str, now: Instant) -> io::Result<Option<Zeroizing<String>>> {
        if !self.take(code, now) {
            return Ok(None);
        }
        let token = secret()?;
        let mut tokens = lock(&self.tokens);
        if tokens.len() == MAX_TOKENS {
            tokens.pop_front();
        }
        tokens.push_back(hash(&token));
        self.write(&tokens)?;
        Ok(Some(token))
    }

    /// Whether it is a token. Hashes are compared, so that the time that it takes says nothing of a token.
    pub(crate) fn is_token(&self, token: &str) -> bool {
        let given = hash(token);
        lock(&self.tokens).contains(&given)
    }

    fn write(&self, tokens: &VecDeque<String>) -> io::Result<()> {
        let lines: String = tokens.iter().flat_map(|token| [token, "\n"]).collect();
        shoal_disk::replace(&self.path, lines.as_bytes())
    }
}

/// 16 random bytes, in hexadecimal.
pub(crate) fn secret() -> io::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
    getrandom::fill(bytes.as_mut()).map_err(io::Error::other)?;
    Ok(Zeroizing::new(hex(bytes.as_ref())))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for half in bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
        text.push(char::from_digit(half.into(), 16).unwrap_or('0'));
    }
    text
}

/// The bytes that [`hex`] wrote; nothing if they are none.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

fn hash(secret: &str) -> String {
    Blake3::of(secret.as_bytes()).to_string()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_code_is_good_once_and_for_a_minute_and_a_token_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let (keys, now) = (Keys::open(dir.path()), Instant::now());
        let code = keys.code(now).unwrap();
        assert_eq!(code.len(), 32);
        assert!(keys.trade("0".repeat(32).as_str(), now).unwrap().is_none());
        let token = keys.trade(&code, now).unwrap().unwrap();
        assert!(keys.trade(&code, now).unwrap().is_none(), "once");
        let late = keys.code(now).unwrap();
        assert!(keys.trade(&late, now + CODE_LIFE).unwrap().is_none(), "a minute");
        assert!(keys.is_token(&token) && !keys.is_token(&code) && !keys.is_token(""));
        let file = dir.path().join(FILE);
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let kept = std::fs::read_to_string(&file).unwrap();
        assert!(!kept.contains(token.as_str()), "a hash alone is kept");
        let again = Keys::open(dir.path());
        assert!(again.is_token(&token) && !again.is_token(kept.trim()));
        std::fs::remove_file(&file).unwrap();
        assert!(!Keys::open(dir.path()).is_token(&token), "without the file nobody has one");
    }

    #[test]
    fn a_file_with_a_code_goes_when_the_code_is_used_or_old() {
        let dir = tempfile::tempdir().unwrap();
        let (keys, now) = (Keys::open(dir.path()), Instant::now());
        let file = keys.code_in_file("http://127.0.0.1:1/#", now).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("/#").nth(1).unwrap().split('"').next().unwrap().to_owned();
        assert!(keys.trade(&code, now).unwrap().is_some());
        assert!(!file.exists());
        let file = keys.code_in_file("http://127.0.0.1:1/#", now).unwrap();
        keys.forget_old(now + CODE_LIFE / 2);
        assert!(file.exists());
        keys.forget_old(now + CODE_LIFE);
        assert!(!file.exists());
        let file = keys.code_in_file("http://127.0.0.1:1/#", now).unwrap();
        drop(keys);
        assert!(!file.exists(), "at the daemon's end");
    }

    #[test]
    fn codes_and_tokens_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let (keys, now) = (Keys::open(dir.path()), Instant::now());
        let first = keys.code(now).unwrap();
        for _ in 0..MAX_CODES {
            keys.code(now).unwrap();
        }
        assert!(keys.trade(&first, now).unwrap().is_none());
        for _ in 0..MAX_TOKENS + 5 {
            let code = keys.code(now).unwrap();
            keys.trade(&code, now).unwrap().unwrap();
        }
        assert_eq!(std::fs::read_to_string(dir.path().join(FILE)).unwrap().lines().count(), MAX_TOKENS);
    }
}
