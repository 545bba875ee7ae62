//! The HTTP mirrors that a file's sharers name, as further sources of its download. Other members name them, so only places
//! that the user's [`Reach`] allows are asked, through one connection until a piece from there was verified, and only while
//! the sharer who named them shares the file. Their bytes are checked like a peer's. One that lies is not asked again; one
//! that is gone is tried again, after a pause that grows.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Url};
use shoal_common::{Bitfield, Manifest};
use shoal_engine::{AnySource, Progress, SourceChange, SourceId, SourceState, back_off};
use shoal_http::mirror::Reach;
use shoal_http::source::{HttpSource, Standing};
use tokio::time::Instant;

use super::known::{MAX_KNOWN as MAX_KNOWN_TROUBLES, MirrorTrouble};

/// Mirrors' ids begin here; peers' are counted from 0.
const FIRST_ID: u64 = 1 << 32;
/// Connections to one mirror, once it has proven to have the file.
const CONNECTIONS: usize = 2;
/// When a mirror that is gone is tried again; doubled each time in a row, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longer than for holders: many clients must not burden other people's servers.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Published states may be this old: a mirror that was just put into use cannot be gone already.
const PUBLISHED_WITHIN: Duration = Duration::from_millis(500);
/// How often a place of [`MAX_KNOWN`] goes to another mirror. One account that names many then keeps no other out for good,
/// and sends no client to more than a few places per minute.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(10);
/// Most mirrors that one download looks at, apart from those of [`GIVE_BACK_EVERY`]: four times what a file has at once. A
/// member who names new ones all the time cannot make a client ask one place after another.
const MAX_KNOWN: usize = 64;

/// See the module.
pub(super) struct Mirrors {
    reach: Reach,
    client: Option<Client>,
    /// No client is made before this: the last could not be.
    client_at: Option<Instant>,
    size: u64,
    all: Vec<Mirror>,
    ids: u64,
    /// When a place was last given back.
    given_back: Option<Instant>,
}

