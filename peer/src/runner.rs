//! Parses a line, carries out its command and shows the result. The prompt and scripts both use it.

use std::io;

use shoal_session::text;

use crate::command::{Command, Context, Failure, Parsed, parse_apart};

/// What is to be done after a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Read on.
    Continue,
    /// Read on; this line failed.
    Failed,
    /// Leave.
    Quit,
}

/// Runs one line. Dropping the future cancels the command; see [`Command::run`].
///
/// # Errors
/// When the output is closed.
pub(crate) async fn run(context: &Context, line: &str) -> io::Result<Next> {
    let Some(Parsed { name, command }) = parse_apart(line) else { return Ok(Next::Continue) };
    let quits = matches!(command, Ok(Command::Quit(_)));
    let result = match command {
        Ok(command) => match command.run(context).await {
            Err(Failure::Output(error)) => return Err(error),
            Err(error) => Err(text::error_line(&error.to_string())),
            Ok(reply) => Ok(reply),
        },
        Err(error) => Err(error.to_string()),
    };
    context.screen.result(&name, &result)?;
    Ok(match result {
        Ok(_) if quits => Next::Quit,
        Ok(_) => Next::Continue,
        Err(_) => Next::Failed,
    })
}
