//! [`PeerSource`] against the engine's suite, with a hand-made server that behaves as the suite asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shoal_common::peer_wire::{DataHead, ToRequester, ToServer};
use shoal_common::{Bitfield, Layout};
use shoal_engine::conformance::{Behaviour, FLOOD, Stand, check, piece_of};
use shoal_engine::{Have, PieceSource};
use shoal_net::Identity;
use shoal_net::bulk::{BulkLimits, Listener};
use shoal_swarm::PeerSource;

use crate::support::{KEY, Member, RawServer};

struct Peers {
    member: Member,
}

impl Stand for Peers {
    type Source = PeerSource;

    async fn source(&self, bytes: Arc<[u8]>, layout: Layout, behaviour: Behaviour) -> PeerSource {
        let identity = Identity::generate();
        let mut listener =
            Listener::bind("127.0.0.1:0".parse().unwrap(), &identity, BulkLimits::default()).unwrap();
        let address = listener.local_addr();
        let sent = Arc::new(AtomicU64::new(0));
        let of_server = layout.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = Server {
                    raw: RawServer::new(stream),
                    bytes: bytes.clone(),
                    layout: of_server.clone(),
                    sent: sent.clone(),
                };
                tokio::spawn(server.serve(behaviour));
            }
        });
        let source = self.member.swarm.source(KEY, identity.peer_id(), &[address], layout);
        source.have().wait_for(|have| *have == Have::All).await.unwrap();
        source
    }
}

struct Server {
    raw: RawServer,
    bytes: Arc<[u8]>,
    layout: Layout,
    sent: Arc<AtomicU64>,
}

impl Server {
    async fn serve(mut self, behaviour: Behaviour) {
        while let Some(message) = self.raw.hear().await {
            match message {
                ToServer::Open { channel, .. } if behaviour == Behaviour::Floods => {
                    let nothing = Bitfield::none(&self.layout).to_bytes();
                    self.raw.say(&ToRequester::Opened { channel, have: Some(nothing) }).await;
                    self.flood(channel).await;
                }
                ToServer::Open { channel, .. } => {
                    self.raw.say(&ToRequester::Opened { channel, have: None }).await
                }
                ToServer::Request { channel, piece } if !self.answer(behaviour, channel, piece).await => {
                    return;
                }
                _ => {}
            }
        }
    }

    /// Announces every piece again and again.
    async fn flood(&mut self, channel: u32) {
        for _ in 0..FLOOD {
            let pieces = (0..self.layout.pieces()).collect();
            self.raw.say(&ToRequester::Have { channel, pieces }).await;
        }
    }

    /// False: hang up.
    async fn answer(&mut self, behaviour: Behaviour, channel: u32, piece: u32) -> bool {
        let index = self.layout.piece(piece).unwrap();
        let mut bytes = piece_of(&self.bytes, &self.layout, index).to_vec();
        let mut limit = u64::MAX;
        match behaviour {
            Behaviour::Honest | Behaviour::Long => {}
            Behaviour::Floods => self.flood(channel).await,
            Behaviour::Lost(lost) if lost != piece => {}
            Behaviour::Lost(_) => {
                let refusal = ToRequester::NotNow { channel, piece, after_ms: 1_000, instead: None };
                self.raw.say(&refusal).await;
                return true;
            }
            Behaviour::Short => bytes.truncate(bytes.len() - 1),
            Behaviour::Wrong => bytes[7] ^= 1,
            Behaviour::SilentAfter(bytes) | Behaviour::GoneAfter(bytes) => limit = bytes,
            Behaviour::Busy(after) => {
                let after_ms = u32::try_from(after.as_millis()).unwrap();
                self.raw.say(&ToRequester::Busy { channel, piece, after_ms }).await;
                return true;
            }
            Behaviour::Refuses(after) => {
                let after_ms = u32::try_from(after.as_millis()).unwrap();
                let instead = Some((piece + 1) % self.layout.pieces());
                self.raw.say(&ToRequester::NotNow { channel, piece, after_ms, instead }).await;
                return true;
            }
        }
        let mut offset = 0;
        for block in bytes.chunks(16 * 1024) {
            if self.sent.fetch_add(block.len() as u64, Ordering::Relaxed) >= limit {
                return matches!(behaviour, Behaviour::SilentAfter(_));
            }
            self.raw.block(DataHead { channel, piece, offset }, block).await;
            offset += u32::try_from(block.len()).unwrap();
        }
        match behaviour {
            // As if it had sent the whole piece, it goes on with another.
            Behaviour::Short => {
                self.raw.block(DataHead { channel, piece: piece + 1, offset: 0 }, &[0; 100]).await
            }
            Behaviour::Long => self.raw.block(DataHead { channel, piece, offset }, &[0; 100]).await,
            _ => {}
        }
        true
    }
}

#[tokio::test]
async fn peers_conform() {
    let peers = Peers { member: Member::new().await };
    check(&peers).await.unwrap();
    peers.member.swarm.shutdown().await;
}
