//! Notices that this machine's address changed while `shoal up` runs, and says what follows: the address that was given out stays the
//! old one until the next start.

use std::io::{self, Write};
use std::net::IpAddr;
use std::time::Duration;

use super::address;

/// The pause between two looks. A look asks the system which address leads out, and sends nothing.
const LOOK: Duration = Duration::from_secs(15);

/// Looks until it is dropped. `given_out` is the address that others have, if it was looked up; `line` the tracker's for friends.
pub(super) async fn run(given_out: Option<IpAddr>, line: Option<String>) {
    let Some(given_out) = given_out else { return };
    let mut said = given_out;
    loop {
        tokio::time::sleep(LOOK).await;
        let now = address::own();
        if let Some(text) = news(given_out, said, now, line.as_deref()) {
            tracing::warn!("{text}");
            // Where nobody reads it, the log has it.
            let _ = writeln!(io::stderr(), "{text}");
        }
        if !now.is_loopback() {
            said = now;
        }
    }
}

/// What is to be said when the address was `said` at the last look and is `now`. Loopback means that there is no network for the moment.
fn news(given_out: IpAddr, said: IpAddr, now: IpAddr, line: Option<&str>) -> Option<String> {
    if now == said || now.is_loopback() {
        return None;
    }
    if now == given_out {
        return Some(format!("this machine's address is {now} again: others reach it as before"));
    }
    let friends = match line.and_then(|line| line.split_once(' ')) {
        Some((_, rest)) => format!(", and send your friends the new line: shoal up --join '{now} {rest}'"),
        None => String::new(),
    };
    Some(format!(
        "this machine's address is {now} now, and others were given {given_out}: they do not reach it until you start shoal up again{friends}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_said_once_with_what_to_do() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (old, new, none) = (ip("192.168.1.5"), ip("10.0.0.9"), ip("127.0.0.1"));
        let line = Some("192.168.1.5 7071 12D3");
        assert_eq!(news(old, old, old, line), None);
        assert_eq!(news(old, old, none, line), None, "the network is away for a moment");
        let said = news(old, old, new, line).unwrap();
        assert!(
            said.contains("start shoal up again") && said.contains("--join '10.0.0.9 7071 12D3'"),
            "{said}"
        );
        assert_eq!(news(old, new, new, line), None, "once");
        assert!(news(old, new, old, line).unwrap().contains("as before"));
        assert!(!news(old, old, new, None).unwrap().contains("--join"));
        assert!(news(none, none, new, line).unwrap().contains("--join"), "it began without a network");
    }
}
