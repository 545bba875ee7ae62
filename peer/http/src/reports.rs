//! How often is reported, as both command lines have it.

// A doc comment here would be shown as what the whole program does.
#[derive(Debug, Clone, Copy, clap::Args)]
#[expect(missing_docs, reason = "see above")]
pub struct Reports {
    /// Seconds between reports; 0 for none
    #[arg(
        short = 'i',
        long = "interval",
        aliases = ["metric_interval", "status_interval"],
        value_name = "SECS",
        default_value_t = 1,
        value_parser = whole_seconds
    )]
    pub interval: u32,
}

fn whole_seconds(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "it takes whole seconds, and 0 for no reports".into())
}
