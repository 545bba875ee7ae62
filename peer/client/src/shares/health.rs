//! What is known of one shared file on disk, and what follows from it: whether it is served, compared with what was shared,
//! waited for, or withdrawn. Pure: the monitor brings what it found and carries the decisions out.
//!
//! A file is served only under an identity whose content is known. A file that looks touched is read once nothing has
//! written to it for a while; pauses between checks grow, so that a file that is written to again and again costs little.

use std::time::Duration;

use shoal_common::peer_wire::CopyTrouble;
use shoal_engine::hash::FileIdentity;
use tokio::time::Instant;

/// A file counts as quiet when it looked the same for so long: longer than editors and copying programs pause.
pub(super) const QUIET: Duration = Duration::from_millis(500);
/// The longest time that a file has to be quiet.
const MOST_QUIET: Duration = Duration::from_secs(5);
/// The longest pause between two checks of a file.
const MOST_PAUSE: Duration = Duration::from_secs(60);
/// A file that was served this long without trouble is checked as soon as one that never had any.
const CALM: Duration = Duration::from_secs(600);
/// Programs that save a file by replacing it leave its name empty for a moment.
const GRACE: Duration = Duration::from_secs(2);
/// Trouble that ends within this time is not reported to the user.
pub(super) const SHORT: Duration = Duration::from_secs(10);
/// A file is left alone for that many times as long as reading it took in vain.
const REST: u32 = 4;
/// How much later the next report of a check comes than the last.
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
pub(super) enum Absence {
    /// Nothing is there: moved, deleted, or its drive is not connected.
    Gone,
    /// A folder, a pipe or a device is there.
    NotAFile,
    /// The system refuses, or the drive fails.
    Unreadable(String),
    /// The drive does not answer.
    Silent,
}

/// What came of reading a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checked {
    /// It is what was shared.
    Same(FileIdentity),
    /// It is something else.
    Other(FileIdentity),
    /// Somebody wrote to it meanwhile.
    Written,
    /// It could not be read.
    Absent(Absence),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Serve and announce the file under this identity.
    Serve(FileIdentity),
    /// Neither serve nor announce it, and tell those who ask that.
    Withhold(CopyTrouble),
    /// Read it.
    Check,
    /// Report it to the user.
    Report(Report),
}

/// What a user is told of a shared file.
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
enum State {
    /// Not looked at yet, or reading it failed and it was not looked at since.
    Unknown,
    /// Served under the recorded identity.
    Served,
    /// Touched. It is read once it has looked like this for long enough.
    Unsettled { seen: Option<FileIdentity>, since: Instant },
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
    state: State,
    /// Reading failed under the recorded identity: only another check makes it good.
    suspect: bool,
    /// What a file that was touched has to be quiet for, and the pause between checks.
    pause: Duration,
    /// How long the last check took.
    took: Duration,
    /// As what it was read last.
    read: Option<FileIdentity>,
    /// No check begins before.
    not_before: Option<Instant>,
    /// Since when it is served, or is not.
    since: Instant,
    /// For how long a file may be missing before the user is told.
    grace: Duration,
    /// What the user was told last, as long as it is not served.
    reported: Option<Report>,
    /// Since when it is checked.
    checked_since: Instant,
    /// When the next report of that is due, counted from its beginning.
    report_after: Duration,
}

impl Health {
    /// A file whose content was just read: it is served.
    pub(super) fn known(recorded: FileIdentity, now: Instant) -> Self {
        Self { state: State::Served, grace: GRACE, ..Self::unknown(recorded, now) }
    }

    /// A file that was shared in an earlier session, and has to be looked at.
    pub(super) fn unknown(recorded: FileIdentity, now: Instant) -> Self {
        Self {
            recorded,
            state: State::Unknown,
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
        self.state == State::Served
    }

    /// Whether it is being read, or waits for its turn.
    pub(super) fn is_reading(&self) -> bool {
        self.state == State::Reading
    }

    /// Whether it has not been looked at yet.
    pub(super) fn is_unknown(&self) -> bool {
        self.state == State::Unknown
    }

    /// Whether there is no file to serve.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self.state, State::Missing { .. })
    }

    /// What is the matter with it while it is not served.
    pub(super) fn trouble(&self) -> CopyTrouble {
        match &self.state {
            State::Missing { why: Absence::Gone | Absence::NotAFile, .. } => CopyTrouble::Missing,
            State::Missing { why: Absence::Unreadable(_) | Absence::Silent, .. } => CopyTrouble::Unreadable,
            State::Changed { .. } => CopyTrouble::Changed,
            State::Unknown | State::Served | State::Unsettled { .. } | State::Reading => CopyTrouble::Checked,
        }
    }

