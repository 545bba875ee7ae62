//! From the command line to what is downloaded: which servers to ask, whom to believe, and what content that makes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::stream::{FuturesOrdered, StreamExt};
use reqwest::{Client, Url};
use shoal_common::{Digests, FileName, Layout};
use shoal_console::read_input;
use shoal_engine::{Content, Verification};

use crate::client;
use crate::fetch::ask::{Answer, Asker, Candidate, Place, TIMEOUT, ask, read_metalink};
use crate::fetch::duplicates;
use crate::fetch::majority::{Agreement, Claim, agree};
use crate::fetch::options::Options;
use crate::fetch::samples;
use crate::metalink::{self, MAX_METALINK_BYTES, MetalinkFile};
use crate::network_name;

/// Servers that are asked at most; of a Metalink the best.
const MAX_SERVERS: usize = 64;
/// Longest list of servers that is read, in bytes.
const MAX_LIST_BYTES: u64 = 1024 * 1024;

/// What came of the questions.
#[derive(Debug)]
pub(super) enum Planned {
    /// A file of known size.
    Known(Plan),
    /// A file whose size no server gives: it comes as one stream.
    Unsized(Unsized),
}

/// A file whose size no server gives.
#[derive(Debug)]
pub(super) struct Unsized {
    pub(super) client: Client,
    pub(super) save_as: SaveAs,
    pub(super) digests: Digests,
    pub(super) servers: Vec<(String, Answer)>,
    pub(super) notes: Vec<String>,
}

/// What is downloaded, and from whom.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) client: Client,
    pub(super) save_as: SaveAs,
    pub(super) content: Content,
    /// Servers that agree, with what users know them by.
    pub(super) servers: Vec<(String, Answer)>,
    /// What is worth knowing about the others.
    pub(super) notes: Vec<String>,
    /// Why their files were taken for one, if nothing proves it.
    pub(super) because: Option<String>,
}

/// Where the file is to be in the folder that the user named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SaveAs {
    pub(super) name: Option<Name>,
    /// The folders that a Metalink puts it in.
    pub(super) folder: Vec<FileName>,
}

impl Plan {
    /// The same without the size, which turned out to be wrong.
    pub(super) fn without_size(self) -> Unsized {
        let Self { client, save_as, content, servers, .. } = self;
        Unsized { client, save_as, digests: *content.digest(), servers, notes: Vec::new() }
    }
}

/// What the file is called, and whether that is the user's word or the network's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// The user typed it.
    Typed(FileName),
    /// A URL, a Metalink or a server chose it; it is safe as a file name and nothing more.
    Network(FileName),
}

/// What is asked for.
struct Wanted {
    candidates: Vec<Candidate>,
    name: Option<Name>,
    /// Folders that it is to be in.
    folder: Vec<FileName>,
    demanded: Claim,
    proxies: bool,
    notes: Vec<String>,
}

impl Wanted {
    /// What these candidates have, under the name that they give it.
    fn at(candidates: Vec<Candidate>, demanded: Claim, proxies: bool) -> Self {
        Self { candidates, name: None, folder: Vec::new(), demanded, proxies, notes: Vec::new() }
    }
}

