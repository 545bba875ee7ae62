//! A seeder made by hand, which counts what it sends, holds back at will, and may lie.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shoal_common::limits::{BLOCK, MAX_PEER_DATA, MAX_PEER_MESSAGE};
use shoal_common::peer_wire::{DATA, DataHead, Refused, TO_REQUESTER, ToRequester, ToServer};
use shoal_common::tracker_api::{Call, Completeness, Holding};
use shoal_common::{Fid, Gid, PeerId, RequestId};
use shoal_net::bulk::frame::{FrameReader, FrameWriter};
use shoal_net::bulk::{BulkLimits, BulkStream, BulkWriter, Listener};
use tokio::sync::{mpsc, watch};

use crate::Member;

/// How a seeder behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    /// It sends what it was asked for.
    Honest,
    /// It sends pieces of the right length with a wrong byte.
    Lies,
    /// It does so with this piece alone.
    LiesIn(u32),
    /// It sends this many bytes per second on each connection; at least 10.
    Crawls(u32),
    /// It sends half of each piece, and nothing more of it.
    StopsHalfway,
    /// It has everything, and serves nothing: not now.
    NeverNow,
    /// It has everything, and asks for half a second of patience each time.
    Patience,
    /// It announces the same piece again and again, and serves nothing.
    Announces,
    /// It puts each request off and names another piece as the better one.
    Instead,
    /// It sends pieces a byte at a time.
    Crumbs,
    /// It says again and again that the file is not open, on a channel that was closed, and serves nothing.
    Refuses,
}

/// How often a seeder that crawls sends something per second.
const CRAWLS: u32 = 5;

/// A member that serves one file by hand.
pub struct Seeder {
    member: Member,
    share: Arc<Share>,
    allowed: watch::Sender<usize>,
}

struct Share {
    content: File,
    size: u64,
    piece_length: u64,
    manners: Manners,
    /// How often each piece was sent.
    sent: Mutex<HashMap<u32, usize>>,
    /// Connections on which something may still be sent.
    open: AtomicUsize,
    /// To whom something was sent.
    takers: Mutex<HashSet<PeerId>>,
}

impl Seeder {
    /// Makes a member share a file of one of its groups; it sends `allowed` pieces and holds the others back.
    #[must_use]
    pub fn start(
        mut member: Member,
        (group, file): (&str, &str),
        content: &Path,
        manners: Manners,
        allowed: usize,
    ) -> Self {
        let (gid, fid, manifest) = member.find(group, file);
        let share = Arc::new(Share {
            content: File::open(content).unwrap(),
            size: manifest.size,
            piece_length: manifest.piece_length.into(),
            manners,
            sent: Mutex::default(),
            open: AtomicUsize::new(0),
            takers: Mutex::default(),
        });
        let (allowed, gate) = watch::channel(allowed);
        let _inside = member.handle().enter();
        let mut listener = Listener::bind(member.listen(), member.identity(), BulkLimits::default()).unwrap();
        let served = share.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, served.clone(), gate.clone()));
            }
        });
        drop(_inside);
        announce(&mut member, gid, fid);
        Self { member, share, allowed }
    }

    /// Lets it send so many pieces in all.
    pub fn allow(&self, pieces: usize) {
        self.allowed.send_replace(pieces);
    }

    /// How many pieces it has sent, those sent twice counted twice.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.share.sent.lock().unwrap().values().sum()
    }

    /// On how many connections it may still send something.
    #[must_use]
    pub fn open(&self) -> usize {
        self.share.open.load(Ordering::SeqCst)
    }

    /// To how many it has sent whole pieces.
    #[must_use]
    pub fn takers(&self) -> usize {
        self.share.takers.lock().unwrap().len()
    }

    /// The member behind it.
    pub fn member(&mut self) -> &mut Member {
        &mut self.member
    }
}

fn announce(member: &mut Member, group: Gid, file: Fid) {
    member.done(Call::ShareKnown { request: RequestId::random(), group, file });
    let holdings = vec![Holding { group, file, completeness: Completeness::Complete }];
    member.done(Call::Announce { reset: true, holdings });
}

/// Serves one connection; requests wait in line while the gate is closed.
async fn serve(stream: BulkStream, share: Arc<Share>, gate: watch::Receiver<usize>) {
    share.open.fetch_add(1, Ordering::SeqCst);
    let (taker, served) = (stream.peer(), share.clone());
    let (reader, writer) = stream.into_split();
    let mut reader = FrameReader::new(reader, u32::try_from(MAX_PEER_DATA).unwrap());
    let (asked, wanted) = mpsc::unbounded_channel();
    let sender = tokio::spawn(send(FrameWriter::new(writer), wanted, (share, taker), gate));
    while let Ok(Some(_)) = reader.next().await {
        let Ok(payload) = reader.payload(MAX_PEER_MESSAGE).await else { break };
        if asked.send(minicbor::decode(&payload).unwrap()).is_err() {
            break;
        }
    }
    // A requester that left wants nothing more.
    sender.abort();
    let _ = sender.await;
    served.open.fetch_sub(1, Ordering::SeqCst);
}

