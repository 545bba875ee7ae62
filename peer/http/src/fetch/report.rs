//! What the user sees: bars on a terminal, plain lines otherwise, or JSON.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use shoal_common::{Digests, duration_text, size_text};
use shoal_engine::{Phase, Progress, SourceRow, SourceState};

use crate::source::Standing;

/// How often bars are drawn again.
const BARS_EVERY: Duration = Duration::from_millis(200);

/// See the module.
pub(super) struct Report {
    form: Form,
    labels: Vec<String>,
    standings: Vec<Arc<Standing>>,
    every: Option<Duration>,
}

enum Form {
    Bars { all: MultiProgress, total: ProgressBar, sources: Vec<ProgressBar> },
    Lines,
    Json,
}

/// How it ended.
pub(super) struct Ending<'a> {
    pub(super) path: &'a std::path::Path,
    pub(super) size: u64,
    pub(super) digests: Digests,
    /// What was expected of the whole file.
    pub(super) expected: Digests,
    /// Whether every piece was checked.
    pub(super) by_pieces: bool,
    pub(super) fetched: u64,
    pub(super) resumed: u64,
    pub(super) took: Duration,
    pub(super) progress: Option<Progress>,
}

impl Ending<'_> {
    fn is_verified(&self) -> bool {
        self.by_pieces || !self.expected.is_empty()
    }

    fn verified_text(&self) -> String {
        match (self.expected.is_empty(), self.by_pieces, self.digests.is_empty()) {
            (false, ..) => format!("verified by {}", self.expected),
            (true, true, _) => "verified piece by piece".into(),
            (true, false, false) => {
                format!("not verified (no server publishes a digest; it came as {})", self.digests)
            }
            (true, false, true) => {
                "not verified (no server publishes a digest; --sha1 auto computes one)".into()
            }
        }
    }
}

impl Report {
    /// Reports of a download of `size` bytes from sources with these names, every `interval` seconds; 0: none.
    pub(super) fn new(size: u64, labels: Vec<String>, interval: u32, json: bool) -> Self {
        Self::of(Some(size), labels, interval, json)
    }

    /// The same of a file whose size is not known.
    pub(super) fn of_stream(labels: Vec<String>, interval: u32, json: bool) -> Self {
        Self::of(None, labels, interval, json)
    }

    fn of(size: Option<u64>, labels: Vec<String>, interval: u32, json: bool) -> Self {
        let every = (interval > 0).then(|| Duration::from_secs(u64::from(interval)));
        let form = match (json, every.is_some() && std::io::stderr().is_terminal()) {
            (true, _) => Form::Json,
            (false, true) => bars(size, &labels),
            (false, false) => Form::Lines,
        };
        let every = if matches!(form, Form::Bars { .. }) { Some(BARS_EVERY) } else { every };
        Self { form, labels, standings: Vec::new(), every }
    }

    /// Shows from now on why those of the sources fail that do, in the order of their names.
    pub(super) fn watch(&mut self, standings: Vec<Arc<Standing>>) {
        self.standings = standings;
    }

    /// How often a report is wanted; `None`: never.
    pub(super) fn every(&self) -> Option<Duration> {
        self.every
    }

    /// Something that is worth knowing, on standard error.
    pub(super) fn note(&self, note: &str) {
        match &self.form {
            Form::Bars { all, .. } => {
                // A terminal that is gone has no reader either.
                let _ = all.println(format!("fetch: {note}"));
            }
            Form::Lines | Form::Json => eprintln!("fetch: {note}"),
        }
    }

    /// Shows how it stands.
    pub(super) fn show(&self, progress: &Progress) {
        match &self.form {
            Form::Bars { total, sources, .. } => {
                total.set_position(progress.verified_bytes);
                total.set_message(format!("{}/s {}", size_text(progress.rate), left(progress)));
                for (bar, row) in
                    sources.iter().zip(0u64..).filter_map(|(bar, id)| Some((bar, row(progress, id)?)))
                {
                    bar.set_message(self.source_text(row));
                }
            }
            Form::Lines => {
                let percent = progress.verified_bytes * 100 / progress.total.max(1);
                say(&format!(
                    "{percent} % of {}, {}/s, {}",
                    size_text(progress.total),
                    size_text(progress.rate),
                    left(progress)
                ));
                for (label, id) in self.labels.iter().zip(0u64..) {
                    if let Some(row) = row(progress, id) {
                        say(&format!("  {label}: {}", self.source_text(row)));
                    }
                }
            }
            Form::Json => {
                let report = json!({
                    "event": "progress",
                    "state": phase_word(progress.phase),
                    "size": progress.total,
                    "done": progress.verified_bytes,
                    "rate": progress.rate,
                    "seconds_left": progress.eta.map(|left| left.as_secs()),
                    "sources": self.sources(progress),
                });
                say(&report.to_string());
            }
        }
    }

    /// Shows how a file stands whose size is not known.
    pub(super) fn streamed(&self, bytes: u64, took: Duration) {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = bytes.saturating_mul(1_000) / millis;
        match &self.form {
            Form::Bars { total, .. } => {
                total.set_message(format!("{}, {}/s", size_text(bytes), size_text(rate)));
                total.tick();
            }
            Form::Lines => say(&format!("{}, {}/s", size_text(bytes), size_text(rate))),
            Form::Json => say(&json!({
                "event": "progress", "state": "downloading", "size": Value::Null, "done": bytes, "rate": rate,
                "seconds_left": Value::Null, "sources": [],
            })
            .to_string()),
        }
    }