/// Asks all servers and decides.
pub(super) async fn plan(options: &Options) -> Result<Planned> {
    let wanted = wanted(options).await?;
    let client = client::build(wanted.proxies).context("cannot set up the HTTP client")?;
    let (begun, patience) = (Instant::now(), Duration::from_secs(options.retry_time.into()));
    let (mut answers, mut silent) = ask_all(&wanted, Asker { client: &client, within: TIMEOUT }).await;
    if answers.is_empty() && begun.elapsed() >= TIMEOUT && patience > TIMEOUT {
        // Some only think for longer.
        (answers, silent) = ask_all(&wanted, Asker { client: &client, within: patience }).await;
    }
    let mut notes = wanted.notes.clone();
    notes.extend(silent.iter().map(|line| format!("skipped {line}")));
    let answers = duplicates::merge(answers, &mut notes).await;
    let claims: Vec<Claim> = answers.iter().map(|(_, answer)| answer.claim.clone()).collect();
    if claims.is_empty() {
        let what = options.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        bail!("no server has the file{what}:\n  {}", silent.join("\n  "));
    }
    let said = |(label, answer): &(String, Answer)| format!("{label}: {}", answer.claim);
    let Some(Agreement { claim, members }) = agree(&claims, &wanted.demanded) else {
        let mut lines: Vec<String> = answers.iter().map(said).collect();
        lines.extend(silent);
        let why = match wanted.demanded == Claim::default() {
            true => "the servers do not agree on the file, no answer has a majority; give --sha1 or --sha256 to say which is right".into(),
            false => format!("no server has the file that was asked for ({})", wanted.demanded),
        };
        bail!("{why}:\n  {}", lines.join("\n  "));
    };
    let outside = answers.iter().enumerate().filter(|(index, _)| !members.contains(index));
    notes.extend(outside.map(|(_, answer)| format!("refused {}: differs from the majority", said(answer))));
    let mut claim = claim;
    claim.digests = decisive(&wanted.demanded.digests, claim.digests);
    let mut servers: Vec<_> = answers
        .into_iter()
        .enumerate()
        .filter(|(index, _)| members.contains(index))
        .map(|(_, answer)| answer)
        .collect();
    let name = typed_name(options).or(wanted.name).or_else(|| usual_name(&servers).map(Name::Network));
    let name = name.and_then(|name| made_safe(name, &mut notes));
    notes.extend(servers.iter().filter_map(|(label, answer)| {
        let coding = answer.coding.as_ref()?;
        Some(format!(
            "{label} sends the file coded as {coding}, which was not asked for; it is saved as it comes"
        ))
    }));
    if claim.size.is_none() {
        let save_as = SaveAs { name, folder: wanted.folder };
        return Ok(Planned::Unsized(Unsized { client, save_as, digests: claim.digests, servers, notes }));
    }
    let content = content(&claim, &mut notes)?.wanting_sha1(options.wants_sha1());
    if servers.iter().any(|(_, answer)| answer.ranges) {
        servers.retain(|(label, answer)| {
            if !answer.ranges {
                notes.push(format!("skipped {label}: does not serve ranges"));
            }
            answer.ranges
        });
    }
    let mut because = None;
    let unproven = matches!(content.verification(), Verification::Unchecked) && content.digest().is_empty();
    if unproven && servers.len() > 1 && servers.iter().any(|(_, answer)| answer.ranges) {
        let size = content.layout().size();
        let agreeing = samples::agreeing(&client, servers, size, TIMEOUT, &mut notes).await?;
        (servers, because) = (agreeing.servers, agreeing.because);
    }
    let save_as = SaveAs { name, folder: wanted.folder };
    Ok(Planned::Known(Plan { client, save_as, content, servers, notes, because }))
}

/// The answers of the candidates, and what is wrong with those that gave none.
async fn ask_all(wanted: &Wanted, asker: Asker<'_>) -> (Vec<(String, Answer)>, Vec<String>) {
    let mut asked: FuturesOrdered<_> =
        wanted.candidates.iter().map(|candidate| ask(asker, candidate)).collect();
    let (mut answers, mut silent) = (Vec::new(), Vec::new());
    for candidate in &wanted.candidates {
        match asked.next().await {
            Some(Ok(answer)) => answers.push((candidate.label.clone(), answer)),
            Some(Err(reason)) => {
                let proxy = candidate.place.url().filter(|_| wanted.proxies).and_then(client::proxy);
                let by = proxy.map(|proxy| format!(" (by way of the proxy {proxy})")).unwrap_or_default();
                silent.push(format!("{}: {reason}{by}", candidate.label));
            }
            None => {}
        }
    }
    (answers, silent)
}

/// The last part of what the user calls the file on the servers.
fn typed_name(options: &Options) -> Option<Name> {
    let last = options.name.as_deref()?.rsplit('/').next()?;
    FileName::refer(last).ok().map(Name::Typed)
}

/// A name from the network, made safe, with a note if it had to be changed.
fn made_safe(name: Name, notes: &mut Vec<String>) -> Option<Name> {
    let Name::Network(given) = name else { return Some(name) };
    let safe = network_name::safe(given.as_str())?;
    if safe != given {
        notes.push(format!("the servers call the file {:?}; it is saved as {safe}", given.as_str()));
    }
    Some(Name::Network(safe))
}

/// The name that most servers give the file; of equals the first.
fn usual_name(servers: &[(String, Answer)]) -> Option<FileName> {
    let names: Vec<&FileName> = servers.iter().filter_map(|(_, answer)| answer.name.as_ref()).collect();
    let count = |name: &FileName| names.iter().filter(|&&other| other == name).count();
    names.iter().rev().max_by_key(|name| count(name)).map(|&name| name.clone())
}

