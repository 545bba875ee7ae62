//! What is printed: text for people, or one JSON object per command.

use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::ops::{Add, Sub};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use shoal_common::tracker_api::storage::{Health, NodeEntry, StoreStatus};
use shoal_console::table;
use shoal_prompt::LinePrinter;
use shoal_session::text;
use tokio::sync::watch;

use crate::client::{Got, Holders, Listed, NodeState, Progress, Removed, Report, Step, Stored};
use crate::name::StoredName;
use crate::queue::{Job, State, Work};

/// Between two events of progress.
const EVENT_EVERY: Duration = Duration::from_secs(1);
/// How often a bar is drawn.
const REDRAW: Duration = Duration::from_millis(200);

/// What came of a command.
#[derive(Debug)]
pub(super) enum Output {
    Stored(Vec<Stored>),
    Got(Got),
    Listed(Vec<Listed>),
    /// Files with who holds what of each.
    Held(Vec<(Listed, Holders)>),
    Help(String),
    Removed(Removed),
    Status(Vec<NodeState>, StoreStatus, Vec<Health>),
    UserCreated {
        user: String,
        provisional: bool,
    },
    /// It was done, in these words.
    Done(&'static str),
    /// Jobs of these numbers wait in the queue.
    Queued(Vec<u64>),
    /// A put that an interrupted worker had done.
    StoredBefore(StoredName),
    /// The queue, with how far its running job is if that is known here.
    Jobs(Vec<Job>, Option<(u64, Progress)>),
    /// So many jobs were changed: how.
    JobsChanged(&'static str, usize),
}

impl Output {
    /// As a user reads it.
    pub(super) fn words(&self) -> String {
        words(self)
    }
}

/// Where things are shown.
#[derive(Clone)]
pub(super) struct Screen {
    pub(super) json: bool,
    output: shoal_prompt::Output,
}

impl Screen {
    pub(super) fn new(json: bool) -> Self {
        Self { json, output: shoal_prompt::Output::default() }
    }

    /// From now on events are shown by `printer`.
    pub(super) fn print_above(&self, printer: LinePrinter) {
        self.output.print_above(printer);
    }

    /// Prints a line on stdout. A closed stdout is no error.
    pub(super) fn say(&self, line: &str) {
        let _ = self.output.out(line);
    }

    /// Shows an event: the line as text, or the fields as JSON.
    pub(super) fn event(&self, event: &str, fields: Value, line: &str) {
        if self.json {
            self.say(&object(fields, "event", event).to_string());
        } else {
            let _ = self.output.above(line);
        }
    }

    /// Something that the user should know, on stderr.
    pub(super) fn warn(&self, line: &str) {
        let line = text::error_line(line);
        if self.json {
            self.say(&object(json!({ "text": line }), "event", "warning").to_string());
        } else {
            let _ = self.output.err(&format!("warning: {line}"));
        }
    }

    /// The result of a command.
    pub(super) fn result(&self, command: &str, result: &Result<Output, String>) {
        if self.json {
            let fields = match result {
                Ok(output) => fields(output),
                Err(error) => json!({ "error": error }),
            };
            let mut whole = object(fields, "command", command);
            whole["ok"] = result.is_ok().into();
            return self.say(&whole.to_string());
        }
        match result {
            Ok(output) => self.say(&words(output)),
            Err(error) => {
                let _ = self.output.err(&format!("error: {error}"));
            }
        }
    }

    /// Shows how far `work` has come while it runs, by what it reports.
    pub(super) async fn watch<T>(&self, of: &str, work: impl AsyncFnOnce(&Report) -> T) -> T {
        let report = watch::Sender::new(Progress::default());
        let mut progress = report.subscribe();
        let mut work = Box::pin(work(&report));
        if self.json {
            let mut last = None::<Instant>;
            loop {
                tokio::select! {
                    done = &mut work => return done,
                    changed = progress.changed() => if changed.is_err() {
                        return work.await;
                    },
                }
                if last.is_none_or(|at| at.elapsed() >= EVENT_EVERY) {
                    last = Some(Instant::now());
                    let Progress { step, done, total } = *progress.borrow();
                    let fields = json!({ "file": of, "step": step.word(), "done": done, "total": total });
                    self.say(&object(fields, "event", "progress").to_string());
                }
            }
        }
        if !io::stderr().is_terminal() {
            return work.await;
        }
        let shown = self.output.show_bars();
        let bar = shown.bars.add(&text::short(of));
        let (mut ticks, mut before) = (tokio::time::interval(REDRAW), Step::default());
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ticks.tick() => {}
            }
            let Progress { step, done, total } = *progress.borrow();
            if step != std::mem::replace(&mut before, step) {
                bar.restart();
            }
            let (rate, left) = bar.pace();
            let pace = format!("{}/s  {} left", text::size(rate), text::duration(left));
            let message = format!("{} {} of {}  {pace}", step.word(), text::size(done), text::size(total));
            bar.set(done, total, message);
        }
    }
}

