//! `limit`.

use clap::Args;
use shoal_client::Direction;
use shoal_session::text::{short, size};

use super::args::rate;
use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Show the rate limits, or limit the upload or download rate in bytes per second; 0 for no limit
///
/// RATE may end in K, M or G (1024, 1024 squared, 1024 cubed). The limit is kept over restarts. A window of the schedule goes before
/// it.
#[derive(Debug, Args)]
pub struct Limit {
    /// Which rate.
    #[arg(value_name = "up|down", value_parser = direction, requires = "rate")]
    direction: Option<Direction>,
    /// Bytes per second.
    #[arg(value_name = "RATE", value_parser = rate)]
    rate: Option<u64>,
}

impl Run for Limit {
    const EXAMPLE: &'static str = "limit up 20M";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let (Some(direction), Some(rate)) = (self.direction, self.rate) else {
            let (up, down) = context.client.limits().await?;
            let now = context.client.limits_now();
            let line = |direction, usual, now| words(direction, usual) + &by_schedule(usual, now);
            let (first, second) = (line(Direction::Up, up, now.up), line(Direction::Down, down, now.down));
            let reply = Reply { text: format!("{first}\n{second}"), ..Reply::default() };
            let reply = reply.with("up", &up.unwrap_or(0)).with("down", &down.unwrap_or(0));
            return Ok(match (now.up, now.down) == (up, down) {
                true => reply,
                false => reply.with("up_now", &now.up.unwrap_or(0)).with("down_now", &now.down.unwrap_or(0)),
            });
        };
        let limit = Some(rate).filter(|&rate| rate > 0);
        context.client.set_limit(direction, limit).await?;
        let now = context.client.limits_now();
        let now = match direction {
            Direction::Up => now.up,
            Direction::Down => now.down,
        };
        let text = words(direction, limit) + &by_schedule(limit, now);
        let reply = Reply { text, ..Reply::default() };
        Ok(reply.with("direction", &direction).with("rate", &rate))
    }
}

fn words(direction: Direction, limit: Option<u64>) -> String {
    let what = match direction {
        Direction::Up => "uploads",
        Direction::Down => "downloads",
    };
    match limit {
        Some(rate) => format!("{what} take {}/s at most", size(rate)),
        None => format!("{what} are not limited"),
    }
}

/// What the schedule makes of it now.
fn by_schedule(usual: Option<u64>, now: Option<u64>) -> String {
    match now {
        _ if usual == now => String::new(),
        Some(rate) => format!("; now {}/s, by the schedule", size(rate)),
        None => "; not now, by the schedule".to_owned(),
    }
}

fn direction(typed: &str) -> Result<Direction, String> {
    match typed.to_ascii_lowercase().as_str() {
        "up" => Ok(Direction::Up),
        "down" => Ok(Direction::Down),
        other => Err(format!("{:?} is neither up nor down; write for example: limit up 20M", short(other))),
    }
}
