//! Frames that the lying tracker withholds or replaces.

use shoal_replica::Frame;

use super::World;
use crate::disk::Disk;

/// Which tracker lies, and how it currently answers.
pub(crate) struct Liar {
    pub(crate) node: usize,
    pub(crate) reply: SyncReply,
    pub(crate) mute: bool,
    pub(crate) counter: u64,
}

/// How the liar answers a request for a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncReply {
    Honest,
    /// Says at once that the sync is complete.
    Nothing,
    /// Sends frames without rows, for ever.
    Empty,
    /// Says that it cannot serve the sync now.
    Busy,
    /// Does not answer.
    Silence,
}

impl<D: Disk> World<D> {
    /// The liar's answer in place of its replica's; `None` if the replica is to answer.
    pub(crate) fn lying_reply(&mut self, to: usize, frame: &Frame) -> Option<Vec<Frame>> {
        let liar = self.liar.as_ref()?;
        let (sync_id, full) = match frame {
            Frame::Pull(pull) => (pull.sync_id, pull.full),
            Frame::More { sync_id, .. } => (*sync_id, false),
            _ => return None,
        };
        let reply = liar.reply;
        if reply != SyncReply::Honest {
            self.note(|| format!("the liar answers tracker {} with {reply:?} (full: {full})", to + 1));
        }
        match reply {
            SyncReply::Honest => None,
            SyncReply::Nothing if matches!(frame, Frame::Pull(_)) => Some(vec![Frame::End { sync_id }]),
            SyncReply::Empty => Some(vec![Frame::Rows { sync_id, rows: Vec::new() }]),
            SyncReply::Busy => Some(vec![Frame::Busy { sync_id }]),
            SyncReply::Nothing | SyncReply::Silence => Some(Vec::new()),
        }
    }

    /// Whether the liar withholds a frame that it owes.
    pub(crate) fn is_withheld(&self, node: usize, frame: &Frame) -> bool {
        let mute = self.liar.as_ref().is_some_and(|liar| liar.node == node && liar.mute);
        mute && matches!(frame, Frame::Ack { .. })
    }
}
