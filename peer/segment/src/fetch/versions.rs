//! Where nothing else tells two versions of a file apart, each URL's validators are kept beside the unfinished download and
//! compared when it goes on. Each URL with its own past only: servers make up their tags by themselves.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use shoal_engine::Target;

use crate::client::without_credentials;
use crate::fetch::ask::Answer;
use crate::source::answer::Validators;

/// Longest file that is read.
const MAX_BYTES: u64 = 1024 * 1024;

/// Compares the servers' versions with those of the interrupted download, if there was one, and keeps them. Blocking.
pub(super) fn compare_and_keep(target: &Target, servers: &[(String, Answer)], resume: bool) -> Result<()> {
    let path = path(target);
    if is_foreign(&path) {
        bail!(
            "{} is in the way and none of ours; move it away, or choose another name with -o FILE",
            path.display()
        );
    }
    let mut known = if resume && target.part_path().exists() { read(&path) } else { BTreeMap::new() };
    for (label, answer) in servers {
        let validators = known.entry(without_credentials(&answer.url).into()).or_default();
        if !validators.allow(&answer.validators) {
            bail!("the file at {label} has changed since the download began; start afresh without -r");
        }
        validators.learn(answer.validators.clone());
    }
    write(&path, &known).with_context(|| format!("cannot write {}", path.display()))
}

/// Whether something stands there that was not written here.
fn is_foreign(path: &Path) -> bool {
    let ours = |found: &std::fs::Metadata| {
        let text =
            (found.is_file() && found.len() <= MAX_BYTES).then(|| std::fs::read(path).unwrap_or_default());
        text.is_some_and(|text| {
            text.is_empty() || serde_json::from_slice::<Value>(&text).is_ok_and(|v| v.is_object())
        })
    };
    std::fs::symlink_metadata(path).is_ok_and(|found| !ours(&found))
}

/// Forgets what was kept.
pub(super) fn forget(target: &Target) {
    if is_foreign(&path(target)) {
        return;
    }
    match std::fs::remove_file(path(target)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "cannot remove what is known of the servers' versions");
        }
        _ => {}
    }
}

fn path(target: &Target) -> PathBuf {
    target.beside(".pfrom")
}

fn read(path: &Path) -> BTreeMap<String, Validators> {
    let small = std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() <= MAX_BYTES);
    let text = if small { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() };
    let Ok(Value::Object(urls)) = serde_json::from_str(&text) else { return BTreeMap::new() };
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    urls.iter()
        .map(|(url, value)| {
            let validators =
                Validators { etag: text(value, "etag"), last_modified: text(value, "last_modified") };
            (url.clone(), validators)
        })
        .collect()
}

fn write(path: &Path, known: &BTreeMap<String, Validators>) -> io::Result<()> {
    let urls: serde_json::Map<String, Value> = known
        .iter()
        .map(|(url, validators)| {
            (url.clone(), json!({ "etag": validators.etag, "last_modified": validators.last_modified }))
        })
        .collect();
    // Through another name, so that a link in its place is not followed.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut unfinished = tempfile::Builder::new().prefix(".fetch-").suffix(".pfrom").tempfile_in(folder)?;
    unfinished.write_all(Value::Object(urls).to_string().as_bytes())?;
    unfinished.persist(path).map_err(|error| error.error)?;
    Ok(())
}
