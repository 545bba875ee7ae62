//! Whether servers of which nobody publishes a digest have the same file: of the same size they may still have different
//! ones. Two ranges of each are compared before parts of them are put together.

use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use futures::future::join_all;
use reqwest::Client;

use crate::fetch::ask::Answer;
use crate::source::{Sampler, alike};

/// What came of it.
pub(super) struct Agreeing {
    /// The servers that have the same file.
    pub(super) servers: Vec<(String, Answer)>,
    /// For the end: why they were put together.
    pub(super) because: Option<String>,
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
    let sampled = servers
        .iter()
        .map(|(_, answer)| async { Sampler { client, urls: &[&answer.original], size, within }.two().await });
    let samples: Vec<Option<[Bytes; 2]>> = join_all(sampled).await;
    let same =
        |one: &[Bytes; 2], other: &[Bytes; 2]| one.iter().zip(other).all(|(one, other)| alike(one, other));
    let like = |sample: &[Bytes; 2]| samples.iter().flatten().filter(|other| same(sample, other)).count();
    // Of equals the first.
    let most = samples.iter().flatten().rev().max_by_key(|sample| like(sample));
    let Some(most) = most else {
        // Nobody gives samples: one is used, as nothing shows that they have the same.
        let mut servers = servers;
        for (label, _) in servers.drain(1..) {
            notes.push(format!(
                "skipped {label}: it cannot be compared with the others, and no digest is known"
            ));
        }
        return Ok(Agreeing { servers, because: None });
    };
    let count = like(most);
    if count * 2 <= samples.iter().flatten().count() {
        let labels: Vec<&str> = servers.iter().map(|(label, _)| label.as_str()).collect();
        bail!(
            "the servers have different files of the same size, none has a majority; give --sha1 or --sha256 to say which is \
             right, or only one of them:\n  {}",
            labels.join("\n  ")
        );
    }
    let mut kept = Vec::new();
    for ((label, answer), sample) in servers.into_iter().zip(&samples) {
        match sample {
            Some(sample) if same(sample, most) => kept.push((label, answer)),
            Some(_) => {
                notes.push(format!("refused {label}: has another file of the same size than the majority"))
            }
            None => {
                notes.push(format!(
                    "skipped {label}: it cannot be compared with the others, and no digest is known"
                ));
            }
        }
    }
    let because = (kept.len() > 1).then(|| {
        format!(
            "the files of {} servers were taken for one, because the size and two sampled ranges agree; no digest is known",
            kept.len()
        )
    });
    Ok(Agreeing { servers: kept, because })
}
