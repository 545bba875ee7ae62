//! What trackers send each other before and beside rows: who they are, what they hold, and which tombstones
//! may be missing there.

use super::Replica;
use super::peer_link::{LinkStage, entries, in_parts};
use crate::event::{Alarm, Now, Output, Reason, Warning};
use crate::frame::{Entry, Frame, Hello, MIN_VERSION, VERSION};
use crate::limits::{CLOCK_RETRY_MS, MAX_AHEAD_MS, MAX_WRITERS, SKEW_WARNING_MS};
use crate::row::{Stamp, TrackerNo};
use crate::rows::Rows;

impl Replica {
    pub(crate) fn on_hello(&mut self, peer: TrackerNo, hello: &Hello, now: Now) {
        let reason = if hello.version < MIN_VERSION || hello.min_version > VERSION {
            Some(Reason::Version)
        } else if hello.cluster != self.cluster {
            Some(Reason::ForeignCluster)
        } else if hello.no != peer || hello.writer == self.state.writer {
            Some(Reason::NotConfigured)
        } else {
            None
        };
        if let Some(reason) = reason {
            self.disconnect(peer, reason);
            return;
        }
        let skew_ms = hello.wall_ms.abs_diff(now.wall_ms);
        let ahead = i128::from(hello.wall_ms) - i128::from(now.wall_ms);
        let ahead_ms = i64::try_from(ahead).unwrap_or(i64::MAX);
        if skew_ms > MAX_AHEAD_MS {
            // Its rows would be refused here one by one, or this tracker's rows there.
            self.alarm_of(peer, Alarm::ClockWrong { peer, ahead_ms }, now.mono_ms);
            self.shun(peer, Reason::ClockWrong, CLOCK_RETRY_MS, now.mono_ms);
            return;
        }
        if let Some(link) = self.links.get_mut(&peer) {
            link.stage = LinkStage::Greeted(hello.writer);
        }
        if skew_ms > SKEW_WARNING_MS {
            self.warn(Warning::ClockSkew { peer, ahead_ms });
        }
    }

    pub(crate) fn on_vector(&mut self, peer: TrackerNo, entries: &[Entry], now: Now) {
        let mut believed = entries.to_vec();
        believed.retain(|entry| !self.is_false_attribution(peer, entry.writer, entry.seq, now));
        let Some(link) = self.links.get_mut(&peer) else {
            return;
        };
        for entry in believed {
            link.holds(entry.writer, entry.seq);
        }
        self.decision_due = true;
        if link.vector.len() > MAX_WRITERS {
            self.outputs.push_back(Output::Alarm(Alarm::TooManyWriters));
            self.disconnect(peer, Reason::TooManyWriters);
        }
    }

    /// A peer announces its GC watermark: tombstones up to it may be missing there, because the peer dropped
    /// them or because they were missing at the tracker that it had its rows from.
    pub(crate) fn on_gc_watermark<R: Rows>(
        &mut self,
        rows: &mut R,
        peer: TrackerNo,
        entries: &[Entry],
        dropped: Stamp,
        now: Now,
    ) -> Result<(), R::Error> {
        let Some(link) = self.links.get_mut(&peer) else {
            return Ok(());
        };
        for entry in entries {
            link.gc_watermark.raise(entry.writer, entry.seq);
        }
        let (many, ready) = (link.gc_watermark.len() > MAX_WRITERS, link.is_ready());
        if self.state.times.is_far(dropped) {
            self.alarm_of(peer, Alarm::BadTime { peer, ms: dropped.ms() }, now.mono_ms);
        } else {
            link.dropped = link.dropped.max(dropped);
        }
        if many {
            self.disconnect(peer, Reason::TooManyWriters);
            return Ok(());
        }
        if ready { self.inherit_gc_watermark(rows, peer) } else { Ok(()) }
    }

    /// Takes over a peer's GC watermark: tombstones up to it no longer count anywhere. If one of them was
    /// never seen here, it may have deleted something that is held here, and only a full sync helps.
    pub(crate) fn inherit_gc_watermark<R: Rows>(
        &mut self,
        rows: &mut R,
        peer: TrackerNo,
    ) -> Result<(), R::Error> {
        let Some(link) = self.links.get_mut(&peer) else {
            return Ok(());
        };
        link.needs_full_sync = !self.state.vector.includes(&link.gc_watermark);
        if !link.needs_full_sync && self.state.raise_gc_watermark(rows, &link.gc_watermark, link.dropped)? {
            self.maintenance.sweep_all = true;
            self.send_gc_watermarks();
        }
        Ok(())
    }

    /// Sends every peer the GC watermark, before anything that was written on top of it.
    pub(crate) fn send_gc_watermarks(&mut self) {
        let peers: Vec<TrackerNo> = self.links.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.send_gc_watermark(peer));
    }

    /// Sends a peer the GC watermark.
    pub(crate) fn send_gc_watermark(&mut self, peer: TrackerNo) {
        let (gc_watermark, dropped) = (&self.state.gc_watermark, self.state.dropped);
        let entries: Vec<Entry> = entries(gc_watermark).collect();
        let parts = in_parts(&entries, |entries| Frame::GcWatermark { entries, dropped });
        parts.into_iter().for_each(|frame| self.send(peer, frame));
    }
}
