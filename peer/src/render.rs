//! Results and events as text for people. Whatever came from the network is valid by its type (names) or made printable
//! where it was received.

use std::borrow::Cow;
use std::path::Path;

use shoal_common::tracker_api::{FileEntry, GroupEntry, SessionEntry, UserEntry};
use shoal_common::{PeerId, UserName};
use shoal_engine::{Bottleneck, State};

use crate::app::{Output, PeerRow, WhoAmI};
use crate::command::{COMMANDS, Direction, Section, Spec, quoted};
use crate::events::Event;
use crate::text;
use crate::transfers::{DownloadRow, RowState};

/// What behind a name says that it may yet be lost.
const PROVISIONAL: &str = " (provisional: not enough trackers have confirmed the name yet)";

/// A result, in one line or several; empty when there is nothing to say.
#[must_use]
pub fn output(output: &Output) -> String {
    match output {
        Output::UserCreated { user, provisional } => {
            format!("user {user} created{}; log in with: login {}", note(*provisional), quoted(user.as_str()))
        }
        Output::LoggedIn { user, provisional, typed, shares, downloads } => {
            let name = format!("logged in as {user}{}", note(*provisional));
            let typed = typed.as_ref().map(|typed| {
                format!(" ({typed} was taken by an earlier claim; this account goes on as {user})")
            });
            name + &typed.unwrap_or_default() + &goes_on(*shares, *downloads)
        }
        Output::LoggedOut { user } => format!("{user} is logged out"),
        Output::Sessions(list) => lines(list, "no client is logged in", session),
        Output::SignedOut { user, peer } => signed_out(user, *peer),
        Output::Quota { quota, .. } => text::quota(quota),
        Output::ClientForgotten { peer, files } => forgotten(*peer, *files),
        Output::WhoAmI(who) => whoami(who),
        Output::PasswordChanged => {
            "the password is changed; all other sessions of the account ended".to_owned()
        }
        Output::GroupCreated { group, provisional } => format!("group {group} created{}", note(*provisional)),
        Output::JoinRequested(group) => format!("asked to join {group}; its owner decides"),
        Output::Left(group) => format!("left {group}"),
        Output::Groups(list) => {
            lines(list, "there are no groups yet; create one with: create_group <group_id>", group)
        }
        Output::Members { group, users } => lines(users, &format!("{group} has no members"), user),
        Output::Requests { group, users } => lines(users, &format!("nobody asks to join {group}"), user),
        Output::Decided { group, user, accepted: true } => format!("{user} is a member of {group} now"),
        Output::Decided { group, user, accepted: false } => format!("{user} was not let into {group}"),
        Output::Shared { group, file, size, sha1 } => {
            format!("sharing {file} in {group} ({}, SHA-1 {sha1})", text::size(*size))
        }
        Output::ShareStopped(file) => format!("{} is not shared in {} any more", file.file, file.group),
        Output::Files { group, files } => lines(
            files,
            &format!(
                "{group} has no files yet; share one with: upload_file <file_path> {}",
                quoted(group.as_str())
            ),
            file,
        ),
        Output::Peers { file, peers } => {
            lines(peers, &format!("nobody else who is online holds {}", file.file), peer)
        }
        Output::Download { file, path, complete: true, .. } => {
            format!("{} is there already, at {}", file.file, shown(path))
        }
        Output::Download { file, path, waits: Some(waits), .. } => {
            format!("downloading {} to {}; {waits}", file.file, shown(path))
        }
        Output::Download { file, path, sharers, .. } => {
            let from = match sharers {
                0 => "nobody shares it at present; waiting for a sharer".to_owned(),
                sharers => format!("from {}", text::count(*sharers, "sharer")),
            };
            format!("downloading {} to {} ({from})", file.file, shown(path))
        }
        Output::Downloads { rows, verbose } => {
            let line = if *verbose { download_verbose } else { download };
            lines(rows, "there are no downloads", line)
        }
        Output::DownloadPaused(file) => format!("{} is paused; go on with resume_download", file.file),
        Output::DownloadResumed { file, anew, waits } => {
            let anew = if *anew { " anew: nothing of it was there any more" } else { " again" };
            let waits = waits.as_ref().map(|waits| format!("; {waits}")).unwrap_or_default();
            format!("downloading {}{anew}{waits}", file.file)
        }
        Output::DownloadCancelled { file, complete: true } => {
            format!("{} is off the list; the file stays", file.file)
        }
        Output::DownloadCancelled { file, .. } => format!("the download of {} is cancelled", file.file),
        Output::LimitSet { direction, rate } => limit(*direction, *rate),
        Output::Waited { .. } | Output::Quitting => String::new(),
        Output::Help(None) => help(),
        Output::Help(Some(spec)) => help_on(spec),
    }
}

