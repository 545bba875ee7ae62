//! Runs the engine on the servers that agree: again while the disk lacks something, and once more from other servers when
//! the whole file turned out to be wrong.

use std::convert::Infallible;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use shoal_common::Digests;
use shoal_engine::{
    Download, DownloadError, Engine, EngineConfig, MAX_CHANGES, Outcome, Progress, Target, Tries, feed,
};
use tokio::sync::mpsc;

use crate::fetch::options::Options;
use crate::fetch::plan::Plan;
use crate::fetch::report::{Ending, Report};
use crate::fetch::restart::{self, Contribution};
use crate::fetch::sources::Sources;
use crate::fetch::{is_unchecked, refused, refused_ref, stopped, stream, versions};
use crate::source::Joined;

/// How often to check which servers fail, and whether one in reserve is needed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Piece buffers: the connections' own take as much again, and 24 MiB are as fast as more (measured 2026-11-22).
const MEMORY: usize = 24 * 1024 * 1024;

/// How it ends when the user ends it.
const STOPPED: &str = "stopped; what was fetched is kept: continue with -r";

/// A download of a file of known size.
pub(super) struct Fetching<'a> {
    pub(super) options: &'a Options,
    /// What is known of each server's version of the file, where nothing else tells versions apart.
    pub(super) known: Vec<Joined>,
    /// Whether nothing of the file is there yet.
    pub(super) fresh: bool,
    pub(super) target: Target,
    pub(super) report: Report,
    pub(super) started: Instant,
}

/// What the runs so far came to.
struct Runs {
    /// Bytes that were kept, and bytes that came.
    kept: u64,
    fetched: u64,
    tries: Tries,
    /// The servers that a second run after a wrong digest is limited to.
    only: Option<Vec<usize>>,
    /// The servers that were suspected then.
    suspects: Vec<usize>,
}

/// How one run ended.
struct Run {
    outcome: Outcome,
    last: Progress,
    /// It was ended because no server has the rest.
    lacking: bool,
    /// Every server sent more than the file was said to have.
    all_sent_more: bool,
    /// Why different answers of servers were taken for one version.
    joined: Vec<String>,
}

