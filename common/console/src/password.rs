//! Reads a password from the terminal without showing it, and says whether it is weak.

use std::io::{self, Write};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use shoal_common::Password;
use shoal_common::limits::MAX_PASSWORD_BYTES;
use shoal_wipe::without_traces;
use zeroize::Zeroizing;

/// Characters of a password that are looked at: the estimate takes time that grows with the square.
const ESTIMATED_CHARS: usize = 64;
const CTRL_C: u8 = 0x03;
const CTRL_D: u8 = 0x04;
const CTRL_U: u8 = 0x15;
const BACKSPACE: [u8; 2] = [0x08, 0x7f];

/// Asks for a password; `None` if it was cancelled with Ctrl-C or Ctrl-D. Blocks until a line is typed.
///
/// # Errors
/// When stdin is no terminal, or fails.
pub fn read(prompt: &str) -> io::Result<Option<Password>> {
    let hidden = Hidden::start()?;
    write!(io::stdout(), "{prompt}")?;
    io::stdout().flush()?;
    let typed = line(|| {
        let mut byte = [0];
        match rustix::io::read(io::stdin(), &mut byte)? {
            0 => Ok(None),
            _ => Ok(Some(byte[0])),
        }
    });
    drop(hidden);
    writeln!(io::stdout())?;
    Ok(typed?.map(|bytes| Password::new(String::from_utf8_lossy(&bytes).into_owned())))
}

/// Asks a question that one key answers: `y` or `n`; Enter is `usual`, Ctrl-C is no. Blocks until a key is pressed.
///
/// # Errors
/// When stdin is no terminal, or fails.
pub fn confirm(question: &str, usual: bool) -> io::Result<bool> {
    let hidden = Hidden::start()?;
    // Not locked while the answer is waited for: events are shown meanwhile.
    write!(io::stdout(), "{question} {} ", if usual { "[Y/n]" } else { "[y/N]" })?;
    io::stdout().flush()?;
    let answer = loop {
        let mut byte = [0];
        let key = if rustix::io::read(io::stdin(), &mut byte)? == 0 { CTRL_D } else { byte[0] };
        match key {
            b'y' | b'Y' => break true,
            b'n' | b'N' | CTRL_C | CTRL_D => break false,
            b'\r' | b'\n' => break usual,
            _ => {}
        }
    };
    drop(hidden);
    writeln!(io::stdout(), "{}", if answer { "yes" } else { "no" })?;
    Ok(answer)
}

/// Why a password would soon be guessed, in words, if it would: `user` is its account's name.
///
/// The estimate is that of zxcvbn (Wheeler, USENIX Security 2016). Its scores 0 and 1 stand for fewer than a million guesses.
#[must_use]
pub fn weakness(password: &Password, user: &str) -> Option<String> {
    // The estimate is made of many parts of the password.
    let warning = without_traces(|| {
        let start: String = password.expose().chars().take(ESTIMATED_CHARS).collect();
        let estimate = zxcvbn::zxcvbn(&start, &[user, "shoal"]);
        let feedback = estimate.feedback().and_then(zxcvbn::feedback::Feedback::warning);
        (estimate.score() <= zxcvbn::Score::One).then(|| feedback.map(|warning| warning.to_string()))
    })?;
    let why = warning.unwrap_or_else(|| "It is short or easy to guess.".to_owned());
    Some(format!("this password is weak. {why} Anyone who steals a tracker's disk can guess it"))
}

/// Reads a line from bytes, as a terminal does; `None` if it was cancelled.
fn line(mut next: impl FnMut() -> io::Result<Option<u8>>) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    // It must not grow, because that would leave copies in memory.
    let mut typed = Zeroizing::new(Vec::with_capacity(MAX_PASSWORD_BYTES + 1));
    loop {
        match next()? {
            None | Some(CTRL_C) => return Ok(None),
            Some(CTRL_D) if typed.is_empty() => return Ok(None),
            Some(b'\n' | b'\r') => return Ok(Some(typed)),
            Some(CTRL_U) => typed.clear(),
            Some(byte) if BACKSPACE.contains(&byte) => erase(&mut typed),
            Some(byte) if byte >= b' ' && typed.len() <= MAX_PASSWORD_BYTES => typed.push(byte),
            Some(_) => {}
        }
    }
}

/// Removes the last character with all its bytes.
fn erase(typed: &mut Vec<u8>) {
    while let Some(byte) = typed.pop() {
        if byte & 0xc0 != 0x80 {
            return;
        }
    }
}

/// A terminal that shows nothing and reacts to nothing, until this is dropped.
struct Hidden(Termios);

impl Hidden {
    fn start() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        hidden.special_codes[SpecialCodeIndex::VMIN] = 1;
        hidden.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Now, &hidden)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_passwords_are_known() {
        let weak = |text: &str| weakness(&Password::new(text.to_owned()), "annabella");
        for text in [
            "",
            "a",
            "secret",
            "password1",
            "12345678",
            "qwertyuiop",
            "annabella",
            "aaaaaaaaaaaa",
            &"x7".repeat(20_000),
        ] {
            assert!(weak(text).is_some_and(|why| why.starts_with("this password is weak. ")), "{text:.40}");
        }
        for text in ["correct horse battery staple", "vV3#kq9!zT"] {
            assert_eq!(weak(text), None, "{text}");
        }
    }

    fn typed(bytes: &[u8]) -> Option<String> {
        let mut bytes = bytes.iter().copied();
        line(|| Ok(bytes.next())).unwrap().map(|line| String::from_utf8(line.to_vec()).unwrap())
    }

    #[test]
    fn keys_do_what_they_do_on_a_terminal() {
        for (bytes, expected) in [
            (b"secret\n".as_slice(), Some("secret")),
            (b"secret\r", Some("secret")),
            (b"wrong\x15right\n", Some("right")),
            (b"ab\x7fc\n", Some("ac")),
            ("aé\x7fc\n".as_bytes(), Some("ac")),
            (b"\x7f\n", Some("")),
            (b"abc\x03", None),
            (b"\x04", None),
            (b"a\x04b\n", Some("ab")),
            (b"cut off", None),
        ] {
            assert_eq!(typed(bytes).as_deref(), expected, "{bytes:?}");
        }
        let long = typed(&[vec![b'x'; 100_000], b"\n".to_vec()].concat()).unwrap();
        assert_eq!(long.len(), MAX_PASSWORD_BYTES + 1, "too long, and refused as such");
    }
}
