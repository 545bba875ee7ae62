//! What holds for a share.

use shoal_session::text;

use super::here::{Here, no_tracker};
use super::next::Next;
use super::{Around, Cause, Found};
use crate::shares::{Absence, ShareFacts, Standing};

/// An upload limit below this, in bytes per second, is worth a word: a film of 1 GiB takes a downloader most of a day.
const LITTLE: u64 = 16 * 1024;

/// What holds for a share: at least one cause.
pub(super) fn causes(here: &Here, share: &ShareFacts, around: Around) -> Vec<Found> {
    let path = text::printable(&share.path.to_string_lossy());
    match &share.standing {
        None => vec![not_taken(share)],
        Some(Standing::Missing(absence)) => vec![missing(share, absence, around, &path)],
        Some(Standing::Changed) => vec![Found::new(
            Cause::ShareChanged,
            format!("It is not shared: {path} was changed since it was shared."),
            upload("restore it, and it is shared again; to share it as it is now", share),
        )],
        Some(Standing::Looking | Standing::Touched | Standing::Reading) => vec![checking(share, &path)],
        Some(Standing::Served) => served(here, share, around),
    }
}

fn upload(advice: &str, share: &ShareFacts) -> Next {
    let path = share.path.to_string_lossy();
    let mut words = vec!["upload_file"];
    if share.file.group.as_str().starts_with('-') {
        words.push("--");
    }
    words.extend([&*path, share.file.group.as_str()]);
    Next::command(advice, &words)
}

fn not_taken(share: &ShareFacts) -> Found {
    let why = share.problem.clone().unwrap_or_else(|| "the trackers have not taken it".to_owned());
    Found::new(
        Cause::ShareNotTaken,
        format!("It is not shared: {}.", why.trim_end_matches('.')),
        Next::of_group(
            "make room by stop_share of other files, and log in again; to see how much there is",
            "quota",
            &share.file.group,
        ),
    )
}

fn missing(share: &ShareFacts, absence: &Absence, around: Around, path: &str) -> Found {
    let stop =
        |advice: &str| Next::of_file(format!("{advice}; to end the share"), "stop_share", &share.file, &[]);
    match absence {
        Absence::Gone if around.folder_is_missing => Found::new(
            Cause::ShareFolderMissing,
            format!(
                "It is not shared: the folder of {path} is not there, as when its drive is not connected."
            ),
            stop("connect the drive or put the folder back, and it is shared again"),
        ),
        Absence::Gone => Found::new(
            Cause::ShareFileMissing,
            format!("It is not shared: {path} is not there any more."),
            Next::of_file(
                "put it back, and it is shared again; if it was moved (its new path for PATH)",
                "relocate",
                &share.file,
                &["PATH"],
            ),
        ),
        Absence::NotAFile => Found::new(
            Cause::ShareNotAFile,
            format!("It is not shared: what is at {path} now is not a file."),
            stop("put the file back, and it is shared again"),
        ),
        Absence::Unreadable(error) => Found::new(
            Cause::ShareUnreadable,
            format!("It is not shared: {path} cannot be read ({}).", text::printable(error)),
            stop("allow yourself to read it, or look after its drive, and it is shared again"),
        ),
        Absence::Silent => Found::new(
            Cause::ShareDriveSilent,
            format!("It is not shared: the drive of {path} does not answer."),
            stop("look after the drive, and it is shared again"),
        ),
    }
}

fn checking(share: &ShareFacts, path: &str) -> Found {
    let far = match (&share.standing, share.percent) {
        (_, Some(percent)) => format!("{percent}% are read"),
        (Some(Standing::Reading), None) => "it waits for its turn".to_owned(),
        (_, None) => "it is looked at in a moment".to_owned(),
    };
    let others = match share.waiting {
        0 => String::new(),
        count => format!(", and {} more wait", text::count(count, "file")),
    };
    Found::new(
        Cause::ShareChecking,
        format!("It is not shared for the moment: {path} was touched and is checked ({far}{others})."),
        Next::advice(
            "wait, and let nothing write to it: it is shared again when it was read and is the same",
        ),
    )
}

fn served(here: &Here, share: &ShareFacts, around: Around) -> Vec<Found> {
    let mut found = Vec::new();
    found.extend(no_tracker(here, "Those who download it already continue; nobody else finds it"));
    if here.is_loopback_only() {
        found.push(Found::new(
            Cause::LoopbackOnly,
            format!("Nobody on another machine can fetch it: this client says that it is at {}, which is this machine for everyone.", here.address),
            Next::advice("start the client again with this machine's own address in the network"),
        ));
    }
    if let Some(rate) = here.up.filter(|rate| *rate < LITTLE) {
        found.push(if here.is_up_scheduled {
            Found::new(
                Cause::ScheduleLimit,
                format!("The schedule limits all uploads together to {}/s at this time.", text::size(rate)),
                Next::command(
                    "wait until the window ends; to see the windows and their numbers, for schedule remove",
                    &["schedule"],
                ),
            )
        } else {
            Found::new(
                Cause::UploadLimit,
                format!("All uploads together are limited to {}/s here.", text::size(rate)),
                Next::command("to end the limit", &["limit", "up", "0"]),
            )
        });
    }
    if here.is_forwarded && !here.was_reached {
        found.push(Found::new(
            Cause::NotReached,
            format!("Nobody has connected to this client since it started; others are told to come to {}, which another machine has.", here.address),
            Next::advice(format!("forward port {} of that machine, a router, to this one; ignore this if nobody wanted anything yet", here.address.port())),
        ));
    }
    if around.others == Some(0) {
        found.push(Found::new(
            Cause::SoleSharer,
            "No other client that is online has the whole file: if this one ends, nobody can get it.",
            Next::of_file(
                "leave this client on until another member has it; to see how far others are",
                "show_peers",
                &share.file,
                &[],
            ),
        ));
    }
    let with = match around.others {
        Some(1) => "It is shared, and another client has the whole file, too.".to_owned(),
        Some(count @ 2..) => format!("It is shared, and {count} other clients have the whole file, too."),
        _ => "It is shared.".to_owned(),
    };
    found.push(Found::new(Cause::Shared, with, Next::advice("nothing to do")));
    found
}
