//! Which cause is named, of those that hold; and that what is said can be typed.

use std::time::Duration;

use shoal_common::peer_wire::CopyTrouble;
use shoal_common::{FileName, GroupName, UserName};
use shoal_engine::{Bottleneck, DiskError, Lack, Phase};
use shoal_session::Tries;
use shoal_swarm::{FileKey, Trouble};

use super::here::Here;
use super::{Around, Cause, Explanation, Facts, Level, Next, Subject, explain, failure};
use crate::FileRef;
use crate::shares::{Absence, ShareFacts, Standing};
use crate::transfers::{
    Asked, DestinationError, Doing, DownloadFacts, DownloadRow, Known, MirrorTrouble, RowState, Unusable,
    Wait, Working,
};

fn here() -> Here {
    Here {
        user: UserName::create("bob").ok(),
        is_provisional: false,
        tracker: Some("192.0.2.7:9001".to_owned()),
        tries: Tries { trackers: 2, failed: 1, words: "192.0.2.7:9001 (does not answer)".to_owned() },
        up: None,
        down: None,
        fetching: 1,
        is_up_scheduled: false,
        is_down_scheduled: false,
        address: "192.0.2.9:7001".parse().unwrap(),
        is_forwarded: false,
        was_reached: false,
    }
}

fn user(name: &str) -> UserName {
    UserName::create(name).unwrap()
}

fn file() -> FileRef {
    FileRef { group: GroupName::create("my films").unwrap(), file: FileName::create("a \"b\".mkv").unwrap() }
}

fn working(phase: Phase) -> Working {
    Working {
        phase,
        limit: Bottleneck::NoSource,
        unheld: 0,
        silent: false,
        patient: 0,
        quiet: Duration::ZERO,
        since: Duration::from_secs(60),
        has_ticket: true,
        known: Known { asked: Asked::Holders(0), ..Known::default() },
    }
}

fn download(state: RowState, now: Doing, sources: usize, rate: u64) -> DownloadFacts {
    let FileRef { group, file } = file();
    let row = DownloadRow {
        state,
        group,
        file,
        percent: 50,
        rate,
        sources,
        path: "/films/a.mkv".into(),
        size: 1 << 30,
        verified: 1 << 29,
        eta: None,
        activity: None,
        queued: None,
        priority: crate::Priority::Normal,
        limit: None,
        speed_limited: false,
        files: None,
    };
    DownloadFacts { row, share: true, now, is_gone: false }
}

fn works(working: Working, sources: usize, rate: u64) -> DownloadFacts {
    download(RowState::Downloading, Doing::Works(Box::new(working)), sources, rate)
}

fn share(standing: Option<Standing>) -> ShareFacts {
    ShareFacts {
        key: FileKey { group: shoal_common::Gid([1; 16]), file: shoal_common::Fid([1; 16]) },
        file: file(),
        path: "/films/a \"b\".mkv".into(),
        standing,
        percent: None,
        waiting: 0,
        problem: None,
    }
}

fn of_download(here: &Here, download: &DownloadFacts) -> Explanation {
    explain(Facts { here, of: Subject::Download(download) }).unwrap()
}

fn of_share(here: &Here, share: &ShareFacts, others: Option<u32>) -> Explanation {
    let around = Around { others, folder_is_missing: false };
    explain(Facts { here, of: Subject::Share(share, around) }).unwrap()
}

fn unusable(troubles: &[Trouble]) -> Vec<Unusable> {
    let one = |(at, trouble): (usize, &Trouble)| Unusable {
        user: user(["ann", "cem", "dan"][at % 3]),
        trouble: *trouble,
        reason: format!("is as it is ({trouble:?})"),
    };
    troubles.iter().enumerate().map(one).collect()
}

