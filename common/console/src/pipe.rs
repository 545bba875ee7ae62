//! Commands from a pipe instead of a terminal.

use std::io::BufRead;
use std::os::fd::AsFd;

use tokio::sync::mpsc;

/// Whether standard input is a pipe, and not what a service manager or a shell's `&` leaves there.
#[must_use]
pub fn is_given() -> bool {
    rustix::fs::fstat(std::io::stdin().as_fd())
        .is_ok_and(|file| rustix::fs::FileType::from_raw_mode(file.st_mode) == rustix::fs::FileType::Fifo)
}

/// Reads lines on a thread of its own, each after the last was taken, until the input ends or the receiver is dropped.
pub fn read(lines: mpsc::Sender<String>) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
}
