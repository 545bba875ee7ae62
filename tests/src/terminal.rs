//! A program on a terminal of its own, typed to and read as a person would.

use std::io::{Read, Write};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use rustix::process::{Pid, Signal, kill_process};

use crate::{PATIENCE, eventually, within};

/// A program that runs on a pseudo-terminal.
pub struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    keyboard: Box<dyn Write + Send>,
    screen: Arc<Mutex<Vec<u8>>>,
    /// Up to where [`expect`](Self::expect) has read the text.
    read: usize,
    // The terminal lives while this does.
    _master: Box<dyn MasterPty + Send>,
}

impl Terminal {
    /// Starts the program on a terminal of 120 columns, of the kind `xterm` unless the command's `TERM` says otherwise.
    #[must_use]
    pub fn start(command: &Command) -> Self {
        Self::start_wide(command, 120)
    }

    /// As [`start`](Self::start), on a terminal of so many columns.
    #[must_use]
    pub fn start_wide(command: &Command, columns: u16) -> Self {
        let size = PtySize { rows: 40, cols: columns, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut builder = CommandBuilder::new(command.get_program());
        builder.args(command.get_args());
        builder.env("TERM", "xterm");
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => builder.env(name, value),
                None => builder.env_remove(name),
            }
        }
        let child = pair.slave.spawn_command(builder).unwrap();
        drop(pair.slave);
        let (mut reader, screen) = (pair.master.try_clone_reader().unwrap(), Arc::new(Mutex::default()));
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                let shown: &Mutex<Vec<u8>> = &shown;
                shown.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        let keyboard = pair.master.take_writer().unwrap();
        Self { child, keyboard, screen, read: 0, _master: pair.master }
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Types a line and presses Enter.
    pub fn line(&mut self, text: &str) {
        self.press(&format!("{text}\r"));
    }

    /// Everything that was shown so far, without the terminal's control sequences.
    #[must_use]
    pub fn text(&self) -> String {
        plain(&self.screen.lock().unwrap())
    }

    /// Waits until the text is shown after what was expected last; gives everything shown up to it.
    pub fn expect(&mut self, wanted: &str) -> String {
        self.find(wanted, PATIENCE)
            .unwrap_or_else(|| panic!("{wanted:?} is not shown within {PATIENCE:?}:\n{}", self.text()))
    }

    /// Whether the text is shown within a second after what was expected last; if so, it was expected now.
    pub fn shows(&mut self, wanted: &str) -> bool {
        self.find(wanted, Duration::from_secs(1)).is_some()
    }

    fn find(&mut self, wanted: &str, patience: Duration) -> Option<String> {
        let shown = within(patience, || {
            let new = self.unread();
            new.find(wanted).map(|at| new[..at + wanted.len()].to_owned())
        })?;
        self.read += shown.len();
        Some(shown)
    }

    /// Waits until a prompt, `word> ` on a line of its own, ends what is shown after what was expected last; gives that.
    pub fn expect_prompt(&mut self) -> String {
        let shown = eventually(|| {
            let new = self.unread();
            let last = new.rsplit_once('\n').and_then(|(_, last)| last.strip_suffix("> "));
            last.is_some_and(|word| !word.is_empty() && !word.contains(' ')).then_some(new)
        });
        let Some(shown) = shown else { panic!("no prompt within {PATIENCE:?}:\n{}", self.text()) };
        self.read += shown.len();
        shown
    }

    /// What was shown after what was expected last.
    fn unread(&self) -> String {
        self.text().get(self.read..).unwrap_or_default().to_owned()
    }

    /// Types a line at the prompt, waits for the next prompt, and gives what was shown in between.
    pub fn run(&mut self, line: &str) -> String {
        self.line(line);
        self.expect(line);
        self.expect_prompt()
    }

    /// Presses Ctrl-C and waits for the next prompt.
    pub fn cancel(&mut self) {
        self.press("\u{3}");
        self.expect_prompt();
    }

    /// Waits until the program has left, and gives its exit code.
    pub fn wait(&mut self) -> u32 {
        let left = eventually(|| self.child.try_wait().unwrap());
        let Some(status) = left else { panic!("it does not leave within {PATIENCE:?}:\n{}", self.text()) };
        status.exit_code()
    }

    /// Kills the program with -9.
    pub fn kill(&mut self) {
        let pid = self.child.process_id().and_then(|pid| Pid::from_raw(pid.try_into().unwrap()));
        kill_process(pid.unwrap(), Signal::KILL).unwrap();
        self.child.wait().unwrap();
    }

    /// Whether the program still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have left already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes out control sequences (ECMA-48: `ESC [` ... letter, `ESC ]` ... BEL, other two-character ones) and carriage
/// returns.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let (mut plain, mut characters) = (String::new(), text.chars().peekable());
    while let Some(character) = characters.next() {
        if character != '\u{1b}' {
            if character == '\n' || !character.is_control() {
                plain.push(character);
            }
            continue;
        }
        match characters.next() {
            Some('[') => {
                characters.find(|c| ('@'..='~').contains(c));
            }
            Some(']') => {
                characters.find(|c| *c == '\u{7}');
            }
            _ => {}
        }
    }
    plain
}
