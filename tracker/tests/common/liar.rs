//! A tracker made by hand that is linked with real ones and says what it likes.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers: every binary uses its own part, and a panic is how a test fails"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use minicbor::{Decode, Encode};
use shoal_net::{
    ChannelReceiver, ChannelSender, Control, ControlConfig, ControlLimits, Identity, Incoming, Protocol,
};
use shoal_replica::limits::MAX_FRAME_BYTES;
use shoal_replica::{Entry, Frame, Hello, TrackerNo, WriterId};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::PATIENCE;

const LINK: Protocol = Protocol("/shoal/tracker/1");
const FRAME: u8 = 0;
const TAKEN: u8 = 2;
/// Which tracker it is.
pub const NUMBER: u8 = 3;

#[derive(Encode, Decode)]
#[cbor(map)]
struct Introduction {
    #[n(0)]
    number: u8,
    #[n(2)]
    attempt: u64,
}

/// What it says when it is asked for a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// That the sync is complete.
    Nothing,
    /// Frames without rows, for ever.
    Empty,
}

/// The liar.
pub struct Liar {
    control: Control,
    incoming: Incoming,
    pub writer: WriterId,
}

/// Its link with one tracker.
pub struct Link {
    frames: mpsc::UnboundedSender<Frame>,
    heard: Arc<Mutex<Vec<Frame>>>,
    manner: Arc<Mutex<Manner>>,
    deaf: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Liar {
    pub async fn start(port: u16) -> Self {
        let config = ControlConfig {
            identity: Identity::generate(),
            listen: Some(([127, 0, 0, 1], port).into()),
            protocols: vec![LINK],
            limits: ControlLimits::default(),
        };
        let (control, incoming) = Control::start(config).await.unwrap();
        Self { control, incoming, writer: WriterId(rand_writer_id()) }
    }

    /// Links with the tracker at a port, whose number is `number`, and introduces itself with the clock `ahead_ms` off.
    pub async fn link(&mut self, port: u16, number: u8, ahead_ms: i64) -> Link {
        let linked = async {
            loop {
                if let Some((sender, receiver)) = self.raise(port, number).await {
                    return (sender, receiver);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let (mut sender, receiver) = timeout(PATIENCE, linked).await.expect("the liar is let in");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let hello = Hello {
            version: 1,
            min_version: 1,
            cluster: *b"shoal tracker  1",
            no: TrackerNo(NUMBER),
            writer: self.writer,
            wall_ms: u64::try_from(now).unwrap().saturating_add_signed(ahead_ms),
        };
        for frame in [Frame::Hello(hello), Frame::Ready] {
            let _ = send(&mut sender, &frame).await;
        }
        let heard = Arc::<Mutex<Vec<Frame>>>::default();
        let manner = Arc::new(Mutex::new(Manner::Nothing));
        let deaf = Arc::<AtomicBool>::default();
        let (frames, queue) = mpsc::unbounded_channel();
        let ends = (sender, receiver, deaf.clone());
        let task = tokio::spawn(carry(ends, queue, heard.clone(), manner.clone()));
        Link { frames, heard, manner, deaf, task }
    }

    async fn raise(&mut self, port: u16, number: u8) -> Option<(ChannelSender, ChannelReceiver)> {
        let peer = self.control.dial("127.0.0.1", port, None).await.ok()?;
        let mut ours = self.control.open(peer, LINK).await.ok()?;
        let attempt = fastrand::u64(..);
        ours.send(&minicbor::to_vec(Introduction { number: NUMBER, attempt }).unwrap()).await.ok()?;
        let (mut sender, _answers) = ours.split();
        loop {
            let inbound = timeout(Duration::from_secs(3), self.incoming.next()).await.ok()??;
            if inbound.peer != peer {
                continue;
            }
            let (_, mut receiver) = inbound.channel.split();
            receiver.set_limit(MAX_FRAME_BYTES + 1);
            let first = timeout(Duration::from_secs(3), receiver.recv()).await.ok()?.ok()??;
            let introduction: Introduction = minicbor::decode(&first).ok()?;
            if introduction.number != number {
                continue;
            }
            sender.send(&taken(introduction.attempt)).await.ok()?;
            let answer = timeout(Duration::from_secs(3), receiver.recv()).await.ok()?.ok()??;
            if answer == taken(attempt) {
                return Some((sender, receiver));
            }
        }
    }
}

impl Link {
    pub fn say(&self, frame: Frame) {
        let _ = self.frames.send(frame);
    }

    pub fn answer(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// Reads nothing any more.
    pub fn be_deaf(&self) {
        self.deaf.store(true, Ordering::Release);
    }

    pub fn is_up(&self) -> bool {
        !self.task.is_finished()
    }

    /// What the tracker has said so far.
    pub fn heard(&self) -> Vec<Frame> {
        self.heard.lock().unwrap().clone()
    }

    /// The tracker's own writer id.
    pub async fn its_writer_id(&self) -> WriterId {
        super::until_heard(|| {
            self.heard().into_iter().find_map(|frame| match frame {
                Frame::Hello(hello) => Some(hello.writer),
                _ => None,
            })
        })
        .await
    }

    /// Everything that the tracker says to hold.
    pub fn its_vector(&self) -> Vec<Entry> {
        let parts = self.heard().into_iter().filter_map(|frame| match frame {
            Frame::Vector(entries) => Some(entries),
            _ => None,
        });
        parts.flatten().collect()
    }
}

async fn carry(
    (mut sender, mut receiver, deaf): (ChannelSender, ChannelReceiver, Arc<AtomicBool>),
    mut queue: mpsc::UnboundedReceiver<Frame>,
    heard: Arc<Mutex<Vec<Frame>>>,
    manner: Arc<Mutex<Manner>>,
) {
    let mut ping = tokio::time::interval(Duration::from_millis(400));
    loop {
        let frame = tokio::select! {
            _ = ping.tick() => Some(Frame::Ping),
            frame = queue.recv() => match frame {
                Some(frame) => Some(frame),
                None => return,
            },
            message = receiver.recv(), if !deaf.load(Ordering::Acquire) => {
                let Ok(Some(message)) = message else { return };
                let Some((&FRAME, bytes)) = message.split_first() else { continue };
                let Ok(frame) = Frame::decode(bytes) else { continue };
                let said = *manner.lock().unwrap();
                let answer = match &frame {
                    Frame::Pull(pull) if said == Manner::Nothing => Some(Frame::End { sync_id: pull.sync_id }),
                    Frame::Pull(pull) => Some(Frame::Rows { sync_id: pull.sync_id, rows: Vec::new() }),
                    Frame::More { sync_id, .. } if said == Manner::Empty => {
                        Some(Frame::Rows { sync_id: *sync_id, rows: Vec::new() })
                    }
                    _ => None,
                };
                heard.lock().unwrap().push(frame);
                answer
            }
        };
        let Some(frame) = frame else { continue };
        if !send(&mut sender, &frame).await {
            return;
        }
    }
}

async fn send(sender: &mut ChannelSender, frame: &Frame) -> bool {
    let message = [&[FRAME][..], &frame.encode()].concat();
    sender.send(&message).await.is_ok()
}

fn taken(attempt: u64) -> Vec<u8> {
    [&[TAKEN][..], &attempt.to_le_bytes()].concat()
}

pub fn rand_writer_id() -> [u8; 16] {
    fastrand::u128(..).to_le_bytes()
}