impl Fetching<'_> {
    /// Downloads the file.
    pub(super) async fn run(mut self, plan: Plan) -> Result<()> {
        let engine =
            Engine::new(EngineConfig { download_limit: Some(self.options.limit_rate), memory: MEMORY });
        let mut runs = Runs {
            kept: 0,
            fetched: 0,
            tries: Tries::new(Duration::from_secs(self.options.retry_time.into())),
            only: None,
            suspects: Vec::new(),
        };
        loop {
            let run = self.attempt(&engine, &plan, runs.only.as_deref()).await;
            self.fresh = false;
            match &run.outcome {
                Outcome::Failed(error) if error.shortage().is_some() => {
                    self.wait_for_space(error, &run.last, &mut runs).await?;
                    continue;
                }
                Outcome::Failed(DownloadError::WrongWhole { expected, got }) => {
                    let problem = (**expected, **got);
                    self.again_elsewhere(&plan, &run.last, problem, &mut runs)?;
                    continue;
                }
                _ => self.report.clear(),
            }
            if let Outcome::Failed(DownloadError::NoSources { .. }) = run.outcome
                && is_unchecked(&plan)
                && run.all_sent_more
            {
                let size = plan.content.layout().size();
                self.report.note(&format!(
                    "the servers send more than the {size} bytes that they name; the file is taken as it comes"
                ));
                // What is there of it began for another size.
                self.target.discard().map_err(refused)?;
                versions::forget(&self.target);
                return stream::fetch(self.options, plan.without_size(), self.started).await;
            }
            return self.end(&plan, run, &runs);
        }
    }

    /// One run of the engine.
    async fn attempt(&mut self, engine: &Engine, plan: &Plan, only: Option<&[usize]>) -> Run {
        let (mut sources, mut found) = Sources::new(self.options, plan, (&self.known, self.fresh), only);
        let standings = sources.standings();
        self.report.watch(standings.clone());
        let (changes, seen) = mpsc::channel(MAX_CHANGES);
        let running = engine.start(plan.content.clone(), self.target.clone(), seen);
        let mut fed = pin!(feed(&running, changes, [&mut found]));
        let mut known = None;
        let (outcome, lacking) = attend(&running, &mut fed, &mut sources, &self.report, |versions| {
            if let Err(error) = versions::keep(&self.target, &plan.servers, &versions) {
                tracing::warn!(%error, "cannot keep what is known of the servers' versions");
            }
            known = Some(versions);
        })
        .await;
        self.known = known.unwrap_or_else(|| std::mem::take(&mut self.known));
        let last = running.progress().borrow().clone();
        let all_sent_more = standings.iter().all(|standing| standing.has_sent_more());
        Run { outcome, last, lacking, all_sent_more, joined: sources.joined() }
    }

    /// The disk lacks something: waits, or fails when that has lasted too long.
    async fn wait_for_space(&self, error: &DownloadError, last: &Progress, runs: &mut Runs) -> Result<()> {
        let Some(shortage) = error.shortage() else { return Ok(()) };
        let kept = last.fetched_bytes.saturating_sub(last.wasted_bytes);
        (runs.kept, runs.fetched) = (runs.kept + kept, runs.fetched + kept);
        let first = runs.tries.is_first();
        let mistake = runs.kept == 0 && first && shortage.lack.is_of_the_place();
        let pause = if mistake { None } else { runs.tries.pause(Instant::now()) };
        if let Some(pause) = pause {
            if first {
                self.report.note(&format!("{shortage}; trying again for {} s", self.options.retry_time));
            }
            return tokio::select! {
                () = tokio::time::sleep(pause) => Ok(()),
                () = stopped() => bail!(STOPPED),
            };
        }
        self.report.clear();
        match (mistake, error) {
            (true, DownloadError::Disk(error)) => Err(refused_ref(error)),
            _ => bail!("{shortage}; what was fetched is kept: when that has passed, continue with -r"),
        }
    }

    /// The whole file is wrong: chooses other servers for one more run, or fails.
    fn again_elsewhere(
        &self,
        plan: &Plan,
        last: &Progress,
        (expected, got): (Digests, Digests),
        runs: &mut Runs,
    ) -> Result<()> {
        let kept = last.fetched_bytes.saturating_sub(last.wasted_bytes);
        let size = plan.content.layout().size();
        let resumed = runs.only.is_none() && size > runs.kept + kept;
        let servers: Vec<Contribution> = plan
            .servers
            .iter()
            .zip(0u64..)
            .map(|((_, answer), id)| {
                let row = last.rows.iter().find(|row| row.id.0 == id);
                let publishes =
                    answer.claim.digests.confirmed_by(&expected) && !answer.claim.digests.is_empty();
                Contribution { bytes: row.map_or(0, |row| row.fetched_bytes), publishes }
            })
            .collect();
        let suspects = restart::suspects(&servers);
        let named = |places: &[usize]| {
            let labels: Vec<&str> =
                places.iter().filter_map(|&place| Some(plan.servers.get(place)?.0.as_str())).collect();
            labels.join(", ")
        };
        let wrong = format!("the file came with {got} where {expected} was expected");
        let second = if runs.only.is_none() { restart::second_run(&servers, resumed) } else { None };
        if let Some(second) = second {
            self.report.note(&format!(
                "{wrong}, and without piece digests nothing shows which of {} sent wrong bytes; it is fetched once more, from {}",
                named(&suspects),
                named(&second)
            ));
            // What came is wrong, and nothing of it is kept.
            (runs.kept, runs.fetched) = (0, runs.fetched + last.fetched_bytes);
            runs.only = Some(second);
            runs.suspects = suspects;
            return Ok(());
        }
        self.report.clear();
        let blame = match (&suspects[..], runs.only.is_some()) {
            ([one], false) => format!("{} sent wrong bytes", named(&[*one])),
            ([one], true) => {
                format!(
                    "{} sent wrong bytes in a second run; the first was from {}",
                    named(&[*one]),
                    named(&runs.suspects)
                )
            }
            _ => format!("one of {} sent wrong bytes", named(&suspects)),
        };
        bail!(
            "{wrong}: {blame}, or the expected digest is that of another file; nothing of it is kept. Check the digest, \
             leave out the servers named here, or use a Metalink with piece digests, which show the wrong part"
        )
    }

    /// What the user learns at the end.
    fn end(&self, plan: &Plan, run: Run, runs: &Runs) -> Result<()> {
        let Run { outcome, last, lacking, joined, .. } = run;
        let size = plan.content.layout().size();
        match outcome {
            Outcome::Complete { path, digest } => {
                versions::forget(&self.target);
                joined.iter().chain(&plan.because).for_each(|note| self.report.note(note));
                let kept = runs.kept + last.fetched_bytes.saturating_sub(last.wasted_bytes);
                self.report.complete(&Ending {
                    path: &path,
                    size,
                    digests: *digest,
                    expected: *plan.content.digest(),
                    by_pieces: !is_unchecked(plan) && size > 0,
                    fetched: runs.fetched + last.fetched_bytes,
                    resumed: size.saturating_sub(kept),
                    took: self.started.elapsed(),
                    progress: Some(last),
                });
                Ok(())
            }
            Outcome::Failed(DownloadError::Disk(error)) => Err(refused_ref(&error)),
            Outcome::Failed(error @ DownloadError::NoSources { .. }) => {
                bail!("{error}; continue with -r{}", why_gone(&last, plan))
            }
            Outcome::Failed(error) => Err(error.into()),
            Outcome::Paused if lacking => Err(anyhow!(
                "no server has the last {} bytes, and none sent anything for {} s; what was fetched is kept: continue with \
                 -r when a server has more{}",
                size - last.verified_bytes,
                self.options.retry_time,
                why_gone(&last, plan)
            )),
            Outcome::Paused | Outcome::Cancelled => bail!(STOPPED),
        }
    }
}

