//! Where nothing else tells two versions of a file apart, each URL's validators are kept beside the unfinished download and
//! compared when it goes on. Each URL with its own past only: servers make up their tags by themselves. A URL that redirects
//! elsewhere than last time leads to another server: then one validator that agrees is enough.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use reqwest::Url;
use serde_json::{Value, json};
use shoal_engine::Target;

use crate::client::without_credentials;
use crate::fetch::ask::Answer;
use crate::source::Joined;
use crate::source::answer::Validators;

/// Longest file that is read.
const MAX_BYTES: u64 = 1024 * 1024;

/// What is kept of one URL.
#[derive(Debug, Clone, Default)]
struct Kept {
    version: Joined,
    /// Where it led, without the query, which is another each time that it is signed.
    target: Option<String>,
}

/// Compares the servers' versions with those of the interrupted download, if there was one, keeps them, and gives what is
/// known of each. With a digest of the whole file nothing is refused: the digest decides. Blocking.
pub(super) fn compare_and_keep(
    target: &Target,
    servers: &[(String, Answer)],
    resume: bool,
    digest_known: bool,
) -> Result<Vec<Joined>> {
    let path = path(target);
    if is_foreign(&path) {
        bail!(
            "{} is in the way and was not made by fetch; move it away, or choose another name with -o FILE",
            path.display()
        );
    }
    let mut known = if is_resumed(target, resume) { read(&path) } else { BTreeMap::new() };
    let mut versions = Vec::new();
    for (label, answer) in servers {
        let now = place(&answer.url);
        // Earlier releases kept where a URL led, and not the URL.
        let before = known.remove(without_credentials(&answer.url).as_str());
        let kept = known.entry(without_credentials(&answer.original).into()).or_insert_with(|| {
            before.unwrap_or_else(|| Kept { version: Joined::default(), target: Some(now.clone()) })
        });
        let moved = kept.target.as_ref().is_some_and(|before| *before != now);
        let version = &mut kept.version;
        let known = version.first.allow(&answer.validators)
            || version.also.iter().any(|also| also.allow(&answer.validators))
            || version.meaningless && version.first.last_modified == answer.validators.last_modified;
        let accepted = moved && version.first.agrees_in_one(&answer.validators) || digest_known;
        match () {
            () if version.first.allow(&answer.validators) => version.first.learn(answer.validators.clone()),
            () if known => {}
            // What comes from now on is compared with this.
            () if accepted => version.first.clone_from(&answer.validators),
            () => bail!("the file at {label} has changed since the download began; start again without -r"),
        }
        kept.target = Some(now);
        versions.push(kept.version.clone());
    }
    write(&path, &known).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(versions)
}

/// Keeps what was learnt of the servers' versions meanwhile. Blocking.
pub(super) fn keep(target: &Target, servers: &[(String, Answer)], versions: &[Joined]) -> io::Result<()> {
    let path = path(target);
    let mut known = read(&path);
    for ((_, answer), version) in servers.iter().zip(versions) {
        let kept = known.entry(without_credentials(&answer.original).into()).or_default();
        kept.version.clone_from(version);
    }
    write(&path, &known)
}

/// Whether something of an interrupted download is there to go on with.
pub(super) fn is_resumed(target: &Target, resume: bool) -> bool {
    resume && target.part_path().exists()
}

fn place(url: &Url) -> String {
    let mut bare = without_credentials(url);
    bare.set_query(None);
    bare.into()
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

fn read(path: &Path) -> BTreeMap<String, Kept> {
    let small = std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() <= MAX_BYTES);
    let text = if small { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() };
    let Ok(Value::Object(urls)) = serde_json::from_str(&text) else { return BTreeMap::new() };
    urls.iter().map(|(url, value)| (url.clone(), Kept::read(value))).collect()
}

impl Kept {
    fn read(value: &Value) -> Self {
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let validators = |value: &Value| Validators {
            etag: text(value, "etag"),
            last_modified: text(value, "last_modified"),
        };
        let also = value.get("also").and_then(Value::as_array).into_iter().flatten();
        let version = Joined {
            first: validators(value),
            also: also.map(validators).collect(),
            meaningless: value.get("meaningless").and_then(Value::as_bool).unwrap_or(false),
        };
        Self { version, target: text(value, "target") }
    }

    fn written(&self) -> Value {
        let one = |one: &Validators| json!({ "etag": one.etag, "last_modified": one.last_modified });
        let mut value = one(&self.version.first);
        value["also"] = self.version.also.iter().map(one).collect();
        value["meaningless"] = self.version.meaningless.into();
        value["target"] = self.target.clone().into();
        value
    }
}

fn write(path: &Path, known: &BTreeMap<String, Kept>) -> io::Result<()> {
    let urls: serde_json::Map<String, Value> =
        known.iter().map(|(url, kept)| (url.clone(), kept.written())).collect();
    // Through another name, so that a link in its place is not followed.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut unfinished = tempfile::Builder::new().prefix(".fetch-").suffix(".pfrom").tempfile_in(folder)?;
    unfinished.write_all(Value::Object(urls).to_string().as_bytes())?;
    unfinished.persist(path).map_err(|error| error.error)?;
    Ok(())
}
