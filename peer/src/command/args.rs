//! What several commands take.

use std::path::PathBuf;

use clap::Args;
use shoal_client::FileRef;
use shoal_common::tracker_api::UserEntry;
use shoal_common::{FileName, GroupName, Password, UserName};
use shoal_session::text::short;

use super::{Context, Failure};
use crate::reply::{Reply, lines};

/// A file of a group.
#[derive(Debug, Args)]
pub(super) struct FileArgs {
    /// The group.
    #[arg(value_name = "group_id", value_parser = GroupName::refer)]
    group: GroupName,
    /// The file.
    #[arg(value_name = "file_name", value_parser = FileName::typed)]
    file: FileName,
}

impl FileArgs {
    pub(super) fn name(self) -> FileRef {
        FileRef { group: self.group, file: self.file }
    }
}

/// A request to join a group.
#[derive(Debug, Args)]
pub(super) struct RequestArgs {
    /// The group.
    #[arg(value_name = "group_id", value_parser = GroupName::refer)]
    group: GroupName,
    /// Who asks.
    #[arg(value_name = "user_id", value_parser = UserName::refer)]
    user: UserName,
}

impl RequestArgs {
    /// Lets the user in, or not.
    pub(super) async fn decide(self, context: &Context, accept: bool) -> Result<Reply, Failure> {
        let Self { group, user } = self;
        context.client.decide(group.clone(), user.clone(), accept).await?;
        let text = if accept {
            format!("{user} is a member of {group} now")
        } else {
            format!("{user} was not let into {group}")
        };
        let reply = Reply { text, ..Reply::default() };
        Ok(reply.with("group", &group).with("user", &user).with("accepted", &accept))
    }
}

/// Users by their names.
pub(super) fn user_list(name: &str, users: &[UserEntry], none: &str) -> Reply {
    let text = lines(users, none, |user| {
        let provisional = if user.provisional { "  (provisional)" } else { "" };
        format!("{}{provisional}", user.name)
    });
    let names: Vec<_> = users.iter().map(|user| &user.name).collect();
    Reply { text, ..Reply::default() }.with(name, &names)
}

/// A path as typed, with `~/` for the home folder, as a shell has it.
pub(super) fn path(typed: &str) -> Result<PathBuf, String> {
    if typed.is_empty() {
        return Err("a path is empty".to_owned());
    }
    let home = || std::env::var_os("HOME").filter(|home| !home.is_empty());
    Ok(match (typed.strip_prefix('~'), home()) {
        (Some(""), Some(home)) => home.into(),
        (Some(rest), Some(home)) if rest.starts_with('/') => {
            PathBuf::from(home).join(rest.trim_start_matches('/'))
        }
        _ => typed.into(),
    })
}

/// A rate in bytes per second.
pub(super) fn rate(typed: &str) -> Result<u64, String> {
    shoal_console::rate(typed)
        .ok_or_else(|| format!("{:?} is not a rate; write for example 500K, 20M or 0", short(typed)))
}

pub(super) fn password(typed: &str) -> Result<Password, String> {
    if typed.is_empty() {
        Err("the password is empty".to_owned())
    } else {
        Ok(Password::new(typed.to_owned()))
    }
}
