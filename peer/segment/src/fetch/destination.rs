//! Where the file goes, and whether it is there already.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use shoal_common::{Digests, DigestsHasher, FileName};
use shoal_engine::{Content, Overwrite, Target};

/// Bytes read at once.
const BLOCK: usize = 1024 * 1024;

/// The target for `output`, a folder or a file name. A name that came from a server is one component of a path, always.
pub(super) fn target(output: &Path, name: Option<&FileName>) -> Result<Target> {
    let is_folder = output.is_dir() || output.as_os_str().as_encoded_bytes().ends_with(b"/");
    let path = match (is_folder, name) {
        (false, _) => output.to_owned(),
        (true, Some(name)) => output.join(name.as_str()),
        (true, None) => bail!("the servers give the file no usable name; choose one with -o FILE"),
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        bail!("there is no folder {}; make it, or choose another with -o", folder.display());
    }
    Ok(Target::new(path, Overwrite::Replace))
}

/// The digests of the file at the target, if it is there and is the content, as far as that can be told. Blocking.
pub(super) fn complete(target: &Target, content: &Content) -> Result<Option<Digests>> {
    let path = target.path();
    let there =
        std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == content.layout().size());
    if !there || target.part_path().exists() {
        return Ok(None);
    }
    let computed =
        digest(path, content.digest()).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(content.digest().confirmed_by(&computed).then_some(computed))
}

fn digest(path: &Path, expected: &Digests) -> std::io::Result<Digests> {
    let mut file = File::open(path)?;
    let mut hasher = DigestsHasher::confirming(expected);
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&block[..count]),
        }
    }
}

/// A file beside the target that is there as long as the download is unfinished.
pub(super) fn beside(target: &Target, suffix: &str) -> PathBuf {
    let mut name = target.path().as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_take_the_servers_name_and_files_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let name = FileName::create("film.mkv").unwrap();
        let of = |output: &Path, name| target(output, name).map(|target| target.path().to_owned());
        assert_eq!(of(folder.path(), Some(&name)).unwrap(), folder.path().join("film.mkv"));
        assert_eq!(of(&folder.path().join("x"), Some(&name)).unwrap(), folder.path().join("x"));
        assert!(of(folder.path(), None).is_err());
        assert!(of(&folder.path().join("missing/x"), None).unwrap_err().to_string().contains("no folder"));
        assert!(of(&folder.path().join("missing/"), Some(&name)).is_err());
    }
}
