//! `fetch`: one file from many HTTP servers at once. It asks all of them, trusts the majority, and gives those that agree
//! to the engine as sources.

mod ask;
mod destination;
mod download;
mod duplicates;
mod majority;
mod options;
mod plan;
mod report;
mod restart;
mod samples;
mod sources;
mod stream;
mod versions;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use shoal_engine::{DiskError, Target, Verification};

pub use crate::fetch::options::Options;

use crate::fetch::download::Fetching;
use crate::fetch::plan::{Plan, Planned};
use crate::fetch::report::{Ending, Report};
use crate::program;

/// Runs `fetch` to its end; the exit code is 0, or 1 if it failed.
#[must_use]
pub fn main(options: Options) -> ExitCode {
    program::run("fetch", options.log_format, || run(options))
}

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
            by_pieces: false,
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
        let was_unfinished = target.part_path().exists();
        target.discard().map_err(refused)?;
        if was_unfinished {
            let path = target.path().display();
            report.note(&format!(
                "{path} was unfinished and starts from the beginning; with -r it would have gone on"
            ));
        }
    }
    let fresh = !versions::is_resumed(&target, options.resume);
    let known = match is_unchecked(&plan) {
        true => {
            let digest_known = !plan.content.digest().is_empty();
            versions::compare_and_keep(&target, &plan.servers, options.resume, digest_known)?
        }
        false => Vec::new(),
    };
    let download = Fetching { options: &options, known, fresh, target, report, started };
    download.run(plan).await
}

async fn is_complete(target: &Target, plan: &Plan, resume: bool) -> Result<Option<shoal_common::Digests>> {
    let (target, content) = (target.clone(), plan.content.clone());
    tokio::task::spawn_blocking(move || destination::complete(&target, &content, resume)).await?
}

fn is_unchecked(plan: &Plan) -> bool {
    matches!(plan.content.verification(), Verification::Unchecked)
}

/// Waits for Ctrl-C or SIGTERM.
async fn stopped() {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        Some(()) = async { terminate.as_mut().ok()?.recv().await } => {}
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
