//! What holds for a download that has nothing to fetch: why no source can be asked, or has what is missing.

use shoal_common::peer_wire::CopyTrouble;
use shoal_engine::Bottleneck;
use shoal_session::text;
use shoal_swarm::Trouble;

use super::here::{Here, no_tracker};
use super::next::Next;
use super::sources::{busy, from, stalled};
use super::{Cause, Found};
use crate::FileRef;
use crate::transfers::{Asked, DownloadFacts, MirrorTrouble, Unusable, Working};

/// Holders that are named; the rest is counted.
const MAX_NAMED: usize = 2;

/// What holds for it: at least one cause.
pub(super) fn causes(here: &Here, download: &DownloadFacts, working: &Working, file: &FileRef) -> Vec<Found> {
    let (sources, known) = (download.row.sources, &working.known);
    let mut found = Vec::new();
    if sources > 0 {
        found.push(with_sources(sources, working, file));
    }
    found.extend(troubles(&known.unusable));
    if sources == 0 {
        found.extend(no_tracker(
            here,
            "No new sharer can be found, and those that were known cannot be asked now",
        ));
        found.extend(without_source(here, working, file));
    }
    found.push(Found::new(
        Cause::Connecting,
        match known.connecting {
            0 => "It looks for someone who has the file.".to_owned(),
            count => format!("It connects to {} that have the file.", text::count(count, "client")),
        },
        Next::advice("nothing to do: it takes a few seconds"),
    ));
    found
}

fn with_sources(sources: usize, working: &Working, file: &FileRef) -> Found {
    let from = from(&working.known.open, sources);
    if working.silent {
        return stalled(&from, file);
    }
    if working.limit == Bottleneck::SourcesBusy {
        return busy(&from, sources, file);
    }
    let missing = text::count(usize::try_from(working.unheld).unwrap_or(usize::MAX), "piece");
    Found::new(
        Cause::MissingPieces,
        format!(
            "{from} {} no piece that is missing here: {missing} are held by nobody who is there.",
            if sources == 1 { "has" } else { "have" }
        ),
        Next::of_file(
            "ask a member who has the whole file to be online; to see who has how much",
            "show_peers",
            file,
            &[],
        ),
    )
}

fn without_source(here: &Here, working: &Working, file: &FileRef) -> Vec<Found> {
    let known = &working.known;
    let mut found = Vec::new();
    if !working.has_ticket && here.tracker.is_some() {
        found.push(Found::new(
            Cause::NoTicket,
            format!("The trackers have not given this client a ticket for {} yet; without one no sharer serves it.", file.group),
            Next::of_group("wait a few seconds; to see whether you are a member", "list_members", &file.group),
        ));
    }
    let nobody = known.unusable.is_empty() && known.connecting == 0;
    match known.asked {
        Asked::Unknown => found.push(Found::new(
            Cause::FileUnknown,
            format!(
                "The trackers do not know it in {} any more: everyone who shared it took it back.",
                file.group
            ),
            Next::of_file(
                "ask a member to share it again, and it goes on by itself; to give it up",
                "cancel_download",
                file,
                &[],
            ),
        )),
        Asked::Holders(0) if nobody => found.push(Found::new(
            Cause::NobodyShares,
            "No client that is online has it or a part of it; those who share it are away.",
            Next::of_group(
                "ask a member who shares it to start their client; to see the members",
                "list_members",
                &file.group,
            ),
        )),
        _ => {}
    }
    if let Some((who, what)) = known.banned.first() {
        let more = more(known.banned.len() - 1);
        found.push(Found::new(
            Cause::SourcesBanned,
            format!("{who}{more} is not used any more: {what}."),
            Next::advice("ask another member who has the file to be online, and tell the owner of the group of the one who sent wrong bytes"),
        ));
    }
    found.extend(known.mirrors.iter().map(mirror));
    found
}

/// Why a mirror is not in use.
fn mirror(mirror: &MirrorTrouble) -> Found {
    let (name, reason) = (&mirror.mirror, mirror.reason.trim_end_matches('.'));
    if mirror.refused {
        let advice = "ask a sharer to be online; or, only if you trust all members, start the client with --private-mirrors";
        let text = format!("No sharer can be asked, and {name} is not used: it {reason}.");
        return Found::new(Cause::MirrorRefused, text, Next::advice(advice));
    }
    let advice = "ask a sharer to be online, or to name a mirror that works; it is tried again by itself";
    let text = format!("No sharer can be asked, and {name} does not deliver: {reason}.");
    Found::new(Cause::MirrorFails, text, Next::advice(advice))
}

/// Why holders cannot be asked: for each trouble one cause, with those who have it.
fn troubles(unusable: &[Unusable]) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for (at, first) in unusable.iter().enumerate() {
        let (cause, advice) = of_trouble(first);
        if unusable[..at].iter().any(|before| of_trouble(before).0 == cause) {
            continue;
        }
        let same: Vec<&Unusable> = unusable.iter().filter(|one| of_trouble(one).0 == cause).collect();
        let words: Vec<String> =
            same.iter().take(MAX_NAMED).map(|one| format!("{} {}", one.user, one.reason)).collect();
        let more = if same.len() > MAX_NAMED {
            format!(", and so it is with {} more", same.len() - MAX_NAMED)
        } else {
            String::new()
        };
        found.push(Found::new(
            cause,
            format!("{}{more}.", text::error_line(&words.join(", "))),
            Next::advice(advice),
        ));
    }
    found
}

fn of_trouble(one: &Unusable) -> (Cause, String) {
    let user = &one.user;
    match one.trouble {
        Trouble::Refuses => (Cause::SharerRefuses, format!("ask {user} whether their client runs, and whether its port is forwarded to their machine; it is tried again by itself")),
        Trouble::Silent => (Cause::SharerSilent, format!("ask {user} to open the port in their router and firewall; if you reach nobody, look at your own firewall")),
        Trouble::OtherKey => (Cause::SharerOtherKey, format!("ask {user} to start their client with the address at which it is reached")),
        Trouble::NoWay => (Cause::SharerNoWay, format!("check your network, and ask {user} to start their client with an address that others reach")),
        Trouble::Connections => (Cause::OwnConnections, "pause other downloads, or raise the limit of open files (ulimit -n)".to_owned()),
        Trouble::Busy => (Cause::SharerBusy, "wait: it is tried again by itself".to_owned()),
        Trouble::NotShared => (Cause::SharerStopped, format!("ask {user} to share it again")),
        Trouble::Copy(CopyTrouble::Checked) => (Cause::CopyChecked, "wait: it is served again when it was read".to_owned()),
        Trouble::Copy(CopyTrouble::Changed) => (Cause::CopyChanged, format!("ask {user} to restore the file, or to share the new one, which is another download")),
        Trouble::Copy(CopyTrouble::Unreadable) => (Cause::CopyUnreadable, format!("ask {user} to look after the file's permissions or drive")),
        Trouble::Copy(CopyTrouble::Missing | CopyTrouble::Unknown) => (Cause::CopyMissing, format!("ask {user} to put the file back, to connect its drive, or to use relocate")),
        Trouble::Ticket => (Cause::TicketRefused, "wait for the next ticket; if it stays so, ask the owner of the group whether you are a member, and operators whether their trackers are in step".to_owned()),
        Trouble::Version => (Cause::SharerVersion, format!("ask {user} to update Shoal, or update it here")),
        Trouble::Lost => (Cause::SharerLost, "wait: it is tried again by itself".to_owned()),
    }
}

fn more(count: usize) -> String {
    if count > 0 { format!(" (and {count} more)") } else { String::new() }
}