    /// Shows that it is complete.
    pub(super) fn complete(&self, ending: &Ending<'_>) {
        self.clear();
        if let Form::Json = self.form {
            let digest = |digest: Option<String>| digest.map_or(Value::Null, Value::String);
            let report = json!({
                "ok": true,
                "path": ending.path.to_string_lossy(),
                "size": ending.size,
                "sha1": digest(ending.digests.sha1.map(|sha1| sha1.to_string())),
                "sha256": digest(ending.digests.sha256.map(|sha256| sha256.to_string())),
                "verified": ending.is_verified(),
                "fetched": ending.fetched,
                "resumed": ending.resumed,
                "seconds": ending.took.as_secs_f64(),
                "sources": ending.progress.as_ref().map_or_else(Vec::new, |progress| self.sources(progress)),
            });
            return say(&report.to_string());
        }
        let verified = ending.verified_text();
        let path = ending.path.display();
        if ending.fetched == 0 && ending.resumed > 0 {
            return say(&format!("{path} is complete already: {}, {verified}", size_text(ending.size)));
        }
        let millis = u64::try_from(ending.took.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = ending.fetched.saturating_mul(1_000) / millis;
        let resumed = if ending.resumed > 0 {
            format!(", {} were there already", size_text(ending.resumed))
        } else {
            String::new()
        };
        say(&format!(
            "{path}: {} in {:.1} s ({}/s){resumed}, {verified}",
            size_text(ending.size),
            ending.took.as_secs_f64(),
            size_text(rate)
        ));
    }

    /// Ends the drawing, whatever comes after.
    pub(super) fn clear(&self) {
        if let Form::Bars { all, .. } = &self.form {
            // As above.
            let _ = all.clear();
        }
    }

    fn source_text(&self, row: &SourceRow) -> String {
        let (bytes, rate) = (size_text(row.fetched_bytes), size_text(row.rate));
        let reason = self.reason(row).map(|reason| format!(" ({reason})")).unwrap_or_default();
        format!("{bytes}, {rate}/s, {}{reason}", state_word(&row.state))
    }

    fn reason(&self, row: &SourceRow) -> Option<String> {
        match &row.state {
            SourceState::Gone(reason) | SourceState::Banned(reason) => Some(reason.clone()),
            SourceState::BackingOff => {
                let standing = self.standings.get(usize::try_from(row.id.0).ok()?)?;
                Some(standing.failing()?.reason)
            }
            SourceState::Active | SourceState::Idle => None,
        }
    }

    fn sources(&self, progress: &Progress) -> Vec<Value> {
        let rows = self.labels.iter().zip(0u64..).filter_map(|(label, id)| {
            let row = row(progress, id)?;
            Some(json!({
                "source": label,
                "state": state_word(&row.state),
                "reason": self.reason(row),
                "bytes": row.fetched_bytes,
                "rate": row.rate,
            }))
        });
        rows.collect()
    }
}

/// A failure as JSON, on standard output.
pub(super) fn failed_as_json(error: &str) {
    say(&json!({ "ok": false, "error": error }).to_string());
}

fn bars(size: Option<u64>, labels: &[String]) -> Form {
    let style = |template: &str| {
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
    };
    let all = MultiProgress::new();
    let total = match size {
        // A bar of nothing would be full.
        Some(0) => all.add(ProgressBar::new_spinner().with_style(style("{bytes} of 0 B {msg}"))),
        Some(size) => {
            let bar = "{percent:>3} % [{bar:30}] {bytes} of {total_bytes} {msg}";
            all.add(ProgressBar::new(size).with_style(style(bar).progress_chars("=> ")))
        }
        None => all.add(ProgressBar::new_spinner().with_style(style("{spinner} {msg}"))),
    };
    let sources = labels.iter().map(|label| {
        let bar = all.add(ProgressBar::new_spinner());
        bar.set_style(style("  {prefix}: {msg}"));
        bar.set_prefix(label.clone());
        bar
    });
    let sources = sources.collect();
    Form::Bars { all, total, sources }
}

fn row(progress: &Progress, id: u64) -> Option<&SourceRow> {
    progress.rows.iter().find(|row| row.id.0 == id)
}

fn state_word(state: &SourceState) -> &'static str {
    match state {
        SourceState::Active => "active",
        SourceState::Idle => "idle",
        SourceState::BackingOff => "waiting",
        SourceState::Gone(_) => "gone",
        SourceState::Banned(_) => "dropped",
    }
}

fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Opening => "opening",
        Phase::Waiting => "waiting",
        Phase::Downloading => "downloading",
        Phase::Checking => "checking",
        Phase::Finishing => "finishing",
        Phase::Ended => "ended",
    }
}

fn left(progress: &Progress) -> String {
    match (progress.phase, progress.eta) {
        (Phase::Checking, _) => "checking".into(),
        (Phase::Opening, _) => "looking at what is there".into(),
        (_, Some(left)) => format!("{} left", duration_text(left)),
        (_, None) => "waiting".into(),
    }
}

fn say(line: &str) {
    // A closed standard output has no reader.
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
