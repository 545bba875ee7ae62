//! The answer to a requester that does not get a file.

use shoal_common::peer_wire::{CopyTrouble, Refused, ToRequester};

/// Why a channel is shut, and what is the matter with the file if that is why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: Refused,
    pub(super) copy: Option<CopyTrouble>,
}

impl From<Refused> for Refusal {
    fn from(reason: Refused) -> Self {
        Self { reason, copy: None }
    }
}

impl From<CopyTrouble> for Refusal {
    fn from(copy: CopyTrouble) -> Self {
        let reason = match copy {
            // To come back for.
            CopyTrouble::Checked => Refused::Limit,
            CopyTrouble::Changed => Refused::Changed,
            CopyTrouble::Missing | CopyTrouble::Unreadable | CopyTrouble::Unknown => Refused::NotShared,
        };
        Self { reason, copy: Some(copy) }
    }
}

impl Refusal {
    pub(super) fn on(self, channel: u32) -> ToRequester {
        ToRequester::Refused { channel, reason: self.reason, copy: self.copy }
    }
}
