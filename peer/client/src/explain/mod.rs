//! Explains each download and share: why it is slow, stuck or unsafe, and what to do next. [`explain`] is one pure function of
//! what is known; [`gather`] collects that from the running client.
//!
//! Often several causes hold. The one that is named limits most ([`Level`]: stuck before slow before unsafe). Of those that
//! limit alike it is the one about which the user can do most: first what the user can change, then what other members can,
//! then what passes. Of those, the one that comes first in [`Cause`].

mod cause;
mod download;
mod failure;
mod gather;
mod here;
mod next;
mod share;
mod sources;
mod waiting;

#[cfg(test)]
mod tests;

use serde::Serialize;
use shoal_session::text;

pub use cause::{Cause, Level};
pub(crate) use gather::Counts;
pub use next::Next;

use crate::FileRef;
use crate::shares::ShareFacts;
use crate::transfers::DownloadFacts;
use here::Here;

/// Why something is as it is, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What it is about.
    pub kind: Kind,
    /// Which file; none where it is about the client.
    #[serde(flatten)]
    pub file: Option<FileRef>,
    /// The cause that is named.
    pub cause: Cause,
    /// How much it limits.
    pub level: Level,
    /// One plain sentence.
    pub text: String,
    /// The next step.
    #[serde(flatten)]
    pub next: Next,
}

/// What an explanation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The client and its session: everything.
    Client,
    /// A download.
    Download,
    /// A file that this client shares.
    Share,
}

/// What is known of something that is to be explained.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// Of the client.
    here: &'a Here,
    /// Of the thing.
    of: Subject<'a>,
}

/// The thing that is to be explained.
#[derive(Debug, Clone, Copy)]
enum Subject<'a> {
    Client,
    Download(&'a DownloadFacts),
    /// With the number of other clients that are online and have it whole, if that is known, and whether its folder is there.
    Share(&'a ShareFacts, Around),
}

/// What is known around a share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Around {
    /// Other clients that are online and have the whole file; `None` if that is not known.
    others: Option<u32>,
    /// Its folder is not there.
    folder_is_missing: bool,
}

/// A cause that holds.
struct Found {
    cause: Cause,
    text: String,
    next: Next,
}

impl Found {
    fn new(cause: Cause, text: impl Into<String>, next: Next) -> Self {
        Self { cause, text: text.into(), next }
    }
}

/// Explains what is known; `None` for a client of which there is nothing to say. See the module for which of several causes
/// is named. Pure.
fn explain(facts: Facts<'_>) -> Option<Explanation> {
    let Facts { here, of } = facts;
    let (kind, file, found) = match of {
        Subject::Client => (Kind::Client, None, here::causes(here)),
        Subject::Download(download) => {
            let file = FileRef { group: download.row.group.clone(), file: download.row.file.clone() };
            let found = download::causes(here, download, &file);
            (Kind::Download, Some(file), found)
        }
        Subject::Share(share, around) => {
            (Kind::Share, Some(share.file.clone()), share::causes(here, share, around))
        }
    };
    let rank = |found: &Found| (found.cause.level(), found.cause.actor(), std::cmp::Reverse(found.cause));
    let Found { cause, text, next } = found.into_iter().max_by_key(rank)?;
    // Servers and peers have a part in some texts.
    let text = text::error_line(&text);
    Some(Explanation { kind, file, cause, level: cause.level(), text, next })
}
