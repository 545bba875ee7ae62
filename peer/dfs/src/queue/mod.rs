//! What waits to be put or got, in order. Pure: no clock, no disk, no network; [`mod@file`] keeps it on disk, `cli::jobs` works it
//! off.
//!
//! Every change is one event on a [`Queue`]. A job that is done leaves it. One that failed stays, so that its owner sees why.

pub mod file;
pub mod schedule;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use minicbor::{Decode, Encode};

/// Jobs in one queue at most: more than a person queues, and few enough that every change rewrites the file quickly.
pub const MAX_JOBS: usize = 10_000;
/// Longest path or name of a job, in bytes: the system's own bound for a path.
pub const MAX_PATH: usize = 4096;
/// Longest reason that is kept of a failure, in bytes.
const MAX_NOTE: usize = 1024;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Work {
    /// Store a file.
    #[n(1)]
    Put {
        /// Its absolute path.
        #[cbor(n(0), with = "path")]
        path: PathBuf,
        /// Copies that were asked for.
        #[n(1)]
        copies: Option<u8>,
        /// Its size when it was queued, in bytes.
        #[n(2)]
        size: u64,
        /// When it was last modified before it was queued: seconds and nanoseconds of Unix time.
        #[n(3)]
        modified: (i64, i64),
    },
    /// Fetch a stored file.
    #[n(2)]
    Get {
        /// Its name, as it was typed.
        #[n(0)]
        name: String,
        /// Where it goes, a folder or a file: an absolute path.
        #[cbor(n(1), with = "path")]
        to: PathBuf,
        /// Whether a file that is there already is replaced.
        #[n(2)]
        force: bool,
    },
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum State {
    /// It has not begun, or was interrupted.
    #[n(0)]
    Waiting,
    /// A worker has it.
    #[n(1)]
    Running,
    /// Its owner paused it.
    #[n(2)]
    Paused,
    /// It failed; its note says why.
    #[n(3)]
    Failed,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Job {
    /// Its number, which no other job of this queue ever has.
    #[n(0)]
    pub number: u64,
    /// What is to be done.
    #[n(1)]
    pub work: Work,
    /// How far it is.
    #[n(2)]
    pub state: State,
    /// Whether a worker had it, and it may be done already.
    #[n(3)]
    pub begun: bool,
    /// Why it failed, or what it waits for.
    #[n(4)]
    pub note: Option<String>,
}

/// Jobs in the order in which they were added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Queue {
    #[n(0)]
    last: u64,
    #[n(1)]
    jobs: Vec<Job>,
}

/// Why jobs were not added; none of them was.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdded {
    /// There are too many.
    #[error(
        "the queue has {have} jobs, and {MAX_JOBS} are the most; nothing was queued: wait, or cancel some"
    )]
    Full {
        /// Jobs that there are.
        have: usize,
    },
    /// A path or name is too long.
    #[error("a path or name is longer than {MAX_PATH} bytes; nothing was queued")]
    TooLong,
}

impl Queue {
    /// The jobs in order.
    #[must_use]
    pub fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    /// Adds jobs at the end, all or none; their numbers.
    ///
    /// # Errors
    /// [`NotAdded`].
    pub fn add(&mut self, works: Vec<Work>) -> Result<Vec<u64>, NotAdded> {
        if self.jobs.len().saturating_add(works.len()) > MAX_JOBS {
            return Err(NotAdded::Full { have: self.jobs.len() });
        }
        let long = |work: &Work| match work {
            Work::Put { path, .. } => path.as_os_str().len() > MAX_PATH,
            Work::Get { name, to, .. } => name.len() > MAX_PATH || to.as_os_str().len() > MAX_PATH,
        };
        if works.iter().any(long) {
            return Err(NotAdded::TooLong);
        }
        let mut numbers = Vec::new();
        for work in works {
            self.last += 1;
            numbers.push(self.last);
            self.jobs.push(Job { number: self.last, work, state: State::Waiting, begun: false, note: None });
        }
        Ok(numbers)
    }

