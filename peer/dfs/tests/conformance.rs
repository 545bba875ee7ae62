//! [`NodeSource`] against the engine's suite, with a hand-made node that behaves as the suite asks.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shoal_common::storage::{ChunkId, ChunkRef};
use shoal_common::{Bitfield, Layout};
use shoal_dfs::connection::NodeConnection;
use shoal_dfs::seal::{FileSecret, Sealer};
use shoal_dfs::source::{NodeSource, Sealed};
use shoal_dfs::wire::{
    DATA, DataHead, Failure, MAX_MESSAGE, MAX_TO_NODE, SLICE, TO_CLIENT, ToClient, ToNode,
};
use shoal_engine::conformance::{Behaviour, Stand, check, piece_of};
use shoal_net::Identity;
use shoal_net::bulk::frame::{FrameReader, FrameWriter};
use shoal_net::bulk::{BulkLimits, BulkReader, BulkStream, BulkWriter, Listener};
use tokio_util::task::TaskTracker;

struct Nodes {
    client: Identity,
    tasks: TaskTracker,
}

impl Stand for Nodes {
    type Source = NodeSource;

    async fn source(&self, bytes: Arc<[u8]>, layout: Layout, behaviour: Behaviour) -> NodeSource {
        let sealer = Arc::new(Sealer::new(&FileSecret::random(), layout.pieces()));
        let sealed: Vec<Vec<u8>> = layout
            .iter()
            .map(|piece| {
                let mut chunk = piece_of(&bytes, &layout, piece).to_vec();
                sealer.seal(piece.get(), &mut chunk);
                chunk
            })
            .collect();
        let chunks: Vec<ChunkRef> = sealed
            .iter()
            .map(|chunk| ChunkRef { id: ChunkId::of(chunk), sealed: u32::try_from(chunk.len()).unwrap() })
            .collect();
        let identity = Identity::generate();
        let mut listener =
            Listener::bind("127.0.0.1:0".parse().unwrap(), &identity, BulkLimits::default()).unwrap();
        let address = listener.local_addr();
        let store = Arc::new((sealed, chunks.clone(), AtomicU64::new(0)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Node::new(stream, store.clone()).serve(behaviour));
            }
        });
        let connection =
            NodeConnection::connect(address, identity.peer_id(), &self.client, &self.tasks).await.unwrap();
        let mut all = Bitfield::none(&layout);
        layout.iter().for_each(|piece| {
            all.insert(piece);
        });
        NodeSource::new(connection, Sealed::new(layout, chunks, sealer).unwrap(), all)
    }
}

type Chunks = Arc<(Vec<Vec<u8>>, Vec<ChunkRef>, AtomicU64)>;

struct Node {
    input: FrameReader<BulkReader>,
    output: FrameWriter<BulkWriter>,
    store: Chunks,
}

impl Node {
    fn new(stream: BulkStream, store: Chunks) -> Self {
        let (input, output) = stream.into_split();
        Self { input: FrameReader::new(input, MAX_TO_NODE), output: FrameWriter::new(output), store }
    }

    async fn serve(mut self, behaviour: Behaviour) {
        while let Ok(Some(_)) = self.input.next().await {
            let Ok(payload) = self.input.payload(MAX_MESSAGE).await else { return };
            if let Ok(ToNode::Fetch { request, chunk, .. }) = minicbor::decode(&payload)
                && !self.answer(behaviour, request, chunk).await
            {
                return;
            }
        }
    }

    /// False: hang up.
    async fn answer(&mut self, behaviour: Behaviour, request: u32, chunk: ChunkId) -> bool {
        let index = self.store.1.iter().position(|known| known.id == chunk).unwrap();
        let mut bytes = self.store.0[index].clone();
        let mut limit = u64::MAX;
        match behaviour {
            // A node says what it holds when it is asked.
            Behaviour::Honest | Behaviour::Long | Behaviour::Floods => {}
            Behaviour::Lost(lost) if lost as usize != index => {}
            Behaviour::Short => bytes.truncate(bytes.len() - 1),
            Behaviour::Wrong => bytes[7] ^= 1,
            Behaviour::SilentAfter(most) | Behaviour::GoneAfter(most) => limit = most,
            Behaviour::Busy(_) => return self.say(ToClient::Failed { request, reason: Failure::Busy }).await,
            Behaviour::Refuses(_) | Behaviour::Lost(_) => {
                return self.say(ToClient::Failed { request, reason: Failure::NotFound }).await;
            }
        }
        let mut offset = 0;
        for slice in bytes.chunks(SLICE / 8) {
            if self.store.2.fetch_add(slice.len() as u64, Ordering::Relaxed) >= limit {
                return matches!(behaviour, Behaviour::SilentAfter(_));
            }
            self.data(DataHead { request, offset }, slice).await;
            offset += u32::try_from(slice.len()).unwrap();
        }
        match behaviour {
            // As if it had sent the whole chunk.
            Behaviour::Short => self.say(ToClient::Done { request }).await,
            Behaviour::Long => {
                self.data(DataHead { request, offset }, &[0; 100]).await;
                true
            }
            _ => true,
        }
    }

    async fn data(&mut self, head: DataHead, bytes: &[u8]) {
        // The other side may have hung up on a liar.
        let _ = self.output.data(DATA, &head.to_bytes(), bytes).await;
        let _ = self.output.flush().await;
    }

    async fn say(&mut self, message: ToClient) -> bool {
        let payload = minicbor::to_vec(&message).unwrap();
        let _ = self.output.control(TO_CLIENT, &payload).await;
        self.output.flush().await.is_ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_nodes_conform() {
    let nodes = Nodes { client: Identity::generate(), tasks: TaskTracker::new() };
    check(&nodes).await.unwrap();
}
