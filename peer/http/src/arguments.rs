//! What the command lines of `server` and `fetch` share: the interval of reports, and values whose errors say what to give.

use std::ops::RangeInclusive;

// A doc comment here would be shown as what the whole program does.
#[derive(Debug, Clone, Copy, clap::Args)]
#[expect(missing_docs, reason = "see above")]
pub struct Reports {
    /// Seconds between reports; 0 for none
    #[arg(
        short = 'i',
        long = "interval",
        visible_aliases = ["metric_interval", "status_interval"],
        value_name = "SECS",
        default_value_t = 1,
        value_parser = whole_seconds
    )]
    pub interval: u32,
}

fn whole_seconds(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "give whole seconds, or 0 for no reports".into())
}

/// A port to connect to.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|&port| port > 0)
        .ok_or_else(|| "give ports, numbers from 1 to 65535 with spaces between: -p 9001 9002".into())
}

/// A whole number in this range.
pub(crate) fn number(range: RangeInclusive<u32>) -> impl Fn(&str) -> Result<u32, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("give a whole number from {} to {}", range.start(), range.end()))
    }
}
