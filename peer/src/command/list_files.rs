//! `list_files`.

use clap::Args;
use shoal_common::GroupName;
use shoal_common::tracker_api::FileEntry;
use shoal_session::text;

use super::{Context, Failure, Run};
use crate::reply::Reply;

const TITLES: &[&str] = &["NAME", "SIZE", "SHARERS", "SHA-1"];

/// List a group's files, and how many clients share each now
#[derive(Debug, Args)]
pub struct ListFiles {
    /// The group.
    #[arg(value_name = "group_id", value_parser = GroupName::refer)]
    group: GroupName,
    /// Whole digests on a terminal, too.
    #[arg(short, long)]
    verbose: bool,
}

impl Run for ListFiles {
    const EXAMPLE: &'static str = "list_files holidays";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
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
