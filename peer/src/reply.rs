//! The result of a command, and how lists and paths are shown.

use std::borrow::Cow;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};
use shoal_client::{DownloadRow, FilesRow, RowState};
use shoal_console::table;
use shoal_session::text;

/// The result of a command: text for people, fields for scripts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reply {
    /// As people read it; empty if there is nothing to say.
    pub text: String,
    /// The same for a terminal, if it is a list.
    pub table: Option<Table>,
    /// As scripts read it.
    pub fields: Map<String, Value>,
}

/// A list in columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    pub(crate) titles: &'static [&'static str],
    pub(crate) rows: Vec<Vec<String>>,
}

impl Reply {
    /// A reply with that text; `fields` becomes a JSON object.
    pub(crate) fn new(text: impl Into<String>, fields: &impl Serialize) -> Self {
        // A value that cannot be written as JSON does not occur among the results.
        let fields = match serde_json::to_value(fields) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) | Err(_) => Map::new(),
        };
        Self { text: text.into(), table: None, fields }
    }

    /// A list under that name: one line per entry, or `none` if there is no entry.
    pub(crate) fn list<T: Serialize>(
        name: &str,
        rows: &[T],
        none: &str,
        line: impl Fn(&T) -> String,
    ) -> Self {
        Self { text: lines(rows, none, line), ..Self::default() }.with(name, &rows)
    }

    /// The list is a table on a terminal. `row`: what stands in its columns.
    pub(crate) fn in_columns<T>(
        mut self,
        titles: &'static [&'static str],
        rows: &[T],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Self {
        self.table = (!rows.is_empty()).then(|| Table { titles, rows: rows.iter().map(row).collect() });
        self
    }

    /// As it is shown on standard output.
    pub(crate) fn shown(&self) -> Cow<'_, str> {
        let table = self.table.as_ref().and_then(|Table { titles, rows }| table(titles, rows));
        table.map_or(Cow::Borrowed(&self.text), Cow::Owned)
    }

    /// The reply with a field more.
    pub(crate) fn with(mut self, name: &str, value: &impl Serialize) -> Self {
        if let Ok(value) = serde_json::to_value(value) {
            self.fields.insert(name.to_owned(), value);
        }
        self
    }
}

/// One line per entry, or `none` if there is no entry.
pub(crate) fn lines<T>(rows: &[T], none: &str, line: impl Fn(&T) -> String) -> String {
    if rows.is_empty() { none.to_owned() } else { rows.iter().map(line).collect::<Vec<_>>().join("\n") }
}

/// A path as it may be shown: a file's name may hold anything.
pub(crate) fn shown(path: &Path) -> String {
    text::printable(&path.to_string_lossy())
}

/// The downloads with what every list says of them, and no more.
pub(crate) fn without_activity(rows: Vec<DownloadRow>) -> Vec<DownloadRow> {
    rows.into_iter().map(|row| DownloadRow { activity: None, ..row }).collect()
}

/// `[D] [group] file`, and for a failed download the reason.
pub(crate) fn line(row: &DownloadRow) -> String {
    let line = format!("[{}] [{}] {}", row.state.letter(), row.group, row.file);
    match &row.state {
        RowState::Failed(error) => format!("{line}: {error}"),
        _ => line,
    }
}

/// As [`line`], with percent, rate, time left, sources and what it does.
pub(crate) fn verbose_line(row: &DownloadRow) -> String {
    let mut line = format!("{}  {}% of {}", line(row), row.percent, text::size(row.size));
    if let Some(FilesRow { done, chosen, all }) = row.files {
        let part = if chosen == all { String::new() } else { format!(", {all} in all") };
        line += &match done {
            Some(done) => format!("  {done} of {chosen} files{part}"),
            None => format!("  {chosen} files{part}"),
        };
    }
    if row.state == RowState::Downloading {
        line += &format!("  {}/s", text::size(row.rate));
        if let Some(eta) = row.eta {
            line += &format!("  {} left", text::duration(eta));
        }
        line += &format!("  {}", text::count(row.sources, "source"));
        if let Some(limit) = row.limit {
            line += &format!("  {}/s at most", text::size(limit));
        }
        if !row.priority.is_normal() {
            line += &format!("  {} priority", row.priority.name());
        }
        if let Some(activity) = &row.activity {
            line += &format!("  {activity}");
        }
    }
    line + &format!("  {}", shown(&row.path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_client::Priority;
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
            queued: None,
            priority: Priority::Normal,
            limit: None,
            speed_limited: false,
            files: None,
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
