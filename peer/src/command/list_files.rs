//! `list_files`.

use clap::Args;
use shoal_client::{FileRef, FolderEntry};
use shoal_common::tracker_api::FileEntry;
use shoal_common::{FileName, GroupName};
use shoal_session::text;

use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Entries of a folder that are listed at a time.
const PAGE: usize = 1_000;
const TITLES: &[&str] = &["NAME", "SIZE", "SHARERS", "SHA-1"];

/// List a group's files, and how many clients share each now; or what is in a folder
///
/// A name with a slash, such as pictures/ or pictures/day1, is a folder: its files are listed with their paths, up to 1,000 at a
/// time.
#[derive(Debug, Args)]
pub struct ListFiles {
    /// The group.
    #[arg(value_name = "group_id", value_parser = GroupName::refer)]
    group: GroupName,
    /// A folder, and a path in it.
    #[arg(value_name = "folder_name/")]
    folder: Option<String>,
    /// From which entry of a folder on.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    from: usize,
    /// Whole digests on a terminal, too.
    #[arg(short, long)]
    verbose: bool,
}

impl Run for ListFiles {
    const EXAMPLE: &'static str = "list_files holidays";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        if let Some(folder) = self.folder {
            return inside(context, self.group, &folder, self.from).await;
        }
        let files = context.client.files(&self.group).await?;
        let none = format!(
            "{} has no files yet; share one with: upload_file <file_path> {}",
            self.group,
            text::quoted(self.group.as_str())
        );
        let line = |file: &FileEntry| {
            let sharers = match file.sharers {
                0 => "nobody shares it at present".to_owned(),
                sharers => text::count(sharers as usize, "sharer"),
            };
            format!("{}  {}  SHA-1 {}  {sharers}", file.name, text::size(file.size), file.sha1)
        };
        let row = |file: &FileEntry| {
            let sharers = if file.sharers == 0 { "none now".to_owned() } else { file.sharers.to_string() };
            let sha1 = if self.verbose { file.sha1.to_string() } else { text::short_digest(&file.sha1) };
            vec![file.name.to_string(), text::size(file.size), sharers, sha1]
        };
        let list = Reply::list("files", &files, &none, line).in_columns(TITLES, &files, row);
        Ok(list.with("group", &self.group))
    }
}

/// What is in a folder.
async fn inside(context: &Context, group: GroupName, typed: &str, from: usize) -> Result<Reply, Failure> {
    let (name, within) = typed.split_once('/').unwrap_or((typed, ""));
    let file =
        FileRef { group, file: FileName::typed(name).map_err(|error| Failure::Wrong(error.to_string()))? };
    let found = context.client.folder_files(file, within, from, PAGE).await?;
    let line = |entry: &FolderEntry| {
        let skipped = if entry.skipped { "  (not fetched)" } else { "" };
        match (entry.size, entry.sha1) {
            (Some(size), Some(sha1)) => {
                format!("{}  {}  SHA-1 {sha1}{skipped}", text::printable(&entry.path), text::size(size))
            }
            _ => format!("{}  empty folder{skipped}", text::printable(&entry.path)),
        }
    };
    let mut list = Reply::list("files", &found.entries, "there is nothing in it", line);
    if let Some(next) = found.next {
        let more = found.total - next;
        list.text += &format!("\n{more} more follow; add --from {next}");
    }
    let list = list.with("group", &found.file.group).with("file", &found.file.file);
    let list = list.with("total", &found.total).with("size", &found.size);
    Ok(match found.next {
        Some(next) => list.with("next", &next),
        None => list,
    })
}
