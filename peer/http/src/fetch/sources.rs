//! The servers as sources of the engine: how many connections each gets, which of them wait in reserve, and what is
//! reported when one fails or comes back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use shoal_engine::{AnySource, Discovery, Phase, Progress, SourceChange, SourceId, SourceState};
use tokio::task::JoinSet;

use crate::fetch::options::Options;
use crate::fetch::plan::Plan;
use crate::fetch::report::Report;
use crate::source::{HttpSource, Joined, Patience, Standing, Versions};

/// Connections to one server at most, where the user does not say: the second takes over where the first ends.
const USUAL_CONNECTIONS: usize = 2;
/// A server that fails for longer is worth a line: a connection that was cut is made again sooner.
const WORTH_A_LINE: Duration = Duration::from_secs(1);

/// Gives the servers to the download: some at once, the others one by one when no other delivers. Of several that ignore
/// ranges one at a time is enough.
pub(super) struct Found {
    at_once: Vec<SourceChange>,
    reserve: VecDeque<SourceChange>,
    /// How many the download was given.
    given: usize,
}

impl Discovery for Found {
    fn changes(&mut self, now: &Progress) -> Vec<SourceChange> {
        // A snapshot without the one given last is from before.
        if now.rows.len() == self.given && all_idle(now) {
            self.at_once.extend(self.reserve.pop_front());
        }
        self.given += self.at_once.len();
        std::mem::take(&mut self.at_once)
    }

    fn is_over(&self) -> bool {
        self.reserve.is_empty()
    }
}

/// How the servers stand.
pub(super) struct Sources {
    watched: Vec<Watched>,
    /// How many of them the download may use.
    used: usize,
    /// Keeps asking what servers hold; ends with this value.
    _asking: JoinSet<()>,
    patience: Patience,
    retry_time: u32,
}

struct Watched {
    label: String,
    standing: Arc<Standing>,
    versions: Option<Arc<Versions>>,
    /// What was last known of the version.
    joined: Option<Joined>,
    /// Whether the user knows that it fails.
    said: bool,
}

impl Sources {
    /// The servers of the plan; `versions` of each, where they are to be compared, and whether nothing of the file is there.
    /// `only`: of these places alone.
    pub(super) fn new(
        options: &Options,
        plan: &Plan,
        (versions, fresh): (&[Joined], bool),
        only: Option<&[usize]>,
    ) -> (Self, Found) {
        let patience = Patience::new(Duration::from_secs(u64::from(options.retry_time)));
        let ranges = plan.servers.iter().any(|(_, answer)| answer.ranges);
        let (mut at_once, mut reserve, mut watched) = (Vec::new(), VecDeque::new(), Vec::new());
        let (mut asking, mut used) = (JoinSet::new(), 0);
        for ((index, (label, answer)), id) in plan.servers.iter().enumerate().zip(0u64..) {
            let wanted = connections(options, plan.servers.len(), index).filter(|_| answer.ranges);
            let connections = wanted.unwrap_or(USUAL_CONNECTIONS);
            let size = plan.content.layout().size();
            let source = HttpSource::new(plan.client.clone(), answer.original.clone(), size, connections)
                .redirected_to(answer.url.clone())
                .with_patience(patience.clone())
                .that_answered(answer.took, answer.ranges);
            let source = if wanted.is_some() { source.in_parallel() } else { source };
            let source = match versions.get(index) {
                Some(known) => source.insisting(known.clone(), !plan.content.digest().is_empty(), fresh),
                None => source,
            };
            let source = match &answer.reference {
                Some(reference) => source.that_matches(reference.clone()),
                None => source,
            };
            let source = match &answer.held {
                Some((url, held)) => source.holding(url.clone(), plan.content.layout().clone(), held),
                None => source,
            };
            let is_used = only.is_none_or(|only| only.contains(&index));
            if is_used {
                used += 1;
                asking.spawn(source.holdings().keep_current(plan.client.clone()));
            }
            watched.push(Watched {
                label: label.clone(),
                standing: source.standing(),
                versions: source.versions(),
                joined: versions.get(index).cloned(),
                said: false,
            });
            let change = SourceChange::Add(SourceId(id), AnySource::new(source));
            match () {
                () if !is_used => {}
                () if ranges || at_once.is_empty() => at_once.push(change),
                () => reserve.push_back(change),
            }
        }
        let found = Found { at_once, reserve, given: 0 };
        (Self { watched, used, _asking: asking, patience, retry_time: options.retry_time }, found)
    }

    /// Whether all servers were tried, none holds what is missing, and nothing came for as long as the user waits.
    pub(super) fn lack_the_rest(&self, progress: &Progress) -> bool {
        progress.phase == Phase::Waiting
            && progress.rows.len() == self.used
            && self.patience.is_over()
            && progress.rows.iter().any(|row| matches!(row.state, SourceState::Idle))
            && progress.rows.iter().all(|row| !matches!(row.state, SourceState::Active))
    }

    /// How each of them stands, in order.
    pub(super) fn standings(&self) -> Vec<Arc<Standing>> {
        self.watched.iter().map(|watched| watched.standing.clone()).collect()
    }

    /// What is known of the versions, if that changed since it was last asked for.
    pub(super) fn new_versions(&mut self) -> Option<Vec<Joined>> {
        let mut changed = false;
        for watched in &mut self.watched {
            let now = watched.versions.as_ref().and_then(|versions| versions.joined());
            if now.is_some() && now != watched.joined {
                watched.joined = now;
                changed = true;
            }
        }
        changed.then(|| self.watched.iter().filter_map(|watched| watched.joined.clone()).collect())
    }

    /// For each server whose answers named different validators, why they were taken for one version.
    pub(super) fn joined(&mut self) -> Vec<String> {
        self.new_versions();
        let several = self.watched.iter().filter_map(|watched| {
            let joined = watched.joined.as_ref()?;
            let what = match () {
                () if joined.meaningless => "a new ETag with each answer".to_owned(),
                () if joined.also.is_empty() => return None,
                () => format!("{} different ETags or dates", joined.also.len() + 1),
            };
            Some(format!(
                "{} sent {what}; it was taken for one version of the file, because the size, the other of the two and \
                 sampled ranges agree",
                watched.label
            ))
        });
        several.collect()
    }

    /// Tells the user which servers began to fail, and which are back.
    pub(super) fn look(&mut self, report: &Report) {
        for watched in &mut self.watched {
            match watched.standing.failing() {
                Some(failing) if !watched.said && failing.since.elapsed() >= WORTH_A_LINE => {
                    watched.said = true;
                    report.note(&format!(
                        "{}: {}; it is tried again, until no server has delivered anything for {} s",
                        watched.label, failing.reason, self.retry_time
                    ));
                }
                None if watched.said => {
                    watched.said = false;
                    report.note(&format!("{} is back", watched.label));
                }
                _ => {}
            }
        }
    }
}

/// Whether no server is asked for anything although something is missing.
fn all_idle(progress: &Progress) -> bool {
    let idle = |state: &SourceState| !matches!(state, SourceState::Active | SourceState::Idle);
    progress.phase == Phase::Waiting && progress.rows.iter().all(|row| idle(&row.state))
}

/// How many connections the user wants to the server at this place: `--connections` to each, or its share of all chunks and
/// at least one; `None`: as many as its rate needs.
fn connections(options: &Options, servers: usize, index: usize) -> Option<usize> {
    match (options.chunks.map(|chunks| chunks as usize), options.connections) {
        (Some(chunks), _) => Some((chunks / servers + usize::from(index < chunks % servers)).max(1)),
        (None, connections) => connections.map(|connections| connections as usize),
    }
}
