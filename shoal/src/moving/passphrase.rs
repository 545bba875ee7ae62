//! The passphrase of an export: from a file, from the terminal without echo, else a line of standard input. It is not the account's
//! password, so what stands in for that does not stand in for it.

use std::io::{self, IsTerminal};
use std::path::Path;

use anyhow::{Context, Result, bail};
use shoal_common::Password;
use shoal_common::limits::MAX_PASSWORD_BYTES;
use shoal_console::lines::read_line;
use shoal_console::password::{self, confirm};
use shoal_console::{secrets, wrapped};

/// The passphrase of a new export; at a terminal it is typed twice, and a weak one has to be confirmed.
pub(super) fn new(file: Option<&Path>) -> Result<Password> {
    if file.is_some() || !io::stdin().is_terminal() {
        return given(file);
    }
    let passphrase = typed("Passphrase for the export: ")?;
    if typed("The same again: ")? != passphrase {
        bail!("the two are not the same; nothing was exported");
    }
    if let Some(weak) = password::weakness(&passphrase, "") {
        // Its last sentence is about trackers.
        let why = weak.split(". Anyone").next().unwrap_or_default();
        let question =
            wrapped(&format!("{why}. Anyone who gets the export can guess it.\nUse it all the same?"));
        if !confirm(&question, false)? {
            bail!("nothing was exported; choose another passphrase");
        }
    }
    Ok(passphrase)
}

/// The passphrase of an export that is there.
pub(super) fn present(file: Option<&Path>) -> Result<Password> {
    if file.is_some() || !io::stdin().is_terminal() {
        given(file)
    } else {
        typed("Passphrase of the export: ")
    }
}

fn typed(prompt: &str) -> Result<Password> {
    match password::read(prompt).context("cannot read a passphrase")? {
        Some(passphrase) if !passphrase.expose().is_empty() => Ok(passphrase),
        Some(_) => bail!("the passphrase is empty; type one"),
        None => bail!("cancelled"),
    }
}

fn given(file: Option<&Path>) -> Result<Password> {
    if let Some(file) = file {
        return secrets::password_file(file);
    }
    let line = read_line(MAX_PASSWORD_BYTES + 1).context("cannot read a passphrase")?;
    let line = line.map(|line| line.strip_suffix('\r').unwrap_or(&line).to_owned());
    match line.filter(|line| !line.is_empty()) {
        Some(line) => Ok(Password::new(line)),
        None => {
            bail!(
                "the passphrase is missing; type it at a terminal, or give it on standard input or with --passphrase-file"
            )
        }
    }
}
