//! Parses a line, carries out its command and shows the result. The prompt and scripts both use it.

use std::io;

use shoal_session::text;

use crate::command::{Command, Context, Failure, Parsed, parse_apart};
use crate::reply::Reply;

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
    let Some(parsed) = parse_apart(line) else { return Ok(Next::Continue) };
    let (name, result, next) = carry_out(context, parsed).await?;
    context.screen.result(&name, &result)?;
    Ok(next)
}

/// Carries out what was parsed; gives its name, its result, and what is to be done then.
///
/// # Errors
/// When the output is closed.
pub(crate) async fn carry_out(
    context: &Context,
    Parsed { name, command }: Parsed,
) -> io::Result<(String, Result<Reply, String>, Next)> {
    let quits = matches!(command, Ok(Command::Quit(_)));
    let result = match command {
        Ok(command) => match command.run(context).await {
            Err(Failure::Output(error)) => return Err(error),
            Err(error) => Err(text::error_line(&error.to_string())),
            Ok(reply) => Ok(reply),
        },
        Err(error) => Err(error.to_string()),
    };
    let next = match result {
        Ok(_) if quits => Next::Quit,
        Ok(_) => Next::Continue,
        Err(_) => Next::Failed,
    };
    Ok((name, result, next))
}
