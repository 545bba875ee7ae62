//! `shoal export` and `shoal import`: a client moves to another machine, with its key, shares and downloads, and with the tracker that
//! `shoal up` runs beside it. Both work on folders in which nothing runs, so that nothing changes meanwhile and nothing that was
//! acknowledged is left behind; an export ends what runs there first.

mod export;
mod folder;
mod import;
mod passphrase;

use std::process::ExitCode;

use serde_json::Value;
use shoal_wipe::without_traces;

use crate::show::Show;

pub(crate) use export::Export;
pub(crate) use import::Import;

/// Parts of an export that this crate adds: what a folder of `shoal up` has beside the client.
const CHOICE_PART: &str = "up.json";
const TRACKER_KEY_PART: &str = "tracker/identity.key";
const TRACKER_DB_PART: &str = "tracker/tracker.db";

/// What is said at the end: for people, and for programs.
struct Outcome {
    text: String,
    json: Value,
}

/// Exports a client.
pub(crate) fn export(options: &Export, socket: Option<std::path::PathBuf>, json: bool) -> ExitCode {
    finish("export", json, |runtime| runtime.block_on(export::run(options, socket)))
}

/// Imports a client.
pub(crate) fn import(options: &Import, json: bool) -> ExitCode {
    finish("import", json, |runtime| runtime.block_on(import::run(options)))
}

/// Keys and passphrases leave no traces in memory.
fn finish(
    command: &str,
    json: bool,
    run: impl FnOnce(&tokio::runtime::Runtime) -> anyhow::Result<Outcome>,
) -> ExitCode {
    shoal_console::secrets::no_core_dumps();
    let mut show = Show::new(json);
    let done = without_traces(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        run(&runtime)
    });
    let shown = match done {
        Ok(outcome) if json => show.line(&outcome.json.to_string()),
        Ok(outcome) => show.line(&outcome.text),
        Err(error) => return show.failed(command, &format!("{error:#}")),
    };
    if shown.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
