//! Carries a command to the daemon, and shows what comes back. The exit code is that of a script: 0, or 1 if it was not done.

use std::io::{self, Write};
use std::process::ExitCode;

use shoal_console::secrets;
use shoal_peer::command::{Command, Parsed, Secret, holds_password, parse_words_apart};
use shoal_web::Said;
use shoal_web::caller::{self, CallError};

use crate::invocation::Invocation;
use crate::show::Show;
use crate::{choose, passwords};

/// Runs one command.
pub(crate) fn run(invocation: Invocation) -> ExitCode {
    secrets::no_core_dumps();
    let mut show = Show::new(invocation.json);
    let Some(Parsed { name, command }) = parse_words_apart(invocation.words.clone()) else {
        return ExitCode::FAILURE;
    };
    let command = match command {
        Ok(command) => command,
        Err(error) => return show.failed(&name, &error.to_string()),
    };
    if holds_password(&name, &command) {
        let advice = "leave it out, and it is asked for";
        // Nobody reads stderr: there is no other way to say it.
        let _ =
            writeln!(io::stderr(), "warning: other users of this machine can read the password; {advice}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(carry(invocation, &command, &mut show)),
        Err(error) => Err(Ended::Failed(format!("cannot start: {error}"))),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(Ended::Unread) => ExitCode::FAILURE,
        Err(Ended::Failed(error)) => show.failed(&name, &error),
    }
}

/// Why there is no result.
enum Ended {
    /// In words.
    Failed(String),
    /// Nobody reads the output.
    Unread,
}

impl From<CallError> for Ended {
    fn from(error: CallError) -> Self {
        Self::Failed(choose::in_words(&error))
    }
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Unread
    }
}

/// Sends the command, and shows what it says to its end; whether it was done.
async fn carry(invocation: Invocation, command: &Command, show: &mut Show) -> Result<bool, Ended> {
    // First, so that nobody types a password in vain.
    let socket = choose::socket(invocation.socket).await.map_err(Ended::Failed)?;
    let asks = command.asks();
    let user = match (asks, invocation.words.get(1)) {
        ([Secret::New], Some(user)) => user.as_str(),
        _ => "",
    };
    let passwords = passwords::gather(asks, user).map_err(Ended::Failed)?;
    // A folder that is gone only matters where a path is relative to it; the daemon says so then.
    let folder = std::env::current_dir().ok();
    let command = caller::Command { argv: invocation.words, folder, passwords };
    let mut lines = caller::command(&socket, command).await?;
    loop {
        match lines.said().await? {
            Said::Done(done) => return Ok(show.done(&done)?),
            said => show.said(&said)?,
        }
    }
}
