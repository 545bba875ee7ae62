//! `download_file`.

use std::path::{Path, PathBuf};

use clap::Args;
use shoal_client::ClientError;
use shoal_common::FileName;
use shoal_session::text::count;

use super::args::{FileArgs, path};
use super::{Context, Failure, Run};
use crate::reply::{Reply, shown};
use crate::watch;

/// Download a file or folder in the background, from many peers at once
///
/// A folder has its name once it is whole; it replaces nothing. The destination is a folder or the file's new path; one that ends in / is made as a folder. Without it the file goes to
/// the download folder (see set). An existing file is kept unless --overwrite is given. The finished file is shared with the
/// group; stop_share prevents it.
#[derive(Debug, Args)]
pub struct DownloadFile {
    #[command(flatten)]
    file: FileArgs,
    /// A folder, or the file's new path.
    #[arg(value_name = "destination_path", value_parser = path)]
    destination: Option<PathBuf>,
    /// Replace what is there.
    #[arg(long)]
    overwrite: bool,
}

impl Run for DownloadFile {
    const EXAMPLE: &'static str = "download_file holidays beach.zip ~/downloads/";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let destination = match self.destination {
            Some(path) => context.path(path)?,
            // With a slash at its end, so that it is made.
            None => context.client.download_folder().await?.ok_or(ClientError::NoFolder)?.join(""),
        };
        let download = context.client.download(self.file.name(), destination, self.overwrite);
        let begun = watch::hashing(&context.client, &context.screen, download).await?;
        let (file, path) = (&begun.file.file, shown(&begun.path));
        let folder = if !begun.complete && !begun.is_folder && looks_like_folder(&begun.path, file) {
            "; that is the file's name: end it with / for a folder"
        } else {
            ""
        };
        let text = match (&begun.waits, begun.sharers) {
            _ if begun.complete => format!("{file} is there already, at {path}"),
            (Some(waits), _) => format!("downloading {file} to {path}; {waits}"),
            (None, 0) => {
                format!("downloading {file} to {path} (nobody shares it at present; waiting for a sharer)")
            }
            (None, sharers) => format!("downloading {file} to {path} (from {})", count(sharers, "sharer")),
        };
        Ok(Reply::new(text + folder, &begun))
    }
}

/// Whether a file gets a name that its user may have meant for a folder: `~/films` for `film.mkv`.
fn looks_like_folder(path: &Path, file: &FileName) -> bool {
    let is_own = path.file_name().is_some_and(|name| name == file.as_str());
    !is_own && path.extension().is_none() && Path::new(file.as_str()).extension().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_may_have_been_meant_for_folders_are_known() {
        let file = FileName::create("film.mkv").unwrap();
        for (path, expected) in
            [("/home/ann/films", true), ("/home/ann/films/film.mkv", false), ("/home/ann/new.mkv", false)]
        {
            assert_eq!(looks_like_folder(Path::new(path), &file), expected, "{path}");
        }
        assert!(!looks_like_folder(Path::new("/home/ann/copy"), &FileName::create("README").unwrap()));
    }
}
