//! What holds for a download.

use std::time::Duration;

use shoal_engine::{Bottleneck, Lack, Phase};
use shoal_session::text;

use super::here::Here;
use super::next::Next;
use super::sources::{busy, from, stalled};
use super::{Cause, Found, failure, waiting};
use crate::FileRef;
use crate::transfers::{Doing, DownloadFacts, RowState, Wait, Working};

/// Bytes per second below which a download counts as slow where neither end limits it knowingly: a film of 1 GiB takes more
/// than an hour.
const SLOW: u64 = 256 * 1024;
/// Rates are averages over 3 s; before that a new download is not called slow.
const SETTLED: Duration = Duration::from_secs(5);

/// What holds for a download: at least one cause.
pub(super) fn causes(here: &Here, download: &DownloadFacts, file: &FileRef) -> Vec<Found> {
    match (&download.row.state, &download.now) {
        (RowState::Complete, _) => vec![complete(download, file)],
        (RowState::Paused, _) => vec![Found::new(
            Cause::Paused,
            format!("You paused it at {}%.", download.row.percent),
            Next::of_file("to go on", "resume_download", file, &[]),
        )],
        (RowState::Failed(error), _) => vec![failed(error, download, file)],
        (RowState::Downloading, Doing::Stopped | Doing::Begins) => vec![opening()],
        (RowState::Downloading, Doing::Waits(wait)) => vec![lacking(wait, download, file)],
        (RowState::Downloading, Doing::Queued { before, by_files }) => vec![queued(*before, *by_files, file)],
        (RowState::Downloading, Doing::Works(working)) => match working.phase {
            Phase::Opening => vec![opening()],
            Phase::Waiting => waiting::causes(here, download, working, file),
            Phase::Downloading => downloading(here, download, working, file),
            Phase::Checking | Phase::Finishing | Phase::Ended => vec![Found::new(
                Cause::Checking,
                "All pieces are here; the whole file is checked and put in its place.",
                Next::advice("nothing to do: it is complete in a moment"),
            )],
        },
    }
}

fn opening() -> Found {
    Found::new(
        Cause::Opening,
        "It begins: what is on disk already is looked at.",
        Next::advice("nothing to do: it goes on by itself"),
    )
}

fn complete(download: &DownloadFacts, file: &FileRef) -> Found {
    if download.is_gone {
        let folder = download.row.path.parent().unwrap_or(&download.row.path).to_string_lossy();
        return Found::new(
            Cause::FileGone,
            format!("It was completed, and {} is not there any more.", shown(download)),
            Next::of_file(
                "put it back, or connect its drive; to fetch it again",
                "download_file",
                file,
                &[&folder],
            ),
        );
    }
    let shared = if download.share { "" } else { ", and not shared" };
    Found::new(
        Cause::Complete,
        format!("It is complete and checked, at {}{shared}.", shown(download)),
        Next::of_file("to take it off the list and keep the file", "cancel_download", file, &[]),
    )
}

fn failed(error: &str, download: &DownloadFacts, file: &FileRef) -> Found {
    let cause = failure::cause(error);
    let resume = |advice: &str| Next::of_file(advice, "resume_download", file, &[]);
    let next = match cause {
        Cause::LeftGroup => Next::of_group(
            "ask to be let in again, then resume the download; to ask",
            "join_group",
            &file.group,
        ),
        Cause::FileInTheWay => resume("move that file away; to go on then"),
        Cause::BeingDownloaded => resume("let the other one end, or end it; to go on then"),
        Cause::BadName => {
            Next::of_file("to give it another name (for NEW_NAME)", "download_file", file, &["NEW_NAME"])
        }
        Cause::BadMetadata => Next::advice("ask who shared it to share it again; no source can help"),
        _ => resume("to try again"),
    };
    // What to do is said behind the semicolon, and here by the next step.
    let error = if cause == Cause::Failed { error } else { error.split(';').next().unwrap_or(error) };
    Found::new(
        cause,
        format!("It failed at {}%: {}.", download.row.percent, error.trim_end_matches('.')),
        next,
    )
}

/// It waits for its turn.
fn queued(before: usize, by_files: Option<usize>, file: &FileRef) -> Found {
    let first = |advice: &str| Next::of_file(advice, "prioritize", file, &["first"]);
    match by_files {
        Some(most) => Found::new(
            Cause::Turn,
            format!(
                "It waits for its turn: the limit of open files lets {} run at a time, and {before} are before it.",
                text::count(most, "download")
            ),
            first("wait, or raise the limit (ulimit -n); to put it before the others"),
        ),
        None => Found::new(
            Cause::Queued,
            format!(
                "It waits for its turn: {} are before it, and active_downloads bounds how many run.",
                text::count(before, "download")
            ),
            first("set active_downloads 0 lets all run; to put it before the others"),
        ),
    }
}