    /// The worker that had jobs is gone: what it had waits again, and what is lacking is to be found out again.
    pub fn recover(&mut self) {
        for job in &mut self.jobs {
            match job.state {
                State::Running | State::Waiting => (job.state, job.note) = (State::Waiting, None),
                State::Paused | State::Failed => {}
            }
        }
    }

    /// Starts the first job that waits and is `meant`; as it was before, so that `begun` says whether it may be done already.
    /// What it waited for stays noted until it gets further.
    pub fn start(&mut self, meant: impl Fn(u64) -> bool) -> Option<Job> {
        let ready = |job: &&mut Job| job.state == State::Waiting && meant(job.number);
        let job = self.jobs.iter_mut().find(ready)?;
        let before = job.clone();
        (job.state, job.begun) = (State::Running, true);
        Some(before)
    }

    /// A running job lacks something: it keeps its place, and waits for its next turn. `begun`: whether it may be done all
    /// the same.
    pub fn put_back(&mut self, number: u64, begun: bool, what: &str) {
        if let Some(job) = self.running(number) {
            (job.state, job.begun, job.note) = (State::Waiting, begun, Some(bounded(what)));
        }
    }

    /// A job is done, whatever was asked of it meanwhile.
    pub fn finish(&mut self, number: u64) {
        self.jobs.retain(|job| job.number != number);
    }

    /// A running job failed for good.
    pub fn fail(&mut self, number: u64, reason: &str) {
        if let Some(job) = self.running(number) {
            (job.state, job.note) = (State::Failed, Some(bounded(reason)));
        }
    }

    /// A running job has what it waited for.
    pub fn goes_on(&mut self, number: u64) {
        if let Some(job) = self.running(number) {
            job.note = None;
        }
    }

    /// Whether a worker is to go on with that job.
    #[must_use]
    pub fn is_running(&self, number: u64) -> bool {
        self.jobs.iter().any(|job| job.number == number && job.state == State::Running)
    }

    /// Pauses one job, or all that wait or run; how many.
    pub fn pause(&mut self, number: Option<u64>) -> usize {
        self.change(number, State::Paused, |state| matches!(state, State::Waiting | State::Running))
    }

    /// Lets a paused or failed job wait for its turn again, or all that are paused; how many.
    pub fn resume(&mut self, number: Option<u64>) -> usize {
        let failed_too = number.is_some();
        self.change(number, State::Waiting, |state| {
            state == State::Paused || failed_too && state == State::Failed
        })
    }

    /// Takes a job out; false if there is none.
    pub fn cancel(&mut self, number: u64) -> bool {
        let before = self.jobs.len();
        self.finish(number);
        self.jobs.len() < before
    }

    /// Takes out what failed; how many.
    pub fn clear(&mut self) -> usize {
        let before = self.jobs.len();
        self.jobs.retain(|job| job.state != State::Failed);
        before - self.jobs.len()
    }

    /// Whether numbers ascend and bounds hold: what a file must show to be believed.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.jobs.len() <= MAX_JOBS
            && self.jobs.is_sorted_by(|a, b| a.number < b.number)
            && self.jobs.last().is_none_or(|job| job.number <= self.last)
    }

    fn running(&mut self, number: u64) -> Option<&mut Job> {
        self.jobs.iter_mut().find(|job| job.number == number && job.state == State::Running)
    }

    fn change(&mut self, number: Option<u64>, to: State, from: impl Fn(State) -> bool) -> usize {
        let chosen = self
            .jobs
            .iter_mut()
            .filter(|job| number.is_none_or(|number| job.number == number) && from(job.state));
        chosen.fold(0, |count, job| {
            (job.state, job.note) = (to, None);
            count + 1
        })
    }
}

fn bounded(text: &str) -> String {
    let end = (0..=MAX_NOTE.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text[..end].to_owned()
}

/// A path as its bytes.
mod path {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::{Path, PathBuf};

    use minicbor::decode::Error;
    use minicbor::encode::Write;
    use minicbor::{Decoder, Encoder};

    pub(super) fn encode<C, W: Write>(
        path: &Path,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.bytes(path.as_os_str().as_bytes())?.ok()
    }

    pub(super) fn decode<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<PathBuf, Error> {
        Ok(PathBuf::from(OsStr::from_bytes(decoder.bytes()?)))
    }
}
