//! `upload_file`.

use std::path::PathBuf;

use clap::Args;
use shoal_common::GroupName;
use shoal_session::text::{count, size};

use super::args::path;
use super::{Context, Failure, Run};
use crate::reply::Reply;
use crate::watch;

/// Share a file or folder with a group
///
/// A folder is one item; links in it are left out. What is shared stays where it is; only name, size and digests go to the
/// trackers. It is shared while this client runs and you are logged in. If it changes or is gone, the client says so; put back, it is shared again. To share a new
/// version, upload it again. --mirror names an HTTP address with the same content, until you stop sharing; other members
/// use it if the address is public. The mirrors that you name last replace earlier ones.
#[derive(Debug, Args)]
pub struct UploadFile {
    /// Where it is.
    #[arg(value_name = "file_path", value_parser = path)]
    path: PathBuf,
    /// The group.
    #[arg(value_name = "group_id", value_parser = GroupName::refer)]
    group: GroupName,
    /// An HTTP address with the same content.
    #[arg(long = "mirror", value_name = "URL")]
    mirrors: Vec<String>,
}

impl Run for UploadFile {
    const EXAMPLE: &'static str = "upload_file ~/pictures/beach.zip holidays";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let path = context.path(self.path)?;
        let upload = context.client.upload(&path, self.group, self.mirrors);
        let file = watch::hashing(&context.client, &context.screen, upload).await?;
        let mut text =
            format!("sharing {} in {} ({}, SHA-1 {})", file.file, file.group, size(file.size), file.sha1);
        if let Some(files) = file.files {
            let files = count(files as usize, "file");
            text =
                format!("sharing the folder {} in {} ({files}, {})", file.file, file.group, size(file.size));
        }
        if let Some(left_out) = file.left_out.filter(|&left_out| left_out > 0) {
            text += &format!("\nnot shared: {left_out} in it that are links, pipes, sockets or devices");
        }
        for mirror in &file.private_mirrors {
            text += &format!("\n{mirror} at each client that is to use it");
        }
        Ok(Reply::new(text, &file))
    }
}
