//! A file whose size no server gives, for example because it is generated while it is sent. It is taken as one stream from
//! one server at a time, into a temporary file until it is whole. It cannot be resumed: only its end shows how long it is.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use reqwest::{Response, StatusCode};
use shoal_common::{Digests, DigestsHasher};
use shoal_engine::{DiskError, Overwrite, Shortage, Target, Tries};
use tempfile::NamedTempFile;

use crate::client;
use crate::fetch::ask::{Answer, TIMEOUT};
use crate::fetch::options::Options;
use crate::fetch::plan::Unsized;
use crate::fetch::report::{Ending, Report};
use crate::fetch::{destination, refused_ref, stopped};

/// Longest time without a byte.
const STALL: Duration = Duration::from_secs(10);
/// Pause before the next try, when all servers have failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Rounds in which no server got further than any before, until that counts: a connection that breaks off once is no sign.
const FRUITLESS: u32 = 3;

/// Downloads the file.
pub(super) async fn fetch(options: &Options, mut plan: Unsized, started: Instant) -> Result<()> {
    let target = destination::target(&options.output, &plan.save_as, options.overwrite)?;
    let labels = plan.servers.iter().map(|(label, _)| label.clone()).collect();
    let report = Report::of_stream(labels, options.reports.interval, options.json);
    plan.notes.iter().for_each(|note| report.note(note));
    if let Some(problem) = destination::in_the_way(&target) {
        return Err(problem);
    }
    if !options.resume {
        target.discard().map_err(|error| refused_ref(&error))?;
    }
    let mut wrong = Vec::new();
    let (file, size, digests) = loop {
        let (received, from) = tokio::select! {
            received = receive(options, &plan, &target, &report) => received?,
            () = stopped() => bail!("stopped; nothing is kept of a file whose size no server tells"),
        };
        if plan.digests.confirmed_by(&received.2) {
            break received;
        }
        let (label, _) = plan.servers.remove(from);
        let problem =
            format!("the file came with {} from {label} where {} was expected", received.2, plan.digests);
        wrong.push(label);
        if plan.servers.is_empty() || wrong.len() > 1 {
            bail!(
                "{problem}; nothing of it is kept. Check the digest, or fetch it from others than {}",
                wrong.join(" and ")
            );
        }
        report.note(&format!("{problem}; it is fetched once more, from another server"));
    };
    let (to, replace) = (target.path().to_owned(), target.overwrite() == Overwrite::Replace);
    tokio::task::spawn_blocking(move || put(file, &to, replace)).await??;
    report.complete(&Ending {
        path: target.path(),
        size,
        digests,
        expected: plan.digests,
        by_pieces: false,
        fetched: size,
        resumed: 0,
        took: started.elapsed(),
        progress: None,
    });
    Ok(())
}