/// What the whole file is compared with, of what was agreed: where the user gave a digest, no SHA-256 of the servers', which
/// would cost as much again as all the rest and prove nothing more to the user.
fn decisive(demanded: &Digests, agreed: Digests) -> Digests {
    if demanded.is_empty() {
        return agreed;
    }
    Digests { sha1: agreed.sha1, ..*demanded }
}

fn content(claim: &Claim, notes: &mut Vec<String>) -> Result<Content> {
    let size = claim.size.context("no server says how long the file is")?;
    if let Some(pieces) = &claim.pieces {
        let layout = u32::try_from(pieces.length).ok().and_then(|length| Layout::new(size, length).ok());
        match layout.map(|layout| Content::new(layout, pieces.digests.clone(), claim.digests)) {
            Some(Ok(content)) => return Ok(content),
            Some(Err(error)) => notes.push(format!("the piece list is left out: {error}")),
            None => {
                notes.push(format!("the piece list is left out: a piece length of {} bytes", pieces.length))
            }
        }
    }
    let layout = Layout::for_size(size)?;
    if layout.pieces() == 0 {
        return Ok(Content::new(layout, Arc::new([]), claim.digests)?);
    }
    Ok(Content::unchecked(layout, claim.digests))
}

async fn wanted(options: &Options) -> Result<Wanted> {
    let digests = Digests { sha1: options.expected_sha1(), sha256: options.sha256, ..Digests::default() };
    let demanded = Claim { size: None, digests, pieces: None };
    if !options.ports.is_empty() {
        let addresses = options.ports.iter().map(|&port| (options.address.clone(), port));
        let candidates = servers(addresses, options.name.as_deref())?;
        return Ok(Wanted::at(candidates, demanded, false));
    }
    if let Some(path) = &options.servers {
        let candidates = servers(read_servers(path)?.into_iter(), options.name.as_deref())?;
        return Ok(Wanted::at(candidates, demanded, false));
    }
    if let [input] = &options.inputs[..]
        && let Some(files) = metalink_input(input).await?
    {
        let from = Url::parse(input).ok();
        return from_metalink(choose(files, options.name.as_deref())?, from.as_ref(), demanded);
    }
    let candidates = options.inputs.iter().map(|input| {
        let url = Url::parse(input).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.with_context(|| {
            format!(
                "{input:?} is neither an http:// or https:// URL nor a Metalink file; a server that is named by its address and \
                 port is given as -a 127.0.0.1 -p 9001"
            )
        })?;
        Ok(Candidate { label: label(&url), place: Place::File(url) })
    });
    let candidates = candidates.take(MAX_SERVERS).collect::<Result<_>>()?;
    Ok(Wanted::at(candidates, demanded, true))
}

/// A URL without the password that may be in it.
fn label(url: &Url) -> String {
    let mut shown = url.clone();
    // Only URLs that cannot have one refuse.
    let _ = shown.set_password(None);
    shown.to_string()
}

fn servers(addresses: impl Iterator<Item = (String, u16)>, name: Option<&str>) -> Result<Vec<Candidate>> {
    let candidates = addresses.take(MAX_SERVERS).map(|(host, port)| {
        let bracketed = host.contains(':') && !host.starts_with('[');
        let host = if bracketed { format!("[{host}]") } else { host };
        let base = Url::parse(&format!("http://{host}:{port}/"));
        let base = base.with_context(|| format!("{host:?} is not an address"))?;
        Ok(Candidate { label: format!("{host}:{port}"), place: Place::Server(base, name.map(str::to_owned)) })
    });
    candidates.collect()
}

/// Lines `host port` or `host:port`; `#` begins a comment.
fn read_servers(path: &Path) -> Result<Vec<(String, u16)>> {
    let shown = path.display();
    let text = read_bounded(path, MAX_LIST_BYTES)?;
    let text = String::from_utf8(text).with_context(|| format!("{shown} is not text"))?;
    let mut addresses = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let split = line.split_once(char::is_whitespace).or_else(|| line.rsplit_once(':'));
        let parsed = split.and_then(|(host, port)| {
            Some((host.to_owned(), port.trim().parse().ok().filter(|&port: &u16| port > 0)?))
        });
        addresses.push(
            parsed.with_context(|| {
                format!(
                    "{shown}, line {}: {line:?} names no server; write \"host port\" or \"host:port\", such as 10.0.0.1 9001",
                    index + 1
                )
            })?,
        );
    }
    if addresses.is_empty() {
        bail!("{shown} names no server");
    }
    Ok(addresses)
}

