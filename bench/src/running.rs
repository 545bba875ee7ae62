//! Programs that are measured, and what the system says of a process: `/proc` is read until the program ends, so that its
//! CPU seconds and peak memory are known without asking it. A program dies with the value that owns it.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use shoal_tests::Client;

use crate::sample::Sample;

/// Ticks per second of `/proc/PID/stat`, on every Linux of today.
const TICKS: f64 = 100.0;
/// How often it is looked whether a program has ended: what a time can be wrong by.
const LOOK: Duration = Duration::from_millis(2);
/// Looks between two at the memory, which costs more.
const LOOKS_A_PEAK: u32 = 10;
/// How long a client's downloads may take.
const DOWNLOADS: Duration = Duration::from_secs(300);
/// Seconds that one `wait` takes at most: less than a command's answer may.
const ONE_WAIT: u32 = 50;
/// How long a server may take to listen.
const START: Duration = Duration::from_secs(60);

/// A program that runs.
pub(crate) struct Running {
    child: Child,
    name: String,
    log: PathBuf,
    started: Instant,
    cpu_at_mark: f64,
    peak_mib: f64,
}

impl Running {
    /// Starts a program; what it writes goes to the log, which is emptied.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self, String> {
        let name = Path::new(command.get_program()).file_name().unwrap().to_string_lossy().into_owned();
        let output = File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let child = command.spawn().map_err(|error| format!("{name} does not start: {error}"))?;
        Ok(Self { child, name, log: log.into(), started: Instant::now(), cpu_at_mark: 0.0, peak_mib: 0.0 })
    }

    /// As [`start`](Self::start), and waits until the port listens.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not listen in time.
    pub(crate) fn listening(command: &mut Command, log: &Path, port: u16) -> Result<Self, String> {
        let mut running = Self::start(command, log)?;
        running.until(START, |_| TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(running)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Counts CPU seconds from here on.
    pub(crate) fn mark(&mut self) {
        self.cpu_at_mark = cpu_seconds(self.pid());
    }

    /// CPU seconds since the mark.
    pub(crate) fn cpu(&self) -> f64 {
        cpu_seconds(self.pid()) - self.cpu_at_mark
    }

    /// Whether it wrote these words.
    pub(crate) fn said(&self, words: &str) -> bool {
        std::fs::read_to_string(&self.log).is_ok_and(|log| log.contains(words))
    }

    /// Waits for a condition.
    ///
    /// # Errors
    /// When the program ends before, or the time is over.
    pub(crate) fn until(
        &mut self,
        limit: Duration,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Result<(), String> {
        let (deadline, mut looks) = (Instant::now() + limit, 0);
        while !condition(self) {
            if ended(self.pid()) {
                return Err(format!("{} ended: {}", self.name, self.last_words()));
            }
            if Instant::now() > deadline {
                return Err(format!("{} is not ready after {} s", self.name, limit.as_secs()));
            }
            self.look(&mut looks);
        }
        Ok(())
    }

    /// Waits that long for its end; says whether it came.
    pub(crate) fn ends_within(&mut self, time: Duration) -> bool {
        let (deadline, mut looks) = (Instant::now() + time, 0);
        while !ended(self.pid()) {
            if Instant::now() > deadline {
                return false;
            }
            self.look(&mut looks);
        }
        true
    }

    /// What it took from its start to now.
    pub(crate) fn sample(&mut self) -> Sample {
        let seconds = self.started.elapsed().as_secs_f64();
        let cpu_seconds = self.cpu();
        self.peak_mib = self.peak_mib.max(peak_mib(self.pid()));
        Sample { seconds, cpu_seconds, peak_mib: self.peak_mib }
    }

    /// Waits for its end, which must be good.
    ///
    /// # Errors
    /// When it fails, or does not end within `limit`; it is killed then.
    pub(crate) fn finish(&mut self, limit: Duration) -> Result<Sample, String> {
        if !self.ends_within(limit) {
            return Err(format!("{} does not end within {} s", self.name, limit.as_secs()));
        }
        let sample = self.sample();
        let status = self.child.wait().unwrap();
        if status.success() {
            Ok(sample)
        } else {
            Err(format!("{} failed ({status}): {}", self.name, self.last_words()))
        }
    }

    fn look(&mut self, looks: &mut u32) {
        if (*looks).is_multiple_of(LOOKS_A_PEAK) {
            self.peak_mib = self.peak_mib.max(peak_mib(self.pid()));
        }
        *looks += 1;
        std::thread::sleep(LOOK);
    }

    fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no word");
        last.chars().take(200).collect::<String>().replace('|', "/")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until no download of a client runs.
///
/// # Errors
/// When it takes too long, or one failed.
pub(crate) fn wait_until_idle(client: &mut Client) -> Result<(), String> {
    let deadline = Instant::now() + DOWNLOADS;
    loop {
        let answer = client.run(&format!("wait {ONE_WAIT}")).answer;
        if answer["ok"] == true {
            return Ok(());
        }
        let running = client.ok("show_downloads");
        let unfinished = running["downloads"].as_array().unwrap().iter().any(|one| one["state"] == "D");
        if !unfinished || Instant::now() > deadline {
            return Err(answer["error"].as_str().unwrap_or_default().to_owned());
        }
    }
}

/// User and system seconds of a process so far (proc(5): fields 14 and 15 of `stat`); 0 for one that is gone.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS
}

/// Highest resident memory of a process so far, in MiB; 0 for one that has ended.
pub(crate) fn peak_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).map_or(0.0, |kib| kib.parse::<f64>().unwrap() / 1024.0)
}

/// Lets the highest memory of a process be counted again (proc(5): `clear_refs`).
pub(crate) fn forget_peak(pid: u32) {
    // Without it the peak is that of all runs so far, which is no worse than too high.
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// Whether a process has ended, reaped or not.
fn ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_none_or(|rest| matches!(rest.trim_start().chars().next(), None | Some('Z' | 'X')))
}

/// Whether a program is in PATH.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The first line of all that is printed: the command, the date and the machine.
pub(crate) fn heading(arguments: &[String]) -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory: f64 = memory.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or_default();
    format!(
        "`scripts/bench {}`, {}; {} × {}, {:.0} GiB, Linux {}",
        arguments.join(" "),
        said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        model.trim_start_matches([' ', '\t', ':']),
        memory / f64::from(1 << 20),
        said("uname", &["-r"]),
    )
}

/// Copies a file, or a folder with all that is in it.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success(), "cp: {copied}");
}

/// Whether two files have the same content, or two folders the same files.
pub(crate) fn same_tree(one: &Path, other: &Path) -> bool {
    let same = Command::new("diff").args(["-rq", "--no-dereference"]).arg(one).arg(other).output().unwrap();
    same.status.success()
}
