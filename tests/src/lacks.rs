//! What the file systems lack that users have.

/// What a file system lacks: the error that it answers with, or whether it does so at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lacks {
    /// Renaming with flags.
    pub rename_flags: Option<i32>,
    /// Syncing a folder.
    pub folder_sync: Option<i32>,
    /// Syncing a file.
    pub file_sync: Option<i32>,
    /// Locks of either kind.
    pub locks: Option<i32>,
    /// Hard links.
    pub links: Option<i32>,
    /// Reserving space.
    pub fallocate: Option<i32>,
    /// Changing permissions.
    pub chmod: Option<i32>,
    /// Setting times.
    pub times: Option<i32>,
    /// Permissions of each file: all have 0755.
    pub modes: bool,
    /// Shared memory.
    pub shared_memory: bool,
    /// Names with signs that Windows keeps for itself, or that end in a dot or a space.
    pub names: bool,
    /// Times to less than two seconds.
    pub fine_times: bool,
    /// Knowledge of its space.
    pub space: bool,
    /// Writing to files whose names end so: the disk fails there (EIO).
    pub broken: Option<&'static str>,
}

impl Lacks {
    /// A share of a Windows machine or a NAS (SMB).
    #[must_use]
    pub fn smb() -> Self {
        Self {
            rename_flags: Some(libc::EINVAL),
            folder_sync: Some(libc::EINVAL),
            links: Some(libc::EOPNOTSUPP),
            fallocate: Some(libc::EOPNOTSUPP),
            chmod: Some(libc::EPERM),
            modes: true,
            shared_memory: true,
            names: true,
            ..Self::default()
        }
    }

    /// NFS without a lock server.
    #[must_use]
    pub fn nfs() -> Self {
        Self {
            rename_flags: Some(libc::EINVAL),
            locks: Some(libc::ENOLCK),
            fallocate: Some(libc::EOPNOTSUPP),
            ..Self::default()
        }
    }

    /// A memory card or a stick (exFAT, FAT).
    #[must_use]
    pub fn exfat() -> Self {
        Self {
            rename_flags: Some(libc::EINVAL),
            links: Some(libc::EPERM),
            fallocate: Some(libc::EOPNOTSUPP),
            chmod: Some(libc::EPERM),
            modes: true,
            names: true,
            fine_times: true,
            ..Self::default()
        }
    }

    /// A mounted cloud drive or archive, which can do the least.
    #[must_use]
    pub fn fuse() -> Self {
        Self {
            rename_flags: Some(libc::EINVAL),
            folder_sync: Some(libc::EOPNOTSUPP),
            file_sync: Some(libc::EOPNOTSUPP),
            locks: Some(libc::EOPNOTSUPP),
            links: Some(libc::EPERM),
            fallocate: Some(libc::EOPNOTSUPP),
            times: Some(libc::EPERM),
            shared_memory: true,
            space: true,
            ..Self::default()
        }
    }
}
