//! `fetch`: one file from many HTTP servers at once. It asks all of them, trusts the majority, and gives those that agree
//! to the engine as sources.

mod ask;
mod destination;
mod duplicates;
mod majority;
mod options;
mod plan;
mod report;
mod samples;
mod sources;
mod stream;
mod versions;

use std::convert::Infallible;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use shoal_engine::{
    DiskError, Download, DownloadError, Engine, EngineConfig, MAX_CHANGES, Outcome, Progress, Target, Tries,
    Verification, feed,
};
use tokio::sync::mpsc;

pub use crate::fetch::options::Options;

use crate::fetch::plan::{Plan, Planned};
use crate::fetch::report::{Ending, Report};
use crate::fetch::sources::Sources;
use crate::source::Joined;

/// How often to check which servers fail, and whether one in reserve is needed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Piece buffers: the connections' own take as much again, and 24 MiB are as fast as more (measured 2026-11-22).
const MEMORY: usize = 24 * 1024 * 1024;

/// How it ends when the user ends it.
const STOPPED: &str = "stopped; what was fetched is kept: continue with -r";

/// Runs `fetch` to its end.
///
/// # Errors
/// When the file is not complete at the end; the message says what to do.
pub fn run(options: Options) -> Result<()> {
    let runtime = shoal_console::runtime().context("cannot start the runtime")?;
    let json = options.json;
    let ended = runtime.block_on(fetch(options));
    // Reading a large file that is there already cannot be cut short.
    runtime.shutdown_background();
    if let Err(error) = &ended
        && json
    {
        report::failed_as_json(&format!("{error:#}"));
    }
    ended
}

async fn fetch(options: Options) -> Result<()> {
    let started = Instant::now();
    let plan = tokio::select! {
        plan = plan::plan(&options) => plan?,
        () = stopped() => bail!("stopped before the download began"),
    };
    let plan = match plan {
        Planned::Known(plan) => plan,
        Planned::Unsized(plan) => return stream::fetch(&options, plan, started).await,
    };
    let target = destination::target(&options.output, &plan.save_as, options.overwrite)?;
    let labels = plan.servers.iter().map(|(label, _)| label.clone()).collect();
    let report = Report::new(plan.content.layout().size(), labels, options.reports.interval, options.json);
    plan.notes.iter().for_each(|note| report.note(note));
    if let Some(digests) = is_complete(&target, &plan, options.resume).await? {
        let size = plan.content.layout().size();
        let expected = *plan.content.digest();
        report.complete(&Ending {
            path: target.path(),
            size,
            digests,
            expected,
            fetched: 0,
            resumed: size,
            took: started.elapsed(),
            progress: None,
        });
        return Ok(());
    }
    if let Some(problem) = destination::in_the_way(&target) {
        return Err(problem);
    }
    if !options.resume {
        target.discard().map_err(refused)?;
    }
    let fresh = !versions::is_resumed(&target, options.resume);
    let known = match is_unchecked(&plan) {
        true => {
            let digest_known = !plan.content.digest().is_empty();
            versions::compare_and_keep(&target, &plan.servers, options.resume, digest_known)?
        }
        false => Vec::new(),
    };
    download(&options, plan, (known, fresh), target, report, started).await
}

async fn is_complete(target: &Target, plan: &Plan, resume: bool) -> Result<Option<shoal_common::Digests>> {
    let (target, content) = (target.clone(), plan.content.clone());
    tokio::task::spawn_blocking(move || destination::complete(&target, &content, resume)).await?
}

fn is_unchecked(plan: &Plan) -> bool {
    matches!(plan.content.verification(), Verification::Unchecked)
}

