//! What the trackers answer when they are asked who holds a file.

use std::time::Duration;

use shoal_common::tracker_api::{Answer, Completeness, Holder};

/// The trackers' wish for when to ask again is kept within these bounds.
pub(super) const SOONEST: Duration = Duration::from_millis(250);
const LATEST: Duration = Duration::from_secs(60);

/// Who holds a file.
#[derive(Debug)]
pub(super) struct HoldersAnswer {
    pub(super) holders: Vec<Holder>,
    /// `None` from a tracker of an earlier version.
    pub(super) mirrors: Option<Vec<String>>,
    /// When to ask again.
    pub(super) again: Duration,
}

impl HoldersAnswer {
    /// `None` if the answer is to another question.
    pub(super) fn of(answer: Answer) -> Option<Self> {
        let Answer::Holders { holders, retry_after_ms, mirrors } = answer else { return None };
        let again = Duration::from_millis(retry_after_ms.into()).clamp(SOONEST, LATEST);
        Some(Self { holders, mirrors, again })
    }

    /// How many hold it whole.
    pub(super) fn sharers(&self) -> usize {
        self.holders.iter().filter(|holder| holder.completeness == Completeness::Complete).count()
    }
}
