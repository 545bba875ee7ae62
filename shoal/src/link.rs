//! `shoal web`: a link with which a browser on this machine may look in. The code in it stands behind a `#`, so no server and no log
//! gets it, and it is in no command line.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;
use shoal_web::caller;

use crate::choose;
use crate::show::{Show, clean};

/// Shows a link.
pub(crate) fn main(socket: Option<PathBuf>, json: bool) -> ExitCode {
    let mut show = Show::new(json);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = match runtime {
        Ok(runtime) => runtime.block_on(ask(socket)),
        Err(error) => Err(format!("cannot start: {error}")),
    };
    let shown = match asked {
        Ok(link) if json => show.line(&link.to_string()),
        Ok(link) => show.line(&clean(link["link"].as_str().unwrap_or_default())),
        Err(error) => return show.failed("web", &error),
    };
    if shown.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn ask(socket: Option<PathBuf>) -> Result<Value, String> {
    let socket = choose::socket(socket).await?;
    caller::link(&socket).await.map_err(|error| choose::in_words(&error))
}
