//! What a command is carried out with, and why it was not.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use shoal_client::{Client, ClientError};
use shoal_common::{Password, UserName};
use shoal_console::password;
use shoal_console::secrets::given_password;

use crate::reply::shown;
use crate::screen::{Form, Screen};

/// What a command is carried out with.
#[derive(Clone)]
pub struct Context {
    /// The client.
    pub client: Client,
    /// Where progress is shown.
    pub screen: Screen,
    /// Whether a person at a terminal can be asked for a password.
    pub attended: bool,
    /// The program that asked through the socket, if one did.
    pub caller: Option<Caller>,
}

/// What a program gave with its command.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The folder that relative paths are relative to.
    pub folder: Option<PathBuf>,
    /// The passwords that are not in its words, in the order in which they are asked for.
    pub passwords: Arc<Mutex<VecDeque<Password>>>,
}

impl Caller {
    fn passwords_left(&self) -> usize {
        self.passwords.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn next_password(&self) -> Option<Password> {
        self.passwords.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// A new password.
pub(crate) struct NewPassword {
    pub(crate) password: Password,
    /// Whether a person typed it at the terminal when asked.
    pub(crate) asked: bool,
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
        match typed.or_else(|| self.given()) {
            Some(password) => Ok(password),
            None => self.ask("Password: ").await,
        }
    }

    /// The password that stands in for one that is not typed. What stands in for the daemon's own commands does not for those of
    /// a program that asks.
    fn given(&self) -> Option<Password> {
        match &self.caller {
            Some(caller) => caller.next_password(),
            None => given_password(),
        }
    }

    /// The present password before it is changed, where it is to be proven again: at a terminal, or where the program that asks
    /// gave it. `typed`: the new one is there already.
    ///
    /// # Errors
    /// When the terminal fails.
    pub(crate) async fn old_password(&self, typed: bool) -> Result<Option<Password>, Failure> {
        match &self.caller {
            Some(caller) if caller.passwords_left() + usize::from(typed) >= 2 => Ok(caller.next_password()),
            _ if self.attended => Ok(Some(self.ask("Current password: ").await?)),
            _ => Ok(None),
        }
    }

    /// A path as the caller means it.
    ///
    /// # Errors
    /// When it is relative, and the program that asks says not to what.
    pub(crate) fn path(&self, typed: PathBuf) -> Result<PathBuf, Failure> {
        match &self.caller {
            Some(_) if typed.is_absolute() => Ok(typed),
            Some(Caller { folder: Some(folder), .. }) if folder.is_absolute() => Ok(folder.join(typed)),
            Some(_) => Err(Failure::Wrong(format!(
                "{} is relative, and the request names no folder for it; give the whole path",
                shown(&typed)
            ))),
            None => Ok(typed),
        }
    }

    /// A new password of `user`: the one that was typed, that of the password file or SHOAL_PASSWORD if `environment`, or what
    /// is typed twice at the terminal. A weak one is warned of, and refused if the person at the terminal thinks better of it.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn new_password(
        &self,
        user: &UserName,
        typed: Option<Password>,
        environment: bool,
    ) -> Result<NewPassword, Failure> {
        let given = typed.or_else(|| if environment || self.caller.is_some() { self.given() } else { None });
        let asked = given.is_none();
        let password = match given {
            Some(password) => password,
            None => {
                let password = self.ask("New password: ").await?;
                if self.ask("The same again: ").await? != password {
                    return Err(Failure::Wrong("the two are not the same; nothing was changed".to_owned()));
                }
                password
            }
        };
        if let Some(weak) = password::weakness(&password, user.as_str()) {
            self.screen.note(&weak)?;
            let at_prompt = asked && self.screen.form() == Form::Prompt;
            if at_prompt && !self.confirm("Use it all the same?".to_owned(), false).await? {
                return Err(Failure::Wrong("nothing was changed; choose another password".to_owned()));
            }
        }
        Ok(NewPassword { password, asked })
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
