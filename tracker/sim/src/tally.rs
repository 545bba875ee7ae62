//! What happened in a simulation, in numbers.

/// What happened, to see that a simulation is worth something.
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
    /// Fresh rounds that were begun.
    pub fresh_rounds: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { crashes, lost_disks, cuts, failures, acked, names, fresh_rounds } = other;
        self.crashes += crashes;
        self.lost_disks += lost_disks;
        self.cuts += cuts;
        self.failures += failures;
        self.acked += acked;
        self.names += names;
        self.fresh_rounds += fresh_rounds;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { crashes, lost_disks, cuts, failures, acked, names, fresh_rounds } = self;
        write!(
            f,
            "{crashes} crashes, {lost_disks} disks lost or restored, {cuts} links cut, {failures} failed commits, \
             {fresh_rounds} fresh rounds, {acked} acknowledged writes, {names} names given for good"
        )
    }
}