fn signed_out(user: &UserName, peer: PeerId) -> String {
    format!("{user} is logged out on {peer}; anyone who knows the password can log in there again")
}

fn forgotten(peer: PeerId, files: u64) -> String {
    format!("{files} shares on {peer} are taken back; a client that comes back shares its files again")
}

/// What goes on with a login.
fn goes_on(shares: usize, downloads: usize) -> String {
    let mut line = String::new();
    if shares > 0 {
        line += &format!("; sharing {}", text::count(shares, "file"));
    }
    if downloads > 0 {
        line += &format!("; going on with {}", text::count(downloads, "download"));
    }
    line
}

/// An event, in one line.
#[must_use]
pub fn event(event: &Event) -> String {
    match event {
        Event::TrackerLost { tracker, reason, next } if tracker == next => {
            format!("tracker {tracker} {reason}; trying again")
        }
        Event::TrackerLost { tracker, reason, next } => {
            format!("tracker {tracker} {reason}; trying {next}")
        }
        Event::NoTracker => "no tracker answers; trying until one does, transfers go on".to_owned(),
        Event::TrackerFound { tracker } => format!("tracker {tracker} answers"),
        Event::TrackerKnown { tracker, key: None, .. } => {
            format!("the tracker at {tracker} is not used any more: the others say that it was removed")
        }
        Event::TrackerKnown { tracker, key: Some(key), vouched: false } => {
            format!("the tracker at {tracker} is now known by its key {key}")
        }
        Event::TrackerKnown { tracker, key: Some(key), vouched: true } => {
            format!("the tracker at {tracker} is now known by another key, {key}: the others vouch for it")
        }
        Event::SessionEnded { user, reason } => format!("{user} is logged out: {reason}"),
        Event::Renamed { from, to } => {
            format!("{from} was taken by an earlier claim; this account goes on as {to}")
        }
        Event::ShareLost { group, file, path, problem } => {
            format!("{file} ({}) is not shared in {group}: {problem}", shown(path))
        }
        Event::ShareChecking { group, file, path, percent } => {
            let far =
                percent.map_or_else(|| "not begun yet".to_owned(), |percent| format!("{percent}% read"));
            format!(
                "{file} ({}) was touched: checking it before it is shared again in {group} ({far})",
                shown(path)
            )
        }
        Event::ShareBack { group, file, path } => {
            format!("{file} ({}) is shared again in {group}", shown(path))
        }
        Event::Waiting { group, file } => {
            format!("nobody shares {file} of {group} at present; waiting for a sharer")
        }
        Event::Short { group, file, reason } => {
            format!("[D] [{group}] {file}: waiting: {reason}; it goes on by itself")
        }
        Event::Complete { group, file, path, size } => {
            format!("[C] [{group}] {file}: {} verified, at {}", text::size(*size), shown(path))
        }
        Event::Failed { group, file, error } => format!("[F] [{group}] {file}: {error}"),
        Event::SourceBanned { group, file, source, reason } => {
            format!("{source} is not used any more for {file} of {group}: {reason}")
        }
        Event::MirrorRefused { group, file, mirror, reason } => {
            format!("{mirror} is not used for {file} of {group}: it {reason}")
        }
        Event::LastSharer { group, file } => {
            format!("you are the only one who shares {file} of {group}; it will be unavailable")
        }
        Event::Patience { reason } => reason.clone(),
    }
}