#[test]
fn of_several_causes_the_one_that_limits_most_and_that_the_user_can_change_is_named() {
    let mut lacking = working(Phase::Waiting);
    lacking.known.unusable = unusable(&[Trouble::Lost, Trouble::Refuses]);
    lacking.known.mirrors =
        vec![MirrorTrouble { mirror: "mirror a".into(), refused: true, reason: "is private".into() }];
    let mut here = here();
    assert_eq!(
        of_download(&here, &works(lacking.clone(), 0, 0)).cause,
        Cause::SharerRefuses,
        "others before time"
    );
    lacking.has_ticket = false;
    assert_eq!(of_download(&here, &works(lacking.clone(), 0, 0)).cause, Cause::SharerRefuses);
    here.tracker = None;
    assert_eq!(
        of_download(&here, &works(lacking.clone(), 0, 0)).cause,
        Cause::NoTracker,
        "the user's own network first"
    );
    here.tries.trackers = 1;
    assert_eq!(of_download(&here, &works(lacking, 0, 0)).cause, Cause::OnlyTracker);

    // While it comes from somewhere, what keeps others from being asked does not matter.
    let mut comes = working(Phase::Downloading);
    comes.known.unusable = unusable(&[Trouble::Refuses]);
    (comes.limit, comes.unheld) = (Bottleneck::RateLimit, 3);
    here.down = Some(40 << 10);
    let limited = of_download(&here, &works(comes.clone(), 1, 40 << 10));
    assert_eq!((limited.cause, limited.level), (Cause::DownloadLimit, Level::Slow), "slow before unsafe");
    here.is_down_scheduled = true;
    assert_eq!(of_download(&here, &works(comes.clone(), 1, 1)).cause, Cause::ScheduleLimit);
    let mut own = works(comes.clone(), 1, 1);
    own.row.limit = Some(20 << 10);
    assert_eq!(of_download(&here, &own).cause, Cause::OwnLimit, "the lower limit holds it");
    here.fetching = 3;
    assert_eq!(of_download(&here, &own).cause, Cause::ScheduleLimit, "a third of the limit of all is lower");
    here.fetching = 1;
    own.row.limit = Some(1 << 20);
    assert_eq!(of_download(&here, &own).cause, Cause::ScheduleLimit);
    comes.limit = Bottleneck::Sources;
    assert_eq!(of_download(&here, &works(comes.clone(), 1, 1)).cause, Cause::OneSlowSource);
    assert_eq!(of_download(&here, &works(comes.clone(), 2, 1)).cause, Cause::SlowSources);
    comes.quiet = Duration::from_secs(6);
    assert_eq!(of_download(&here, &works(comes.clone(), 2, 0)).cause, Cause::SourcesStalled);
    comes.patient = 2;
    assert_eq!(of_download(&here, &works(comes.clone(), 2, 0)).cause, Cause::SourcesBusy);
    (comes.patient, comes.quiet) = (0, Duration::ZERO);
    assert_eq!(of_download(&here, &works(comes.clone(), 2, 8 << 20)).cause, Cause::PiecesUnheld);
    comes.unheld = 0;
    let well = of_download(&here, &works(comes, 2, 8 << 20));
    assert_eq!((well.cause, well.level), (Cause::Downloading, Level::Well));
}

#[test]
fn a_complete_download_whose_file_is_gone_is_not_well() {
    let mut complete = download(RowState::Complete, Doing::Stopped, 0, 0);
    assert_eq!(of_download(&here(), &complete).cause, Cause::Complete);
    complete.is_gone = true;
    let gone = of_download(&here(), &complete);
    assert_eq!(gone.cause, Cause::FileGone);
    assert_eq!(gone.next.command, ["download_file", "my films", "a \"b\".mkv", "/films"]);
}