async fn send(
    mut writer: FrameWriter<BulkWriter>,
    mut wanted: mpsc::UnboundedReceiver<ToServer>,
    (share, taker): (Arc<Share>, PeerId),
    mut gate: watch::Receiver<usize>,
) {
    while let Some(message) = wanted.recv().await {
        match message {
            ToServer::Open { channel, .. } if share.manners == Manners::Announces => {
                let pieces = share.size.div_ceil(share.piece_length);
                let have = Some(vec![0; usize::try_from(pieces.div_ceil(8)).unwrap()]);
                let opened = minicbor::to_vec(ToRequester::Opened { channel, have }).unwrap();
                let again = ToRequester::Have { channel, pieces: vec![0] };
                let _ = repeat(&mut writer, &opened, &minicbor::to_vec(again).unwrap()).await;
                return;
            }
            ToServer::Open { channel, .. } if share.manners == Manners::Refuses => {
                let refused = ToRequester::Refused { channel, reason: Refused::NotShared, copy: None };
                let refused = minicbor::to_vec(refused).unwrap();
                let _ = repeat(&mut writer, &refused, &refused).await;
                return;
            }
            ToServer::Open { channel, .. } => {
                let opened = minicbor::to_vec(ToRequester::Opened { channel, have: None }).unwrap();
                if writer.control(TO_REQUESTER, &opened).await.is_err() {
                    return;
                }
            }
            ToServer::Request { channel, piece }
                if matches!(share.manners, Manners::NeverNow | Manners::Patience) =>
            {
                let after_ms = if share.manners == Manners::Patience { 500 } else { 0 };
                let refusal = ToRequester::NotNow { channel, piece, after_ms, instead: None };
                if writer.control(TO_REQUESTER, &minicbor::to_vec(refusal).unwrap()).await.is_err() {
                    return;
                }
            }
            ToServer::Request { channel, piece } if share.manners == Manners::Instead => {
                let pieces = share.size.div_ceil(share.piece_length);
                let instead = u32::try_from((u64::from(piece) + 1) % pieces).ok();
                let refusal = ToRequester::NotNow { channel, piece, after_ms: 0, instead };
                if writer.control(TO_REQUESTER, &minicbor::to_vec(refusal).unwrap()).await.is_err() {
                    return;
                }
            }
            ToServer::Request { channel, piece } => {
                let open = |allowed: &usize| {
                    let mut sent = share.sent.lock().unwrap();
                    let open = sent.values().sum::<usize>() < *allowed;
                    if open {
                        *sent.entry(piece).or_default() += 1;
                    }
                    open
                };
                if gate.wait_for(open).await.is_err()
                    || send_piece(&mut writer, &share, channel, piece).await.is_none()
                {
                    return;
                }
                share.takers.lock().unwrap().insert(taker);
            }
            _ => {}
        }
        if writer.flush().await.is_err() {
            return;
        }
    }
}

/// Says something, and then something else until the other side hangs up.
async fn repeat(
    writer: &mut FrameWriter<BulkWriter>,
    first: &[u8],
    then: &[u8],
) -> Result<(), shoal_net::bulk::frame::FrameError> {
    writer.control(TO_REQUESTER, first).await?;
    loop {
        for _ in 0..64 {
            writer.control(TO_REQUESTER, then).await?;
        }
        writer.flush().await?;
    }
}

async fn send_piece(
    writer: &mut FrameWriter<BulkWriter>,
    share: &Share,
    channel: u32,
    piece: u32,
) -> Option<()> {
    let start = u64::from(piece) * share.piece_length;
    let mut bytes = vec![0; usize::try_from(share.piece_length.min(share.size - start)).unwrap()];
    share.content.read_exact_at(&mut bytes, start).unwrap();
    if share.manners == Manners::Lies || share.manners == Manners::LiesIn(piece) {
        bytes[0] ^= 1;
    }
    if share.manners == Manners::StopsHalfway {
        bytes.truncate(bytes.len() / 2);
    }
    let (length, pause) = match share.manners {
        Manners::Crawls(rate) => (rate.div_ceil(CRAWLS), Duration::from_secs(1) / CRAWLS),
        Manners::Crumbs => (1, Duration::ZERO),
        _ => (BLOCK, Duration::ZERO),
    };
    let mut offset = 0;
    for block in bytes.chunks(length as usize) {
        let head = DataHead { channel, piece, offset };
        offset += length;
        writer.data(DATA, &head.to_bytes(), block).await.ok()?;
        if !pause.is_zero() {
            writer.flush().await.ok()?;
            tokio::time::sleep(pause).await;
        }
    }
    writer.flush().await.ok()
}
