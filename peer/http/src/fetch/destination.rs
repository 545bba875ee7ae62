//! Where the file goes, and whether it is there already. What is there gives way only to a name that the user typed, or
//! to `--overwrite`.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use shoal_common::{Digests, DigestsHasher, FileName};
use shoal_engine::{Content, Overwrite, Target};

use crate::fetch::plan::{Name, SaveAs};

/// Bytes read at once.
const BLOCK: usize = 1024 * 1024;

/// The target for `output`, a folder or a file name. A name that came from a server is one component of a path, always;
/// nothing is replaced under it, not even what appears during the download, unless `overwrite` says so. The folders that a
/// Metalink puts the file in are made below a folder that the user named.
pub(super) fn target(output: &Path, save_as: &SaveAs, overwrite: bool) -> Result<Target> {
    let is_folder = output.is_dir() || output.as_os_str().as_encoded_bytes().ends_with(b"/");
    if !is_folder {
        return target_at(output.to_owned(), true);
    }
    let (name, replace) = match &save_as.name {
        Some(Name::Typed(name)) => (name, true),
        Some(Name::Network(name)) => (name, overwrite),
        None => bail!("the servers give the file no usable name; choose one with -o FILE"),
    };
    if !output.is_dir() {
        bail!("there is no folder {}; make it, or choose another with -o", output.display());
    }
    target_at(made(output, &save_as.folder)?.join(name.as_str()), replace)
}

fn target_at(path: PathBuf, replace: bool) -> Result<Target> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        bail!("there is no folder {}; make it, or choose another with -o", folder.display());
    }
    Ok(Target::new(path, if replace { Overwrite::Replace } else { Overwrite::Refuse }))
}

/// The folder inside `output`; missing parts of it are made. Links are not followed: they may lead anywhere.
fn made(output: &Path, folders: &[FileName]) -> Result<PathBuf> {
    let mut path = output.to_owned();
    for folder in folders {
        path.push(folder.as_str());
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if !std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
                    bail!(
                        "{} is in the way: the Metalink puts the file into a folder of that name; move it away, or choose \
                         a place with -o FILE",
                        path.display()
                    );
                }
            }
            made => made.with_context(|| format!("cannot make the folder {}", path.display()))?,
        }
    }
    Ok(path)
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

/// The digests of the file at the target, if it is the content. Where a digest is known, it decides; otherwise, and only
/// when resuming, the size does. Blocking.
pub(super) fn complete(target: &Target, content: &Content, resume: bool) -> Result<Option<Digests>> {
    let (path, known) = (target.path(), !content.digest().is_empty());
    let keeps = known && target.overwrite() == Overwrite::Refuse;
    let there =
        std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == content.layout().size());
    if !there || !(keeps || resume && !target.part_path().exists()) {
        return Ok(None);
    }
    let computed = digest(path, content).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(content.digest().confirmed_by(&computed).then_some(computed))
}

fn digest(path: &Path, content: &Content) -> std::io::Result<Digests> {
    let mut file = File::open(path)?;
    let mut hasher = DigestsHasher::confirming(content.digest());
    if content.computes_sha1() {
        hasher = hasher.with_sha1();
    }
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

    fn named(name: Option<&Name>) -> SaveAs {
        SaveAs { name: name.cloned(), folder: Vec::new() }
    }

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
            let target = target(output, &named(Some(name)), overwrite).unwrap();
            assert_eq!(target.overwrite() == Overwrite::Refuse, kept, "{} {name:?}", output.display());
            let said = in_the_way(&target).map(|error| error.to_string());
            assert_eq!(said.is_some_and(|said| said.contains("--overwrite")), kept);
        }
    }

    #[test]
    fn folders_take_the_servers_name_and_files_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let name = Name::Network(FileName::create("film.mkv").unwrap());
        let of =
            |output: &Path, name| target(output, &named(name), false).map(|target| target.path().to_owned());
        assert_eq!(of(folder.path(), Some(&name)).unwrap(), folder.path().join("film.mkv"));
        assert_eq!(of(&folder.path().join("x"), Some(&name)).unwrap(), folder.path().join("x"));
        assert!(of(folder.path(), None).is_err());
        assert!(of(&folder.path().join("missing/x"), None).unwrap_err().to_string().contains("no folder"));
        assert!(of(&folder.path().join("missing/"), Some(&name)).is_err());
    }

    #[test]
    fn folders_are_made_below_the_output_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (output, outside) = (folder.path().join("in"), folder.path().join("out"));
        std::fs::create_dir(&output).unwrap();
        std::fs::create_dir(&outside).unwrap();
        let name = |text: &str| FileName::create(text).unwrap();
        let save_as = SaveAs { name: Some(Name::Network(name("f"))), folder: vec![name("a"), name("b")] };
        for _ in 0..2 {
            let target = target(&output, &save_as, false).unwrap();
            assert!(target.path() == output.join("a/b/f") && output.join("a/b").is_dir());
        }
        std::os::unix::fs::symlink(&outside, output.join("c")).unwrap();
        std::fs::write(output.join("d"), "x").unwrap();
        for way in ["c", "d"] {
            let save_as = SaveAs { folder: vec![name(way), name("b")], ..save_as.clone() };
            let refused = target(&output, &save_as, false).unwrap_err().to_string();
            assert!(refused.contains("in the way"), "{refused}");
        }
        assert!(std::fs::read_dir(outside).unwrap().next().is_none());
        // Where the user chose the name, it is the user's.
        let typed = target(&output.join("typed"), &save_as, false).unwrap();
        assert_eq!(typed.path(), output.join("typed"));
    }
}
