//! The causes: each with its code, how much it limits, who can do something about it, and what it means. docs/explain.md has
//! the same table; a test compares them.

use serde::{Serialize, Serializer};

/// How much a cause limits. The greatest limits most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing is wrong.
    Well,
    /// It works, and may not for long.
    Unsafe,
    /// It is slower than it could be.
    Slow,
    /// Nothing moves.
    Stuck,
}

/// Who can do something about a cause. The greatest is nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Actor {
    /// Nobody needs to: it passes.
    Time,
    /// Other members, or who runs the trackers.
    Others,
    /// The user.
    User,
}

macro_rules! causes {
    ($($name:ident $code:literal $level:ident $actor:ident $about:literal)+) => {
        /// Why a download or a share is slow, stuck or unsafe, or that it is well. Of causes of one level and one actor, the
        /// one that comes first here is named first.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Cause {
            $(#[doc = $about] $name,)+
        }

        impl Cause {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The code for programs. It stays the same when texts change.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// How much it limits.
            #[must_use]
            pub fn level(self) -> Level {
                match self { $(Self::$name => Level::$level,)+ }
            }

            pub(super) fn actor(self) -> Actor {
                match self { $(Self::$name => Actor::$actor,)+ }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self { $(Self::$name => $about,)+ }
            }
        }
    };
}

causes! {
    OnlyTracker "only_tracker" Stuck User "The only tracker in tracker_info.txt does not answer."
    NoTracker "no_tracker" Stuck User "None of several trackers answers."
    NotLoggedIn "not_logged_in" Stuck User "Nobody is logged in on this client."
    Paused "paused" Stuck User "The user paused the download."
    DiskFull "disk_full" Stuck User "The drive of the download is full."
    ReadOnly "read_only" Stuck User "The drive of the download can only be read."
    NoPermission "no_permission" Stuck User "The folder of the download may not be written to."
    FolderMissing "folder_missing" Stuck User "The folder of the download is not there."
    PartialMissing "partial_missing" Stuck User "What was downloaded is not there any more."
    DriveFails "drive_fails" Stuck User "The drive of the download does not work."
    TooManyFiles "too_many_files" Stuck User "This process or machine has too many files open."
    NoMemory "no_memory" Stuck User "The system lacks memory or threads."
    FileInTheWay "file_in_the_way" Stuck User "Something else is at the place of the download."
    BeingDownloaded "being_downloaded" Stuck User "Another program or download works at the same place."
    BadName "bad_name" Stuck User "The file system does not take the name of the file."
    LeftGroup "left_group" Stuck User "The user is no member of the group any more."
    BadMetadata "bad_metadata" Stuck Others "What was announced about the file contradicts itself."
    FileGone "file_gone" Stuck User "The file of a complete download is not at its place any more."
    Failed "failed" Stuck User "The download failed for another reason."
    ShareFileMissing "share_file_missing" Stuck User "A shared file was moved or removed."
    ShareFolderMissing "share_folder_missing" Stuck User "The folder of a shared file is not there, or its drive."
    ShareNotAFile "share_not_a_file" Stuck User "Something that is not a file is at the place of a shared one."
    ShareUnreadable "share_unreadable" Stuck User "A shared file may not or cannot be read."
    ShareDriveSilent "share_drive_silent" Stuck User "The drive of a shared file does not answer."
    ShareChanged "share_changed" Stuck User "A shared file was changed."
    ShareNotTaken "share_not_taken" Stuck User "The trackers did not take a share, as over a quota."
    LoopbackOnly "loopback_only" Stuck User "This client gives out an address that only this machine reaches."
    OwnConnections "own_connections" Stuck User "This process may not open more connections."
    NoTicket "no_ticket" Stuck Time "The trackers have not given a ticket for the group yet."
    TicketRefused "ticket_refused" Stuck Others "Sharers do not accept this client's ticket for the group."
    SharerStopped "sharer_stopped" Stuck Others "A sharer is online and does not share the file any more."
    FileUnknown "file_unknown" Stuck Others "The trackers do not know the file any more: nobody shares it."
    CopyChanged "copy_changed" Stuck Others "The sharer's file was changed."
    CopyMissing "copy_missing" Stuck Others "The sharer's file is not where it was."
    CopyUnreadable "copy_unreadable" Stuck Others "The sharer's client cannot read its file."
    SharerRefuses "sharer_refuses" Stuck Others "Nothing listens at the sharer's address."
    SharerSilent "sharer_silent" Stuck Others "Nothing answers at the sharer's address, as behind a router."
    SharerOtherKey "sharer_other_key" Stuck Others "Another program answers at the sharer's address."
    SharerNoWay "sharer_no_way" Stuck Others "The network does not lead to the sharer's address."
    SharerVersion "sharer_version" Stuck Others "The sharer's client is of a version that does not understand this one."
    SharerBusy "sharer_busy" Stuck Time "The sharer's client lets no one more in."
    SharerLost "sharer_lost" Stuck Time "The connection to the sharer broke."
    CopyChecked "copy_checked" Stuck Time "The sharer's client checks its file."
    SourcesStalled "sources_stalled" Stuck Others "The sources are connected and send nothing."
    SourcesBusy "sources_busy" Stuck Time "All sources serve others first."
    MissingPieces "missing_pieces" Stuck Others "No source has the pieces that are missing."
    SourcesBanned "sources_banned" Stuck Others "The sources sent wrong bytes and are not used any more."
    MirrorFails "mirror_fails" Stuck Others "The file's mirrors do not deliver, and no sharer can be asked."
    MirrorRefused "mirror_refused" Stuck Others "The file's mirrors lie where this client does not go."
    NobodyShares "nobody_shares" Stuck Others "No client that is online has the file or a part of it."
    Turn "turn" Stuck Time "As many downloads run as the limit of open files allows."
    Queued "queued" Stuck User "As many downloads run as the user allows (set active_downloads)."
    ShareChecking "share_checking" Stuck Time "A shared file was touched and is being checked."
    OwnLimit "own_limit" Slow User "This download has a limit of its own."
    ScheduleLimit "schedule_limit" Slow User "A window of the schedule limits rates now."
    DownloadLimit "download_limit" Slow User "The rate of all downloads together is limited here."
    UploadLimit "upload_limit" Slow User "The rate of all uploads together is limited to very little here."
    DiskSlow "disk_slow" Slow User "The disk or processor does not keep up."
    OneSlowSource "one_slow_source" Slow Others "There is only one source, and it is slow."
    SlowSources "slow_sources" Slow Others "All sources together are slow."
    NotReached "not_reached" Unsafe User "Nobody has reached this client through the address that it gives out."
    ProvisionalName "provisional_name" Unsafe Time "The user's name may yet be lost to an earlier claim."
    PiecesUnheld "pieces_unheld" Unsafe Others "Some pieces that are missing are held by nobody who is there."
    SoleSharer "sole_sharer" Unsafe Others "No other client that is online has the whole file."
    Connecting "connecting" Well Time "The download looks for sources."
    Opening "opening" Well Time "The download is being opened."
    Checking "checking" Well Time "The file is being checked as a whole."
    Downloading "downloading" Well Time "The download runs at what its sources and the network give."
    Complete "complete" Well Time "The download is complete."
    Shared "shared" Well Time "The file is shared, and others have it too."
}

impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}
