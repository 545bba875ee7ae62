//! `schedule`.

use clap::Args;
use clap::builder::PossibleValuesParser;
use shoal_client::schedule::Window;
use shoal_session::text::{short, size};

use super::{Context, Failure, Run};
use crate::reply::{Reply, lines};

/// Show or change the times of the week at which other rate limits hold
///
/// add takes days (mon-fri, sat,sun, daily), a time (22:00-06:00 goes over midnight), and up, down or both with a rate; 0 is no
/// limit. remove takes the number that the list shows. Times are local. Where several windows hold, the lowest limit counts;
/// outside of them, what limit set.
#[derive(Debug, Args)]
pub struct Schedule {
    /// What to do; without it the windows are listed.
    #[arg(value_name = "add|remove|list", ignore_case = true)]
    #[arg(value_parser = PossibleValuesParser::new(["add", "remove", "list"]))]
    action: Option<String>,
    /// A window to add, or the number of one to remove.
    #[arg(value_name = "window")]
    words: Vec<String>,
}

impl Run for Schedule {
    const EXAMPLE: &'static str = "schedule add mon-fri 08:00-18:00 up 500K down 2M";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let (client, mut windows) = (&context.client, context.client.schedule());
        let action = self.action.unwrap_or_default().to_ascii_lowercase();
        match (action.as_str(), self.words.as_slice()) {
            ("add", words) => {
                windows.push(Window::parse(words).map_err(|error| Failure::Wrong(error.to_string()))?);
                client.set_schedule(windows).await?;
            }
            ("remove", [number]) => {
                let place = number.parse().ok().and_then(|number: usize| number.checked_sub(1));
                let place = place.filter(|&place| place < windows.len()).ok_or_else(|| {
                    let problem = format!("there is no window {:?}; schedule lists them", short(number));
                    Failure::Wrong(problem)
                })?;
                windows.remove(place);
                client.set_schedule(windows).await?;
            }
            ("remove", _) => {
                return Err(Failure::Wrong("write the number of a window: schedule remove 1".to_owned()));
            }
            (_, []) => {}
            (_, [first, ..]) => {
                let problem = format!("{:?} is too much; write only: schedule", short(first));
                return Err(Failure::Wrong(problem));
            }
        }
        let numbered: Vec<(usize, Window)> = (1..).zip(client.schedule()).collect();
        let text = lines(&numbered, "there is no schedule; limit alone says how fast", |(number, window)| {
            format!("{number}  {}", words(window))
        });
        let reply = Reply { text, ..Reply::default() };
        Ok(reply.with("schedule", &client.schedule()))
    }
}

/// A window as people read it.
fn words(window: &Window) -> String {
    let rate = |direction: &str, rate: Option<u64>| match rate {
        None => String::new(),
        Some(0) => format!("  {direction} not limited"),
        Some(rate) => format!("  {direction} {}/s", size(rate)),
    };
    let times = format!("{} {}-{}", window.days(), window.from(), window.to());
    times + &rate("up", window.up()) + &rate("down", window.down())
}
