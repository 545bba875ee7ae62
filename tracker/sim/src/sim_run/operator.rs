//! The operators of the simulated trackers: they read alarms and do what these ask for.

use shoal_replica::Alarm;

use super::SimRun;
use crate::broken::Broken;
use crate::disk::Disk;

impl<D: Disk> SimRun<'_, D> {
    /// The operator of a tracker that was restored from a backup knows that it was, and allows removals that
    /// are held there.
    pub(crate) fn allow_removals(&mut self) {
        let careless = self.world.broken == Broken::Removal;
        for (node, peer) in std::mem::take(&mut self.world.held_removals) {
            let it = &mut self.world.nodes[node];
            if (it.restored || careless)
                && let Some(replica) = &mut it.replica
            {
                replica.allow_removal(peer);
            }
        }
    }

    /// Fails if an alarm has no explanation. Contradicting votes come from several lost disks, and held
    /// removals from restored disks.
    pub(crate) fn check_alarms(&self) -> Result<(), String> {
        let unexplained =
            |alarm: &&Alarm| !matches!(alarm, Alarm::Conflict { .. } | Alarm::RemovalHeld { .. });
        if let Some(alarm) = self.world.alarms.iter().find(unexplained) {
            return Err(format!("invariant 1: {alarm:?} {}", self.describe()));
        }
        let held = self.world.held_removals.iter().find(|(node, _)| !self.world.nodes[*node].restored);
        held.map_or(Ok(()), |held| Err(format!("invariant 1: removal held: {held:?} {}", self.describe())))
    }
}
