//! A fixed piece of the codecs' work, whose instructions `scripts/bench counts` counts: the messages of a download between
//! two peers, encoded and decoded.

use std::hint::black_box;

use shoal_common::peer_wire::{DataHead, ToRequester, ToServer};
use shoal_common::{Bitfield, Layout};

fn main() {
    let layout = Layout::for_size(1 << 30).expect("a GiB is not too long");
    let have = Bitfield::none(&layout).to_bytes();
    for piece in 0..10_000 {
        let asked = [
            ToServer::Request { channel: 1, piece },
            ToServer::Have { channel: 1, pieces: (piece..piece + 8).collect() },
            ToServer::Cancel { channel: 1, piece },
        ];
        for message in &asked {
            let bytes = minicbor::to_vec(message).expect("a vector takes every write");
            black_box(minicbor::decode::<ToServer>(&bytes).expect("what was encoded"));
        }
        let answered = [
            ToRequester::Opened { channel: 1, have: Some(have.clone()) },
            ToRequester::Have { channel: 1, pieces: (piece..piece + 8).collect() },
            ToRequester::NotNow { channel: 1, piece, after_ms: 1_000, instead: None },
        ];
        for message in &answered {
            let bytes = minicbor::to_vec(message).expect("a vector takes every write");
            black_box(minicbor::decode::<ToRequester>(&bytes).expect("what was encoded"));
        }
        black_box(DataHead { channel: 1, piece, offset: 0 }.to_bytes());
    }
}
