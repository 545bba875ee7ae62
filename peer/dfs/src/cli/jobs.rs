//! The queue's commands, and the worker that works it off while a prompt is open.
//!
//! All of it goes by the queue's file, so that commands of one process reach the worker of another: the worker looks there
//! whether it is to go on with its job.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::json;
use shoal_common::UserName;
use shoal_engine::regular::{self, OpenError};
use shoal_session::text;
use tokio::sync::watch;

use super::command::Command;
use super::show::{Output, Screen, job_of};
use crate::client::{Client, GetOptions, Progress, Report, StoreError};
use crate::name::StoredName;
use crate::queue::file::{QueueFile, WorkLock};
use crate::queue::schedule::Schedule;
use crate::queue::{Job, Queue, State, Work};

/// How often the queue's file is looked at: a job that another process leaves there starts within that time.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two tries to change a queue whose file cannot be used.
const TRY_EVERY: Duration = Duration::from_secs(2);

/// How far the running job is.
type Running = (u64, watch::Receiver<Progress>);

/// The queue of the user of this process.
pub(super) struct Jobs {
    file: QueueFile,
    screen: Screen,
    /// Whether puts and gets of this process are jobs, because it has a prompt and works the queue off.
    at_work: bool,
    /// Whose it is.
    user: UserName,
    running: Mutex<Option<Running>>,
}

/// Jobs that put these files, after a look at each.
pub(super) fn puts(paths: &[PathBuf], copies: Option<u8>) -> anyhow::Result<Vec<Work>> {
    let put = |path: &PathBuf| {
        let path = std::path::absolute(path)?;
        StoredName::of_path(&path)?;
        let (size, modified) = look(&path)?;
        Ok(Work::Put { path, copies, size, modified })
    };
    paths.iter().map(put).collect::<anyhow::Result<_>>().context("nothing was queued")
}

/// Size and time of change of a regular file.
fn look(path: &Path) -> Result<(u64, (i64, i64)), StoreError> {
    match regular::check(path) {
        Ok(found) => Ok((found.len(), (found.mtime(), found.mtime_nsec()))),
        Err(OpenError::NotRegular(found)) => Err(found.into()),
        Err(OpenError::Io(error)) => Err(StoreError::File { action: "read", path: path.to_owned(), error }),
    }
}

impl Jobs {
    pub(super) fn new(file: QueueFile, screen: Screen, at_work: bool, user: UserName) -> Self {
        Self { file, screen, at_work, user, running: Mutex::new(None) }
    }

    /// Whose queue it is.
    pub(super) fn user(&self) -> &UserName {
        &self.user
    }

    /// Whether puts and gets of this process are jobs.
    pub(super) fn at_work(&self) -> bool {
        self.at_work
    }

    /// Adds jobs at the end, all or none.
    pub(super) async fn add(&self, works: Vec<Work>) -> anyhow::Result<Output> {
        let added = self.edit(move |queue| queue.add(works)).await.context("nothing was queued")?;
        Ok(Output::Queued(added?))
    }

    /// Carries out a command on the queue.
    pub(super) async fn carry_out(&self, client: &Client, command: Command) -> anyhow::Result<Output> {
        match command {
            Command::Queue { clear: true } => {
                Ok(Output::JobsChanged("that failed taken out", self.edit(Queue::clear).await?))
            }
            Command::Pause { job } => {
                let count = self.edit(move |queue| queue.pause(job)).await?;
                anyhow::ensure!(count > 0, "no such job waits or runs; queue lists them");
                Ok(Output::JobsChanged("paused", count))
            }
            Command::Resume { job } => {
                let count = self.edit(move |queue| queue.resume(job)).await?;
                anyhow::ensure!(count > 0, "no such job is paused or failed; queue lists them");
                Ok(Output::JobsChanged("resumed", count))
            }
            Command::Cancel { job } => {
                let found = self.edit(move |queue| queue.cancel(job)).await?;
                anyhow::ensure!(found, "there is no job {job}; queue lists them");
                Ok(Output::JobsChanged("cancelled", 1))
            }
            Command::Wait { job } if self.at_work => self.wait(job).await,
            Command::Wait { job } => tokio::select! {
                done = self.wait(job) => done,
                ended = self.work_alone(client) => match ended? {},
            },
            _ => {
                let jobs = self.jobs().await?;
                let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(Output::Jobs(
                    jobs,
                    running.as_ref().map(|(number, progress)| (*number, *progress.borrow())),
                ))
            }
        }
    }

