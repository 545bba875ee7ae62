//! `limit`.

use clap::Args;
use shoal_client::Direction;
use shoal_session::text::{short, size};

use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Show the rate limits, or limit the upload or download rate in bytes per second; 0 for no limit
///
/// RATE may end in K, M or G (1024, 1024 squared, 1024 cubed). The limit is kept over restarts.
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
            let text = format!("{}\n{}", words(Direction::Up, up), words(Direction::Down, down));
            let reply = Reply { text, ..Reply::default() };
            return Ok(reply.with("up", &up.unwrap_or(0)).with("down", &down.unwrap_or(0)));
        };
        let limit = Some(rate).filter(|&rate| rate > 0);
        context.client.set_limit(direction, limit).await?;
        let reply = Reply { text: words(direction, limit), ..Reply::default() };
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

fn direction(typed: &str) -> Result<Direction, String> {
    match typed.to_ascii_lowercase().as_str() {
        "up" => Ok(Direction::Up),
        "down" => Ok(Direction::Down),
        other => Err(format!("{:?} is neither up nor down; write for example: limit up 20M", short(other))),
    }
}

fn rate(typed: &str) -> Result<u64, String> {
    shoal_console::rate(typed)
        .ok_or_else(|| format!("{:?} is not a rate; write for example 500K, 20M or 0", short(typed)))
}
