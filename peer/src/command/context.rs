//! What a command is carried out with, and why it was not.

use std::io;

use shoal_client::{Client, ClientError};
use shoal_common::Password;
use shoal_console::password;
use shoal_console::secrets::given_password;

use crate::screen::Screen;

/// What a command is carried out with.
#[derive(Clone)]
pub struct Context {
    /// The client.
    pub client: Client,
    /// Where progress is shown.
    pub screen: Screen,
    /// Whether a person at a terminal can be asked for a password.
    pub attended: bool,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The client says why.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It was not what a command needs.
    #[error("{0}")]
    Wrong(String),
    /// The output is closed.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl Context {
    /// The password of an account: the one that was typed, that of the password file or SHOAL_PASSWORD, or what a person at the terminal gives.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn present_password(&self, typed: Option<Password>) -> Result<Password, Failure> {
        match typed.or_else(given_password) {
            Some(password) => Ok(password),
            None => self.ask("Password: ").await,
        }
    }

    /// A new password: the one that was typed, that of the password file or SHOAL_PASSWORD if `environment`, or what is typed twice at the terminal.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn new_password(
        &self,
        typed: Option<Password>,
        environment: bool,
    ) -> Result<Password, Failure> {
        if let Some(password) = typed.or_else(|| if environment { given_password() } else { None }) {
            return Ok(password);
        }
        let password = self.ask("New password: ").await?;
        if self.ask("The same again: ").await? != password {
            return Err(Failure::Wrong("the two are not the same; nothing was changed".to_owned()));
        }
        Ok(password)
    }

    /// Warns of a weak password. A person who typed it at the terminal is asked whether to use it; false is no.
    ///
    /// # Errors
    /// When the terminal fails.
    pub(crate) async fn accepts(
        &self,
        password: &Password,
        user: &str,
        asked: bool,
    ) -> Result<bool, Failure> {
        let Some(weak) = password::weakness(password, user) else { return Ok(true) };
        self.screen.note(&weak)?;
        if asked { self.confirm("Use it all the same?".to_owned(), false).await } else { Ok(true) }
    }

    /// Asks the person at the terminal a question.
    ///
    /// # Errors
    /// When the terminal fails.
    pub(crate) async fn confirm(&self, question: String, usual: bool) -> Result<bool, Failure> {
        match tokio::task::spawn_blocking(move || password::confirm(&question, usual)).await {
            Ok(answer) => Ok(answer?),
            Err(stopped) => Err(Failure::Wrong(stopped.to_string())),
        }
    }

    /// Asks the person at the terminal for a password.
    ///
    /// # Errors
    /// When there is nobody, or nothing was typed.
    pub(crate) async fn ask(&self, prompt: &'static str) -> Result<Password, Failure> {
        if !self.attended {
            return Err(ClientError::NoPassword.into());
        }
        match tokio::task::spawn_blocking(move || password::read(prompt)).await {
            Ok(Ok(Some(password))) => Ok(password),
            Ok(Ok(None)) => Err(Failure::Wrong("cancelled".to_owned())),
            Ok(Err(error)) => Err(Failure::Wrong(format!("cannot read a password: {error}"))),
            Err(stopped) => Err(Failure::Wrong(stopped.to_string())),
        }
    }
}

/// Said behind a name that may yet be lost.
const PROVISIONAL: &str = " (provisional: not enough trackers have confirmed the name yet)";

/// What is said behind a name.
pub(super) fn note(provisional: bool) -> &'static str {
    if provisional { PROVISIONAL } else { "" }
}
