//! What trackers tell each other before and beside rows: who they are, what they hold, and which tombstones may be
//! missing at them.

use crate::event::{Alarm, Now, Output, Reason, Warning};
use crate::frame::{Entry, Frame, Hello, MIN_VERSION, VERSION};
use crate::limits::{CLOCK_RETRY_MS, MAX_AHEAD_MS, MAX_ORIGINS, SKEW_WARNING_MS};
use crate::link::{Stage, entries, in_parts};
use crate::replica::Replica;
use crate::row::{Stamp, TrackerNo};
use crate::rows::Rows;

impl Replica {
    pub(crate) fn on_hello(&mut self, peer: TrackerNo, hello: &Hello, now: Now) {
        let reason = if hello.version < MIN_VERSION || hello.min_version > VERSION {
            Some(Reason::Version)
        } else if hello.cluster != self.cluster {
            Some(Reason::ForeignCluster)
        } else if hello.no != peer || hello.origin == self.ledger.origin {
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
            // Its rows would be refused here one by one, or this tracker's there.
            self.alarm_of(peer, Alarm::ClockWrong { peer, ahead_ms }, now.mono_ms);
            self.shun(peer, Reason::ClockWrong, CLOCK_RETRY_MS, now.mono_ms);
            return;
        }
        if let Some(link) = self.links.get_mut(&peer) {
            link.stage = Stage::Greeted(hello.origin);
        }
        if skew_ms > SKEW_WARNING_MS {
            self.warn(Warning::ClockSkew { peer, ahead_ms });
        }
    }

    pub(crate) fn on_vector(&mut self, peer: TrackerNo, entries: &[Entry], now: Now) {
        let mut believed = entries.to_vec();
        believed.retain(|entry| !self.is_false_word(peer, entry.origin, entry.seq, now));
        let Some(link) = self.links.get_mut(&peer) else {
            return;
        };
        for entry in believed {
            link.holds(entry.origin, entry.seq);
        }
        self.settle_due = true;
        if link.vector.len() > MAX_ORIGINS {
            self.outputs.push_back(Output::Alarm(Alarm::TooManyOrigins));
            self.disconnect(peer, Reason::TooManyOrigins);
        }
    }

    /// A peer says which tombstones may be missing there: those that it dropped, and those that were missing where it had
    /// its own rows from.
    pub(crate) fn on_floor<R: Rows>(
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
            link.floor.raise(entry.origin, entry.seq);
        }
        let (many, ready) = (link.floor.len() > MAX_ORIGINS, link.is_ready());
        if self.ledger.times.is_far(dropped) {
            self.alarm_of(peer, Alarm::BadTime { peer, ms: dropped.ms() }, now.mono_ms);
        } else {
            link.dropped = link.dropped.max(dropped);
        }
        if many {
            self.disconnect(peer, Reason::TooManyOrigins);
            return Ok(());
        }
        if ready { self.inherit_floor(rows, peer) } else { Ok(()) }
    }

    /// Takes over which tombstones may be missing at a peer: they count nowhere any more. One that this tracker never saw
    /// may have deleted something here; then only a round of everything helps.
    pub(crate) fn inherit_floor<R: Rows>(&mut self, rows: &mut R, peer: TrackerNo) -> Result<(), R::Error> {
        let Some(link) = self.links.get_mut(&peer) else {
            return Ok(());
        };
        link.fresh = !self.ledger.vector.includes(&link.floor);
        if !link.fresh && self.ledger.raise_floor(rows, &link.floor, link.dropped)? {
            self.upkeep.sweep_all = true;
            self.tell_floors();
        }
        Ok(())
    }

    /// Tells everybody which tombstones may be missing here, before anything that was written on top of that.
    pub(crate) fn tell_floors(&mut self) {
        let peers: Vec<TrackerNo> = self.links.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.tell_floor(peer));
    }

    /// Tells a peer which tombstones may be missing here.
    pub(crate) fn tell_floor(&mut self, peer: TrackerNo) {
        let (floor, dropped) = (&self.ledger.floor, self.ledger.dropped);
        let entries: Vec<Entry> = entries(floor).collect();
        let parts = in_parts(&entries, |entries| Frame::Floor { entries, dropped });
        parts.into_iter().for_each(|frame| self.send(peer, frame));
    }
}
