//! `shoal web`: a link with which a browser on this machine may look in. The code in it stands behind a `#`, so no server and no log
//! gets it, and it is in no command line.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};
use shoal_web::caller;

use crate::show::{Show, clean};
use crate::{browser, choose};

/// Shows a link, or opens a browser.
pub(crate) fn main(socket: Option<PathBuf>, open: bool, json: bool) -> ExitCode {
    let mut show = Show::new(json);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = match runtime {
        Ok(runtime) if open => runtime.block_on(opened(socket)),
        Ok(runtime) => runtime.block_on(ask(socket)),
        Err(error) => Err(format!("cannot start: {error}")),
    };
    let shown = match asked {
        Ok(link) if json => show.line(&link.to_string()),
        Ok(opened) if open => {
            show.line(&format!("opened {}", clean(opened["page"].as_str().unwrap_or_default())))
        }
        Ok(link) => show.line(&clean(link["link"].as_str().unwrap_or_default())),
        Err(error) => return show.failed("web", &error),
    };
    if shown.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn ask(socket: Option<PathBuf>) -> Result<Value, String> {
    let socket = choose::socket(socket).await?;
    caller::link(&socket).await.map_err(|error| choose::in_words(&error))
}

async fn opened(socket: Option<PathBuf>) -> Result<Value, String> {
    let socket = choose::socket(socket).await?;
    let opener = browser::find(|name| std::env::var_os(name))
        .map_err(|none| format!("{none}: open the link of shoal web in a browser on this machine"))?;
    let page = browser::open(&socket, &opener).await.map_err(|error| format!("{error}; see: shoal web"))?;
    Ok(json!({ "command": "web", "ok": true, "page": page }))
}