/// It waits for something that is lacking here.
fn lacking(wait: &Wait, download: &DownloadFacts, file: &FileRef) -> Found {
    let by_itself = "it then goes on by itself; to try at once";
    let resume = |advice: &str| Next::of_file(format!("{advice}; {by_itself}"), "resume_download", file, &[]);
    let folder = download.row.path.parent().unwrap_or(&download.row.path).to_string_lossy();
    let folder = text::printable(&folder);
    let (cause, next) = match wait.lack {
        Lack::Space => (Cause::DiskFull, resume(&format!("make room on the drive of {folder}"))),
        Lack::ReadOnly => (Cause::ReadOnly, resume(&format!("make the drive of {folder} writable"))),
        Lack::Permission => (Cause::NoPermission, resume(&format!("allow yourself to write to {folder}"))),
        Lack::Folder => {
            (Cause::FolderMissing, resume(&format!("connect its drive, or make the folder {folder}")))
        }
        Lack::Drive => (Cause::DriveFails, resume(&format!("look after the drive of {folder}"))),
        Lack::Descriptors => (
            Cause::TooManyFiles,
            resume("close other programs, or raise the limit of open files (ulimit -n)"),
        ),
        Lack::Memory => (Cause::NoMemory, resume("close other programs")),
        Lack::Partial => (
            Cause::PartialMissing,
            Next::of_file(
                format!(
                    "connect the drive of {folder}, and it goes on by itself; to start from the beginning"
                ),
                "resume_download",
                file,
                &[],
            ),
        ),
    };
    let words = match cause {
        Cause::FolderMissing | Cause::PartialMissing => wait.words.split(';').next().unwrap_or(&wait.words),
        _ => &wait.words,
    };
    Found::new(cause, sentence(words), next)
}

fn downloading(here: &Here, download: &DownloadFacts, working: &Working, file: &FileRef) -> Vec<Found> {
    let row = &download.row;
    let (rate, sources) = (text::size(row.rate), text::count(row.sources, "source"));
    let from = from(&working.known.open, row.sources);
    let is_settled = working.since >= SETTLED;
    let mut found = Vec::new();
    match working.limit {
        Bottleneck::RateLimit => found.push(limited(here, download, file)),
        Bottleneck::Disk => found.push(Found::new(
            Cause::DiskSlow,
            format!("It comes faster than it can be checked and written here: {rate}/s."),
            Next::advice("pause other downloads or programs that use the disk, or download to a faster drive"),
        )),
        _ if working.quiet >= SETTLED && working.patient > 0 => found.push(busy(&from, row.sources, file)),
        _ if working.quiet >= SETTLED => found.push(stalled(&from, file)),
        _ if row.rate < SLOW && is_settled && row.sources == 1 => found.push(Found::new(
            Cause::OneSlowSource,
            format!("It comes from {from} alone, at {rate}/s."),
            Next::advice("ask others who have the file to be online, or the sharer to raise their upload limit (limit up 0)"),
        )),
        _ if row.rate < SLOW && is_settled => found.push(Found::new(
            Cause::SlowSources,
            format!("Its {sources} together give {rate}/s."),
            Next::advice("ask more members who have the file to be online, or sharers to raise their upload limit (limit up 0)"),
        )),
        _ => {}
    }
    if working.unheld > 0 && is_settled {
        found.push(Found::new(
            Cause::PiecesUnheld,
            format!(
                "It comes at {rate}/s, but {} that are missing are held by no source, so it cannot be completed yet.",
                text::count(usize::try_from(working.unheld).unwrap_or(usize::MAX), "piece")
            ),
            Next::advice("ask a member who has the whole file to be online"),
        ));
    }
    let left = row.eta.map_or_else(String::new, |left| format!(", {} left", text::duration(left)));
    found.push(Found::new(
        Cause::Downloading,
        format!("It comes at {rate}/s from {sources}{left}; their rates and the network limit it."),
        Next::advice("nothing to do"),
    ));
    found
}

/// A rate limit of this client's holds it: its own, or that of all downloads.
fn limited(here: &Here, download: &DownloadFacts, file: &FileRef) -> Found {
    let (row, rate) = (&download.row, text::size(download.row.rate));
    // The lower one holds it; what all may have is divided among those that fetch.
    let share = here.down.map(|all| all / u64::from(here.fetching.max(1)));
    if let Some(own) = row.limit.filter(|own| share.is_none_or(|share| *own <= share)) {
        return Found::new(
            Cause::OwnLimit,
            format!("A limit of its own holds it to {}/s; it has {rate}/s now.", text::size(own)),
            Next::of_file("to end that limit", "limit_download", file, &["0"]),
        );
    }
    let all = here.down.map_or_else(String::new, |all| format!(" to {}/s", text::size(all)));
    if here.is_down_scheduled {
        return Found::new(
            Cause::ScheduleLimit,
            format!("The schedule holds all downloads together{all} at this time; this one has {rate}/s."),
            Next::command(
                "wait until the window ends; to see the windows and their numbers, for schedule remove",
                &["schedule"],
            ),
        );
    }
    Found::new(
        Cause::DownloadLimit,
        format!("Your own limit holds all downloads together{all}; this one has {rate}/s."),
        Next::command("to end the limit", &["limit", "down", "0"]),
    )
}

/// Words as a sentence.
pub(super) fn sentence(words: &str) -> String {
    let mut chars = words.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str().trim_end_matches('.'))
}

fn shown(download: &DownloadFacts) -> String {
    text::printable(&download.row.path.to_string_lossy())
}