    /// When it has to be looked at again at the latest; `None` where the usual interval does.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Unknown => Some(self.since),
            State::Unsettled { since, .. } => {
                Some((*since + self.quiet()).max(self.not_before.unwrap_or(*since)))
            }
            State::Missing { since, .. } if self.reported.is_none() => Some(*since + self.grace),
            State::Reading => Some(self.checked_since + self.report_after),
            State::Served | State::Missing { .. } | State::Changed { .. } => None,
        }
    }

    /// Reading the file failed, or showed another.
    pub(super) fn suspected(&mut self, now: Instant) -> Vec<Action> {
        if !self.is_served() {
            return Vec::new();
        }
        self.suspect = true;
        self.troubled(now);
        self.state = State::Unknown;
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
        // One that was touched once is checked at once the next time, too.
        let rest = if self.pause == QUIET { self.pause } else { self.rest() };
        self.not_before = Some(now + rest);
        match checked {
            Checked::Same(found) => self.served(found, now, &mut actions),
            Checked::Other(found) => self.changed(found, &mut actions),
            Checked::Written => {
                self.grow();
                self.not_before = Some(now + self.rest());
                self.state = State::Unsettled { seen: None, since: now };
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
            State::Unsettled { seen: Some(seen), since } if *seen == found => {
                let quiet = now >= *since + self.quiet();
                if quiet && self.not_before.is_none_or(|at| now >= at) {
                    self.settled(found, now, actions);
                }
            }
            State::Unsettled { seen, since } => {
                let written = seen.is_some();
                (*seen, *since) = (Some(found), now);
                if written {
                    self.grow();
                }
            }
            State::Reading if self.read == Some(found) => {}
            // What is read is that of no file that ever was: the rest of it need not be.
            State::Reading => {
                self.grow();
                self.not_before = Some(now + self.rest());
                self.state = State::Unsettled { seen: Some(found), since: now };
            }
            State::Changed { seen } if seen.is_still(&found) => {}
            // It could not be read just now, and nobody has mended it since.
            State::Missing { why: Absence::Unreadable(_) | Absence::Silent, .. }
                if self.read == Some(found) && self.not_before.is_some_and(|at| now < at) => {}
            State::Served | State::Unknown | State::Missing { .. } | State::Changed { .. } => {
                if self.is_missing() {
                    self.not_before = None;
                }
                self.troubled(now);
                (self.checked_since, self.report_after) = (now, SHORT);
                self.state = State::Unsettled { seen: Some(found), since: now };
                actions.push(Action::Withhold(CopyTrouble::Checked));
            }
        }
    }

    /// Nothing writes to the file any more.
    fn settled(&mut self, found: FileIdentity, now: Instant, actions: &mut Vec<Action>) {
        if found.size == self.recorded.size {
            self.state = State::Reading;
            self.read = Some(found);
            actions.push(Action::Check);
        } else {
            // Its size alone tells.
            self.not_before = Some(now + self.pause);
            self.changed(found, actions);
        }
    }

    fn absent(&mut self, why: Absence, now: Instant, actions: &mut Vec<Action>) {
        self.troubled(now);
        if matches!(why, Absence::Gone | Absence::NotAFile) {
            // That something else is there, or nothing, says nothing against the file when it is back.
            self.suspect = false;
        }
        let since = match &self.state {
            State::Missing { why: before, since } if same_kind(before, &why) => *since,
            _ => {
                self.state = State::Missing { why, since: now };
                actions.push(Action::Withhold(self.trouble()));
                return;
            }
        };
        self.state = State::Missing { why, since };
    }

    fn served(&mut self, found: FileIdentity, now: Instant, actions: &mut Vec<Action>) {
        let long = now.duration_since(self.since) >= SHORT && !self.is_unknown();
        self.recorded = found;
        self.state = State::Served;
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
        self.state = State::Changed { seen: found };
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
            State::Missing { why, since } if *why == Absence::Silent || now >= *since + self.grace => {
                let known = matches!(&self.reported, Some(Report::Absent(before)) if same_kind(before, why));
                if !known {
                    let report = Report::Absent(why.clone());
                    self.reported = Some(report.clone());
                    actions.push(Action::Report(report));
                }
            }
            State::Unsettled { .. } | State::Reading if now >= self.checked_since + self.report_after => {
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