/// What a client says at its start: who and where it is, and what to type first.
#[must_use]
pub fn intro(who: &WhoAmI) -> String {
    let tracker = match &who.tracker {
        Some(tracker) => format!("tracker {tracker}"),
        None => "no tracker yet".to_owned(),
    };
    let peer = who.peer.to_string();
    let tail = &peer[peer.len().saturating_sub(8)..];
    format!(
        "Shoal client …{tail} at {}, {tracker}, data in {}\n\
         Type create_user <user_id> or login <user_id> first; help shows all commands, Ctrl-D leaves.",
        who.address,
        shown(&who.data_dir)
    )
}

/// `[D] [group] file`, and for a failed download the reason.
#[must_use]
pub fn download(row: &DownloadRow) -> String {
    let line = format!("[{}] [{}] {}", letter(&row.state), row.group, row.file);
    match &row.state {
        RowState::Failed(error) => format!("{line}: {error}"),
        _ => line,
    }
}

/// As [`download`], with percent, rate, time left, sources and what it is doing.
#[must_use]
pub fn download_verbose(row: &DownloadRow) -> String {
    let mut line = format!("{}  {}% of {}", download(row), row.percent(), text::size(row.size));
    if row.state == RowState::Downloading {
        line += &format!("  {}/s", text::size(row.rate));
        if let Some(eta) = row.eta {
            line += &format!("  {} left", text::duration(eta));
        }
        line += &format!("  {}", text::count(row.sources, "source"));
        if let Some(activity) = activity(row) {
            line += &format!("  {activity}");
        }
    }
    line + &format!("  {}", shown(&row.path))
}

/// The letter that stands for a state.
#[must_use]
pub fn letter(state: &RowState) -> char {
    match state {
        RowState::Downloading => 'D',
        RowState::Complete => 'C',
        RowState::Failed(_) => 'F',
        RowState::Paused => 'P',
    }
}

/// What a running download is doing, or what keeps it from being faster.
#[must_use]
pub fn activity(row: &DownloadRow) -> Option<Cow<'_, str>> {
    if let Some(waits) = &row.waits {
        return Some(waits.into());
    }
    if let (Some((State::Waiting, _)), Some(trouble), false) = (row.activity, &row.trouble, row.needs_ticket)
    {
        return Some(format!("waiting for a sharer: {trouble}").into());
    }
    let words = match row.activity? {
        (State::Opening, _) => Some("opening"),
        (State::Waiting, _) if row.needs_ticket => Some("waiting for a ticket from a tracker"),
        (State::Waiting, _) if row.sources == 0 && row.waits_for.is_some() => row.waits_for.as_deref(),
        (State::Waiting, Bottleneck::SourcesBusy) => Some("its sources are busy"),
        (State::Waiting, _) if row.sources == 0 => Some("waiting for a sharer"),
        (State::Waiting, _) => Some("waiting for pieces"),
        (State::Checking, _) => Some("checking"),
        (State::Finishing, _) => Some("finishing"),
        (State::Downloading, Bottleneck::RateLimit) => Some("at the rate limit"),
        (State::Downloading, Bottleneck::Disk) => Some("limited by the disk"),
        (State::Downloading, Bottleneck::Sources) => Some("limited by its sources"),
        _ => None,
    };
    words.map(Cow::Borrowed)
}

/// A path as it may be shown: a file's name may hold anything.
fn shown(path: &Path) -> String {
    text::printable(&path.to_string_lossy())
}

fn lines<T>(rows: &[T], none: &str, line: fn(&T) -> String) -> String {
    if rows.is_empty() { none.to_owned() } else { rows.iter().map(line).collect::<Vec<_>>().join("\n") }
}

fn note(provisional: bool) -> &'static str {
    if provisional { PROVISIONAL } else { "" }
}

fn group(entry: &GroupEntry) -> String {
    let member = if entry.member { ", member" } else { "" };
    let provisional = if entry.provisional { ", provisional" } else { "" };
    format!("{}  (owner {}{member}{provisional})", entry.name, entry.owner)
}

fn user(entry: &UserEntry) -> String {
    let provisional = if entry.provisional { "  (provisional)" } else { "" };
    format!("{}{provisional}", entry.name)
}