struct Mirror {
    id: SourceId,
    named: String,
    /// Whether a sharer names it now.
    listed: bool,
    state: MirrorState,
    /// Times in a row that it was gone without having delivered.
    failures: u32,
    standing: Option<Arc<Standing>>,
    /// Whether a piece from there was verified.
    proven: bool,
    /// When it was last put into use.
    since: Instant,
    /// Why it is not in use: this client does not go there, and the reason.
    trouble: Option<(bool, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MirrorState {
    Now,
    /// In use, and to be given more connections.
    Widen,
    From(Instant),
    Never,
}

/// What the user should know of a mirror: its host, and the reason.
pub(super) enum Notice {
    /// It sent wrong bytes.
    Lied(String, String),
    /// This client does not go there.
    Refused(String, String),
}

impl Mirrors {
    /// The mirrors of a file; none of them is in use yet.
    pub(super) fn of(manifest: &Manifest, reach: Reach) -> Self {
        let mut mirrors = Self::none(reach, manifest.size);
        mirrors.are(&manifest.mirrors);
        mirrors
    }

    fn none(reach: Reach, size: u64) -> Self {
        Self { reach, client: None, client_at: None, size, all: Vec::new(), ids: 0, given_back: None }
    }

    /// The run that used them is over: the next may use them at once. What it learned of them stays.
    pub(super) fn rest(&mut self) {
        for mirror in self.all.iter_mut().filter(|mirror| mirror.is_in_use()) {
            mirror.state = MirrorState::From(Instant::now());
            mirror.standing = None;
        }
    }

    /// Makes room for another mirror, now and then, by forgetting one that no member names any more and that never delivered.
    fn give_back(&mut self) {
        let now = Instant::now();
        if self.given_back.is_some_and(|at| at + GIVE_BACK_EVERY > now) {
            return;
        }
        let useless = |mirror: &Mirror| !mirror.listed && !mirror.proven && !mirror.is_in_use();
        if let Some(at) = self.all.iter().position(useless) {
            self.all.remove(at);
            self.given_back = Some(now);
        }
    }

    /// These are the mirrors now; gives those that are to be used no longer.
    pub(super) fn are(&mut self, urls: &[String]) -> Vec<SourceChange> {
        let mut ended = Vec::new();
        for mirror in self.all.iter_mut().filter(|mirror| mirror.listed && !urls.contains(&mirror.named)) {
            mirror.listed = false;
            if mirror.is_in_use() {
                mirror.state = MirrorState::From(Instant::now());
                ended.push(SourceChange::Remove(mirror.id));
            }
        }
        for url in urls {
            let is_known = self.all.iter().any(|mirror| mirror.named == *url);
            if !is_known && self.all.len() >= MAX_KNOWN {
                self.give_back();
            }
            let known = self.all.len();
            match self.all.iter_mut().find(|mirror| mirror.named == *url) {
                Some(mirror) => mirror.listed = true,
                None if known < MAX_KNOWN => {
                    let id = SourceId(FIRST_ID + self.ids);
                    self.ids += 1;
                    self.all.push(Mirror::new(id, url.clone()));
                }
                None => {}
            }
        }
        ended
    }

    /// Their addresses.
    pub(super) fn named(&self) -> impl Iterator<Item = (SourceId, &str)> {
        self.all.iter().map(|mirror| (mirror.id, mirror.named.as_str()))
    }

    /// Whether any is in use.
    pub(super) fn in_use(&self) -> bool {
        self.all.iter().any(Mirror::is_in_use)
    }

    /// Why mirrors that a sharer names are not in use.
    pub(super) fn troubles(&self) -> Vec<MirrorTrouble> {
        let listed = self.all.iter().filter(|mirror| mirror.listed && !mirror.is_in_use());
        let troubles = listed.filter_map(|mirror| {
            let (refused, reason) = mirror.trouble.clone()?;
            Some(MirrorTrouble { mirror: mirror.host(), refused, reason })
        });
        troubles.take(MAX_KNOWN_TROUBLES).collect()
    }

    /// Mirrors that are due, as sources; they count as in use from now on. A place that the user's reach excludes is reported
    /// once.
    pub(super) fn due(&mut self, notices: &mut Vec<Notice>) -> Vec<SourceChange> {
        let now = Instant::now();
        let is_due = |mirror: &&mut Mirror| {
            mirror.listed
                && match mirror.state {
                    MirrorState::From(at) => at <= now,
                    MirrorState::Widen => true,
                    MirrorState::Now | MirrorState::Never => false,
                }
        };
        let mut due = Vec::new();
        for mirror in self.all.iter_mut().filter(is_due) {
            let url = match self.reach.allow(&mirror.named) {
                Ok(url) => url,
                Err(refused) => {
                    mirror.state = MirrorState::Never;
                    mirror.trouble = Some((true, refused.to_string()));
                    notices.push(Notice::Refused(mirror.host(), refused.to_string()));
                    continue;
                }
            };
            if self.client.is_none() && self.client_at.is_none_or(|at| at <= now) {
                self.client =
                    self.reach.client().inspect_err(|error| tracing::warn!(%error, "no mirrors")).ok();
                self.client_at = Some(now + LONGEST_PAUSE);
            }
            let Some(client) = &self.client else { return due };
            let connections = if mirror.proven { CONNECTIONS } else { 1 };
            let source = HttpSource::new(client.clone(), url, self.size, connections);
            (mirror.state, mirror.since) = (MirrorState::Now, now);
            mirror.standing = Some(source.standing());
            due.push(SourceChange::Add(mirror.id, AnySource::new(source)));
        }
        due
    }

    /// Notices mirrors that the engine gave up, and those that have delivered a piece which is among the verified.
    pub(super) fn look(&mut self, progress: &Progress, verified: &Bitfield) -> Vec<Notice> {
        let (mut notices, now) = (Vec::new(), Instant::now());
        for mirror in self.all.iter_mut().filter(|mirror| mirror.is_in_use()) {
            let Some(row) = progress.rows.iter().find(|row| row.id == mirror.id) else { continue };
            let standing = mirror.standing.as_ref();
            match &row.state {
                // What is published may be from before it was put into use.
                SourceState::Gone(_) if mirror.since + PUBLISHED_WITHIN > now => {}
                SourceState::Gone(reason) => {
                    tracing::debug!(mirror = mirror.host(), reason, "mirror is gone");
                    let refused = standing.is_some_and(|standing| standing.is_refused());
                    mirror.trouble = Some((refused, reason.clone()));
                    if refused && mirror.failures == 0 {
                        notices.push(Notice::Refused(mirror.host(), reason.clone()));
                    }
                    let pause = back_off(mirror.failures, FIRST_PAUSE, LONGEST_PAUSE);
                    mirror.failures += 1;
                    mirror.state = MirrorState::From(now + pause);
                }
                SourceState::Banned(reason) => {
                    mirror.state = MirrorState::Never;
                    mirror.trouble = Some((false, reason.clone()));
                    notices.push(Notice::Lied(mirror.host(), reason.clone()));
                }
                SourceState::Active | SourceState::Idle | SourceState::BackingOff => {
                    let delivered = standing.and_then(|standing| standing.first_piece());
                    if delivered.is_some_and(|piece| verified.has(piece)) {
                        mirror.failures = 0;
                        if !std::mem::replace(&mut mirror.proven, true) {
                            mirror.state = MirrorState::Widen;
                        }
                    }
                }
            }
        }
        notices
    }
}

impl Mirror {
    fn new(id: SourceId, named: String) -> Self {
        let since = Instant::now();
        Self {
            id,
            named,
            listed: true,
            state: MirrorState::From(since),
            failures: 0,
            standing: None,
            proven: false,
            since,
            trouble: None,
        }
    }

    fn is_in_use(&self) -> bool {
        matches!(self.state, MirrorState::Now | MirrorState::Widen)
    }

    /// Its host; nothing else of a member's text is shown.
    fn host(&self) -> String {
        let url = Url::parse(&self.named).ok();
        format!("mirror {}", url.as_ref().and_then(Url::host_str).unwrap_or("without a host"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrors(urls: &[&str], reach: Reach) -> Mirrors {
        let urls: Vec<String> = urls.iter().map(|&url| url.to_owned()).collect();
        let mut mirrors = Mirrors::none(reach, 1);
        mirrors.are(&urls);
        mirrors
    }

    fn ids(changes: &[SourceChange]) -> Vec<u64> {
        let id = |change: &SourceChange| match change {
            SourceChange::Add(id, _) | SourceChange::Remove(id) => Some(id.0 - FIRST_ID),
            SourceChange::OthersDownloading(_) => None,
        };
        changes.iter().filter_map(id).collect()
    }

    #[test]
    fn where_the_user_would_not_go_is_said_once_and_not_used() {
        let urls = ["http://127.0.0.1:8080/x", "http://1.1.1.1/x", "http://ann:secret@1.1.1.1/x"];
        let (mut mirrors, mut notices) = (mirrors(&urls, Reach::Global), Vec::new());
        assert_eq!(ids(&mirrors.due(&mut notices)), [1]);
        let shown: Vec<String> = notices
            .iter()
            .map(|notice| match notice {
                Notice::Refused(host, reason) | Notice::Lied(host, reason) => format!("{host} {reason}"),
            })
            .collect();
        assert!(shown[0].contains("mirror 127.0.0.1") && shown[0].contains("--private-mirrors"), "{shown:?}");
        assert!(shown.len() == 2 && !shown[1].contains("secret"), "{shown:?}");
        assert!(mirrors.due(&mut notices).is_empty() && notices.len() == 2);
    }

    #[test]
    fn a_mirror_ends_when_nobody_names_it_any_more_and_comes_back_as_the_same() {
        let (a, b) = ("http://1.1.1.1/a".to_owned(), "http://1.1.1.1/b".to_owned());
        let (mut mirrors, mut notices) = (mirrors(&[&a, &b], Reach::Global), Vec::new());
        assert_eq!(ids(&mirrors.due(&mut notices)), [0, 1]);
        assert_eq!(ids(&mirrors.are(std::slice::from_ref(&b))), [0]);
        assert!(mirrors.due(&mut notices).is_empty() && mirrors.in_use());
        assert!(mirrors.are(&[b, a]).is_empty());
        assert_eq!(ids(&mirrors.due(&mut notices)), [0]);
    }

    #[test]
    fn what_one_run_learned_of_a_mirror_the_next_knows() {
        let urls = ["http://127.0.0.1:8080/x", "http://1.1.1.1/x"];
        let (mut mirrors, mut notices) = (mirrors(&urls, Reach::Global), Vec::new());
        assert_eq!(ids(&mirrors.due(&mut notices)), [1]);
        mirrors.rest();
        assert_eq!(ids(&mirrors.due(&mut notices)), [1]);
        assert_eq!(notices.len(), 1, "shown once");
    }

    #[tokio::test(start_paused = true)]
    async fn mirrors_that_nobody_names_any_more_keep_out_no_others_for_good() {
        let many: Vec<String> = (0..MAX_KNOWN).map(|n| format!("http://1.1.1.1/{n}")).collect();
        let mut mirrors = mirrors(&[], Reach::Global);
        mirrors.are(&many);
        let good = ["http://1.1.1.1/a".to_owned(), "http://1.1.1.1/b".to_owned()];
        mirrors.are(&good);
        assert_eq!(ids(&mirrors.due(&mut Vec::new())), [64]);
        tokio::time::advance(GIVE_BACK_EVERY).await;
        mirrors.are(&good);
        assert_eq!(ids(&mirrors.due(&mut Vec::new())), [65]);
    }

    #[test]
    fn naming_ever_new_mirrors_leads_a_client_only_so_far() {
        let (mut mirrors, mut notices) = (mirrors(&[], Reach::Global), Vec::new());
        for round in 0..50 {
            mirrors.are(&(0..16).map(|n| format!("http://1.1.1.1/{round}/{n}")).collect::<Vec<_>>());
            mirrors.due(&mut notices);
        }
        assert_eq!(mirrors.all.len(), MAX_KNOWN);
    }
}
