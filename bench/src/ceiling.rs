//! The raw ceiling: plain TCP between two processes, one SHA-1 a piece of 1 MiB, and the write; no encryption, no second
//! digest, no protocol.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use shoal_common::Sha1;
use shoal_tests::same_content;

use crate::running::{cpu_seconds, forget_peak, peak_mib};
use crate::sample::Sample;

const PIECE: usize = 1 << 20;

/// Receives from another process over plain TCP, hashes and writes.
pub(crate) fn receive(dir: &Path, source: &Path) -> Sample {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let own = std::process::id();
    let target = dir.join("ceiling.bin");
    forget_peak(own);
    let (before, started) = (cpu_seconds(own), Instant::now());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["send", &address])
        .arg(source)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut socket, _) = listener.accept().unwrap();
    let (full, received) = sync_channel::<(u64, Vec<u8>)>(8);
    let (empty, free) = sync_channel::<Vec<u8>>(16);
    let file = std::fs::File::create(&target).unwrap();
    let writer = std::thread::spawn(move || {
        let mut digests = Vec::new();
        for (offset, piece) in received {
            digests.push(Sha1::of(&piece));
            file.write_all_at(&piece, offset).unwrap();
            // The reader may be done.
            let _ = empty.send(piece);
        }
        digests.len()
    });
    let size = source.metadata().unwrap().len();
    let mut offset = 0;
    while offset < size {
        let mut piece = free.try_recv().unwrap_or_default();
        piece.resize(PIECE.min(usize::try_from(size - offset).unwrap()), 0);
        socket.read_exact(&mut piece).unwrap();
        let length = piece.len() as u64;
        full.send((offset, piece)).unwrap();
        offset += length;
    }
    drop(full);
    drop(free);
    writer.join().unwrap();
    let seconds = started.elapsed().as_secs_f64();
    let mut sent = String::new();
    child.stdout.take().unwrap().read_to_string(&mut sent).unwrap();
    child.wait().unwrap();
    let sender: f64 = sent.trim().parse().unwrap();
    let sample = Sample { seconds, cpu_seconds: cpu_seconds(own) - before + sender, peak_mib: peak_mib(own) };
    assert!(same_content(source, &target));
    std::fs::remove_file(&target).unwrap();
    sample
}

/// The sending process of the ceiling; prints its CPU seconds.
pub(crate) fn send(address: &str, path: &Path) {
    let mut socket = TcpStream::connect(address).unwrap();
    let mut file = std::fs::File::open(path).unwrap();
    let mut block = vec![0; PIECE];
    loop {
        let count = file.read(&mut block).unwrap();
        if count == 0 {
            break;
        }
        socket.write_all(&block[..count]).unwrap();
    }
    println!("{}", cpu_seconds(std::process::id()));
}
