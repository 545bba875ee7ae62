//! Hostile requesters: they speak to a sharer as no client would, on many connections at once, for as long as they are let.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use shoal_common::peer_wire::{DATA, DataHead, TO_SERVER, ToServer};
use shoal_common::{Fid, Gid, PeerId};
use shoal_net::Identity;
use shoal_net::bulk::frame::FrameReader;
use shoal_net::bulk::{self, BulkReader, BulkWriter};
use tokio::io::AsyncWriteExt;

use crate::Member;

/// Messages that are sent with one flush.
const BATCH: u64 = 64;
/// A pause before a connection that was refused is tried again.
const AGAIN: Duration = Duration::from_millis(20);
/// The longest frame that a sharer sends.
const MAX_FRAME: u32 = 128 * 1024;

/// A sharer, and a file of its.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Where it accepts connections.
    pub address: SocketAddr,
    /// Its key.
    pub peer: PeerId,
    /// The group and the file.
    pub file: (Gid, Fid),
}

/// Under which key a connection is made, and with which ticket.
#[derive(Debug, Clone)]
pub struct Attacker {
    identity: Option<Identity>,
    ticket: Option<Vec<u8>>,
}

impl Attacker {
    /// A member of the group of that name.
    #[must_use]
    pub fn member(member: &mut Member, group: &str) -> Self {
        let (_, ticket) = member.ticket(group);
        Self { identity: Some(member.identity().clone()), ticket: Some(ticket) }
    }

    /// A stranger, under another key each time.
    #[must_use]
    pub fn stranger() -> Self {
        Self { identity: None, ticket: None }
    }

    /// Its ticket; empty without one.
    #[must_use]
    pub fn ticket(&self) -> Vec<u8> {
        self.ticket.clone().unwrap_or_default()
    }
}

/// What is to be said, by the number of the message.
type Says = dyn Fn(u64) -> ToServer + Send + Sync;

/// What is done on each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// It says what is to be said, and takes what comes.
    Talk,
    /// The same, one message for each answer.
    Ask,
    /// The same as [`Act::Talk`], each byte in a record of its own.
    Spell,
    /// It says some of it, and reads nothing.
    Deaf,
    /// It opens the file and hangs up.
    Leave,
}

/// Messages that one who reads nothing sends: as many pieces are asked for as a user might want at once.
const DEAF: u64 = 64;

/// Connections that say the same kind of thing without end. Dropping it ends them.
pub struct Flood {
    state: Arc<FloodState>,
    thread: Option<JoinHandle<()>>,
}

struct FloodState {
    target: Target,
    stop: AtomicBool,
    /// Connections that stand.
    standing: AtomicUsize,
    connected: AtomicUsize,
    pieces: AtomicUsize,
    says: Box<Says>,
    act: Act,
}

impl Flood {
    /// Keeps one connection for each attacker, on which channel 1 has the target's file open, and says what `says` says, as
    /// fast as it is read. A connection that ends is made again.
    #[must_use]
    pub fn start(
        target: Target,
        attackers: Vec<Attacker>,
        says: impl Fn(u64) -> ToServer + Send + Sync + 'static,
    ) -> Self {
        Self::run(target, attackers, Box::new(says), Act::Talk)
    }

    /// The same, each byte in a record of its own.
    #[must_use]
    pub fn spell(
        target: Target,
        attackers: Vec<Attacker>,
        says: impl Fn(u64) -> ToServer + Send + Sync + 'static,
    ) -> Self {
        Self::run(target, attackers, Box::new(says), Act::Spell)
    }

    /// As many connections that ask for pieces and read nothing.
    #[must_use]
    pub fn deaf(target: Target, attackers: Vec<Attacker>, pieces: u32) -> Self {
        Self::run(target, attackers, Box::new(asks_for(pieces)), Act::Deaf)
    }

    /// Connections that are made, open the file and end, one after the other.
    #[must_use]
    pub fn come_and_go(target: Target, attackers: Vec<Attacker>) -> Self {
        Self::run(target, attackers, Box::new(|_| ToServer::Close { channel: 1 }), Act::Leave)
    }

    /// As many connections that each ask for the next piece when they got the last.
    #[must_use]
    pub fn leech(target: Target, attackers: Vec<Attacker>, pieces: u32) -> Self {
        Self::run(target, attackers, Box::new(asks_for(pieces)), Act::Ask)
    }

