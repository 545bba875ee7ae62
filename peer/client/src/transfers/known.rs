//! What one run of a download knows of the places that it could come from: what the trackers said last, and why holders and
//! mirrors cannot be asked. Bounded; written by the run, read by whoever explains it.

use shoal_common::UserName;
use shoal_swarm::Trouble;

/// Holders, and mirrors, of which more than the number is kept: more than a sentence names.
pub(crate) const MAX_KNOWN: usize = 8;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// What the trackers said last.
    pub(crate) asked: Asked,
    /// Who can be asked for pieces; three at most.
    pub(crate) open: Vec<UserName>,
    /// Holders that cannot, also some that are not named any more.
    pub(crate) unusable: Vec<Unusable>,
    /// Holders that are being connected to, or wait for their next try.
    pub(crate) connecting: usize,
    /// Sources that sent wrong bytes or broke the protocol: who, and what they did.
    pub(crate) banned: Vec<(String, String)>,
    /// Mirrors that are not in use: which, and why.
    pub(crate) mirrors: Vec<MirrorTrouble>,
}

/// What the trackers said when they were asked who holds a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing yet.
    #[default]
    Nothing,
    /// So many hold it or a part of it.
    Holders(usize),
    /// They know no such file in the group.
    Unknown,
    /// They refused.
    Refused,
    /// None answered.
    Silent,
}

/// A holder that cannot be asked for pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unusable {
    /// Who it is.
    pub(crate) user: UserName,
    /// Why, for programs.
    pub(crate) trouble: Trouble,
    /// Why, in words that read on behind the name.
    pub(crate) reason: String,
}

/// A mirror that is not in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MirrorTrouble {
    /// Its host: `mirror one.example`.
    pub(crate) mirror: String,
    /// Whether this client does not go there because of where it lies.
    pub(crate) refused: bool,
    /// Why.
    pub(crate) reason: String,
}
