//! One line after another: read as a command, completed by a password if one is missing, carried out, shown. The prompt
//! and scripts both run on it.

use std::io;

use crate::app::{App, AppError, Output};
use crate::command::{Command, Missing, Parsed, Password, parse};
use crate::prompt::password;
use crate::screen::Screen;
use crate::{text, watch};

/// The variable that stands in for a password that is not given.
const PASSWORD_VARIABLE: &str = "SHOAL_PASSWORD";

/// What is to be done after a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Read on.
    Continue,
    /// Read on; this line failed.
    Failed,
    /// Leave.
    Quit,
}

/// Runs lines. Cheap to clone.
#[derive(Clone)]
pub struct Runner {
    app: App,
    screen: Screen,
    /// Whether there is somebody at a terminal to ask for a password.
    attended: bool,
}

impl Runner {
    /// A runner that shows on `screen`; `attended` if somebody can be asked for a password.
    #[must_use]
    pub fn new(app: App, screen: Screen, attended: bool) -> Self {
        Self { app, screen, attended }
    }

    /// Runs one line. Dropping the future gives the command up; see [`App::execute`].
    ///
    /// # Errors
    /// When the output is closed.
    pub async fn run(&self, line: &str) -> io::Result<Next> {
        let Some(Parsed { name, command }) = parse(line) else { return Ok(Next::Continue) };
        let result = match command {
            Ok(command) => self.carry_out(command).await?,
            Err(error) => Err(error.to_string()),
        };
        self.screen.result(&name, &result)?;
        Ok(match result {
            Ok(Output::Quitting) => Next::Quit,
            Ok(_) => Next::Continue,
            Err(_) => Next::Failed,
        })
    }

    async fn carry_out(&self, mut command: Command) -> io::Result<Result<Output, String>> {
        if let Err(problem) = self.supply(&mut command).await {
            return Ok(Err(problem));
        }
        let watched = matches!(command, Command::ShowDownloads { watch: true, .. });
        let hashes = matches!(command, Command::UploadFile { .. } | Command::DownloadFile { .. });
        let result = if hashes {
            watch::hashing(&self.app, &self.screen, self.app.execute(command)).await
        } else {
            if watched && self.app.whoami().user.is_some() {
                watch::downloads(&self.app, &self.screen).await?;
            }
            self.app.execute(command).await
        };
        Ok(result.map_err(|error| text::error_line(&error.to_string())))
    }

    /// Puts in passwords that were left out.
    async fn supply(&self, command: &mut Command) -> Result<(), String> {
        let changes = matches!(command, Command::ChangePassword { .. });
        if self.attended && command.lacks_old() {
            command.supply_old(ask("Current password: ").await?);
        }
        let Some(missing) = command.missing() else { return Ok(()) };
        // Whoever changes a password at a terminal means to type the new one.
        if !(self.attended && changes)
            && let Ok(password) = std::env::var(PASSWORD_VARIABLE)
        {
            command.supply(Password::new(password));
            return Ok(());
        }
        if !self.attended {
            return Err(AppError::NoPassword.to_string());
        }
        let password = match missing {
            Missing::Present => ask("Password: ").await?,
            Missing::New => {
                let first = ask("New password: ").await?;
                if ask("The same again: ").await? != first {
                    return Err("the two are not the same; nothing was changed".to_owned());
                }
                first
            }
        };
        command.supply(password);
        Ok(())
    }
}

async fn ask(prompt: &'static str) -> Result<Password, String> {
    let read = tokio::task::spawn_blocking(move || password::read(prompt)).await;
    match read {
        Ok(Ok(Some(password))) => Ok(password),
        Ok(Ok(None)) => Err("cancelled".to_owned()),
        Ok(Err(error)) => Err(format!("cannot read a password: {error}")),
        Err(stopped) => Err(stopped.to_string()),
    }
}