fn object(fields: Value, key: &str, value: &str) -> Value {
    let mut object = match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    object.insert(key.to_owned(), value.into());
    Value::Object(object)
}

fn fields(output: &Output) -> Value {
    match output {
        Output::Stored(files) => json!({ "files": files.iter().map(|file| json!({
            "name": file.name.as_str(), "size": file.size, "sha1": file.sha1.to_string(), "chunks": file.chunks,
            "wanted": file.copies, "copies": file.in_place, "found": file.found,
        })).collect::<Value>() }),
        Output::Got(file) => json!({
            "name": file.name.as_str(), "size": file.size, "sha1": file.sha1.to_string(),
            "path": file.path.to_string_lossy(),
        }),
        Output::Listed(files) => json!({ "files": files.iter().map(listed_fields).collect::<Value>() }),
        Output::Held(files) => json!({ "files": files.iter().map(|(file, holders)| {
            let mut fields = listed_fields(file);
            fields["servers"] = holders.servers.iter().map(|holder| json!({
                "name": holder.server, "reached": holder.chunks.is_ok(), "problem": holder.chunks.as_ref().err(),
                "chunks": holder.chunks.as_ref().map(Vec::as_slice).unwrap_or_default(),
            })).collect();
            fields["missing_chunks"] = json!(holders.fewer_than(1));
            fields["lacking_chunks"] = json!(holders.fewer_than(holders.wanted.into()));
            fields
        }).collect::<Value>() }),
        Output::Help(text) => json!({ "text": text }),
        Output::Removed(file) => {
            json!({ "name": file.name.as_str(), "cleared": file.cleared, "servers": file.servers })
        }
        Output::Status(servers, status, own) => json!({
            "servers": servers.iter().map(|server| server_fields(server, status)).collect::<Value>(),
            "files": status.files, "chunks": status.chunks, "missing_copies": status.missing_copies,
            "lost_chunks": status.lost_chunks, "copying": status.copying, "ordered_by": status.ordered_by,
            "unnamed": status.unnamed, "deletions_held": status.deletions_held,
            "own_files": own.len(), "own_whole": own.iter().filter(|health| is_whole(health)).count(),
            "own_unreadable": own.iter().filter(|health| health.missing > 0).count(),
        }),
        Output::UserCreated { user, provisional: false } => json!({ "user": user }),
        Output::UserCreated { user, provisional: true } => json!({ "user": user, "provisional": true }),
        Output::Done(_) => json!({}),
        Output::StoredBefore(name) => json!({ "name": name.as_str() }),
        Output::Queued(jobs) => json!({ "queued": jobs }),
        Output::JobsChanged(_, count) => json!({ "changed": count }),
        Output::Jobs(jobs, progress) => {
            json!({ "jobs": jobs.iter().map(|job| job_fields(job, *progress)).collect::<Value>() })
        }
    }
}

fn listed_fields(file: &Listed) -> Value {
    json!({
        "name": file.name.as_str(), "size": file.size, "sha1": file.sha1.to_string(),
        "wanted": file.health.wanted, "copies": file.health.copies, "chunks": file.health.chunks,
        "missing": file.health.missing, "stored_ms": file.stored_ms,
    })
}

fn server_fields(server: &NodeState, status: &StoreStatus) -> Value {
    let entry = entry_of(server, status);
    json!({
        "name": server.name, "address": server.at, "reached": server.problem.is_none(), "problem": server.problem,
        "up": entry.is_some_and(|entry| entry.up), "capacity": entry.map(|entry| entry.capacity),
        "free": entry.map(|entry| entry.free), "chunks": entry.map(|entry| entry.chunks),
    })
}

fn entry_of<'a>(server: &NodeState, status: &'a StoreStatus) -> Option<&'a NodeEntry> {
    status.nodes.iter().find(|entry| Some(entry.peer) == server.peer)
}

