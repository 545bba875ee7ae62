//! Begins a download: opens the partial file and hashes the pieces that a crash left in doubt, on a blocking thread.

use std::sync::{Arc, OnceLock};

use shoal_common::Bitfield;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::chosen::Chosen;
use crate::content::{Content, Target};
use crate::disk::{DiskError, OpenPart, Opened};
use crate::driver::stopped;
use crate::part::PartContext;
use crate::progress::DownloadError;
use crate::resources::Control;

/// Opens the partial file; gives it with the pieces that are there. A stop ends the hashing early.
pub(super) async fn open(
    (content, target, chosen): (&Content, &Target, &Chosen),
    part: Arc<OnceLock<OpenPart>>,
    stop_work: &CancellationToken,
    control: &mut watch::Receiver<Control>,
) -> Result<(PartContext, Bitfield), DownloadError> {
    let mut open = JoinSet::new();
    open.spawn_blocking({
        let (content, target, stop_work) = (content.clone(), target.clone(), stop_work.clone());
        let chosen = chosen.clone();
        move || open_and_rehash((&target, &chosen), content, &part, &stop_work)
    });
    let opened = tokio::select! {
        opened = open.join_next() => opened,
        _ = stopped(control) => {
            stop_work.cancel();
            open.join_next().await
        }
    };
    match opened {
        Some(Ok(opened)) => opened.map_err(|error| Arc::new(error).into()),
        Some(Err(_)) | None => Err(DownloadError::Stopped),
    }
}

/// Opens the partial file and hashes the pieces in doubt. After a cancellation, unhashed pieces count as missing in memory
/// and stay in doubt on the disk.
fn open_and_rehash(
    (target, chosen): (&Target, &Chosen),
    content: Content,
    part: &OnceLock<OpenPart>,
    cancelled: &CancellationToken,
) -> Result<(PartContext, Bitfield), DiskError> {
    let Opened { part: file, journal, mut written, suspects } =
        Opened::open((target, &content, chosen), cancelled)?;
    let _ = part.set(file.open_part());
    let context = PartContext { content, part: file, journal };
    let right = context.rehash(&suspects, cancelled).inspect_err(|_| context.part.unlock())?;
    right.iter(context.content.layout()).for_each(|piece| {
        written.insert(piece);
    });
    Ok((context, written))
}
