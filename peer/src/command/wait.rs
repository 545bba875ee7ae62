//! `wait`.

use std::time::Duration;

use clap::Args;
use shoal_session::text::short;

use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Wait until no download runs; for scripts
///
/// It fails if the time runs out first, or if a download that it waited for failed.
#[derive(Debug, Args)]
pub struct Wait {
    /// Seconds to wait at most.
    #[arg(value_name = "seconds", value_parser = seconds)]
    seconds: Option<Duration>,
}

impl Run for Wait {
    const EXAMPLE: &'static str = "wait 60";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let took = context.client.wait(self.seconds).await?;
        Ok(Reply::default().with("seconds", &took.as_secs_f64()))
    }
}

/// Longest time that can be waited, in seconds: some 31 years.
const MAX_SECONDS: f64 = 1e9;

fn seconds(typed: &str) -> Result<Duration, String> {
    let seconds = typed.parse().ok().filter(|seconds| (0.0..=MAX_SECONDS).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("{:?} is not a number of seconds, such as 60", short(typed)))
}
