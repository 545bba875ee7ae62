//! `show_downloads`.

use clap::Args;
use shoal_client::{ClientError, DownloadRow, RowState};
use shoal_session::text;

use super::context::shown;
use crate::watch;

use super::{Context, Failure, Reply, Run};

/// All downloads: [D] downloading, [C] complete, [P] paused, [F] failed
///
/// -v adds percent, rate, time left, sources, and what it waits for. --watch shows live progress until nothing runs;
/// Ctrl-C ends it and the downloads go on.
#[derive(Debug, Args)]
pub struct ShowDownloads {
    /// Percent, rate, time left, sources, and what it waits for.
    #[arg(short, long)]
    verbose: bool,
    /// Live progress until nothing runs.
    #[arg(long)]
    watch: bool,
}

impl Run for ShowDownloads {
    const EXAMPLE: &'static str = "show_downloads -v";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        if context.client.whoami().user.is_none() {
            return Err(ClientError::NotLoggedIn.into());
        }
        if self.watch {
            watch::downloads(context).await?;
        }
        let rows = context.client.downloads();
        if self.verbose {
            return Ok(Reply::list("downloads", &rows, NONE, verbose_line));
        }
        Ok(Reply::list("downloads", &without_activity(rows), NONE, line))
    }
}

const NONE: &str = "there are no downloads";

/// The downloads with what every list says of them, and no more.
pub(crate) fn without_activity(rows: Vec<DownloadRow>) -> Vec<DownloadRow> {
    rows.into_iter().map(|row| DownloadRow { activity: None, ..row }).collect()
}

/// `[D] [group] file`, and for a failed download the reason.
fn line(row: &DownloadRow) -> String {
    let line = format!("[{}] [{}] {}", row.state.letter(), row.group, row.file);
    match &row.state {
        RowState::Failed(error) => format!("{line}: {error}"),
        _ => line,
    }
}

/// As [`line`], with percent, rate, time left, sources and what it does.
pub(crate) fn verbose_line(row: &DownloadRow) -> String {
    let mut line = format!("{}  {}% of {}", line(row), row.percent, text::size(row.size));
    if row.state == RowState::Downloading {
        line += &format!("  {}/s", text::size(row.rate));
        if let Some(eta) = row.eta {
            line += &format!("  {} left", text::duration(eta));
        }
        line += &format!("  {}", text::count(row.sources, "source"));
        if let Some(activity) = &row.activity {
            line += &format!("  {activity}");
        }
    }
    line + &format!("  {}", shown(&row.path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::{FileName, GroupName};
    use std::time::Duration;

    #[test]
    fn downloads_have_exactly_the_required_form() {
        let row = |state| DownloadRow {
            state,
            group: GroupName::create("g 1").unwrap(),
            file: FileName::create("a b.bin").unwrap(),
            percent: 50,
            path: "/tmp/a b.bin".into(),
            size: 1 << 20,
            verified: 1 << 19,
            rate: 3 << 20,
            sources: 2,
            eta: Some(Duration::from_secs(61)),
            activity: Some("limited by its sources".into()),
        };
        for (state, expected) in [
            (RowState::Downloading, "[D] [g 1] a b.bin"),
            (RowState::Complete, "[C] [g 1] a b.bin"),
            (RowState::Paused, "[P] [g 1] a b.bin"),
            (RowState::Failed("disk full".into()), "[F] [g 1] a b.bin: disk full"),
        ] {
            assert_eq!(line(&row(state)), expected);
        }
        assert_eq!(
            verbose_line(&row(RowState::Downloading)),
            "[D] [g 1] a b.bin  50% of 1.0 MiB  3.0 MiB/s  1m01s left  2 sources  limited by its sources  /tmp/a b.bin"
        );
        assert_eq!(verbose_line(&row(RowState::Paused)), "[P] [g 1] a b.bin  50% of 1.0 MiB  /tmp/a b.bin");
        assert_eq!(
            serde_json::to_value(without_activity(vec![row(RowState::Failed("no space".into()))])).unwrap(),
            serde_json::json!([{
                "state": "F", "group": "g 1", "file": "a b.bin", "percent": 50, "rate": 3 << 20, "sources": 2,
                "path": "/tmp/a b.bin", "error": "no space",
            }])
        );
    }
}
