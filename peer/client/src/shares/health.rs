//! What is known of one shared file on disk, and what follows from it: whether it is served, read and compared, waited for,
//! or withdrawn. Pure: the monitor reports what it found and carries the decisions out.
//!
//! A file is served only under an identity whose content is known. A file that looks touched is read once nothing has
//! written to it for a while. Pauses between checks grow, so that a file that is written to again and again costs little.

use std::time::Duration;

use shoal_common::peer_wire::CopyTrouble;
use shoal_engine::hash::FileIdentity;
use tokio::time::Instant;

/// A file that has looked the same for this long counts as quiet: longer than editors and copying programs pause.
pub(super) const QUIET: Duration = Duration::from_millis(500);
/// The longest time that a file has to be quiet.
const MOST_QUIET: Duration = Duration::from_secs(5);
/// The longest pause between two checks of a file.
const MOST_PAUSE: Duration = Duration::from_secs(60);
/// After being served this long without trouble, a file is checked as soon as one that never had any.
const CALM: Duration = Duration::from_secs(600);
/// Programs that save a file by replacing it leave its name empty for a moment.
const GRACE: Duration = Duration::from_secs(2);
/// Trouble that ends within this time is not reported to the user.
pub(super) const SHORT: Duration = Duration::from_secs(10);
/// After a check in vain, a file is left alone for this many times as long as reading it took.
const REST: u32 = 4;
/// By what factor the time to the next report of a check grows.
const RARER: u32 = 4;

/// What is at a shared file's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// A file.
    File(FileIdentity),
    /// None that can be served.
    Absent(Absence),
}

/// Why there is no file to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Absence {
    /// Nothing is there: moved, deleted, or its drive is not connected.
    Gone,
    /// A folder, a pipe or a device is there.
    NotAFile,
    /// The system refuses, or the drive fails.
    Unreadable(String),
    /// The drive does not answer.
    Silent,
}

/// How a shared file stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is served.
    Served,
    /// It has not been looked at yet, or has to be looked at again.
    Looking,
    /// It was touched, and is read as soon as nothing writes to it.
    Touched,
    /// It is being read, or waits for its turn.
    Reading,
    /// There is no file to serve.
    Missing(Absence),
    /// It holds something else than what was shared.
    Changed,
}

/// The result of reading a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checked {
    /// It is what was shared.
    Same(FileIdentity),
    /// It is something else.
    Other(FileIdentity),
    /// It was written to meanwhile.
    Written,
    /// It could not be read.
    Absent(Absence),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Serve and announce the file under this identity.
    Serve(FileIdentity),
    /// Neither serve nor announce it, and give this reason to those who ask.
    Withhold(CopyTrouble),
    /// Read it.
    Check,
    /// Report it to the user.
    Report(Report),
}