fn words(output: &Output) -> String {
    match output {
        Output::Stored(files) => files.iter().map(stored).collect::<Vec<_>>().join("\n"),
        Output::Got(file) => {
            format!(
                "{} is in {} ({}, SHA-1 {})",
                file.name,
                file.path.display(),
                text::size(file.size),
                file.sha1
            )
        }
        Output::Listed(files) if files.is_empty() => "you have no stored files".to_owned(),
        Output::Listed(files) => {
            let rows: Vec<Vec<String>> = files.iter().map(columns).collect();
            let lines = || files.iter().map(listed).collect::<Vec<_>>().join("\n");
            table(&["NAME", "SIZE", "COPIES", "STATE", "SHA-1"], &rows).unwrap_or_else(lines)
        }
        Output::Held(files) if files.is_empty() => "you have no stored files".to_owned(),
        Output::Held(files) => {
            files.iter().map(|(file, holders)| held(file, holders)).collect::<Vec<_>>().join("\n")
        }
        Output::Help(text) => text.clone(),
        Output::Removed(file) if file.cleared == file.servers => format!("{} is removed", file.name),
        Output::Removed(file) => format!(
            "{} is removed; {} of {} servers deleted its parts, the others will by themselves",
            file.name, file.cleared, file.servers
        ),
        Output::Status(servers, status, own) => status_words(servers, status, own),
        Output::UserCreated { user, provisional } => {
            let note = if *provisional { " (the name may yet turn out to be taken elsewhere)" } else { "" };
            format!("user {user} was created{note}")
        }
        Output::Done(what) => (*what).to_owned(),
        Output::StoredBefore(name) => format!("{name} is stored, since before the interruption"),
        Output::Queued(jobs) => match jobs[..] {
            [job] => format!("queued as job {job}"),
            _ => format!("queued as jobs {}", ranges(jobs)),
        },
        Output::JobsChanged(how, count) => format!("{} {how}", text::count(*count, "job")),
        Output::Jobs(jobs, _) if jobs.is_empty() => "the queue is empty".to_owned(),
        Output::Jobs(jobs, progress) => {
            jobs.iter().map(|job| job_words(job, *progress)).collect::<Vec<_>>().join("\n")
        }
    }
}

/// What a job does: the word, and to what.
pub(super) fn job_of(job: &Job) -> (&'static str, String) {
    match &job.work {
        Work::Put { path, .. } => ("put", path.to_string_lossy().into_owned()),
        Work::Get { name, .. } => ("get", name.clone()),
    }
}

fn state_word(job: &Job) -> &'static str {
    match (job.state, &job.note) {
        (State::Waiting, _) | (State::Running, Some(_)) => "waiting",
        (State::Running, None) => "running",
        (State::Paused, _) => "paused",
        (State::Failed, _) => "failed",
    }
}

fn job_fields(job: &Job, progress: Option<(u64, Progress)>) -> Value {
    let (kind, file) = job_of(job);
    let mut fields = json!({
        "job": job.number, "kind": kind, "file": file, "state": state_word(job), "reason": job.note,
    });
    if let Some((_, Progress { step, done, total })) = progress.filter(|(number, _)| *number == job.number) {
        fields["progress"] = json!({ "step": step.word(), "done": done, "total": total });
    }
    fields
}

fn job_words(job: &Job, progress: Option<(u64, Progress)>) -> String {
    let (kind, file) = job_of(job);
    let how = match (&job.note, progress.filter(|(number, _)| *number == job.number)) {
        (Some(note), _) => format!("  {}", text::error_line(note)),
        (None, Some((_, Progress { step, done, total }))) => {
            format!("  {} {} of {}", step.word(), text::size(done), text::size(total))
        }
        (None, None) => String::new(),
    };
    format!("{:>5}  {:<8} {kind} {}{how}", job.number, state_word(job), text::printable(&file))
}

fn stored(file: &Stored) -> String {
    let copies = if file.in_place >= usize::from(file.copies) {
        text::count(file.in_place, "copy").replace("copys", "copies")
    } else {
        format!("{} of {} copies in place, the rest follow by repair", file.in_place, file.copies)
    };
    let found = match file.found {
        0 => String::new(),
        found => format!("; {found} parts were there from before"),
    };
    format!("{} is stored: {}, {copies}{found} (SHA-1 {})", file.name, text::size(file.size), file.sha1)
}

fn state_of(health: &Health) -> String {
    match () {
        () if health.missing > 0 => format!("{} of {} parts are missing", health.missing, health.chunks),
        () if health.copies < health.wanted => "copies out of reach".to_owned(),
        () => "healthy".to_owned(),
    }
}

/// A file in a table, with the beginning of its digest; `list -v` has the whole.
fn columns(file: &Listed) -> Vec<String> {
    let health = file.health;
    let copies = format!("{}/{}", health.copies, health.wanted);
    vec![
        file.name.to_string(),
        text::size(file.size),
        copies,
        state_of(&health),
        text::short_digest(&file.sha1),
    ]
}

fn listed(file: &Listed) -> String {
    let health = file.health;
    let state = state_of(&health);
    format!(
        "{:>10}  {}/{} copies  {state:<16}  {}  {}",
        text::size(file.size),
        health.copies,
        health.wanted,
        file.sha1,
        file.name
    )
}