/// What became of each source, one per line.
fn why_gone(last: &Progress, plan: &Plan) -> String {
    use shoal_engine::SourceState::{Banned, Gone};
    let pieces = plan.content.layout().pieces();
    let lines = last.rows.iter().filter_map(|row| {
        let (label, _) = plan.servers.get(usize::try_from(row.id.0).ok()?)?;
        match &row.state {
            Gone(reason) | Banned(reason) => Some(format!("\n  {label}: {reason}")),
            _ if row.holds < pieces => Some(format!("\n  {label}: has {} of {pieces} pieces", row.holds)),
            _ => None,
        }
    });
    lines.collect()
}

/// Shows how it goes, and waits for the end; and whether that came because no server has the rest.
async fn attend(
    running: &Download,
    mut fed: impl Future<Output = Infallible> + Unpin,
    sources: &mut Sources,
    report: &Report,
    mut learnt: impl FnMut(Vec<Joined>),
) -> (Outcome, bool) {
    let progress = running.progress();
    let every = report.every().unwrap_or(Duration::from_secs(3600));
    let mut shown = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut stopped = pin!(stopped());
    loop {
        tokio::select! {
            outcome = running.wait() => return (outcome, false),
            never = &mut fed => match never {},
            _ = shown.tick(), if report.every().is_some() => report.show(&progress.borrow().clone()),
            _ = look.tick() => {
                sources.look(report);
                if let Some(versions) = sources.new_versions() {
                    learnt(versions);
                }
                let lacking = sources.lack_the_rest(&progress.borrow());
                if lacking {
                    return (running.pause().await, true);
                }
            }
            () = &mut stopped => return (running.pause().await, false),
        }
    }
}