    /// Works the queue off where nobody can log in again.
    ///
    /// # Errors
    /// When the session is over.
    pub(super) async fn work_alone(&self, client: &Client) -> anyhow::Result<Infallible> {
        tokio::select! {
            never = self.work(client) => match never {},
            () = client.session_over() => anyhow::bail!(
                "the session was ended: the password was changed, or somebody logged this client out; run it again and it continues"
            ),
        }
    }

    /// Waits until that job, or any, neither waits nor runs; an error if one failed.
    async fn wait(&self, job: Option<u64>) -> anyhow::Result<Output> {
        loop {
            let mut jobs = self.jobs().await?;
            jobs.retain(|found| job.is_none_or(|job| job == found.number));
            if !jobs.iter().any(|job| matches!(job.state, State::Waiting | State::Running)) {
                let failed: Vec<&Job> = jobs.iter().filter(|job| job.state == State::Failed).collect();
                let Some(first) = failed.first() else { return Ok(Output::Done("the queue is worked off")) };
                let reason = first.note.as_deref().unwrap_or_default();
                anyhow::bail!("{} failed; job {}: {reason}", text::count(failed.len(), "job"), first.number);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Says at the end of a prompt that jobs are left.
    pub(super) async fn say_what_is_left(&self) {
        let Ok(jobs) = self.jobs().await else { return };
        let left = jobs.iter().filter(|job| matches!(job.state, State::Waiting | State::Running)).count();
        if left > 0 {
            let line = format!("{} left in the queue; the next prompt continues", text::count(left, "job"));
            self.screen.event("queue_left", json!({ "jobs": left }), &line);
        }
    }

    /// Works the queue off, in order, as long as it is polled. A job that lacks something lets the next one go first, and is
    /// tried again. Dropping it interrupts the job under way.
    pub(super) async fn work(&self, client: &Client) -> Infallible {
        let _lock = self.lock().await;
        self.insist(Queue::recover).await;
        let mut schedule = Schedule::default();
        loop {
            let (before, now) = (schedule.clone(), Instant::now());
            let next = move |queue: &mut Queue| {
                let mut schedule = before;
                (schedule.next(queue, now), schedule)
            };
            let job;
            (job, schedule) = self.insist(next).await;
            let Some(job) = job else {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            };
            let mut noted = job.note.clone();
            let tried = tokio::select! {
                result = self.run(client, &job, &mut noted) => Some(result),
                () = self.taken_back(job.number) => None,
            };
            // Apart from the above: a job that has left the queue because it is done was not taken back.
            let is_lacking = match tried {
                Some(result) => !self.conclude(&job, result, noted).await,
                None => false,
            };
            *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
            if is_lacking {
                schedule.lacks(job.number, now.elapsed(), Instant::now());
            }
        }
    }

    /// Waits for the right to work the queue off.
    async fn lock(&self) -> WorkLock {
        let mut said = false;
        loop {
            let problem = match self.file.work() {
                Ok(Some(lock)) => return lock,
                Ok(None) => {
                    "another dfs of yours works the queue off; this one takes over when that ends".into()
                }
                Err(error) => format!("cannot lock the queue {}: {error}", self.file.path().display()),
            };
            if !std::mem::replace(&mut said, true) {
                self.screen.event("queue_busy", json!({ "reason": problem }), &problem);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Completes when the job is no longer to be done: cancelled or paused.
    async fn taken_back(&self, number: u64) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // What cannot be read now is no wish of the user's.
            if let Ok(false) = self.edit(move |queue| queue.is_running(number)).await {
                return;
            }
        }
    }

    /// Does a job to its end, or to what it lacks. What was noted of it before goes when it goes on.
    async fn run(
        &self,
        client: &Client,
        job: &Job,
        noted: &mut Option<String>,
    ) -> Result<Output, StoreError> {
        let number = job.number;
        let report = Report::new(Progress::default());
        let mut progress = report.subscribe();
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, report.subscribe()));
        let attempt = attempt(client, job, &report);
        tokio::pin!(attempt);
        loop {
            tokio::select! {
                result = &mut attempt => return result,
                _ = progress.changed(), if noted.is_some() => {
                    *noted = None;
                    self.insist(move |queue| queue.goes_on(number)).await;
                }
            }
        }
    }

    /// Keeps and says how a job ended; false if it lacks something. What that is, is said unless it was `noted` before.
    async fn conclude(&self, job: &Job, result: Result<Output, StoreError>, noted: Option<String>) -> bool {
        let (number, (kind, of)) = (job.number, job_of(job));
        let of = text::printable(&of);
        match result {
            Ok(done) => {
                self.insist(move |queue| queue.finish(number)).await;
                let line = format!("job {number}: {}", done.words());
                let fields = json!({ "job": number, "kind": kind, "file": of });
                self.screen.event("job_done", fields, &line);
                true
            }
            Err(error) if error.passes() => {
                // Only an answer that did not come leaves open whether it is done.
                let begun = matches!(error, StoreError::Call(_));
                let reason = match error.needs_login() {
                    true if self.at_work => "a login is needed: type login".to_owned(),
                    true => "a login is needed".to_owned(),
                    false => text::error_line(&error.lack()),
                };
                let kept = reason.clone();
                self.insist(move |queue| queue.put_back(number, begun, &kept)).await;
                // The note may be cut.
                if noted.is_none_or(|noted| !reason.starts_with(&noted)) {
                    let line = format!("job {number}: {kind} {of} waits: {reason}");
                    let fields = json!({ "job": number, "kind": kind, "file": of, "reason": reason });
                    self.screen.event("job_waits", fields, &line);
                }
                false
            }
            Err(error) => {
                let reason = text::error_line(&error.to_string());
                let line = format!("job {number}: {kind} {of} failed: {reason}");
                let fields = json!({ "job": number, "kind": kind, "file": of, "error": reason });
                self.insist(move |queue| queue.fail(number, &reason)).await;
                self.screen.event("job_failed", fields, &line);
                true
            }
        }
    }

    async fn jobs(&self) -> anyhow::Result<Vec<Job>> {
        self.edit(|queue| queue.jobs().to_vec()).await
    }

    /// Changes the queue, and tries again while that fails: a job that is done must not be done again.
    async fn insist<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Queue) -> T + Clone + Send + 'static,
    ) -> T {
        let mut said = false;
        loop {
            match self.edit(change.clone()).await {
                Ok(value) => return value,
                Err(error) if !std::mem::replace(&mut said, true) => {
                    self.screen.warn(&format!("{error:#}; tries again until it works"));
                }
                Err(_) => {}
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    async fn edit<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Queue) -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let file = self.file.clone();
        let edited = tokio::task::spawn_blocking(move || file.edit(change)).await;
        let edited = edited.unwrap_or_else(|error| Err(io::Error::other(error)));
        let edited =
            edited.with_context(|| format!("cannot use the queue {}", self.file.path().display()))?;
        if let Some(path) = edited.set_aside {
            let path = path.display();
            self.screen.warn(&format!(
                "the queue was damaged and is empty now; what was left is in {path}: queue its files again"
            ));
        }
        Ok(edited.value)
    }
}

/// Tries a job once. One that was begun before may be done already.
async fn attempt(client: &Client, job: &Job, report: &Report) -> Result<Output, StoreError> {
    match &job.work {
        Work::Put { path, copies, size, modified } => {
            if look(path)? != (*size, *modified) {
                return Err(StoreError::ChangedInQueue(path.clone()));
            }
            if job.begun && client.is_stored(path, *copies, report).await? {
                return Ok(Output::StoredBefore(StoredName::of_path(path)?));
            }
            Ok(Output::Stored(vec![client.put(path, *copies, report).await?]))
        }
        Work::Get { name, to, force } => {
            let name = client.resolve(name).await?;
            let options = GetOptions { to: Some(to.clone()), force: *force };
            Ok(Output::Got(client.get(&name, &options, report).await?))
        }
    }
}
