//! Live progress: bars on a terminal, plain lines or events elsewhere.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::pin::Pin;
use std::time::Duration;

use serde_json::{Value, json};
use shoal_prompt::Bar;
use shoal_web::Said;
use tokio::sync::watch::Receiver;
use tokio::time::{MissedTickBehavior, interval};

use crate::reply::{verbose_line, without_activity};
use crate::screen::{Form, Screen};
use shoal_client::{Client, ClientError, DownloadRow, Hashing, RowState};
use shoal_session::text;

/// How often bars are drawn.
const REDRAW: Duration = Duration::from_millis(200);
/// How often plain lines are written.
const REPORT: Duration = Duration::from_secs(1);
/// Hashing that takes less than this is not shown.
const WORTH_SHOWING: Duration = Duration::from_millis(500);
/// Most bars at a time; a terminal has not many more lines.
const MAX_BARS: usize = 20;

/// Shows the downloads that run until none does. Safe to drop.
///
/// # Errors
/// When the output is closed.
pub(crate) async fn downloads(client: &Client, screen: &Screen) -> io::Result<()> {
    if matches!(screen.form(), Form::Prompt | Form::Text) && io::stdout().is_terminal() {
        bars(client, screen).await;
        return Ok(());
    }
    let mut ticks = interval(REPORT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        tokio::select! {
            () = client.idle() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let rows = running(client);
        match screen.form() {
            Form::Json => screen.out(&progress(rows).to_string())?,
            Form::Caller => screen.say(Said::Progress {
                bars: rows.iter().take(MAX_BARS).map(bar).collect(),
                lines: rows.iter().map(verbose_line).collect(),
                json: Some(progress(rows)),
            })?,
            Form::Prompt | Form::Text => rows.iter().try_for_each(|row| screen.out(&verbose_line(row)))?,
        }
    }
}

/// The progress of downloads, for scripts.
fn progress(rows: Vec<DownloadRow>) -> Value {
    json!({ "event": "progress", "downloads": without_activity(rows) })
}

/// A download's bar on a caller's terminal.
fn bar(row: &DownloadRow) -> shoal_web::Bar {
    let name = format!("[{}] {}", row.group, row.file);
    shoal_web::Bar { name, done: row.verified, total: row.size, message: doing(row) }
}

/// Shows the progress of hashing while `command` runs, if it takes long. Safe to drop.
///
/// # Errors
/// Those of the command.
pub(crate) async fn hashing<T>(
    client: &Client,
    screen: &Screen,
    command: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    let mut command = std::pin::pin!(command);
    let to_caller = screen.form() == Form::Caller;
    if !to_caller && (screen.form() == Form::Json || !io::stderr().is_terminal()) {
        return command.await;
    }
    if let Ok(done) = tokio::time::timeout(WORTH_SHOWING, &mut command).await {
        return done;
    }
    let hashing = client.hashing();
    if to_caller {
        return tell_hashing(&hashing, screen, command).await;
    }
    let shown = screen.show_bars();
    let bar = shown.bars.add("hashing");
    let mut ticks = interval(REDRAW);
    loop {
        tokio::select! {
            done = &mut command => return done,
            _ = ticks.tick() => if let Some(now) = &*hashing.borrow() {
                bar.set(now.done, now.total, format!("{} of {}", text::size(now.done), text::size(now.total)));
            }
        }
    }
}

/// Tells a caller how far hashing is, until the command ends.
async fn tell_hashing<T>(
    hashing: &Receiver<Option<Hashing>>,
    screen: &Screen,
    mut command: Pin<&mut impl Future<Output = Result<T, ClientError>>>,
) -> Result<T, ClientError> {
    let mut ticks = interval(REDRAW);
    loop {
        tokio::select! {
            done = &mut command => return done,
            _ = ticks.tick() => if let Some(now) = &*hashing.borrow() {
                let message = format!("{} of {}", text::size(now.done), text::size(now.total));
                let bar = shoal_web::Bar { name: "hashing".to_owned(), done: now.done, total: now.total, message };
                // A caller that is gone ends the command elsewhere.
                let _ = screen.say(Said::Progress { bars: vec![bar], lines: Vec::new(), json: None });
            }
        }
    }
}

async fn bars(client: &Client, screen: &Screen) {
    let shown = screen.show_bars();
    let mut by_path: HashMap<_, Bar> = HashMap::new();
    let mut ticks = interval(REDRAW);
    loop {
        tokio::select! {
            () = client.idle() => return,
            _ = ticks.tick() => {}
        }
        let rows = running(client);
        by_path.retain(|path, _| rows.iter().any(|row| row.path == *path));
        for row in rows.iter().take(MAX_BARS) {
            let bar = by_path
                .entry(row.path.clone())
                .or_insert_with(|| shown.bars.add(&format!("[{}] {}", row.group, row.file)));
            draw(bar, row);
        }
    }
}

fn draw(bar: &Bar, row: &DownloadRow) {
    bar.set(row.verified, row.size, doing(row));
}

/// How fast it is, for how long, from how many sources, and what it does.
fn doing(row: &DownloadRow) -> String {
    let mut message = format!("{}/s", text::size(row.rate));
    if let Some(eta) = row.eta {
        message += &format!("  {} left", text::duration(eta));
    }
    message += &format!("  {}", text::count(row.sources, "source"));
    if let Some(activity) = &row.activity {
        message += &format!("  {activity}");
    }
    message
}

fn running(client: &Client) -> Vec<DownloadRow> {
    client.downloads().into_iter().filter(|row| row.state == RowState::Downloading).collect()
}
