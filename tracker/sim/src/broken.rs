//! Rules that are broken on purpose, from outside: the replica has no switch for any of them.

use std::fmt;

/// A broken rule, to show that the simulation notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// None.
    Nothing,
    /// The vector moves before END: every frame of rows is taken as the END of its sync.
    End,
    /// A tracker has the same writer id at every start.
    WriterId,
    /// No tracker votes on names. A name belongs to its earliest claim and is definite once a majority has
    /// acknowledged it.
    Votes,
    /// A tracker votes at once after its start, as if it had synced with all others.
    Abstention,
    /// No full sync is ever made, because GC watermarks are not delivered.
    FullSync,
    /// Operators allow every removal without looking.
    Removal,
    /// A lying tracker may introduce any number of writer ids.
    Writers,
}

impl Broken {
    /// All rules that can be broken.
    pub const RULES: [Self; 7] = [
        Self::End,
        Self::WriterId,
        Self::Votes,
        Self::Abstention,
        Self::FullSync,
        Self::Removal,
        Self::Writers,
    ];

    /// Whether it needs a lying tracker to have an effect.
    pub(crate) fn needs_a_liar(self) -> bool {
        matches!(self, Self::Removal | Self::Writers)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::End => "end",
            Self::WriterId => "writer-id",
            Self::Votes => "votes",
            Self::Abstention => "abstention",
            Self::FullSync => "full-sync",
            Self::Removal => "removal",
            Self::Writers => "writers",
        })
    }
}

impl std::str::FromStr for Broken {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let rules = Self::RULES.into_iter().chain([Self::Nothing]);
        rules.into_iter().find(|rule| rule.to_string() == name).ok_or_else(|| {
            let names: Vec<String> = Self::RULES.iter().map(ToString::to_string).collect();
            format!("there is no such rule; there are {}", names.join(", "))
        })
    }
}