#[test]
fn each_trouble_of_a_sharer_is_a_cause_of_its_own() {
    let copies = [CopyTrouble::Changed, CopyTrouble::Missing, CopyTrouble::Unreadable, CopyTrouble::Checked];
    let troubles = [
        (Trouble::Refuses, Cause::SharerRefuses),
        (Trouble::Silent, Cause::SharerSilent),
        (Trouble::OtherKey, Cause::SharerOtherKey),
        (Trouble::NoWay, Cause::SharerNoWay),
        (Trouble::Connections, Cause::OwnConnections),
        (Trouble::Busy, Cause::SharerBusy),
        (Trouble::NotShared, Cause::SharerStopped),
        (Trouble::Ticket, Cause::TicketRefused),
        (Trouble::Version, Cause::SharerVersion),
        (Trouble::Lost, Cause::SharerLost),
    ];
    let causes = [Cause::CopyChanged, Cause::CopyMissing, Cause::CopyUnreadable, Cause::CopyChecked];
    for (trouble, cause) in copies.map(Trouble::Copy).into_iter().zip(causes).chain(troubles) {
        let mut waiting = working(Phase::Waiting);
        waiting.known.unusable = unusable(&[trouble; 3]);
        let found = of_download(&here(), &works(waiting, 0, 0));
        assert_eq!(found.cause, cause);
        assert!(
            found.text.contains("ann") && found.text.ends_with("so it is with 1 more."),
            "{}",
            found.text
        );
    }
}

#[test]
fn a_waiting_download_says_what_is_missing() {
    let cause = |change: &dyn Fn(&mut Working), sources| {
        let mut waiting = working(Phase::Waiting);
        change(&mut waiting);
        of_download(&here(), &works(waiting, sources, 0)).cause
    };
    assert_eq!(cause(&|_| {}, 0), Cause::NobodyShares);
    assert_eq!(cause(&|now| now.known.asked = Asked::Nothing, 0), Cause::Connecting);
    assert_eq!(
        cause(&|now| (now.known.asked, now.known.connecting) = (Asked::Holders(1), 1), 0),
        Cause::Connecting
    );
    assert_eq!(cause(&|now| now.known.asked = Asked::Unknown, 0), Cause::FileUnknown);
    assert_eq!(
        cause(&|now| (now.known.asked, now.has_ticket) = (Asked::Holders(1), false), 0),
        Cause::NoTicket
    );
    assert_eq!(cause(&|now| now.unheld = 3, 2), Cause::MissingPieces);
    assert_eq!(cause(&|now| now.limit = Bottleneck::SourcesBusy, 2), Cause::SourcesBusy);
    assert_eq!(
        cause(&|now| (now.limit, now.silent) = (Bottleneck::SourcesBusy, true), 2),
        Cause::SourcesStalled
    );
    let banned = |now: &mut Working| now.known.banned = vec![("cem".into(), "sent a wrong piece".into())];
    assert_eq!(cause(&banned, 0), Cause::SourcesBanned);
    let mirror = |refused| MirrorTrouble { mirror: "mirror a".into(), refused, reason: "is away".into() };
    let rude = format!("\u{1b}[2J{}", "x".repeat(10_000));
    let mut waiting = working(Phase::Waiting);
    waiting.known.mirrors = vec![MirrorTrouble { mirror: "mirror a".into(), refused: false, reason: rude }];
    let shown = of_download(&here(), &works(waiting, 0, 0)).text;
    assert!(shown.chars().count() < 600 && !shown.contains('\u{1b}'), "{shown}");
    for (refused, expected) in [(true, Cause::MirrorRefused), (false, Cause::MirrorFails)] {
        let change = |now: &mut Working| {
            (now.known.asked, now.known.mirrors) = (Asked::Holders(0), vec![mirror(refused)])
        };
        assert_eq!(cause(&change, 0), expected);
    }
}

#[test]
fn what_is_lacking_here_is_distinguished() {
    for (lack, cause) in [
        (Lack::Space, Cause::DiskFull),
        (Lack::ReadOnly, Cause::ReadOnly),
        (Lack::Permission, Cause::NoPermission),
        (Lack::Folder, Cause::FolderMissing),
        (Lack::Partial, Cause::PartialMissing),
        (Lack::Drive, Cause::DriveFails),
        (Lack::Descriptors, Cause::TooManyFiles),
        (Lack::Memory, Cause::NoMemory),
    ] {
        let wait = Wait { lack, words: "waiting: it is so".to_owned() };
        let found = of_download(&here(), &download(RowState::Downloading, Doing::Waits(wait), 0, 0));
        assert_eq!((found.cause, found.text.as_str()), (cause, "Waiting: it is so."));
    }
}

