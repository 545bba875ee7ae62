//! What one run of one job took, and the tables of many.

use std::fmt::Write as _;

/// What one run of one job took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// From the command to the result.
    pub(crate) seconds: f64,
    /// User and system, of the processes that the job's table names.
    pub(crate) cpu_seconds: f64,
    /// Highest resident memory of the process that receives, in MiB; 0 if it was not looked at.
    pub(crate) peak_mib: f64,
}

/// One row: the samples of one job, in the order of the rounds.
struct Job {
    name: String,
    bytes: u64,
    samples: Vec<Sample>,
    failures: Vec<String>,
}

/// Rows of one table; a row is made when its job first runs.
pub(crate) struct Table {
    title: String,
    jobs: Vec<Job>,
}

impl Table {
    /// An empty one. The title says whose CPU seconds and memory are counted.
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), jobs: Vec::new() }
    }

    /// Notes a run of a job that moves that many bytes.
    pub(crate) fn add(&mut self, name: &str, bytes: u64, run: Result<Sample, String>) {
        let place = self.jobs.iter().position(|job| job.name == name).unwrap_or_else(|| {
            self.jobs.push(Job { name: name.into(), bytes, samples: Vec::new(), failures: Vec::new() });
            self.jobs.len() - 1
        });
        match run {
            Ok(sample) => {
                let rate = bytes as f64 / 1e6 / sample.seconds;
                eprintln!(
                    "  {name}: {:.2} s, {rate:.0} MB/s, {:.2} CPU s",
                    sample.seconds, sample.cpu_seconds
                );
                self.jobs[place].samples.push(sample);
            }
            Err(failure) => {
                eprintln!("  {name}: FAILED: {failure}");
                self.jobs[place].failures.push(failure);
            }
        }
    }

    /// Median rate of a job in MB/s, if it has run.
    pub(crate) fn rate(&self, name: &str) -> Option<f64> {
        let job = self.jobs.iter().find(|job| job.name == name && !job.samples.is_empty())?;
        Some(job.rates().median)
    }

    /// Median time of a job in seconds, if it has run.
    pub(crate) fn seconds(&self, name: &str) -> Option<f64> {
        let job = self.jobs.iter().find(|job| job.name == name && !job.samples.is_empty())?;
        Some(Spread::of(job.samples.iter().map(|sample| sample.seconds)).median)
    }

    /// Prints it in Markdown.
    pub(crate) fn print(&self) {
        let mut text = format!("\n{} Medians (lowest–highest).\n\n", self.title);
        text += "| job | MB/s | CPU s/GiB | peak MiB | runs |\n|---|---|---|---|---|\n";
        for job in &self.jobs {
            let _ = writeln!(text, "{}", job.row());
        }
        println!("{text}");
    }

    /// The names of all jobs.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.jobs.iter().map(|job| &*job.name)
    }

    /// One job's median rate and CPU seconds over another's, if both have run.
    pub(crate) fn ratio(&self, one: &str, other: &str) -> Option<(f64, f64)> {
        let job = |name: &str| self.jobs.iter().find(|job| job.name == name && !job.samples.is_empty());
        let (one, other) = (job(one)?, job(other)?);
        Some((one.rates().median / other.rates().median, one.cpu().median / other.cpu().median))
    }

    /// Prints how many times as fast one job is as another, if both have run.
    pub(crate) fn compare(&self, one: &str, other: &str) {
        if let Some((rate, cpu)) = self.ratio(one, other) {
            println!("- {one}: {rate:.2} × {other}, with {:.0} % of its CPU seconds", 100.0 * cpu);
        }
    }
}

impl Job {
    fn rates(&self) -> Spread {
        Spread::of(self.samples.iter().map(|sample| self.bytes as f64 / 1e6 / sample.seconds))
    }

    fn cpu(&self) -> Spread {
        let gib = self.bytes as f64 / (1u64 << 30) as f64;
        Spread::of(self.samples.iter().map(|sample| sample.cpu_seconds / gib))
    }

    fn row(&self) -> String {
        let failed = match self.failures.last() {
            None => String::new(),
            Some(last) => format!(", {} failed: {last}", self.failures.len()),
        };
        if self.samples.is_empty() {
            return format!("| {} | – | – | – | 0{failed} |", self.name);
        }
        let peak = Spread::of(self.samples.iter().map(|sample| sample.peak_mib));
        let peak = if peak.highest > 0.0 { peak.show(0) } else { "–".into() };
        let (rates, cpu) = (self.rates().show(0), self.cpu().show(2));
        format!("| {} | {rates} | {cpu} | {peak} | {}{failed} |", self.name, self.samples.len())
    }
}

/// Lowest, median and highest of some values.
#[derive(Debug, Clone, Copy)]
struct Spread {
    lowest: f64,
    median: f64,
    highest: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Self { lowest: values[0], median: values[values.len() / 2], highest: values[values.len() - 1] }
    }

    fn show(self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$}–{:.digits$})", self.median, self.lowest, self.highest)
    }
}
