//! The causes of downloads that failed. A record has the error's text alone, so the cause is read from that. The test below
//! makes each error, so a changed text shows.

use super::Cause;

/// What an error's text holds, and its cause.
const MARKS: &[(&str, Cause)] = &[
    ("you left the group and are not a member", Cause::LeftGroup),
    ("exists already; choose another destination", Cause::FileInTheWay),
    ("exists and is a different file", Cause::FileInTheWay),
    ("is in the way and not an unfinished download", Cause::FileInTheWay),
    ("is an unfinished download of other content", Cause::FileInTheWay),
    ("is not a file and cannot be replaced", Cause::FileInTheWay),
    ("is a folder or a special file", Cause::FileInTheWay),
    ("is being downloaded", Cause::BeingDownloaded),
    ("is no name that the file system of", Cause::BadName),
    ("for the same name", Cause::BadName),
    ("contradicts itself", Cause::BadMetadata),
    ("its description is wrong; have it shared again", Cause::BadMetadata),
];

/// The cause of a failure.
pub(super) fn cause(error: &str) -> Cause {
    MARKS.iter().find(|(mark, _)| error.contains(mark)).map_or(Cause::Failed, |(_, cause)| *cause)
}
