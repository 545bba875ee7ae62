//! `limit`.

use clap::Args;
use shoal_client::Direction;
use shoal_session::text::{short, size};

use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Limit the upload or download rate, in bytes per second; 0 for no limit
///
/// RATE may end in K, M or G (1024, 1024 squared, 1024 cubed). The limit is kept over restarts.
#[derive(Debug, Args)]
pub struct Limit {
    /// Which rate.
    #[arg(value_name = "up|down", value_parser = direction)]
    direction: Direction,
    /// Bytes per second.
    #[arg(value_name = "RATE", value_parser = rate)]
    rate: u64,
}

impl Run for Limit {
    const EXAMPLE: &'static str = "limit up 20M";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let rate = Some(self.rate).filter(|&rate| rate > 0);
        context.client.set_limit(self.direction, rate).await?;
        let what = match self.direction {
            Direction::Up => "uploads",
            Direction::Down => "downloads",
        };
        let text = match rate {
            Some(rate) => format!("{what} take {}/s at most", size(rate)),
            None => format!("{what} are not limited"),
        };
        Ok(Reply { text, ..Reply::default() }.with("direction", &self.direction).with("rate", &self.rate))
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