async fn download(
    options: &Options,
    plan: Plan,
    (mut known, mut fresh): (Vec<Joined>, bool),
    target: Target,
    mut report: Report,
    started: Instant,
) -> Result<()> {
    let engine = Engine::new(EngineConfig { download_limit: Some(options.limit_rate), memory: MEMORY });
    let (size, expected) = (plan.content.layout().size(), *plan.content.digest());
    let mut tries = Tries::new(Duration::from_secs(options.retry_time.into()));
    let mut fetched_before = 0;
    loop {
        let (mut sources, mut found) = Sources::new(options, &plan, &known, fresh);
        let standings = sources.standings();
        report.watch(standings.clone());
        let (changes, seen) = mpsc::channel(MAX_CHANGES);
        let running = engine.start(plan.content.clone(), target.clone(), seen);
        let mut fed = pin!(feed(&running, changes, [&mut found]));
        let outcome = attend(&running, &mut fed, &mut sources, &report, |versions| {
            if let Err(error) = versions::keep(&target, &plan.servers, &versions) {
                tracing::warn!(%error, "cannot keep what is known of the servers' versions");
            }
            known = versions;
        })
        .await;
        fresh = false;
        let last = running.progress().borrow().clone();
        if let Outcome::Failed(error) = &outcome
            && let Some(shortage) = error.shortage()
        {
            fetched_before += last.fetched_bytes.saturating_sub(last.wasted_bytes);
            let mistake = fetched_before == 0 && tries.is_first() && shortage.lack.is_of_the_place();
            let first = tries.is_first();
            let pause = if mistake { None } else { tries.pause(Instant::now()) };
            if let Some(pause) = pause {
                if first {
                    report.note(&format!("{shortage}; trying again for {} s", options.retry_time));
                }
                wait(pause).await?;
                continue;
            }
            report.clear();
            if !mistake {
                bail!("{shortage}; what was fetched is kept: when that has passed, continue with -r");
            }
        }
        report.clear();
        if let Outcome::Failed(DownloadError::NoSources { .. }) = outcome
            && is_unchecked(&plan)
            && standings.iter().all(|standing| standing.has_sent_more())
        {
            report.note(&format!(
                "the servers send more than the {size} bytes that they name; the file is taken as it comes"
            ));
            // What is there of it began for another size.
            target.discard().map_err(refused)?;
            versions::forget(&target);
            return stream::fetch(options, plan.without_size(), started).await;
        }
        return match outcome {
            Outcome::Complete { path, digest } => {
                versions::forget(&target);
                sources.joined().iter().chain(&plan.because).for_each(|note| report.note(note));
                let kept = fetched_before + last.fetched_bytes.saturating_sub(last.wasted_bytes);
                report.complete(&Ending {
                    path: &path,
                    size,
                    digests: *digest,
                    expected,
                    fetched: fetched_before + last.fetched_bytes,
                    resumed: size.saturating_sub(kept),
                    took: started.elapsed(),
                    progress: Some(last),
                });
                Ok(())
            }
            Outcome::Failed(DownloadError::Disk(error)) => Err(refused_ref(&error)),
            Outcome::Failed(error @ DownloadError::NoSources { .. }) => {
                bail!("{error}; continue with -r{}", why_gone(&last, &plan.servers))
            }
            Outcome::Failed(error) => Err(error.into()),
            Outcome::Paused | Outcome::Cancelled => bail!(STOPPED),
        };
    }
}

/// Waits, unless the user stops the download.
async fn wait(pause: Duration) -> Result<()> {
    tokio::select! {
        () = tokio::time::sleep(pause) => Ok(()),
        () = stopped() => bail!(STOPPED),
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn stopped() {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        Some(()) = async { terminate.as_mut().ok()?.recv().await } => {}
    }
}

/// What became of each source, one per line.
fn why_gone(last: &Progress, servers: &[(String, ask::Answer)]) -> String {
    use shoal_engine::SourceState::{Banned, Gone};
    let lines = last.rows.iter().filter_map(|row| {
        let (label, _) = servers.get(usize::try_from(row.id.0).ok()?)?;
        match &row.state {
            Gone(reason) | Banned(reason) => Some(format!("\n  {label}: {reason}")),
            _ => None,
        }
    });
    lines.collect()
}

/// Shows how it goes, and waits for the end.
async fn attend(
    running: &Download,
    mut fed: impl Future<Output = Infallible> + Unpin,
    sources: &mut Sources,
    report: &Report,
    mut learnt: impl FnMut(Vec<Joined>),
) -> Outcome {
    let progress = running.progress();
    let every = report.every().unwrap_or(Duration::from_secs(3600));
    let mut shown = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut stopped = pin!(stopped());
    loop {
        tokio::select! {
            outcome = running.wait() => return outcome,
            never = &mut fed => match never {},
            _ = shown.tick(), if report.every().is_some() => report.show(&progress.borrow().clone()),
            _ = look.tick() => {
                sources.look(report);
                if let Some(versions) = sources.new_versions() {
                    learnt(versions);
                }
            }
            () = &mut stopped => return running.pause().await,
        }
    }
}

/// What the disk's refusal means for a user of `fetch`.
fn refused(error: DiskError) -> anyhow::Error {
    refused_ref(&error)
}

fn refused_ref(error: &DiskError) -> anyhow::Error {
    match error {
        DiskError::OtherContent(path) => anyhow!(
            "{} is unfinished and of another content: the file on the servers has changed since; start again without -r",
            path.display()
        ),
        DiskError::Exists(path) => anyhow!(
            "{} appeared there during the download and is not replaced; what was fetched is kept: move that file away and \
             continue with -r, or give -r --overwrite",
            path.display()
        ),
        DiskError::Locked(path) => anyhow!("{} is being downloaded already by another fetch", path.display()),
        other => anyhow!("{other}"),
    }
}
