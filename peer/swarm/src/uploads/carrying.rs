//! The policy's decisions, carried to the connections that asked, and the count of what went out.

use std::collections::HashMap;
use std::time::Duration;

use shoal_common::PieceIndex;
use shoal_common::peer_wire::ToRequester;
use shoal_policy::{Action, ChannelId};

use super::{MAX_COUNTED, Out, UploadTable};

impl UploadTable {
    pub(super) fn carry_out(&self, action: Action) {
        let id = action.channel();
        let Some(outlet) = self.outlets.get(&id) else { return };
        let wire = outlet.wire;
        let out = match action {
            Action::Serve { piece, .. } => {
                let Some(entry) = self.files.get(&outlet.key) else { return };
                Out::Serve { channel: id, wire, piece, source: entry.source.clone() }
            }
            Action::Stop { piece, .. } => Out::Stop { wire, piece },
            Action::NotNow { piece, after, instead, .. } => Out::Say(ToRequester::NotNow {
                channel: wire,
                piece: piece.get(),
                after_ms: millis(after),
                instead: instead.map(PieceIndex::get),
            }),
            Action::Busy { piece, after, .. } => {
                Out::Say(ToRequester::Busy { channel: wire, piece: piece.get(), after_ms: millis(after) })
            }
        };
        outlet.outbox.push(out);
    }

    pub(super) fn count(&mut self, channel: ChannelId, piece: PieceIndex) {
        let Some(outlet) = self.outlets.get(&channel) else { return };
        let Some(entry) = self.files.get(&outlet.key) else { return };
        let bytes = u64::from(entry.source.layout().length(piece));
        self.uploaded.total += bytes;
        count(&mut self.uploaded.files, outlet.key, bytes);
        count(&mut self.uploaded.peers, outlet.peer, bytes);
    }
}

fn count<K: std::hash::Hash + Eq>(counted: &mut HashMap<K, u64>, key: K, bytes: u64) {
    if counted.len() < MAX_COUNTED || counted.contains_key(&key) {
        *counted.entry(key).or_default() += bytes;
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