fn file(entry: &FileEntry) -> String {
    let sharers = match entry.sharers {
        0 => "nobody shares it at present".to_owned(),
        sharers => text::count(sharers as usize, "sharer"),
    };
    format!("{}  {}  SHA-1 {}  {sharers}", entry.name, text::size(entry.size), entry.sha1)
}

fn peer(row: &PeerRow) -> String {
    let percent = match row.percent {
        Some(100) => "all of it".to_owned(),
        Some(percent) => format!("{percent}%"),
        None => "a part of it".to_owned(),
    };
    format!("{}  {}  {percent}  {}", row.user, row.address, row.peer)
}

fn session(entry: &SessionEntry) -> String {
    let own = if entry.own { "  (this client)" } else { "" };
    format!("{}  {}{own}", entry.peer, entry.address)
}

fn whoami(who: &WhoAmI) -> String {
    let user = match &who.user {
        Some(user) => format!("{user}{}", note(who.provisional)),
        None => "nobody is logged in".to_owned(),
    };
    let tracker = who.tracker.as_deref().unwrap_or("none answers");
    format!(
        "{user}\naddress {}\ntracker {tracker}\npeer id {}\ndata in {}",
        who.address,
        who.peer,
        shown(&who.data_dir)
    )
}

fn limit(direction: Direction, rate: Option<u64>) -> String {
    let what = match direction {
        Direction::Up => "uploads",
        Direction::Down => "downloads",
    };
    match rate {
        Some(rate) => format!("{what} take {}/s at most", text::size(rate)),
        None => format!("{what} are not limited"),
    }
}

fn help() -> String {
    let mut all = String::new();
    for section in Section::ALL {
        all += &format!("{}\n", section.title());
        for spec in COMMANDS.iter().filter(|spec| spec.section == section) {
            all += &format!("  {:<16} {}\n{:19}{}\n", spec.name, spec.summary, "", spec.example);
        }
    }
    all + "help <command> tells more; names with spaces stand in quotes"
}

