//! Which daemon is meant: the one that runs, or the one that was named.

use std::path::PathBuf;
use std::time::Duration;

use shoal_web::caller::CallError;
use shoal_web::{caller, socket};
use tokio::time::timeout;

/// Names the socket where no option does.
const VARIABLE: &str = "SHOAL_SOCKET";
/// How long a daemon may take to say whose it is.
const WHOSE_WITHIN: Duration = Duration::from_secs(1);

/// The socket of the daemon that is meant.
///
/// # Errors
/// In words: none runs, or several do.
pub(crate) async fn socket(named: Option<PathBuf>) -> Result<PathBuf, String> {
    let named =
        named.or_else(|| std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from));
    if let Some(path) = named {
        return Ok(path);
    }
    let mut found = socket::find();
    match (found.pop(), found.as_slice()) {
        (None, _) => Err("no client runs in the background; start one with: shoal up".to_owned()),
        (Some(one), []) => Ok(one),
        (Some(last), others) => {
            let mut choices = Vec::new();
            for path in others.iter().chain([&last]) {
                choices.push(format!("--socket {} ({})", path.display(), whose(path).await));
            }
            Err(format!("several clients run; say which is meant: {}", choices.join(", or ")))
        }
    }
}

/// Why a daemon did not answer, with what to do.
pub(crate) fn in_words(error: &CallError) -> String {
    match error {
        CallError::NoDaemon { .. } => format!("{error}; start one with: shoal up"),
        error => error.to_string(),
    }
}

/// Whose it is and which, in words.
async fn whose(path: &std::path::Path) -> String {
    let Ok(asked) = timeout(WHOSE_WITHIN, caller::about(path)).await else {
        return "it does not answer".to_owned();
    };
    match asked {
        Ok(about) => {
            let user = about["user"].as_str().unwrap_or("nobody is logged in");
            match about["data_dir"].as_str() {
                Some(folder) => format!("{user}, data in {folder}"),
                None => user.to_owned(),
            }
        }
        Err(error) => error.to_string(),
    }
}