/// A file, then a line per server with the parts that it holds, and the parts that are missing.
fn held(file: &Listed, holders: &Holders) -> String {
    let mut lines = vec![listed(file)];
    for holder in &holders.servers {
        let held = match &holder.chunks {
            Ok(chunks) if chunks.is_empty() => "no part".to_owned(),
            Ok(chunks) => format!("parts {}", ranges(chunks)),
            Err(problem) => format!("not reached ({})", text::error_line(problem)),
        };
        lines.push(format!("    {:<12} {held}", holder.server));
    }
    let (missing, lacking) = (holders.fewer_than(1), holders.fewer_than(holders.wanted.into()));
    lines.push(match () {
        () if lacking.is_empty() => {
            format!("    all {} parts have {} copies", holders.chunks, holders.wanted)
        }
        () if missing.is_empty() => {
            format!("    fewer than {} copies: parts {}", holders.wanted, ranges(&lacking))
        }
        () => format!(
            "    MISSING: parts {}; fewer than {} copies: parts {}",
            ranges(&missing),
            holders.wanted,
            ranges(&lacking)
        ),
    });
    lines.join("\n")
}

/// Ascending numbers as people write them: `1–3, 5`.
fn ranges<N: Copy + PartialEq + Display + Add<Output = N> + Sub<Output = N> + From<u8>>(
    numbers: &[N],
) -> String {
    let mut runs: Vec<(N, N)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + N::from(1) == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let shown = runs.into_iter().map(|(first, last)| match last - first {
        length if length == N::from(0) => first.to_string(),
        length if length == N::from(1) => format!("{first}, {last}"),
        _ => format!("{first}–{last}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Whether all copies of a file are within reach.
fn is_whole(health: &Health) -> bool {
    health.copies >= health.wanted && health.missing == 0
}

fn status_words(servers: &[NodeState], status: &StoreStatus, own: &[Health]) -> String {
    let mut rows = Vec::new();
    for server in servers {
        let state = match (&server.problem, entry_of(server, status)) {
            (None, Some(entry)) => format!(
                "up    {} free of {}, {}",
                text::size(entry.free),
                text::size(entry.capacity),
                number(entry.chunks, "chunk"),
            ),
            (None, None) => "up".to_owned(),
            (Some(problem), _) => format!("away  {}", text::printable(problem)),
        };
        rows.push(vec![server.name.clone(), server.at.clone(), state]);
    }
    let line = |row: &Vec<String>| format!("{:<12} {:<22} {}", row[0], row[1], row[2]);
    let mut lines = match table(&["SERVER", "ADDRESS", "STATE"], &rows) {
        Some(table) => vec![table],
        None => rows.iter().map(line).collect(),
    };
    lines.push(format!(
        "{}, {}, of all users; copies to be made again: {}, being made: {}; chunks lost: {}",
        number(status.files, "file"),
        number(status.chunks, "chunk"),
        status.missing_copies,
        status.copying,
        status.lost_chunks
    ));
    let whole = own.iter().filter(|health| is_whole(health)).count();
    let unreadable = own.iter().filter(|health| health.missing > 0).count();
    lines.push(format!(
        "{} of your own: {whole} with all copies within reach, {unreadable} that cannot be read now",
        text::count(own.len(), "file"),
    ));
    if let Some(held) = &status.deletions_held {
        lines.push(format!("nothing is deleted now: {}", text::printable(held)));
    }
    lines.join("\n")
}

fn number(count: u64, thing: &str) -> String {
    text::count(usize::try_from(count).unwrap_or(usize::MAX), thing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::Sha1;

    #[test]
    fn numbers_are_shown_in_ranges() {
        assert_eq!(ranges(&[1, 2, 3, 5, 7, 8]), "1–3, 5, 7, 8");
        assert_eq!(ranges::<u64>(&[]), "");
    }

    #[test]
    fn lists_stand_where_scripts_look_for_them() {
        let file = Listed {
            name: StoredName::new("a b").unwrap(),
            size: 5,
            sha1: Sha1([0xab; 20]),
            stored_ms: 1,
            health: Health { wanted: 2, copies: 1, chunks: 4, missing: 0 },
        };
        let value = fields(&Output::Listed(vec![file.clone()]));
        let entry = &value["files"][0];
        assert_eq!(entry["name"], "a b");
        assert_eq!((&entry["size"], &entry["copies"], &entry["missing"]), (&json!(5), &json!(1), &json!(0)));
        assert_eq!(entry["sha1"], "ab".repeat(20));
        assert!(words(&Output::Listed(vec![file])).contains("1/2 copies  copies out of reach"));
    }
}