/// The files of the Metalink that the input is; `None` if it is something else.
async fn metalink_input(input: &str) -> Result<Option<Vec<MetalinkFile>>> {
    let named = input.ends_with(".meta4") || input.ends_with(".metalink");
    if let Some(url) = Url::parse(input).ok().filter(|url| matches!(url.scheme(), "http" | "https")) {
        if !named {
            return Ok(None);
        }
        let client = client::build(true).context("cannot set up the HTTP client")?;
        let files = read_metalink(Asker { client: &client, within: TIMEOUT }, &url)
            .await
            .map_err(|reason| anyhow::anyhow!("{input}: {reason}"))?;
        return Ok(Some(files));
    }
    // A pipe may bring one, as `<(…)` of a shell does.
    if !named && !std::fs::metadata(input).is_ok_and(|found| !found.is_dir()) {
        return Ok(None);
    }
    let no_metalink = || {
        format!(
            "{input} is a file on this machine and no Metalink; give URLs of the file to download, or a Metalink of it"
        )
    };
    if !named && std::fs::metadata(input).is_ok_and(|found| found.len() > MAX_METALINK_BYTES as u64) {
        bail!(no_metalink());
    }
    let bytes = read_bounded(Path::new(input), MAX_METALINK_BYTES as u64)?;
    let unusable = || if named { format!("cannot use {input}") } else { no_metalink() };
    Ok(Some(metalink::parse(&bytes).with_context(unusable)?))
}

fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>> {
    read_input(path, most).with_context(|| format!("cannot read {}", path.display()))
}

fn choose(files: Vec<MetalinkFile>, name: Option<&str>) -> Result<MetalinkFile> {
    let names: Vec<String> = files.iter().map(MetalinkFile::path).collect();
    let is_meant = |file: &MetalinkFile| {
        name.is_none_or(|name| file.path() == name || !name.contains('/') && file.name.as_str() == name)
    };
    let mut fitting = files.into_iter().filter(is_meant);
    match (fitting.next(), fitting.next()) {
        (Some(file), None) => Ok(file),
        (None, _) => bail!("the Metalink has no such file; it has: {}", names.join(", ")),
        (Some(_), Some(_)) => {
            bail!("the Metalink has several files, choose one with --file: {}", names.join(", "))
        }
    }
}

/// The candidates that a Metalink names, which came from the URL `from` if it is no local file.
fn from_metalink(file: MetalinkFile, from: Option<&Url>, mut demanded: Claim) -> Result<Wanted> {
    let named = Claim { size: file.size, digests: file.digests, pieces: file.pieces };
    let mut notes = Vec::new();
    if !file.unknown.is_empty() && file.digests.is_empty() {
        notes.push(format!(
            "the Metalink has only digests that are not computed ({}): the file is not verified by them",
            file.unknown.join(", ")
        ));
    }
    if !demanded.allows(&named) {
        bail!("the Metalink describes another file than the digest that was given");
    }
    demanded.learn(&named);
    let candidates: Vec<Candidate> = file
        .urls
        .iter()
        .filter_map(|url| Url::parse(url).ok())
        .take(MAX_SERVERS)
        .map(|url| from.map_or(url.clone(), |from| client::with_credentials(url, from)))
        .map(|url| Candidate { label: label(&url), place: Place::File(url) })
        .collect();
    if candidates.is_empty() {
        bail!("the Metalink names no http:// or https:// URL for {}", file.name);
    }
    let name = Some(Name::Network(file.name));
    Ok(Wanted { candidates, name, folder: file.folder, demanded, proxies: true, notes })
}

#[cfg(test)]
mod tests {
    use shoal_common::{Sha1, Sha256};

    use super::*;

    #[test]
    fn with_a_digest_from_the_user_the_servers_sha256_is_not_computed() {
        let (sha1, sha256) = (Some(Sha1::of(b"file")), Some(Sha256([1; 32])));
        let agreed = Digests { sha1, sha256, ..Digests::default() };
        let by_sha1 = Digests { sha1, ..Digests::default() };
        let by_sha256 = Digests { sha256, ..Digests::default() };
        for (demanded, compared) in [(Digests::default(), agreed), (by_sha1, by_sha1), (by_sha256, agreed)] {
            assert_eq!(decisive(&demanded, agreed), compared, "{demanded:?}");
        }
    }
}