#[test]
fn a_download_that_waits_for_its_turn_says_whose_bound_that_is() {
    for (by_files, cause) in [(Some(2), Cause::Turn), (None, Cause::Queued)] {
        let queued = download(RowState::Downloading, Doing::Queued { before: 3, by_files }, 0, 0);
        let found = of_download(&here(), &queued);
        assert_eq!(found.cause, cause);
        assert_eq!(found.next.command, ["prioritize", "my films", "a \"b\".mkv", "first"]);
    }
}

#[test]
fn the_cause_of_a_failure_is_read_from_the_text_that_is_on_record() {
    let path = || "/films/a.mkv".into();
    let taken = DestinationError::Taken { path: path(), file: file() };
    let metadata = crate::transfers::TransferError::Metadata { file: file().file, problem: "so".into() };
    let digests = shoal_common::Digests::default();
    let whole = shoal_engine::DownloadError::Digest { expected: Box::new(digests) };
    let errors: [(&dyn std::error::Error, Cause); 12] = [
        (&DiskError::Exists(path()), Cause::FileInTheWay),
        (&DiskError::NotAFile(path()), Cause::FileInTheWay),
        (&DiskError::OtherContent(path()), Cause::FileInTheWay),
        (&DiskError::Foreign(path()), Cause::FileInTheWay),
        (&DestinationError::Exists(path()), Cause::FileInTheWay),
        (&DestinationError::NotAFile(path()), Cause::FileInTheWay),
        (&DiskError::Locked(path()), Cause::BeingDownloaded),
        (&taken, Cause::BeingDownloaded),
        (&DiskError::Name(path()), Cause::BadName),
        (&metadata, Cause::BadMetadata),
        (&whole, Cause::BadMetadata),
        (&shoal_engine::DownloadError::Stopped, Cause::Failed),
    ];
    for (error, cause) in errors {
        assert_eq!(failure::cause(&error.to_string()), cause, "{error}");
    }
    assert_eq!(failure::cause(crate::transfers::LEFT), Cause::LeftGroup);
}

#[test]
fn the_file_that_is_in_the_way_is_the_one_that_the_error_names() {
    let error = DiskError::Foreign("/films/a.mkv.part".into()).to_string();
    let found = of_download(&here(), &download(RowState::Failed(error), Doing::Stopped, 0, 0));
    assert_eq!(found.cause, Cause::FileInTheWay);
    assert!(found.text.contains("/films/a.mkv.part"), "{}", found.text);
    let next = &found.next.advice;
    assert!(next.contains("move that file away") && !next.contains("/films/a.mkv "), "{next}");
}

#[test]
fn a_share_is_explained() {
    let mut here = here();
    for (standing, cause) in [
        (Standing::Missing(Absence::Gone), Cause::ShareFileMissing),
        (Standing::Missing(Absence::NotAFile), Cause::ShareNotAFile),
        (Standing::Missing(Absence::Unreadable("no".into())), Cause::ShareUnreadable),
        (Standing::Missing(Absence::Silent), Cause::ShareDriveSilent),
        (Standing::Changed, Cause::ShareChanged),
        (Standing::Touched, Cause::ShareChecking),
        (Standing::Reading, Cause::ShareChecking),
        (Standing::Looking, Cause::ShareChecking),
    ] {
        assert_eq!(of_share(&here, &share(Some(standing)), Some(0)).cause, cause);
    }
    assert_eq!(of_share(&here, &share(None), None).cause, Cause::ShareNotTaken);
    let served = share(Some(Standing::Served));
    let gone = share(Some(Standing::Missing(Absence::Gone)));
    let around = Around { others: None, folder_is_missing: true };
    let folder = explain(Facts { here: &here, of: Subject::Share(&gone, around) }).unwrap();
    assert_eq!(folder.cause, Cause::ShareFolderMissing);
    assert_eq!(of_share(&here, &served, Some(2)).cause, Cause::Shared);
    assert_eq!(of_share(&here, &served, None).cause, Cause::Shared, "what is not known is not said");
    assert_eq!(of_share(&here, &served, Some(0)).cause, Cause::SoleSharer);
    here.is_forwarded = true;
    assert_eq!(
        of_share(&here, &served, Some(0)).cause,
        Cause::NotReached,
        "the user can do something about it"
    );
    here.up = Some(1_000);
    here.is_up_scheduled = true;
    assert_eq!(of_share(&here, &served, Some(0)).cause, Cause::ScheduleLimit);
    here.is_up_scheduled = false;
    assert_eq!(of_share(&here, &served, Some(0)).cause, Cause::UploadLimit);
    here.address = "127.0.0.1:7001".parse().unwrap();
    assert_eq!(of_share(&here, &served, Some(0)).cause, Cause::LoopbackOnly);
    here.tracker = Some("[::1]:9001".to_owned());
    assert_eq!(of_share(&here, &served, Some(0)).cause, Cause::UploadLimit, "all are on this machine");
    here.tracker = None;
    assert_eq!(of_share(&here, &served, Some(0)).cause, Cause::NoTracker);
}

