//! The HTTP mirrors that a file's manifest names, as further sources of its download. Their bytes are checked like a
//! peer's; one that lies is not asked again, one that is gone is tried again, as holders are, for as long as the download
//! runs.

use std::time::Duration;

use reqwest::{Client, Url};
use shoal_common::Manifest;
use shoal_engine::{AnySource, Progress, SourceId, SourceState};
use shoal_segment::client;
use shoal_segment::source::HttpSource;
use tokio::time::Instant;

/// Mirrors' ids begin here; peers' are counted from 0.
const FIRST_ID: u64 = 1 << 32;
/// Connections to one mirror.
const CONNECTIONS: usize = 2;
/// When a mirror that is gone is tried again; doubled each time in a row, up to [`LONGEST_PAUSE`]. What a mirror of several
/// seconds' patience gave up needs no sooner try.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// See [`FIRST_PAUSE`].
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// One that lasted so long was no failure.
const STEADY: Duration = Duration::from_secs(30);
/// What is published of a source may be as old: a mirror that was just put into use cannot be gone already.
const PUBLISHED_WITHIN: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Mirrors {
    client: Option<Client>,
    size: u64,
    all: Vec<Mirror>,
}

struct Mirror {
    id: SourceId,
    url: Url,
    state: Use,
    /// Times in a row that it was soon gone.
    failures: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Since(Instant),
    From(Instant),
    Never,
}

impl Mirrors {
    /// The mirrors of a file; none of them is in use yet.
    pub(super) fn of(manifest: &Manifest) -> Self {
        let urls = manifest.mirrors.iter().filter_map(|url| Url::parse(url).ok());
        let state = Use::From(Instant::now());
        let all: Vec<Mirror> = urls
            .zip(FIRST_ID..)
            .map(|(url, id)| Mirror { id: SourceId(id), url, state, failures: 0 })
            .collect();
        let client = if all.is_empty() { None } else { client::build(true).ok() };
        Self { client, size: manifest.size, all }
    }

    /// Whether any is in use.
    pub(super) fn in_use(&self) -> bool {
        self.all.iter().any(|mirror| matches!(mirror.state, Use::Since(_)))
    }

    /// Those whose time has come, as sources; they count as in use from now on.
    pub(super) fn due(&mut self) -> Vec<(SourceId, AnySource)> {
        let Some(client) = &self.client else { return Vec::new() };
        let now = Instant::now();
        let due = self.all.iter_mut().filter(|mirror| matches!(mirror.state, Use::From(at) if at <= now));
        due.map(|mirror| {
            mirror.state = Use::Since(now);
            let source = HttpSource::new(client.clone(), mirror.url.clone(), self.size, CONNECTIONS);
            (mirror.id, AnySource::new(source))
        })
        .collect()
    }

    /// Notices mirrors that the engine gave up; those that it found lying since the last look, with how.
    pub(super) fn look(&mut self, progress: &Progress) -> Vec<(String, String)> {
        let mut liars = Vec::new();
        let now = Instant::now();
        for mirror in &mut self.all {
            let Use::Since(since) = mirror.state else { continue };
            let Some(row) = progress.rows.iter().find(|row| row.id == mirror.id) else { continue };
            match &row.state {
                SourceState::Gone(reason) if since + PUBLISHED_WITHIN <= now => {
                    tracing::debug!(mirror = %mirror.url, reason, "mirror is gone");
                    mirror.failures = if since + STEADY <= now { 0 } else { mirror.failures + 1 };
                    let pause = FIRST_PAUSE.saturating_mul(1 << mirror.failures.min(8)).min(LONGEST_PAUSE);
                    mirror.state = Use::From(now + pause);
                }
                SourceState::Banned(reason) => {
                    mirror.state = Use::Never;
                    liars.push((format!("mirror {}", mirror.url.host_str().unwrap_or("?")), reason.clone()));
                }
                SourceState::Gone(_) | SourceState::Active | SourceState::Idle | SourceState::BackingOff => {}
            }
        }
        liars
    }
}
