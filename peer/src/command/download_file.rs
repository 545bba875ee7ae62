//! `download_file`.

use std::path::{Path, PathBuf};

use clap::Args;
use shoal_client::{ClientError, DownloadOptions, FolderOptions, Rule};
use shoal_common::FileName;
use shoal_session::text::count;

use super::args::{FileArgs, path};
use super::{Context, Failure, Run};
use crate::reply::{Reply, shown};
use crate::watch;

/// Download a file or folder in the background, from many peers at once
///
/// The destination is a folder or the file's new path; one that ends in / is made as a folder. Without it the file goes to the
/// download folder (see set). An existing file is kept unless --overwrite is given; then what is right in it is used. The
/// finished file is shared with the group; stop_share prevents it. Of a folder each file has its name as soon as it is whole;
/// what is there already and right is not fetched. --only and --skip say which files are fetched: '*.mp3', 'season 2/', a
/// path; choose changes that later.
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
    /// Of a folder only files that match; more than once for more.
    #[arg(long = "only", value_name = "GLOB")]
    only: Vec<String>,
    /// Of a folder no files that match.
    #[arg(long = "skip", value_name = "GLOB")]
    skip: Vec<String>,
    /// Another name for a file of a folder, where the file system does not take the one that it has.
    #[arg(long = "rename", value_name = "PATH=NAME", value_parser = rename)]
    renames: Vec<(String, String)>,
    /// Make files of a folder executable that were where they were shared.
    #[arg(long)]
    keep_modes: bool,
}

/// A path and another name for it.
fn rename(typed: &str) -> Result<(String, String), String> {
    // A path may have the sign in it; a name that is chosen for other systems has not.
    let (path, name) = typed.rsplit_once('=').ok_or("write it as path=name")?;
    Ok((path.to_owned(), name.to_owned()))
}

impl Run for DownloadFile {
    const EXAMPLE: &'static str = "download_file holidays beach.zip ~/downloads/";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let destination = match self.destination {
            Some(path) => context.path(path)?,
            // With a slash at its end, so that it is made.
            None => context.client.download_folder().await?.ok_or(ClientError::NoFolder)?.join(""),
        };
        let mut folder =
            FolderOptions { keep_modes: self.keep_modes, renames: self.renames, rules: Vec::new() };
        let rule = |fetch| move |glob| Rule { fetch, glob };
        let rules = self.only.into_iter().map(rule(true)).chain(self.skip.into_iter().map(rule(false)));
        folder.rules = rules.collect();
        let options = DownloadOptions { overwrite: self.overwrite, folder };
        let download = context.client.download(self.file.name(), destination, options);
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
