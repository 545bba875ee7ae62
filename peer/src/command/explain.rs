//! `explain`.

use clap::Args;
use shoal_client::{Cause, Explanation, FileRef, Kind};
use shoal_common::{FileName, GroupName};

use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Explanations of one cause that are shown in words; JSON has all.
const MAX_SHOWN: usize = 10;

/// Say why downloads and shares are slow, stuck or unsafe, and what to do
///
/// Without a file it shows all that are not well. With one it explains that download and share, whatever its state.
#[derive(Debug, Args)]
pub struct Explain {
    /// The group.
    #[arg(value_name = "group_id", value_parser = GroupName::refer, requires = "file")]
    group: Option<GroupName>,
    /// The file.
    #[arg(value_name = "file_name", value_parser = FileName::typed)]
    file: Option<FileName>,
}

impl Run for Explain {
    const EXAMPLE: &'static str = "explain holidays beach.zip";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let file = self.group.zip(self.file).map(|(group, file)| FileRef { group, file });
        let explanations = context.client.explain(file.as_ref()).await?;
        let in_shell = context.caller.is_some();
        let reply = Reply { text: text(&explanations, in_shell), ..Reply::default() };
        Ok(reply.with("explanations", &explanations))
    }
}

/// Two lines for each; of very many with one cause, the first.
fn text(explanations: &[Explanation], in_shell: bool) -> String {
    if explanations.is_empty() {
        return "all is well".to_owned();
    }
    let mut lines = Vec::new();
    let mut shown: Vec<(Cause, usize)> = Vec::new();
    for one in explanations {
        let at = shown.iter().position(|(cause, _)| *cause == one.cause).unwrap_or_else(|| {
            shown.push((one.cause, 0));
            shown.len() - 1
        });
        shown[at].1 += 1;
        if shown[at].1 <= MAX_SHOWN {
            lines.push(two_lines(one, in_shell));
        }
    }
    for (cause, count) in shown.iter().filter(|(_, count)| *count > MAX_SHOWN) {
        lines.push(format!("and {} more of the same cause: {}", count - MAX_SHOWN, cause.code()));
    }
    lines.join("\n")
}

fn two_lines(one: &Explanation, in_shell: bool) -> String {
    let kind = match one.kind {
        Kind::Client => "client",
        Kind::Download => "download",
        Kind::Share => "share",
    };
    let of = one.file.as_ref().map_or_else(String::new, |of| format!(" [{}] {}", of.group, of.file));
    let next = if in_shell { one.next.in_shell() } else { one.next.at_prompt() };
    format!("{kind}{of}: {}\n  next: {next}", one.text)
}
