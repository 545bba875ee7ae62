//! Members of a group whose tickets a test key signs, files they share, and hand-made ends of the protocol.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ed25519_dalek::{Signer, SigningKey};
use shoal_common::limits::MAX_PEER_MESSAGE;
use shoal_common::peer_wire::{CopyTrouble, DATA, DataHead, TO_REQUESTER, TO_SERVER, ToRequester, ToServer};
use shoal_common::tokens::{self, TICKET_LIFE_MS, Ticket};
use shoal_common::tracker_api::GroupTicket;
use shoal_common::{Fid, Gid, GroupName, Layout, PeerId, Uid, UserName};
use shoal_engine::conformance::sample_file;
use shoal_engine::hash::FileIdentity;
use shoal_engine::{
    AnySource, Content, Download, Engine, EngineConfig, Overwrite, SourceChange, SourceId, Target,
};
use shoal_net::Identity;
use shoal_net::bulk::frame::{FrameReader, FrameWriter};
use shoal_net::bulk::{self, BulkReader, BulkStream, BulkWriter};
use shoal_session::tickets::TicketBook;
use shoal_swarm::{Body, FileKey, Liveness, PeerSource, Served, Swarm, SwarmConfig};
use tokio::sync::{mpsc, watch};

pub(crate) use crate::waiting::{until, within};

/// The trackers' time in all tests.
pub(crate) const NOW: u64 = 1_800_000_000_000;
/// The end of a ticket that is good for as long as any test runs.
pub(crate) const LATER: u64 = NOW + TICKET_LIFE_MS;
pub(crate) const KEY: FileKey = FileKey { group: Gid([1; 16]), file: Fid([2; 16]) };

/// A tracker's ticket key.
pub(crate) fn tracker(seed: u8) -> (SigningKey, PeerId) {
    let key = SigningKey::from_bytes(&[seed; 32]);
    let id = PeerId(key.verifying_key().to_bytes());
    (key, id)
}

/// A ticket by the tracker of that seed.
pub(crate) fn ticket(seed: u8, peer: PeerId, group: Gid, expires_ms: u64) -> Vec<u8> {
    let (key, signer) = tracker(seed);
    let name = UserName::create("bob").unwrap();
    let ticket = Ticket { user: Uid([7; 16]), name, peer, group, expires_ms };
    tokens::seal(&ticket, signer, |message| key.sign(message).to_bytes())
}

/// Gives a member's book a ticket for the tests' group.
pub(crate) fn grant(book: &TicketBook, expires_ms: u64) {
    let name = GroupName::create("g").unwrap();
    let ticket = ticket(1, book.own(), KEY.group, expires_ms);
    book.update(&[GroupTicket { group: KEY.group, name, ticket }], &[tracker(1).1], NOW);
}

/// A peer with everything it needs.
pub(crate) struct Member {
    pub(crate) identity: Identity,
    pub(crate) book: TicketBook,
    pub(crate) swarm: Swarm,
    pub(crate) engine: Engine,
    pub(crate) folder: tempfile::TempDir,
}

impl Member {
    pub(crate) async fn new() -> Self {
        Self::with_slots(8).await
    }

