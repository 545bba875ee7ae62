//! Where the file goes, and whether it is there already. What is there gives way only to a name that the user typed, or
//! to `--overwrite`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use shoal_common::{Digests, DigestsHasher};
use shoal_engine::{Content, Overwrite, Target};

use crate::fetch::plan::Name;

/// Bytes read at once.
const BLOCK: usize = 1024 * 1024;

/// The target for `output`, a folder or a file name. A name that came from a server is one component of a path, always;
/// nothing is replaced under it, not even what appears during the download, unless `overwrite` says so.
pub(super) fn target(output: &Path, name: Option<&Name>, overwrite: bool) -> Result<Target> {
    let is_folder = output.is_dir() || output.as_os_str().as_encoded_bytes().ends_with(b"/");
    let (path, typed) = match (is_folder, name) {
        (false, _) => (output.to_owned(), true),
        (true, Some(Name::Typed(name))) => (output.join(name.as_str()), true),
        (true, Some(Name::Network(name))) => (output.join(name.as_str()), false),
        (true, None) => bail!("the servers give the file no usable name; choose one with -o FILE"),
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        bail!("there is no folder {}; make it, or choose another with -o", folder.display());
    }
    Ok(Target::new(path, if typed || overwrite { Overwrite::Replace } else { Overwrite::Refuse }))
}

/// What stands at a target that must not be replaced; `None` if nothing does, or it may be.
pub(super) fn in_the_way(target: &Target) -> Option<anyhow::Error> {
    if target.overwrite() == Overwrite::Replace {
        return None;
    }
    // A link that leads nowhere is in the way, too.
    let found = std::fs::symlink_metadata(target.path()).ok()?;
    let what = match () {
        () if found.is_file() => format!("a file of {} bytes", found.len()),
        () if found.is_dir() => "a folder".to_owned(),
        () if found.is_symlink() => "a link".to_owned(),
        () => "no file".to_owned(),
    };
    Some(anyhow!(
        "{} exists already ({what}) and is not replaced, because the servers chose the name; choose another with \
         -o FILE, or give --overwrite",
        target.path().display()
    ))
}

/// The digests of the file at the target, if it is there and is the content: by its digest where one is known, else, where
/// the user wants to go on with what is there, as far as its size tells. Blocking.
pub(super) fn complete(target: &Target, content: &Content, resume: bool) -> Result<Option<Digests>> {
    let (path, known) = (target.path(), !content.digest().is_empty());
    let keeps = known && target.overwrite() == Overwrite::Refuse;
    let there =
        std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == content.layout().size());
    if !there || !(keeps || resume && !target.part_path().exists()) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::FileName;

    #[test]
    fn only_a_typed_name_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let file = FileName::create("film.mkv").unwrap();
        let (typed, network) = (Name::Typed(file.clone()), Name::Network(file));
        std::fs::write(folder.path().join("film.mkv"), b"mine").unwrap();
        let place = folder.path().join("film.mkv");
        for (output, name, overwrite, kept) in [
            (folder.path(), &network, false, true),
            (folder.path(), &network, true, false),
            (folder.path(), &typed, false, false),
            (&place, &network, false, false),
        ] {
            let target = target(output, Some(name), overwrite).unwrap();
            assert_eq!(target.overwrite() == Overwrite::Refuse, kept, "{} {name:?}", output.display());
            let said = in_the_way(&target).map(|error| error.to_string());
            assert_eq!(said.is_some_and(|said| said.contains("--overwrite")), kept);
        }
    }

    #[test]
    fn folders_take_the_servers_name_and_files_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let name = Name::Network(FileName::create("film.mkv").unwrap());
        let of = |output: &Path, name| target(output, name, false).map(|target| target.path().to_owned());
        assert_eq!(of(folder.path(), Some(&name)).unwrap(), folder.path().join("film.mkv"));
        assert_eq!(of(&folder.path().join("x"), Some(&name)).unwrap(), folder.path().join("x"));
        assert!(of(folder.path(), None).is_err());
        assert!(of(&folder.path().join("missing/x"), None).unwrap_err().to_string().contains("no folder"));
        assert!(of(&folder.path().join("missing/"), Some(&name)).is_err());
    }
}
