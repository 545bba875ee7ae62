//! What is known of the client itself, and what follows from that for everything.

use std::net::SocketAddr;

use shoal_common::UserName;
use shoal_session::Tries;

use super::next::Next;
use super::{Cause, Found};

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Here {
    /// Who is logged in.
    pub(super) user: Option<UserName>,
    /// Whether that name may yet be lost.
    pub(super) is_provisional: bool,
    /// The tracker in use.
    pub(super) tracker: Option<String>,
    /// How the trackers were found.
    pub(super) tries: Tries,
    /// The limits that hold now, in bytes per second.
    pub(super) up: Option<u64>,
    pub(super) down: Option<u64>,
    /// Downloads that fetch now; each has its part of the limit of all.
    pub(super) fetching: u32,
    /// Whether they are those of the schedule, and not the usual ones.
    pub(super) is_up_scheduled: bool,
    pub(super) is_down_scheduled: bool,
    /// Where others are told to reach this client.
    pub(super) address: SocketAddr,
    /// Whether that is another machine's address, which has to lead here.
    pub(super) is_forwarded: bool,
    /// Whether anyone connected since the start.
    pub(super) was_reached: bool,
}

impl Here {
    /// Whether others cannot reach this client because it gives out an address of this machine alone, and the tracker in use is
    /// on another.
    pub(super) fn is_loopback_only(&self) -> bool {
        let is_here = |tracker: &String| {
            let host = tracker.rsplit_once(':').map_or(tracker.as_str(), |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        };
        self.address.ip().is_loopback() && self.tracker.as_ref().is_some_and(|tracker| !is_here(tracker))
    }
}

/// What there is to say of the client.
pub(super) fn causes(here: &Here) -> Vec<Found> {
    let mut found = Vec::new();
    found.extend(no_tracker(here, "Logins, lists and new sources have to wait"));
    match &here.user {
        None => found.push(Found::new(
            Cause::NotLoggedIn,
            "Nobody is logged in, so nothing is downloaded or shared.",
            Next::command("to continue all downloads and shares (your user name for USER)", &["login", "USER"]),
        )),
        Some(user) if here.is_provisional => found.push(Found::new(
            Cause::ProvisionalName,
            format!("The name {user} is provisional: some trackers have not heard of it yet, and an earlier claim would take it."),
            Next::command("leave this client on until all trackers are in step; to see whether it is definite", &["whoami"]),
        )),
        Some(_) => {}
    }
    found
}

/// That no tracker answers, and what comes of it.
pub(super) fn no_tracker(here: &Here, so: &str) -> Option<Found> {
    let Tries { trackers, failed, words: tried } = &here.tries;
    // At the start none was tried yet.
    if here.tracker.is_some() || *failed == 0 {
        return None;
    }
    Some(if *trackers == 1 {
        let advice = "check this machine's network, and that the tracker runs; ask its operator for a second one, and for a new tracker_info.txt if it moved";
        Found::new(
            Cause::OnlyTracker,
            format!("The only tracker in tracker_info.txt does not answer: {tried}. {so}."),
            Next::advice(advice),
        )
    } else {
        let advice = "check this machine's network first: all trackers at once are rarely down; it continues by itself when one answers";
        Found::new(
            Cause::NoTracker,
            format!("None of the {} trackers answers: {tried}. {so}.", trackers),
            Next::advice(advice),
        )
    })
}
