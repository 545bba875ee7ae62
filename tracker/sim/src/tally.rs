//! Counts of what happened in a simulation.

/// Counts that show whether a simulation covers enough.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Processes that died.
    pub crashes: u64,
    /// Disks that were lost or restored.
    pub lost_disks: u64,
    /// Links that broke or were closed.
    pub cuts: u64,
    /// Transactions that failed on a full disk or otherwise.
    pub failures: u64,
    /// Acknowledged writes.
    pub acked: u64,
    /// Names that were definitely given to a client.
    pub names: u64,
    /// Full syncs that were begun.
    pub full_syncs: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { crashes, lost_disks, cuts, failures, acked, names, full_syncs } = other;
        self.crashes += crashes;
        self.lost_disks += lost_disks;
        self.cuts += cuts;
        self.failures += failures;
        self.acked += acked;
        self.names += names;
        self.full_syncs += full_syncs;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { crashes, lost_disks, cuts, failures, acked, names, full_syncs } = self;
        write!(
            f,
            "{crashes} crashes, {lost_disks} disks lost or restored, {cuts} links cut, {failures} failed commits, \
             {full_syncs} full syncs, {acked} acknowledged writes, {names} names given for good"
        )
    }
}
