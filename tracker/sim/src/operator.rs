//! The people who run the simulated trackers: they read alarms and do what these ask for.

use shoal_replica::limits::MAX_AHEAD_MS;
use shoal_replica::{Alarm, TrackerNo};

use crate::disk::Disk;
use crate::life::Life;

impl<D: Disk> Life<'_, D> {
    /// The operators read the alarms: who sees that a clock is wrong by hours sets it.
    pub(crate) fn set_clocks(&mut self) {
        for node in &mut self.world.nodes {
            if node.skew_ms.unsigned_abs() > MAX_AHEAD_MS / 4 {
                node.skew_ms = 0;
            }
        }
    }

    /// The operators of trackers that were restored from backups know that they were.
    pub(crate) fn allow_removals(&mut self) {
        for node in &mut self.world.nodes {
            let Some(replica) = &mut node.replica else { continue };
            for held in self.world.alarms.iter().filter_map(removal_held) {
                replica.allow_removal(held);
            }
        }
    }

    pub(crate) fn check_alarms(&self) -> Result<(), String> {
        let alarms = &self.world.alarms;
        let conflict = alarms.iter().any(|alarm| matches!(alarm, Alarm::Conflict { .. }));
        let explained = |alarm: &&Alarm| match alarm {
            Alarm::Conflict { .. } | Alarm::ClockWrong { .. } | Alarm::RemovalHeld { .. } => true,
            Alarm::NoFreshRound { .. } => true,
            // Clocks that are set change what is possible, and votes are what their trackers say.
            Alarm::Diverged { .. } => self.far_clocks || conflict,
            Alarm::BadTime { .. } => self.far_clocks,
            _ => false,
        };
        let alarm = alarms.iter().find(|alarm| !explained(alarm));
        alarm.map_or(Ok(()), |alarm| Err(format!("invariant 1: {alarm:?} {}", self.describe())))
    }
}

fn removal_held(alarm: &Alarm) -> Option<TrackerNo> {
    match alarm {
        Alarm::RemovalHeld { peer, .. } => Some(*peer),
        _ => None,
    }
}