    fn run(target: Target, attackers: Vec<Attacker>, says: Box<Says>, act: Act) -> Self {
        let none = AtomicUsize::default;
        let state = Arc::new(FloodState {
            target,
            stop: AtomicBool::new(false),
            standing: none(),
            connected: none(),
            pieces: none(),
            says,
            act,
        });
        let shared = state.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for attacker in attackers {
                    tokio::spawn(attack(shared.clone(), attacker));
                }
                while !shared.stop.load(Ordering::Relaxed) {
                    tokio::time::sleep(AGAIN).await;
                }
            });
        });
        Self { state, thread: Some(thread) }
    }

    /// How many of its connections stand now.
    #[must_use]
    pub fn standing(&self) -> usize {
        self.state.standing.load(Ordering::Relaxed)
    }

    /// How many connections came about so far.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.state.connected.load(Ordering::Relaxed)
    }

    /// How many pieces it was sent so far, whole.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.state.pieces.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn asks_for(pieces: u32) -> impl Fn(u64) -> ToServer + Send + Sync {
    move |number| {
        let piece = u32::try_from(number % u64::from(pieces)).unwrap_or(0);
        ToServer::Request { channel: 1, piece }
    }
}

async fn attack(state: Arc<FloodState>, attacker: Attacker) {
    loop {
        let identity = attacker.identity.clone().unwrap_or_else(Identity::generate);
        if let Ok(stream) = bulk::connect(state.target.address, state.target.peer, &identity).await {
            state.connected.fetch_add(1, Ordering::Relaxed);
            state.standing.fetch_add(1, Ordering::Relaxed);
            let (reader, writer) = stream.into_split();
            let answers = tokio::sync::Notify::new();
            match state.act {
                Act::Deaf => {
                    let _reader = reader;
                    talk(writer, &state, &attacker, &answers).await;
                }
                Act::Leave => {
                    talk(writer, &state, &attacker, &answers).await;
                }
                _ => tokio::select! {
                    _ = hear(FrameReader::new(reader, MAX_FRAME), &state, &answers) => {}
                    _ = talk(writer, &state, &attacker, &answers) => {}
                },
            }
            state.standing.fetch_sub(1, Ordering::Relaxed);
        }
        if state.act != Act::Leave {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Takes what comes; `answers` is notified of the end of each request.
async fn hear(
    mut reader: FrameReader<BulkReader>,
    state: &FloodState,
    answers: &tokio::sync::Notify,
) -> Option<()> {
    let mut length = 0;
    loop {
        let header = reader.next().await.ok()??;
        if header.kind != DATA {
            reader.skip().await.ok()?;
            answers.notify_one();
            continue;
        }
        let mut head = [0; DataHead::BYTES];
        reader.read_into(&mut head).await.ok()?;
        length += reader.remaining();
        reader.skip().await.ok()?;
        // The smallest pieces, as the tests share them.
        if length >= 64 * 1024 {
            length = 0;
            state.pieces.fetch_add(1, Ordering::Relaxed);
            answers.notify_one();
        }
    }
}

async fn talk(
    mut writer: BulkWriter,
    state: &FloodState,
    attacker: &Attacker,
    answers: &tokio::sync::Notify,
) -> Option<()> {
    if let Some(ticket) = attacker.ticket.clone() {
        let (group, file) = state.target.file;
        writer.write_all(&frame(&ToServer::Open { channel: 1, group, file, ticket })).await.ok()?;
        writer.flush().await.ok()?;
        match state.act {
            Act::Leave => return Some(()),
            Act::Deaf => {}
            _ => answers.notified().await,
        }
    }
    let first = fastrand::u64(..1_000);
    for number in first.. {
        let frame = frame(&(state.says)(number));
        match state.act {
            Act::Spell => {
                for byte in frame {
                    writer.write_all(&[byte]).await.ok()?;
                    writer.flush().await.ok()?;
                }
            }
            _ => writer.write_all(&frame).await.ok()?,
        }
        if state.act == Act::Ask || number % BATCH == 0 {
            writer.flush().await.ok()?;
        }
        if state.act == Act::Ask {
            answers.notified().await;
        }
        if state.act == Act::Deaf && number == first + DEAF {
            break;
        }
    }
    // What says nothing more learns of the end as it would learn of an answer: it sends the smallest frame at times.
    loop {
        writer.flush().await.ok()?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        writer.write_all(&frame(&ToServer::Cancel { channel: 1, piece: 0 })).await.ok()?;
    }
}

fn frame(message: &ToServer) -> Vec<u8> {
    let payload = minicbor::to_vec(message).unwrap();
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    [&length[..], &[TO_SERVER], &payload].concat()
}