#[test]
fn of_a_client_only_what_is_the_matter_is_said() {
    let of = |here: &Here| explain(Facts { here, of: Subject::Client });
    let mut here = here();
    assert_eq!(of(&here), None);
    here.is_provisional = true;
    assert_eq!(of(&here).map(|found| found.cause), Some(Cause::ProvisionalName));
    here.user = None;
    assert_eq!(of(&here).map(|found| found.cause), Some(Cause::NotLoggedIn));
    here.tracker = None;
    assert_eq!(of(&here).map(|found| found.cause), Some(Cause::NoTracker), "no login without a tracker");
    here.tries.failed = 0;
    assert_eq!(of(&here).map(|found| found.cause), Some(Cause::NotLoggedIn), "none was tried yet");
}

#[test]
fn a_next_step_is_typed_as_it_stands_at_the_prompt_and_in_a_shell() {
    let next = Next::of_file("to go on", "resume_download", &file(), &[]);
    assert_eq!(next.at_prompt(), r#"to go on, type: resume_download "my films" "a \"b\".mkv""#);
    assert_eq!(next.in_shell(), r#"to go on, type: shoal resume_download 'my films' 'a "b".mkv'"#);
    let odd =
        FileRef { group: GroupName::create("g").unwrap(), file: FileName::create("-it's $HOME").unwrap() };
    let next = Next::of_file("to end", "stop_share", &odd, &[]);
    assert_eq!(next.in_shell(), r"to end, type: shoal stop_share -- g '-it'\''s $HOME'");
    assert_eq!(next.command, ["stop_share", "--", "g", "-it's $HOME"]);
    let paused = of_download(&here(), &download(RowState::Paused, Doing::Stopped, 0, 0));
    assert_eq!(
        serde_json::to_value(paused).unwrap(),
        serde_json::json!({
            "kind": "download", "group": "my films", "file": "a \"b\".mkv", "cause": "paused", "level": "stuck",
            "text": "You paused it at 50%.", "next": r#"to go on, type: resume_download "my films" "a \"b\".mkv""#,
            "command": ["resume_download", "my films", "a \"b\".mkv"],
        })
    );
}

#[test]
fn the_page_of_causes_is_that_of_the_code() {
    let rows = Cause::ALL.iter().map(|cause| {
        let level = serde_json::to_value(cause.level()).unwrap();
        format!("| `{}` | {} | {} |\n", cause.code(), level.as_str().unwrap(), cause.about())
    });
    let table: String = rows.collect();
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/explain.md")).unwrap();
    assert!(page.contains(&table), "docs/explain.md must hold this:\n{table}");
    let codes: std::collections::BTreeSet<&str> = Cause::ALL.iter().map(|cause| cause.code()).collect();
    assert_eq!(codes.len(), Cause::ALL.len());
}
