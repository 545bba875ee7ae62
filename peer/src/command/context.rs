//! What a command is carried out with, and what comes of it.

use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};
use shoal_client::{Client, ClientError};
use shoal_common::Password;
use shoal_console::password;
use shoal_session::text;

use crate::screen::Screen;

/// The variable that stands in for a password that is not given.
const PASSWORD_VARIABLE: &str = "SHOAL_PASSWORD";

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

/// What came of a command: text for people, fields for scripts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reply {
    /// As people read it; empty if there is nothing to say.
    pub text: String,
    /// As scripts read it.
    pub fields: Map<String, Value>,
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

impl Reply {
    /// A reply with that text; `fields` becomes a JSON object.
    pub(crate) fn new(text: impl Into<String>, fields: &impl Serialize) -> Self {
        // A value that cannot be written as JSON does not occur among the results.
        let fields = match serde_json::to_value(fields) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) | Err(_) => Map::new(),
        };
        Self { text: text.into(), fields }
    }

    /// A list under that name: one line per entry, or `none` if there is no entry.
    pub(crate) fn list<T: Serialize>(
        name: &str,
        rows: &[T],
        none: &str,
        line: impl Fn(&T) -> String,
    ) -> Self {
        Self { text: lines(rows, none, line), ..Self::default() }.with(name, &rows)
    }

    /// The reply with a field more.
    pub(crate) fn with(mut self, name: &str, value: &impl Serialize) -> Self {
        if let Ok(value) = serde_json::to_value(value) {
            self.fields.insert(name.to_owned(), value);
        }
        self
    }
}

impl Context {
    /// The password of an account: the one that was typed, SHOAL_PASSWORD's, or what a person at the terminal gives.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn present_password(&self, typed: Option<Password>) -> Result<Password, Failure> {
        match typed.or_else(from_environment) {
            Some(password) => Ok(password),
            None => self.ask("Password: ").await,
        }
    }

    /// A new password: the one that was typed, SHOAL_PASSWORD's if `environment`, or what is typed twice at the terminal.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn new_password(
        &self,
        typed: Option<Password>,
        environment: bool,
    ) -> Result<Password, Failure> {
        if let Some(password) = typed.or_else(|| if environment { from_environment() } else { None }) {
            return Ok(password);
        }
        let password = self.ask("New password: ").await?;
        if self.ask("The same again: ").await? != password {
            return Err(Failure::Wrong("the two are not the same; nothing was changed".to_owned()));
        }
        Ok(password)
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

/// One line per entry, or `none` if there is no entry.
pub(super) fn lines<T>(rows: &[T], none: &str, line: impl Fn(&T) -> String) -> String {
    if rows.is_empty() { none.to_owned() } else { rows.iter().map(line).collect::<Vec<_>>().join("\n") }
}

fn from_environment() -> Option<Password> {
    std::env::var(PASSWORD_VARIABLE).ok().map(Password::new)
}

/// Said behind a name that may yet be lost.
const PROVISIONAL: &str = " (provisional: not enough trackers have confirmed the name yet)";

/// What is said behind a name.
pub(super) fn note(provisional: bool) -> &'static str {
    if provisional { PROVISIONAL } else { "" }
}

/// A path as it may be shown: a file's name may hold anything.
pub(crate) fn shown(path: &Path) -> String {
    text::printable(&path.to_string_lossy())
}