/// Tries the servers in turn until one has sent all of it, or none has for as long as the user waits.
async fn receive(
    options: &Options,
    plan: &Unsized,
    target: &Target,
    report: &Report,
) -> Result<((NamedTempFile, u64, Digests), usize)> {
    let (patience, mut since) = (Duration::from_secs(options.retry_time.into()), Instant::now());
    let (mut furthest, mut fruitless, mut said) = (0, 0, false);
    // The file has another name until it is whole: one that the file system does not take would show at the end.
    match shoal_disk::try_name(target.path()) {
        Err(error) if shoal_disk::is_about_name(&error) => {
            return Err(DiskError::Name(target.path().to_owned()).into());
        }
        _ => {}
    }
    loop {
        fruitless += 1;
        let mut reasons = Vec::new();
        for (index, (label, answer)) in plan.servers.iter().enumerate() {
            let mut receiving = Receiving::new(target, &plan.digests, options)?;
            match from(plan, answer, &mut receiving, patience.max(TIMEOUT), report).await? {
                Ok(()) => {
                    return Ok(((receiving.file, receiving.size, receiving.hasher.finish()), index));
                }
                Err(reason) => reasons.push(format!("{label}: {reason}")),
            }
            // One that breaks off where others did before gets nowhere.
            if receiving.size > furthest {
                (furthest, since, fruitless) = (receiving.size, receiving.last, 0);
            }
        }
        if since.elapsed() >= patience && (fruitless >= FRUITLESS || patience.is_zero()) {
            bail!("no server sent all of the file:\n  {}", reasons.join("\n  "));
        }
        if !said {
            said = true;
            report.note(&format!(
                "no server sent all of the file; begun again until none gets further for {} s:\n  {}",
                patience.as_secs(),
                reasons.join("\n  ")
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A file being received.
struct Receiving {
    file: NamedTempFile,
    size: u64,
    hasher: DigestsHasher,
    begun: Instant,
    last: Instant,
    limit: u64,
    /// How long what is lacking is waited for.
    patience: Duration,
}

impl Receiving {
    fn new(target: &Target, expected: &Digests, options: &Options) -> Result<Self> {
        let folder = folder_of(target.path());
        // As any new file; the user's mask says who reads it.
        let everybody = std::fs::Permissions::from_mode(0o666);
        let file = tempfile::Builder::new()
            .prefix(".fetch-")
            .suffix(".part")
            .permissions(everybody)
            .tempfile_in(folder);
        let file = file.map_err(|error| match Shortage::of(&error, folder) {
            Some(shortage) => anyhow!("{shortage}; when that has passed, fetch it again"),
            None => anyhow!("cannot write to the folder {}: {error}", folder.display()),
        })?;
        let now = Instant::now();
        let hasher = DigestsHasher::confirming(expected);
        let hasher = if options.wants_sha1() { hasher.with_sha1() } else { hasher };
        let (limit, patience) = (options.limit_rate, Duration::from_secs(options.retry_time.into()));
        Ok(Self { file, size: 0, hasher, begun: now, last: now, limit, patience })
    }

    async fn take(&mut self, bytes: &[u8], report: &Report) -> Result<()> {
        self.hasher.update(bytes);
        self.write(bytes, report).await?;
        self.size += bytes.len() as u64;
        self.last = Instant::now();
        if let Some(due) = self.size.saturating_mul(1_000).checked_div(self.limit) {
            let due = Duration::from_millis(due);
            tokio::time::sleep(due.saturating_sub(self.begun.elapsed())).await;
        }
        Ok(())
    }

    /// Writes all of it, and waits for what is lacking, such as space, as long as the user waits.
    async fn write(&mut self, mut bytes: &[u8], report: &Report) -> Result<()> {
        let mut tries = Tries::new(self.patience);
        while !bytes.is_empty() {
            let error = match self.file.as_file_mut().write(bytes) {
                Ok(0) => ErrorKind::WriteZero.into(),
                Ok(written) => {
                    bytes = &bytes[written..];
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            let path = self.file.path();
            let Some(shortage) = Shortage::of(&error, folder_of(path)) else {
                return Err(error).with_context(|| format!("cannot write {}", path.display()));
            };
            let first = tries.is_first();
            let Some(pause) = tries.pause(Instant::now()) else {
                bail!(
                    "{shortage}; nothing is kept of a file whose size no server tells: when that has passed, fetch it again"
                );
            };
            if first {
                report.note(&format!("{shortage}; trying again for {} s", self.patience.as_secs()));
            }
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }
}

/// The folder that a file is in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Receives all that one server sends; the inner error is the server's.
async fn from(
    plan: &Unsized,
    answer: &Answer,
    receiving: &mut Receiving,
    within: Duration,
    report: &Report,
) -> Result<Result<(), String>> {
    let asked = tokio::time::timeout(within, plan.client.get(answer.original.clone()).send()).await;
    let mut response = match asked {
        Ok(Ok(response)) if response.status() == StatusCode::OK => response,
        Ok(Ok(response)) => return Ok(Err(format!("answers {}", response.status()))),
        Ok(Err(error)) => return Ok(Err(client::reason(error))),
        Err(_) => return Ok(Err(format!("did not answer within {} s", within.as_secs()))),
    };
    let (every, mut shown) = (report.every(), Instant::now());
    loop {
        match chunk(&mut response).await {
            Ok(Some(bytes)) => receiving.take(&bytes, report).await?,
            Ok(None) => return Ok(Ok(())),
            Err(reason) => return Ok(Err(reason)),
        }
        if every.is_some_and(|every| shown.elapsed() >= every) {
            shown = Instant::now();
            report.streamed(receiving.size, receiving.begun.elapsed());
        }
    }
}

async fn chunk(response: &mut Response) -> Result<Option<bytes::Bytes>, String> {
    match tokio::time::timeout(STALL, response.chunk()).await {
        Ok(chunk) => chunk.map_err(client::reason),
        Err(_) => Err(format!("sent nothing for {} s", STALL.as_secs())),
    }
}

/// Puts the file in its place, durably. Blocking.
fn put(file: NamedTempFile, to: &Path, replace: bool) -> Result<()> {
    shoal_disk::sync_file(file.as_file()).with_context(|| format!("cannot write {}", to.display()))?;
    let from = file.into_temp_path();
    let put = if replace { std::fs::rename(&from, to) } else { shoal_disk::rename_new(&from, to) };
    put.with_context(|| format!("cannot put the file in place as {}", to.display()))?;
    // It has another name now.
    let _ = from.keep();
    shoal_disk::sync_folder(folder_of(to)).context("cannot write to the folder")
}