fn help_on(spec: &Spec) -> String {
    let mut all = format!("{}\n  {}", spec.synopsis(), spec.summary);
    if !spec.details.is_empty() {
        all += &format!("\n  {}", spec.details);
    }
    all + &format!("\n  example: {}", spec.example)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::{FileName, GroupName, Sha1, UserName};
    use std::time::Duration;

    fn row(state: RowState) -> DownloadRow {
        DownloadRow {
            state,
            group: GroupName::create("g 1").unwrap(),
            file: FileName::create("a b.bin").unwrap(),
            path: "/tmp/a b.bin".into(),
            size: 1 << 20,
            verified: 1 << 19,
            rate: 3 << 20,
            sources: 2,
            eta: Some(Duration::from_secs(61)),
            activity: Some((State::Downloading, Bottleneck::Sources)),
            needs_ticket: false,
            waits_for: None,
            waits: None,
            trouble: None,
        }
    }

    #[test]
    fn a_waiting_download_says_for_whom() {
        let waiting = DownloadRow {
            activity: Some((State::Waiting, Bottleneck::NoSource)),
            sources: 0,
            waits_for: Some("ann cannot be reached at 127.0.0.1:1 (it refuses connections)".into()),
            ..row(RowState::Downloading)
        };
        assert!(
            download_verbose(&waiting)
                .contains("  ann cannot be reached at 127.0.0.1:1 (it refuses connections)  ")
        );
        assert_eq!(
            activity(&DownloadRow { needs_ticket: true, ..waiting.clone() }).as_deref(),
            Some("waiting for a ticket from a tracker")
        );
        assert_eq!(activity(&DownloadRow { sources: 1, ..waiting }).as_deref(), Some("waiting for pieces"));
    }

    #[test]
    fn downloads_have_exactly_the_required_form() {
        for (state, line) in [
            (RowState::Downloading, "[D] [g 1] a b.bin"),
            (RowState::Complete, "[C] [g 1] a b.bin"),
            (RowState::Paused, "[P] [g 1] a b.bin"),
            (RowState::Failed("disk full".into()), "[F] [g 1] a b.bin: disk full"),
        ] {
            assert_eq!(download(&row(state)), line);
        }
        assert_eq!(
            download_verbose(&row(RowState::Downloading)),
            "[D] [g 1] a b.bin  50% of 1.0 MiB  3.0 MiB/s  1m01s left  2 sources  limited by its sources  /tmp/a b.bin"
        );
        assert_eq!(
            download_verbose(&row(RowState::Complete)),
            "[C] [g 1] a b.bin  100% of 1.0 MiB  /tmp/a b.bin"
        );
        for (activity, sources, needs_ticket, words) in [
            ((State::Checking, Bottleneck::Idle), 2, false, "checking"),
            ((State::Waiting, Bottleneck::NoSource), 0, false, "waiting for a sharer"),
            ((State::Waiting, Bottleneck::NoSource), 0, true, "waiting for a ticket from a tracker"),
            ((State::Waiting, Bottleneck::NoSource), 2, false, "waiting for pieces"),
            ((State::Waiting, Bottleneck::SourcesBusy), 2, false, "its sources are busy"),
            ((State::Downloading, Bottleneck::Disk), 2, false, "limited by the disk"),
            ((State::Downloading, Bottleneck::RateLimit), 2, false, "at the rate limit"),
        ] {
            let row =
                DownloadRow { activity: Some(activity), sources, needs_ticket, ..row(RowState::Downloading) };
            assert!(download_verbose(&row).contains(&format!("  {words}  ")), "{words}");
        }
    }

    #[test]
    fn what_is_lacking_is_said_before_all_else() {
        let words = "waiting: no space left on the drive of /home/ann/Videos; 3.2 GiB more are needed";
        let row = DownloadRow { waits: Some(words.into()), ..row(RowState::Downloading) };
        assert!(download_verbose(&row).contains(&format!("  {words}  ")));
        assert_eq!(download(&row), "[D] [g 1] a b.bin", "the line stays as it is");
    }

    #[test]
    fn a_download_says_why_nobody_serves_it() {
        let trouble = Some("ann's copy changed on disk".to_owned());
        let activity = Some((State::Waiting, Bottleneck::NoSource));
        let row = DownloadRow { activity, sources: 0, trouble, ..row(RowState::Downloading) };
        assert!(
            download_verbose(&row).contains("  waiting for a sharer: ann's copy changed on disk  "),
            "{}",
            download_verbose(&row)
        );
    }

    #[test]
    fn lists_say_when_they_are_empty() {
        let group = GroupName::create("g").unwrap();
        let files = |files| output(&Output::Files { group: group.clone(), files });
        assert!(files(vec![]).contains("upload_file"));
        let entry =
            FileEntry { name: FileName::create("f").unwrap(), size: 1, sha1: Sha1([0; 20]), sharers: 0 };
        assert!(files(vec![entry]).ends_with("nobody shares it at present"));
        let owner = UserName::create("ann").unwrap();
        let entry = GroupEntry { name: group.clone(), provisional: true, owner, member: true };
        assert_eq!(output(&Output::Groups(vec![entry])), "g  (owner ann, member, provisional)");
    }

    #[test]
    fn a_lost_tracker_is_told_with_the_next() {
        let lost = |reason: &str, next: &str| {
            event(&Event::TrackerLost {
                tracker: "10.0.0.5:9000".into(),
                reason: reason.into(),
                next: next.into(),
            })
        };
        assert_eq!(
            lost("does not answer", "10.0.0.6:9000"),
            "tracker 10.0.0.5:9000 does not answer; trying 10.0.0.6:9000"
        );
        assert_eq!(
            lost("is lost (reset)", "10.0.0.5:9000"),
            "tracker 10.0.0.5:9000 is lost (reset); trying again"
        );
    }

    #[test]
    fn help_names_every_command_once() {
        let all = help();
        for spec in COMMANDS {
            let heads = all.lines().filter(|line| line.starts_with(&format!("  {} ", spec.name))).count();
            assert_eq!(heads, 1, "{}", spec.name);
            assert!(help_on(spec).contains(spec.example));
        }
    }
}
