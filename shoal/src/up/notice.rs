//! Notices that this machine's address changed while `shoal up` runs.

use std::net::IpAddr;
use std::time::Duration;

use super::address;

/// The pause between two looks. A look asks the system which address leads out, and sends nothing.
const LOOK: Duration = Duration::from_secs(5);

/// Follows the address that others are given, if it is looked up and not typed.
#[derive(Debug)]
pub(super) struct Notice {
    given_out: Option<IpAddr>,
    /// The other address that the last look found.
    seen: Option<IpAddr>,
}

impl Notice {
    /// `given_out` is the address that others have, if it was looked up.
    pub(super) fn new(given_out: Option<IpAddr>) -> Self {
        Self { given_out, seen: None }
    }

    /// Waits until the address is another one; the one before and that. Dropping the future loses nothing.
    pub(super) async fn changed(&mut self) -> (IpAddr, IpAddr) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Some(before) = self.given_out
                && let Some(now) = self.look(address::own())
            {
                return (before, now);
            }
        }
    }

    /// A look that found `now`. An address counts when it is found twice in a row: a network that comes or goes may show several.
    /// Loopback means that there is no network for the moment.
    fn look(&mut self, now: IpAddr) -> Option<IpAddr> {
        let given_out = self.given_out?;
        let is_other = now != given_out && !now.is_loopback();
        let again = self.seen.take() == Some(now);
        match is_other {
            true if again => {
                self.given_out = Some(now);
                Some(now)
            }
            true => {
                self.seen = Some(now);
                None
            }
            false => None,
        }
    }
}

/// What is said when others reach this machine at `now` instead of `before`. `line`: what friends are to type now, if it changed.
pub(super) fn news(before: IpAddr, now: IpAddr, line: Option<&str>) -> String {
    match line {
        Some(line) => format!(
            "this machine's address was {before} and is {now} now. Files are found there, but friends look for your tracker at {before}: \
             each of them types shoal quit, and then shoal up --join '{line}'"
        ),
        None => format!("this machine's address was {before} and is {now} now; others find it there"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_counts_when_it_is_found_twice_and_once() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (old, new, other, none) = (ip("192.168.1.5"), ip("10.0.0.9"), ip("10.8.0.2"), ip("127.0.0.1"));
        for (looks, found) in [
            (vec![old, old, none, none, old], vec![]),
            (vec![new, old, new, none, new], vec![]),
            (vec![new, new, new, new], vec![new]),
            (vec![new, other, new, other, other, old, old], vec![other, old]),
        ] {
            let mut notice = Notice::new(Some(old));
            let said: Vec<IpAddr> = looks.iter().filter_map(|now| notice.look(*now)).collect();
            assert_eq!(said, found, "{looks:?}");
        }
        // One that began without a network; and one whose address was typed.
        let mut notice = Notice::new(Some(none));
        assert_eq!([new, new].map(|now| notice.look(now)), [None, Some(new)]);
        let mut notice = Notice::new(None);
        assert_eq!([new, new].map(|now| notice.look(now)), [None, None]);
    }

    #[test]
    fn what_is_said_has_what_to_send() {
        let said = news("10.0.0.9".parse().unwrap(), "10.0.0.7".parse().unwrap(), Some("10.0.0.7 7071 12D3"));
        assert!(said.contains("shoal up --join '10.0.0.7 7071 12D3'"), "{said}");
    }
}
