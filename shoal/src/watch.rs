//! `shoal watch`: events and downloads as they happen. On a terminal downloads are bars; elsewhere each line that has changed is
//! written.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;
use shoal_session::text::{count, printable, size};
use shoal_web::caller::{self, CallError};
use tokio::signal::unix::{SignalKind, signal};

use crate::choose;
use crate::show::{Show, clean, failed};

/// Follows the daemon until Ctrl-C.
pub(crate) fn main(socket: Option<PathBuf>, json: bool) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start: {error}")),
    };
    let mut show = Show::new(json);
    match runtime.block_on(watch(socket, &mut show)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => show.failed("watch", &error),
    }
}

async fn watch(socket: Option<PathBuf>, show: &mut Show) -> Result<(), String> {
    let socket = choose::socket(socket).await?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut events = caller::events(&socket).await.map_err(|error| choose::in_words(&error))?;
    let mut last = HashSet::new();
    loop {
        let event = tokio::select! {
            event = events.event() => event,
            _ = interrupt.recv() => return Ok(()),
        };
        let shown = match event {
            Ok(Some(event)) if show.is_json() => show.line(&event.to_string()),
            Ok(Some(event)) if event["event"] == "progress" => progress(show, &event, &mut last),
            Ok(Some(event)) => {
                show.line(&clean(event["text"].as_str().unwrap_or("some messages were missed")))
            }
            Ok(None) | Err(CallError::Cut) => return Err("the daemon has ended".to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        // Whoever read this has seen enough.
        if shown.is_err() {
            return Ok(());
        }
    }
}

fn progress(show: &mut Show, event: &Value, last: &mut HashSet<String>) -> io::Result<()> {
    let rows = event["downloads"].as_array().map_or(&[][..], Vec::as_slice);
    if show.draws() {
        let running = rows.iter().filter(|row| row["state"] == "D");
        show.draw(&running.map(bar).collect::<Vec<_>>());
        return Ok(());
    }
    let lines: Vec<String> = rows.iter().map(|row| printable(&line(row))).collect();
    let changed = lines.iter().filter(|line| !last.contains(*line));
    changed.clone().try_for_each(|line| show.line(line))?;
    *last = lines.into_iter().collect();
    Ok(())
}

fn bar(row: &Value) -> shoal_web::Bar {
    let (group, file) = (text(&row["group"]), text(&row["file"]));
    let done = row["percent"].as_u64().unwrap_or(0);
    shoal_web::Bar { name: format!("[{group}] {file}"), done, total: 100, message: doing(row) }
}

fn line(row: &Value) -> String {
    let line = format!("[{}] [{}] {}", text(&row["state"]), text(&row["group"]), text(&row["file"]));
    match row["state"].as_str() {
        Some("D") => format!("{line}  {}%  {}", row["percent"], doing(row)),
        Some("F") => format!("{line}: {}", text(&row["error"])),
        _ => line,
    }
}

/// How fast it is, from how many sources, and what it does.
fn doing(row: &Value) -> String {
    let rate = size(row["rate"].as_u64().unwrap_or(0));
    let sources = usize::try_from(row["sources"].as_u64().unwrap_or(0)).unwrap_or(usize::MAX);
    let mut words = format!("{rate}/s  {}", count(sources, "source"));
    if let Some(activity) = row["activity"].as_str() {
        words += &format!("  {activity}");
    }
    words
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn downloads_are_lines_as_show_downloads_has_them() {
        let row = json!({
            "state": "D", "group": "g", "file": "a b", "percent": 50, "rate": 3 << 20, "sources": 2, "path": "/x",
            "activity": "limited by its sources",
        });
        assert_eq!(line(&row), "[D] [g] a b  50%  3.0 MiB/s  2 sources  limited by its sources");
        assert_eq!(
            line(&json!({ "state": "F", "group": "g", "file": "f", "error": "no space" })),
            "[F] [g] f: no space"
        );
        assert_eq!(line(&json!({})), "[] [] ", "another version's row is no panic");
    }
}