    pub(crate) async fn with_slots(upload_slots: usize) -> Self {
        let identity = Identity::generate();
        let book = TicketBook::new(identity.peer_id());
        grant(&book, LATER);
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = SwarmConfig { identity: identity.clone(), listen, upload_slots };
        let swarm = Swarm::start(config, book.clone()).await.unwrap();
        let engine = Engine::new(EngineConfig::default());
        Self { identity, book, swarm, engine, folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn id(&self) -> PeerId {
        self.identity.peer_id()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.swarm.local_addr()
    }

    /// Writes a file and serves it.
    pub(crate) fn share(&self, bytes: &[u8], layout: Layout) -> PathBuf {
        let path = self.folder.path().join("shared");
        std::fs::write(&path, bytes).unwrap();
        self.share_at(&path, layout);
        path
    }

    pub(crate) fn share_at(&self, path: &Path, layout: Layout) {
        let identity = FileIdentity::of(path).unwrap();
        self.swarm.serve(KEY, Served { layout, body: Body::File { path: path.into(), identity } });
    }

    pub(crate) fn source(&self, from: &Member, layout: Layout) -> PeerSource {
        self.swarm.source(KEY, from.id(), &[from.address()], layout)
    }

    /// Starts to download from some members, and serves what it gets.
    pub(crate) async fn download(&self, content: &Content, from: &[&Member]) -> Fetching {
        let (sources, changes) = mpsc::channel(16);
        let path = self.folder.path().join("download");
        let target = Target::new(&path, Overwrite::Refuse);
        let download = self.engine.start(content.clone(), target, changes);
        let layout = content.layout().clone();
        let body = Body::Partial { reader: download.reader(), verified: download.verified() };
        self.swarm.serve(KEY, Served { layout: layout.clone(), body });
        let fetching = Fetching { download, sources, path, liveness: Mutex::default() };
        for (number, member) in from.iter().enumerate() {
            fetching.add(number as u64, self.source(member, layout.clone())).await;
        }
        fetching
    }
}

/// A download and its sources.
pub(crate) struct Fetching {
    pub(crate) download: Download,
    pub(crate) sources: mpsc::Sender<SourceChange>,
    pub(crate) path: PathBuf,
    /// Of each source that was added.
    liveness: Mutex<Vec<watch::Receiver<Liveness>>>,
}

/// Waits for the end of a source.
pub(crate) async fn end(mut liveness: watch::Receiver<Liveness>) -> Liveness {
    let over = |now: &Liveness| matches!(now, Liveness::Gone { .. } | Liveness::Invalid(_));
    within("the end of a source", liveness.wait_for(over)).await.unwrap().clone()
}

/// Why a source ended, and what was said of the copy.
pub(crate) async fn gone(liveness: watch::Receiver<Liveness>) -> (String, Option<CopyTrouble>) {
    match end(liveness).await {
        Liveness::Gone { reason, trouble } => (reason, trouble.copy()),
        other => panic!("{other:?}"),
    }
}

impl Fetching {
    /// The last source that was added.
    pub(crate) fn last(&self) -> watch::Receiver<Liveness> {
        self.liveness.lock().unwrap().last().unwrap().clone()
    }

    pub(crate) async fn add(&self, number: u64, source: PeerSource) {
        self.liveness.lock().unwrap().push(source.liveness());
        self.sources.send(SourceChange::Add(SourceId(number), AnySource::new(source))).await.unwrap();
    }

    /// Waits until the file is there, and checks it.
    pub(crate) async fn complete(&self, bytes: &[u8]) {
        let outcome = within("the download", self.download.wait()).await;
        assert!(matches!(outcome, shoal_engine::Outcome::Complete { .. }), "{outcome:?}");
        assert!(std::fs::read(&self.path).unwrap() == bytes, "another file came");
    }

    /// Waits until so many bytes are verified.
    pub(crate) async fn reach(&self, bytes: u64) {
        let mut progress = self.download.progress();
        let reached = progress.wait_for(|progress| progress.verified_bytes >= bytes);
        within("progress", reached).await.unwrap();
    }
}

/// A file of that many bytes in pieces of 64 KiB.
pub(crate) fn file(size: usize) -> (Arc<[u8]>, Content) {
    sample_file(size, 65_536, 11)
}

/// A requester that speaks the protocol by hand.
pub(crate) struct RawClient {
    pub(crate) input: FrameReader<BulkReader>,
    pub(crate) output: FrameWriter<BulkWriter>,
}

impl RawClient {
    pub(crate) async fn connect(identity: &Identity, to: &Member) -> Self {
        let stream = bulk::connect(to.address(), to.id(), identity).await.unwrap();
        let (input, output) = stream.into_split();
        Self { input: FrameReader::new(input, 1 << 20), output: FrameWriter::new(output) }
    }

    pub(crate) async fn say(&mut self, message: &ToServer) {
        self.frame(TO_SERVER, &minicbor::to_vec(message).unwrap()).await;
    }

    /// Sends any frame; that the server hung up is for the reading side to notice.
    pub(crate) async fn frame(&mut self, kind: u8, payload: &[u8]) {
        let _ = self.output.control(kind, payload).await;
        let _ = self.output.flush().await;
    }

    /// The next message, blocks skipped; `None` once the server hung up.
    pub(crate) async fn hear(&mut self) -> Option<ToRequester> {
        loop {
            match within("the server", self.input.next()).await {
                Ok(Some(header)) if header.kind == TO_REQUESTER => {
                    let payload = self.input.payload(MAX_PEER_MESSAGE).await.ok()?;
                    return Some(minicbor::decode(&payload).unwrap());
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The next block; `None` if the server says something else or hangs up.
    pub(crate) async fn block(&mut self) -> Option<(DataHead, Vec<u8>)> {
        let header = within("the server", self.input.next()).await.ok()??;
        if header.kind != DATA {
            return None;
        }
        let mut head = [0; DataHead::BYTES];
        self.input.read_into(&mut head).await.ok()?;
        Some((DataHead::from_bytes(&head), self.input.payload(1 << 20).await.ok()?))
    }

    pub(crate) async fn open(&mut self, channel: u32, ticket: Vec<u8>) {
        self.say(&ToServer::Open { channel, group: KEY.group, file: KEY.file, ticket }).await;
    }

    /// Fetches a piece by hand.
    pub(crate) async fn piece(&mut self, channel: u32, piece: u32, length: usize) -> Option<Vec<u8>> {
        self.say(&ToServer::Request { channel, piece }).await;
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let (head, block) = self.block().await?;
            assert_eq!((head.channel, head.piece, head.offset as usize), (channel, piece, bytes.len()));
            bytes.extend(block);
        }
        Some(bytes)
    }
}

/// A server's side of a connection, by hand.
pub(crate) struct RawServer {
    pub(crate) input: FrameReader<BulkReader>,
    pub(crate) output: FrameWriter<BulkWriter>,
}

impl RawServer {
    pub(crate) fn new(stream: BulkStream) -> Self {
        let (input, output) = stream.into_split();
        Self { input: FrameReader::new(input, 1 << 20), output: FrameWriter::new(output) }
    }

    pub(crate) async fn hear(&mut self) -> Option<ToServer> {
        let header = self.input.next().await.ok()??;
        assert_eq!(header.kind, TO_SERVER);
        let payload = self.input.payload(MAX_PEER_MESSAGE).await.ok()?;
        Some(minicbor::decode(&payload).unwrap())
    }

    pub(crate) async fn say(&mut self, message: &ToRequester) {
        let _ = self.output.control(TO_REQUESTER, &minicbor::to_vec(message).unwrap()).await;
        let _ = self.output.flush().await;
    }

    pub(crate) async fn block(&mut self, head: DataHead, bytes: &[u8]) {
        let _ = self.output.data(DATA, &head.to_bytes(), bytes).await;
        let _ = self.output.flush().await;
    }
}
