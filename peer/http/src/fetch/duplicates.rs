//! A server that was named twice, be it under two names of one address or by way of redirects, has one vote and is one
//! source. Two answers are of one server if their URLs differ in nothing but names of the same address, and if they claim
//! the same: servers that share an address and nothing else contradict each other, and then both votes count.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use reqwest::Url;

use crate::fetch::ask::Answer;

/// Longest time for looking up names; the resolver has just done so for the connection.
const LOOKUP: Duration = Duration::from_secs(2);

type Addresses = BTreeMap<String, BTreeSet<SocketAddr>>;

/// Leaves one of the answers of each server; which others there were is added to the notes.
pub(super) async fn merge(answers: Vec<(String, Answer)>, notes: &mut Vec<String>) -> Vec<(String, Answer)> {
    let addresses = addresses(&answers).await;
    let mut kept: Vec<(String, Answer)> = Vec::new();
    for (label, answer) in answers {
        let same = kept.iter_mut().find(|(_, other)| {
            is_same(&other.url, &answer.url, &addresses) && other.claim.allows(&answer.claim)
        });
        match same {
            Some((first, other)) => {
                notes.push(format!(
                    "{label} is the same server as {first}, which is listed already; it counts once"
                ));
                other.claim.learn(&answer.claim);
            }
            None => kept.push((label, answer)),
        }
    }
    kept
}

/// The addresses of the hosts that might be one another.
async fn addresses(answers: &[(String, Answer)]) -> Addresses {
    let urls: Vec<&Url> = answers.iter().map(|(_, answer)| &answer.url).collect();
    let alike =
        |url: &Url| urls.iter().any(|other| other.host_str() != url.host_str() && rest(other) == rest(url));
    let doubtful: BTreeMap<String, Url> =
        urls.iter().filter(|url| alike(url)).map(|&url| (host(url), url.clone())).collect();
    let looked_up = doubtful.into_iter().map(|(host, url)| async move {
        let found = tokio::task::spawn_blocking(move || url.socket_addrs(|| None));
        // A name that only a proxy knows stands for itself.
        let found = tokio::time::timeout(LOOKUP, found).await.ok()?.ok()?.ok()?;
        Some((host, found.into_iter().collect()))
    });
    join_all(looked_up).await.into_iter().flatten().collect()
}

fn is_same(one: &Url, other: &Url, addresses: &Addresses) -> bool {
    let known = |url: &Url| addresses.get(&host(url));
    let shared = || known(one).zip(known(other)).is_some_and(|(one, other)| !one.is_disjoint(other));
    rest(one) == rest(other) && (host(one) == host(other) || shared())
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

/// All of a URL that says where the file is, but its host.
fn rest(url: &Url) -> (&str, Option<u16>, &str, Option<&str>) {
    (url.scheme(), url.port_or_known_default(), url.path(), url.query())
}
