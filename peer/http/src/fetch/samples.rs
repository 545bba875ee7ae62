//! Finds out whether servers have the same file where none publishes a digest: files of the same size may differ. Two
//! ranges of each are compared before parts of them are put together. Slow servers are compared later, so that the others
//! need not wait.

use std::time::Duration;

use anyhow::{Result, bail};
use futures::stream::{FuturesUnordered, StreamExt};
use reqwest::Client;
use tokio::time::Instant;

use crate::fetch::ask::Answer;
use crate::source::{Sampler, Samples};

/// How long servers are waited for when one has answered.
const OTHERS: Duration = Duration::from_secs(2);

/// What came of it.
pub(super) struct Agreeing {
    /// The servers that have the same file, or may have it.
    pub(super) servers: Vec<(String, Answer)>,
    /// For the end: why they were put together.
    pub(super) because: Option<String>,
}

/// What a server answered.
#[derive(Clone)]
enum Sampled {
    These(Samples),
    /// It gives no parts.
    Never,
    /// Nothing yet.
    Silent,
}

/// Keeps the servers whose samples are those of most. Which others there were is added to the notes.
///
/// # Errors
/// When no file has a majority.
pub(super) async fn agreeing(
    client: &Client,
    servers: Vec<(String, Answer)>,
    size: u64,
    within: Duration,
    notes: &mut Vec<String>,
) -> Result<Agreeing> {
    // A part of a file need not have the ranges that are compared.
    let (servers, parts): (Vec<_>, Vec<_>) = servers.into_iter().partition(|(_, answer)| answer.is_whole());
    if servers.is_empty() {
        return Ok(Agreeing { servers: first_only(parts, notes), because: None });
    }
    notes.extend(parts.iter().map(|(label, _)| incomparable(label)));
    let sampled = sample(client, &servers, size, within).await;
    let samples: Vec<&Samples> = sampled.iter().filter_map(Sampled::samples).collect();
    let like = |sample: &Samples| samples.iter().filter(|other| sample.allow(other)).count();
    // Of equals the first.
    let Some(&most) = samples.iter().rev().max_by_key(|sample| like(sample)) else {
        return Ok(Agreeing { servers: first_only(servers, notes), because: None });
    };
    if like(most) * 2 <= samples.len() {
        let labels: Vec<&str> = servers.iter().map(|(label, _)| label.as_str()).collect();
        bail!(
            "the servers have different files of the same size, none has a majority; give --sha1 or --sha256 to say which is \
             right, or only one of them:\n  {}",
            labels.join("\n  ")
        );
    }
    let mut kept = Vec::new();
    for ((label, mut answer), sampled) in servers.into_iter().zip(&sampled) {
        match sampled {
            Sampled::These(samples) if samples.allow(most) => kept.push((label, answer)),
            Sampled::These(_) => {
                notes.push(format!("refused {label}: has another file of the same size than the majority"));
            }
            Sampled::Never => notes.push(incomparable(&label)),
            Sampled::Silent => {
                answer.reference = Some(most.clone());
                kept.push((label, answer));
            }
        }
    }
    let because = (kept.len() > 1).then(|| {
        format!(
            "the files of {} servers were taken for one where the size and two sampled ranges agree; no digest is known",
            kept.len()
        )
    });
    Ok(Agreeing { servers: kept, because })
}

/// The samples of each server that come in time.
async fn sample(client: &Client, servers: &[(String, Answer)], size: u64, within: Duration) -> Vec<Sampled> {
    let mut asked: FuturesUnordered<_> = servers
        .iter()
        .enumerate()
        .map(|(index, (_, answer))| async move {
            let sampler = Sampler { client, urls: &[&answer.original], size, within };
            (index, sampler.two().await)
        })
        .collect();
    let mut sampled = vec![Sampled::Silent; servers.len()];
    let mut until = Instant::now() + within;
    while let Ok(Some((index, samples))) = tokio::time::timeout_at(until, asked.next()).await {
        let Some(sampled) = sampled.get_mut(index) else { continue };
        *sampled = match samples {
            Ok(Some(samples)) => {
                until = until.min(Instant::now() + OTHERS);
                Sampled::These(samples)
            }
            Ok(None) => Sampled::Never,
            Err(_) => Sampled::Silent,
        };
    }
    sampled
}

/// One server, as nothing shows that they have the same.
fn first_only(mut servers: Vec<(String, Answer)>, notes: &mut Vec<String>) -> Vec<(String, Answer)> {
    notes.extend(servers.drain(1..).map(|(label, _)| incomparable(&label)));
    servers
}

fn incomparable(label: &str) -> String {
    format!(
        "skipped {label}: it cannot be compared with the others, and no digest is known; --sha1 or --sha256 gives one"
    )
}

impl Sampled {
    fn samples(&self) -> Option<&Samples> {
        match self {
            Self::These(samples) => Some(samples),
            Self::Never | Self::Silent => None,
        }
    }
}
