//! Who the user is: names and passwords, asked for at a terminal or taken from a pipe or the environment.

use std::io::Write;

use anyhow::Context;
use serde_json::json;
use shoal_common::Password;
use shoal_common::UserName;
use shoal_common::tracker_api::RefusalKind;
use shoal_console::{password, secrets};
use shoal_session::LoginError;
use shoal_session::text;

use super::command::{Command, Line};
use super::jobs::Jobs;
use super::prompt::{self, Input};
use super::show::{Output, Screen};
use crate::client::{Client, StoreError};

/// Tries to log in at a prompt (F2).
const TRIES: u32 = 4;

/// Asks who it is, four times at most; false if nobody was let in.
pub(super) async fn log_in(
    client: &Client,
    screen: &Screen,
    input: &mut Input,
    mut user: Option<UserName>,
) -> anyhow::Result<bool> {
    if user.is_none() && !screen.json {
        screen.say("Log in; without an account, type create_user NAME first.");
    }
    for left in (0..TRIES).rev() {
        let (name, password) = match user.take() {
            Some(name) => (name, present_password("Password: ").await?),
            None => match ask_login(client, screen, input).await? {
                Some(login) => login,
                None => return Ok(false),
            },
        };
        match client.login(name, password).await {
            Ok((_, granted)) => {
                for server in granted {
                    let line = format!("From {server}: Authorization Granted.");
                    screen.event("granted", json!({ "server": server }), &line);
                }
                return Ok(true);
            }
            Err(StoreError::Login(LoginError::Call(error)))
                if error.refusal() == Some(RefusalKind::WrongPassword) =>
            {
                let tries = text::count(left as usize, "try").replace("trys", "tries");
                screen.warn(&format!("Invalid Username/Password. Please try again; {tries} left."));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

pub(super) async fn ask_user(input: &mut Input) -> anyhow::Result<Option<UserName>> {
    loop {
        let Some(typed) = input.answer("Username: ").await? else { return Ok(None) };
        match UserName::refer(typed.trim()) {
            Ok(name) => return Ok(Some(name)),
            Err(error) if prompt::attended() => {
                let _ = writeln!(std::io::stderr(), "{error}");
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Asks for a name and its password; `create_user` instead of a name makes the account first.
async fn ask_login(
    client: &Client,
    screen: &Screen,
    input: &mut Input,
) -> anyhow::Result<Option<(UserName, Password)>> {
    loop {
        let Some(typed) = input.answer("Username: ").await? else { return Ok(None) };
        if typed.split_whitespace().next().is_none_or(|word| !word.eq_ignore_ascii_case("create_user")) {
            match UserName::refer(typed.trim()) {
                Ok(name) => return Ok(Some((name, present_password("Password: ").await?))),
                Err(error) if prompt::attended() => screen.warn(&error.to_string()),
                Err(error) => return Err(error.into()),
            }
            continue;
        }
        let created = create_typed(client, screen, &typed).await;
        match created {
            Ok((user, password)) => {
                screen.say(&format!("user {user} was created"));
                return Ok(Some((user, password)));
            }
            Err(error) if prompt::attended() => screen.warn(&format!("{error:#}")),
            Err(error) => return Err(error),
        }
    }
}

/// Makes the account that a `create_user` at the login prompt names.
async fn create_typed(client: &Client, screen: &Screen, typed: &str) -> anyhow::Result<(UserName, Password)> {
    let Some(Command::CreateUser { user: Some(user), invite }) =
        Line::read(typed).map_err(anyhow::Error::msg)?
    else {
        anyhow::bail!("say which: create_user NAME");
    };
    let user = UserName::create(user.as_str())?;
    let password = new_password(screen, &user, "Password: ", secrets::given_password()).await?;
    create_user(client, &user, password.clone(), invite, "type it here").await?;
    Ok((user, password))
}

/// The password of the password file or the environment, else asked for.
pub(super) async fn present_password(question: &'static str) -> anyhow::Result<Password> {
    if let Some(password) = secrets::given_password() {
        return Ok(password);
    }
    let given = prompt::secret(question).await?;
    given
        .context("the password is missing; give it with --password-file, in SHOAL_PASSWORD, or at a terminal")
}

/// Logs the queue's user in again; one who is logged in stays so.
pub(super) async fn log_in_again(client: &Client, jobs: Option<&Jobs>) -> anyhow::Result<Output> {
    if client.who().is_none() {
        let user = jobs.context("say who you are with --user NAME")?.user().clone();
        // What was given at the start may be the password of before.
        let password = match prompt::attended() {
            true => prompt::secret("Password: ").await?.context("no password was given")?,
            false => present_password("Password: ").await?,
        };
        client.login(user, password).await?;
    }
    Ok(Output::Done("logged in"))
}

/// Creates an account; who has the name already is told what to do here, `if_own`.
pub(super) async fn create_user(
    client: &Client,
    user: &UserName,
    password: Password,
    invite: Option<String>,
    if_own: &str,
) -> anyhow::Result<bool> {
    match client.create_user(user.clone(), password, invite).await {
        Err(StoreError::Login(LoginError::Call(error))) if error.refusal() == Some(RefusalKind::Exists) => {
            anyhow::bail!("the user id {user} is taken; choose another, or if it is yours, {if_own}")
        }
        created => Ok(created?),
    }
}

/// A new password of `user`: `given`, else asked for; a user at a terminal types it twice. A weak one is warned of, and
/// refused if the user at the terminal thinks better of it.
pub(super) async fn new_password(
    screen: &Screen,
    user: &UserName,
    question: &'static str,
    given: Option<Password>,
) -> anyhow::Result<Password> {
    let asked = given.is_none() && prompt::attended();
    let new = match given {
        Some(given) => given,
        None => prompt::secret(question)
            .await?
            .context("the new password is missing; give it at a terminal or on standard input")?,
    };
    if asked && prompt::secret("Again: ").await?.as_ref() != Some(&new) {
        anyhow::bail!("the two passwords differ; nothing was changed");
    }
    if let Some(weak) = password::weakness(&new, user.as_str()).filter(|_| !screen.json) {
        screen.warn(&weak);
        if asked && !prompt::confirm("Use it all the same?").await? {
            anyhow::bail!("nothing was changed; choose another password");
        }
    }
    Ok(new)
}