/// What a user learns about a shared file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    /// It is not there.
    Absent(Absence),
    /// It holds something else.
    Changed,
    /// It is being checked, which takes a while.
    Checking,
    /// It is shared again.
    Back,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HealthState {
    /// Not looked at yet, or reading it failed and it was not looked at since.
    Unknown,
    /// Served under the recorded identity.
    Served,
    /// Touched. It is read once it has looked like this for long enough.
    Touched { seen: Option<FileIdentity>, since: Instant },
    /// It is being read, or waits for its turn.
    Reading,
    /// There is no file to serve.
    Missing { why: Absence, since: Instant },
    /// There is another.
    Changed { seen: FileIdentity },
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Health {
    /// The identity under which the content is known to be what was shared.
    recorded: FileIdentity,
    state: HealthState,
    /// Reading failed under the recorded identity: only another check can clear it.
    suspect: bool,
    /// How long a touched file has to be quiet, and the pause between checks.
    pause: Duration,
    /// How long the last check took.
    took: Duration,
    /// The identity under which it was read last.
    read: Option<FileIdentity>,
    /// No check begins before this.
    not_before: Option<Instant>,
    /// When it began, or ceased, to be served.
    since: Instant,
    /// For how long a file may be missing before that is reported.
    grace: Duration,
    /// What was reported last, as long as it is not served.
    reported: Option<Report>,
    /// When its check began.
    checked_since: Instant,
    /// When the next report of that is due, counted from its beginning.
    report_after: Duration,
}

impl Health {
    /// A file whose content was just read: it is served.
    pub(super) fn known(recorded: FileIdentity, now: Instant) -> Self {
        Self { state: HealthState::Served, grace: GRACE, ..Self::unknown(recorded, now) }
    }

    /// A file that was shared in an earlier session, and has to be looked at.
    pub(super) fn unknown(recorded: FileIdentity, now: Instant) -> Self {
        Self {
            recorded,
            state: HealthState::Unknown,
            suspect: false,
            pause: QUIET,
            took: Duration::ZERO,
            read: None,
            not_before: None,
            since: now,
            grace: Duration::ZERO,
            reported: None,
            checked_since: now,
            report_after: SHORT,
        }
    }

    /// Whether it is served.
    pub(super) fn is_served(&self) -> bool {
        self.state == HealthState::Served
    }

    /// Whether it is being read, or waits for its turn.
    pub(super) fn is_reading(&self) -> bool {
        self.state == HealthState::Reading
    }

    /// Whether it has not been looked at yet.
    pub(super) fn is_unknown(&self) -> bool {
        self.state == HealthState::Unknown
    }

    /// Whether there is no file to serve.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self.state, HealthState::Missing { .. })
    }

    /// How it stands.
    pub(super) fn standing(&self) -> Standing {
        match &self.state {
            HealthState::Unknown => Standing::Looking,
            HealthState::Served => Standing::Served,
            HealthState::Touched { .. } => Standing::Touched,
            HealthState::Reading => Standing::Reading,
            HealthState::Missing { why, .. } => Standing::Missing(why.clone()),
            HealthState::Changed { .. } => Standing::Changed,
        }
    }

    /// What is the matter with it while it is not served.
    pub(super) fn trouble(&self) -> CopyTrouble {
        match &self.state {
            HealthState::Missing { why: Absence::Gone | Absence::NotAFile, .. } => CopyTrouble::Missing,
            HealthState::Missing { why: Absence::Unreadable(_) | Absence::Silent, .. } => {
                CopyTrouble::Unreadable
            }
            HealthState::Changed { .. } => CopyTrouble::Changed,
            HealthState::Unknown
            | HealthState::Served
            | HealthState::Touched { .. }
            | HealthState::Reading => CopyTrouble::Checked,
        }
    }

    /// When it has to be looked at again at the latest; `None` where the usual interval does.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.state {
            HealthState::Unknown => Some(self.since),
            HealthState::Touched { since, .. } => {
                Some((*since + self.quiet()).max(self.not_before.unwrap_or(*since)))
            }
            HealthState::Missing { since, .. } if self.reported.is_none() => Some(*since + self.grace),
            HealthState::Reading => Some(self.checked_since + self.report_after),
            HealthState::Served | HealthState::Missing { .. } | HealthState::Changed { .. } => None,
        }
    }

    /// Reading the file failed, or showed another.
    pub(super) fn suspected(&mut self, now: Instant) -> Vec<Action> {
        if !self.is_served() {
            return Vec::new();
        }
        self.suspect = true;
        self.troubled(now);
        self.state = HealthState::Unknown;
        vec![Action::Withhold(CopyTrouble::Checked)]
    }

    /// The file was looked at.
    pub(super) fn looked(&mut self, found: Found, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match found {
            Found::File(found) => self.found(found, now, &mut actions),
            Found::Absent(why) => self.absent(why, now, &mut actions),
        }
        self.report_if_due(now, &mut actions);
        actions
    }

    /// The file was read.
    pub(super) fn checked(&mut self, checked: Checked, took: Duration, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if !self.is_reading() {
            return actions;
        }
        self.took = took;
        // A file that was touched once is checked at once the next time, too.
        let rest = if self.pause == QUIET { self.pause } else { self.rest() };
        self.not_before = Some(now + rest);
        match checked {
            Checked::Same(found) => self.served(found, now, &mut actions),
            Checked::Other(found) => self.changed(found, &mut actions),
            Checked::Written => {
                self.grow();
                self.not_before = Some(now + self.rest());
                self.state = HealthState::Touched { seen: None, since: now };
            }
            Checked::Absent(why) => {
                self.grow();
                self.not_before = Some(now + self.rest());
                self.suspect = true;
                self.absent(why, now, &mut actions);
            }
        }
        self.report_if_due(now, &mut actions);
        actions
    }

    fn found(&mut self, found: FileIdentity, now: Instant, actions: &mut Vec<Action>) {
        if self.recorded.is_still(&found) && !self.suspect {
            if !self.is_served() {
                self.served(found, now, actions);
            }
            return;
        }
        match &mut self.state {
            HealthState::Touched { seen: Some(seen), since } if *seen == found => {
                let quiet = now >= *since + self.quiet();
                if quiet && self.not_before.is_none_or(|at| now >= at) {
                    self.became_quiet(found, now, actions);
                }
            }
            HealthState::Touched { seen, since } => {
                let written = seen.is_some();
                (*seen, *since) = (Some(found), now);
                if written {
                    self.grow();
                }
            }
            HealthState::Reading if self.read == Some(found) => {}
            // It changes while it is being read, so the rest need not be read.
            HealthState::Reading => {
                self.grow();
                self.not_before = Some(now + self.rest());
                self.state = HealthState::Touched { seen: Some(found), since: now };
            }
            HealthState::Changed { seen } if seen.is_still(&found) => {}
            // It could not be read just now, and has not changed since.
            HealthState::Missing { why: Absence::Unreadable(_) | Absence::Silent, .. }
                if self.read == Some(found) && self.not_before.is_some_and(|at| now < at) => {}
            HealthState::Served
            | HealthState::Unknown
            | HealthState::Missing { .. }
            | HealthState::Changed { .. } => {
                if self.is_missing() {
                    self.not_before = None;
                }
                self.troubled(now);
                (self.checked_since, self.report_after) = (now, SHORT);
                self.state = HealthState::Touched { seen: Some(found), since: now };
                actions.push(Action::Withhold(CopyTrouble::Checked));
            }
        }
    }

    /// Nothing writes to the file any more.
    fn became_quiet(&mut self, found: FileIdentity, now: Instant, actions: &mut Vec<Action>) {
        if found.size == self.recorded.size {
            self.state = HealthState::Reading;
            self.read = Some(found);
            actions.push(Action::Check);
        } else {
            // Its size alone shows it.
            self.not_before = Some(now + self.pause);
            self.changed(found, actions);
        }
    }

    fn absent(&mut self, why: Absence, now: Instant, actions: &mut Vec<Action>) {
        self.troubled(now);
        if matches!(why, Absence::Gone | Absence::NotAFile) {
            // The file may be good when it is back.
            self.suspect = false;
        }
        let since = match &self.state {
            HealthState::Missing { why: before, since } if same_kind(before, &why) => *since,
            _ => {
                self.state = HealthState::Missing { why, since: now };
                actions.push(Action::Withhold(self.trouble()));
                return;
            }
        };
        self.state = HealthState::Missing { why, since };
    }

    fn served(&mut self, found: FileIdentity, now: Instant, actions: &mut Vec<Action>) {
        let long = now.duration_since(self.since) >= SHORT && !self.is_unknown();
        self.recorded = found;
        self.state = HealthState::Served;
        self.suspect = false;
        self.grace = GRACE;
        self.since = now;
        actions.push(Action::Serve(found));
        if self.reported.take().is_some() || long {
            actions.push(Action::Report(Report::Back));
        }
    }

    fn changed(&mut self, found: FileIdentity, actions: &mut Vec<Action>) {
        self.suspect = false;
        self.state = HealthState::Changed { seen: found };
        actions.push(Action::Withhold(CopyTrouble::Changed));
        if self.reported != Some(Report::Changed) {
            self.reported = Some(Report::Changed);
            actions.push(Action::Report(Report::Changed));
        }
    }

    /// Something is the matter with a file that was served until now.
    fn troubled(&mut self, now: Instant) {
        if self.is_served() {
            if now.duration_since(self.since) >= CALM {
                self.pause = QUIET;
            } else if self.not_before.is_some() {
                self.grow();
            }
            self.since = now;
        }
    }

    fn report_if_due(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match &self.state {
            HealthState::Missing { why, since } if *why == Absence::Silent || now >= *since + self.grace => {
                let known = matches!(&self.reported, Some(Report::Absent(before)) if same_kind(before, why));
                if !known {
                    let report = Report::Absent(why.clone());
                    self.reported = Some(report.clone());
                    actions.push(Action::Report(report));
                }
            }
            HealthState::Touched { .. } | HealthState::Reading
                if now >= self.checked_since + self.report_after =>
            {
                self.report_after = now.duration_since(self.checked_since) * RARER;
                self.reported = Some(Report::Checking);
                actions.push(Action::Report(Report::Checking));
            }
            _ => {}
        }
    }

    fn quiet(&self) -> Duration {
        self.pause.min(MOST_QUIET)
    }

    /// The pause after a check in vain: reading costs no more than a fifth of the time, however large the file is.
    fn rest(&self) -> Duration {
        self.pause.max(self.took * REST)
    }

    fn grow(&mut self) {
        self.pause = (self.pause * 2).min(MOST_PAUSE);
    }
}

fn same_kind(one: &Absence, other: &Absence) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

#[cfg(test)]
mod tests;
