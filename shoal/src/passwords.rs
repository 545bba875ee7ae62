//! The passwords that a command asks for: from `SHOAL_PASSWORD`, from the terminal, else from the lines of standard input. They go
//! to the daemon in a field of their own, never on a command line.

use std::io::{self, IsTerminal};

use shoal_common::Password;
use shoal_common::limits::MAX_PASSWORD_BYTES;
use shoal_console::lines::read_line;
use shoal_console::password::{self, confirm};
use shoal_console::secrets::given_password;
use shoal_console::wrapped;
use shoal_peer::command::Secret;

const MISSING: &str =
    "the password is missing; type it at a terminal, or give it in SHOAL_PASSWORD or on standard input";

/// Has the passwords that are asked for, in their order; `user` is the account's name. At a terminal a new password is typed twice,
/// and a weak one has to be confirmed.
///
/// # Errors
/// In words: there is none, the two differ, or the person thinks better of it.
pub(crate) fn gather(asks: &[Secret], user: &str) -> Result<Vec<Password>, String> {
    if io::stdin().is_terminal() { asked(asks, user) } else { given(asks) }
}

fn asked(asks: &[Secret], user: &str) -> Result<Vec<Password>, String> {
    let mut passwords = Vec::new();
    for ask in asks {
        // Who changes a password at a terminal means to type the new one.
        let variable = given_password().filter(|_| !asks.contains(&Secret::Old));
        passwords.push(match (ask, variable) {
            (_, Some(password)) => password,
            (Secret::Present, None) => typed("Password: ")?,
            (Secret::Old, None) => typed("Current password: ")?,
            (Secret::New, None) => new(user)?,
        });
    }
    Ok(passwords)
}

fn new(user: &str) -> Result<Password, String> {
    let password = typed("New password: ")?;
    if typed("The same again: ")? != password {
        return Err("the two are not the same; nothing was changed".to_owned());
    }
    if let Some(weak) = password::weakness(&password, user) {
        let question = format!("{}\nUse it all the same?", wrapped(&weak));
        if !confirm(&question, false).map_err(|error| error.to_string())? {
            return Err("nothing was changed; choose another password".to_owned());
        }
    }
    Ok(password)
}

fn typed(prompt: &str) -> Result<Password, String> {
    match password::read(prompt) {
        Ok(Some(password)) => Ok(password),
        Ok(None) => Err("cancelled".to_owned()),
        Err(error) => Err(format!("cannot read a password: {error}")),
    }
}

/// Without a person: the new password, and before it the old one if there are two.
fn given(asks: &[Secret]) -> Result<Vec<Password>, String> {
    match (asks, given_password()) {
        // The session is proof enough.
        ([] | [Secret::Old], _) => Ok(Vec::new()),
        (_, Some(password)) => Ok(vec![password]),
        (asks, None) => {
            let mut passwords = Vec::new();
            for _ in asks {
                passwords.extend(line()?);
            }
            if passwords.is_empty() { Err(MISSING.to_owned()) } else { Ok(passwords) }
        }
    }
}

fn line() -> Result<Option<Password>, String> {
    let line =
        read_line(MAX_PASSWORD_BYTES + 1).map_err(|error| format!("cannot read a password: {error}"))?;
    let line = line.map(|line| line.strip_suffix('\r').unwrap_or(&line).to_owned());
    Ok(line.filter(|line| !line.is_empty()).map(Password::new))
}
