//! A file system in user space that passes everything on to a folder, and lacks what the file systems lack that users have.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};
use rustix::fs::statvfs;

use crate::{Lacks, mount::lasting_number, root_or_skip, skip};

/// Nothing is remembered by the kernel: each question is asked again.
const AGE: Duration = Duration::ZERO;
/// The signs that Windows keeps for itself.
const RESERVED: &[u8] = b"\"*:<>?\\|";

/// A mounted one; it is unmounted when this is dropped.
pub struct OddDisk {
    at: PathBuf,
    _session: BackgroundSession,
    _folders: tempfile::TempDir,
}

impl OddDisk {
    /// Mounts one; none, and the test is noted as skipped, without root or /dev/fuse.
    #[must_use]
    pub fn mount(test: &str, lacks: Lacks) -> Option<Self> {
        if !root_or_skip(test) {
            return None;
        }
        let folders = tempfile::tempdir().unwrap();
        let (at, backing) = (folders.path().join("at"), folders.path().join("backing"));
        fs::create_dir(&at).unwrap();
        fs::create_dir(&backing).unwrap();
        let mut config = Config::default();
        config.n_threads = Some(2);
        match fuser::spawn_mount(Passed::new(backing, lacks), &at, &config) {
            Ok(session) => Some(Self { at, _session: session, _folders: folders }),
            Err(error) => {
                skip(test, &format!("needs file systems in user space (/dev/fuse): {error}"));
                None
            }
        }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }
}

/// What has been found so far.
#[derive(Default)]
struct Known {
    paths: HashMap<u64, PathBuf>,
    /// Open files with their numbers as the kernel knows them.
    files: HashMap<u64, (u64, File)>,
}

struct Passed {
    lacks: Lacks,
    root: PathBuf,
    known: Mutex<Known>,
    handles: AtomicU64,
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_i32(error.raw_os_error().unwrap_or(libc::EIO))
}

fn done(answer: io::Result<()>, reply: ReplyEmpty) {
    match answer {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

/// Fails if the feature is lacking.
fn has(lack: Option<i32>) -> io::Result<()> {
    lack.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
}

impl Passed {
    fn new(root: PathBuf, lacks: Lacks) -> Self {
        let known = Mutex::new(Known { paths: [(1, root.clone())].into(), ..Known::default() });
        Self { lacks, root, known, handles: AtomicU64::new(1) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    fn path(&self, ino: INodeNo) -> io::Result<PathBuf> {
        let path = self.known().paths.get(&ino.0).cloned();
        path.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    /// The path of a name; fails if there is no such name here.
    fn beside(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        let bytes = name.as_encoded_bytes();
        let is_none = bytes.iter().any(|sign| RESERVED.contains(sign)) || matches!(bytes, [.., b'.' | b' ']);
        has((self.lacks.names && is_none).then_some(libc::EINVAL))?;
        Ok(self.path(parent)?.join(name))
    }

    fn file(&self, handle: FileHandle) -> io::Result<File> {
        match self.known().files.get(&handle.0) {
            Some((_, file)) => file.try_clone(),
            None => Err(io::Error::from_raw_os_error(libc::EBADF)),
        }
    }

    /// Looks at a file that may have been removed while it is open.
    fn look(&self, ino: INodeNo, handle: Option<FileHandle>) -> io::Result<Metadata> {
        if let Some(handle) = handle {
            return self.file(handle)?.metadata();
        }
        match self.path(ino).and_then(fs::symlink_metadata) {
            Ok(found) if ino == INodeNo::ROOT || lasting_number(&found) == ino.0 => Ok(found),
            other => {
                let known = self.known();
                let open = known.files.values().find(|(of, _)| *of == ino.0);
                open.map_or(other, |(_, file)| file.metadata())
            }
        }
    }

    fn attributes(&self, found: &Metadata) -> FileAttr {
        let time = |seconds: i64, nanos: i64| {
            let (seconds, nanos) = (seconds.unsigned_abs(), u32::try_from(nanos).unwrap());
            if self.lacks.fine_times {
                UNIX_EPOCH + Duration::from_secs(seconds / 2 * 2)
            } else {
                UNIX_EPOCH + Duration::new(seconds, nanos)
            }
        };
        let mode = if self.lacks.modes { 0o755 } else { found.mode() & 0o7777 };
        let is_root = fs::metadata(&self.root).is_ok_and(|root| root.ino() == found.ino());
        FileAttr {
            ino: if is_root { INodeNo::ROOT } else { INodeNo(lasting_number(found)) },
            size: found.len(),
            blocks: found.blocks(),
            atime: time(found.atime(), found.atime_nsec()),
            mtime: time(found.mtime(), found.mtime_nsec()),
            ctime: time(found.ctime(), found.ctime_nsec()),
            crtime: UNIX_EPOCH,
            kind: FileType::from_std(found.file_type()).unwrap_or(FileType::RegularFile),
            perm: u16::try_from(mode).unwrap(),
            nlink: u32::try_from(found.nlink()).unwrap(),
            uid: found.uid(),
            gid: found.gid(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    /// Remembers what is at a path.
    fn enter(&self, path: PathBuf) -> io::Result<FileAttr> {
        let attributes = self.attributes(&fs::symlink_metadata(&path)?);
        self.known().paths.insert(attributes.ino.0, path);
        Ok(attributes)
    }

    fn answer(&self, path: io::Result<PathBuf>, reply: ReplyEntry) {
        match path.and_then(|path| self.enter(path)) {
            Ok(attributes) => reply.entry(&AGE, &attributes, Generation(0)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    /// Opens for reading and writing whatever was asked for: the kernel checks that itself. The kernel gives the place of
    /// what is appended.
    fn open_file(&self, path: &Path, ino: u64, truncate: bool) -> io::Result<(FileHandle, FopenFlags)> {
        let file = File::options().read(true).write(true).truncate(truncate).open(path)?;
        let handle = self.handles.fetch_add(1, Ordering::Relaxed);
        self.known().files.insert(handle, (ino, file));
        // What is not cached cannot be shared memory.
        let is_shared = path.to_string_lossy().ends_with("-shm");
        let flags = if self.lacks.shared_memory && is_shared {
            FopenFlags::FOPEN_DIRECT_IO
        } else {
            FopenFlags::empty()
        };
        Ok((FileHandle(handle), flags))
    }

    fn change(
        &self,
        ino: INodeNo,
        handle: Option<FileHandle>,
        (mode, size, modified): (Option<u32>, Option<u64>, Option<TimeOrNow>),
    ) -> io::Result<FileAttr> {
        if let Some(mode) = mode {
            has(self.lacks.chmod)?;
            fs::set_permissions(self.path(ino)?, Permissions::from_mode(mode & 0o7777))?;
        }
        let file = || match handle {
            Some(handle) => self.file(handle),
            None => File::options().write(true).open(self.path(ino)?),
        };
        if let Some(size) = size {
            file()?.set_len(size)?;
        }
        if let Some(TimeOrNow::SpecificTime(time)) = modified {
            has(self.lacks.times)?;
            file()?.set_modified(time)?;
        } else if modified.is_some() {
            file()?.set_modified(SystemTime::now())?;
        }
        Ok(self.attributes(&self.look(ino, handle)?))
    }

    fn moved(&self, from: &Path, to: &Path) {
        for path in self.known().paths.values_mut() {
            if let Ok(rest) = path.strip_prefix(from) {
                *path = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            }
        }
    }

    fn write_at(&self, ino: INodeNo, handle: FileHandle, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Some(end) = self.lacks.broken
            && self.path(ino).is_ok_and(|path| path.to_string_lossy().ends_with(end))
        {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.file(handle)?.write_all_at(data, offset)
    }
}

impl Filesystem for Passed {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        if self.lacks.locks.is_some() {
            // Otherwise the kernel has locks of its own for it.
            let wanted = InitFlags::FUSE_POSIX_LOCKS | InitFlags::FUSE_FLOCK_LOCKS;
            config.add_capabilities(wanted).map_err(|_| io::Error::from_raw_os_error(libc::ENOSYS))?;
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.answer(self.beside(parent, name), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.look(ino, fh) {
            Ok(found) => reply.attr(&AGE, &self.attributes(&found)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.change(ino, fh, (mode, size, mtime)) {
            Ok(attributes) => reply.attr(&AGE, &attributes),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let made = self.beside(parent, name).and_then(|path| {
            fs::DirBuilder::new().mode(mode).create(&path)?;
            Ok(path)
        });
        self.answer(made, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.beside(parent, name).and_then(fs::remove_file), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.beside(parent, name).and_then(fs::remove_dir), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = (|| {
            let (from, to) = (self.beside(parent, name)?, self.beside(newparent, newname)?);
            if !flags.is_empty() {
                has(self.lacks.rename_flags)?;
                has(to.exists().then_some(libc::EEXIST))?;
            }
            fs::rename(&from, &to)?;
            self.moved(&from, &to);
            Ok(())
        })();
        done(renamed, reply);
    }

    fn link(&self, _: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let linked = has(self.lacks.links).and_then(|()| {
            let to = self.beside(newparent, newname)?;
            fs::hard_link(self.path(ino)?, &to)?;
            Ok(to)
        });
        self.answer(linked, reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let truncate = flags.0 & libc::O_TRUNC != 0;
        match self.path(ino).and_then(|path| self.open_file(&path, ino.0, truncate)) {
            Ok((handle, flags)) => reply.opened(handle, flags),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let created = (|| {
            let path = self.beside(parent, name)?;
            let new = flags & libc::O_EXCL != 0;
            File::options()
                .write(true)
                .create(true)
                .create_new(new)
                .truncate(false)
                .mode(mode)
                .open(&path)?;
            let attributes = self.enter(path.clone())?;
            let opened = self.open_file(&path, attributes.ino.0, flags & libc::O_TRUNC != 0)?;
            Ok((attributes, opened))
        })();
        match created {
            Ok((attributes, (handle, flags))) => {
                reply.created(&AGE, &attributes, Generation(0), handle, flags);
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut bytes = vec![0; size as usize];
        match self.file(fh).and_then(|file| file.read_at(&mut bytes, offset)) {
            Ok(count) => reply.data(&bytes[..count]),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.write_at(ino, fh, offset, data) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap()),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.known().files.remove(&fh.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(has(self.lacks.file_sync), reply);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(has(self.lacks.folder_sync), reply);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let entries =
            self.path(ino).and_then(fs::read_dir).and_then(|all| all.collect::<io::Result<Vec<_>>>());
        match entries {
            Ok(mut entries) => {
                entries.sort_by_key(fs::DirEntry::file_name);
                for (entry, place) in entries.iter().zip(1_u64..).skip(usize::try_from(offset).unwrap()) {
                    let Ok(found) = entry.metadata() else { continue };
                    let attributes = self.attributes(&found);
                    if reply.add(attributes.ino, place, attributes.kind, entry.file_name()) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match statvfs(&self.root) {
            Ok(found) if !self.lacks.space => {
                reply.statfs(found.f_blocks, found.f_bfree, found.f_bavail, 0, 0, 4096, 255, 4096);
            }
            _ => reply.statfs(0, 0, 0, 0, 0, 512, 255, 0),
        }
    }

    fn setlk(
        &self,
        _: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        _start: u64,
        _end: u64,
        _typ: i32,
        _pid: u32,
        _sleep: bool,
        reply: ReplyEmpty,
    ) {
        done(has(self.lacks.locks), reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        let reserved = has(self.lacks.fallocate).and_then(|()| {
            let file = self.file(fh)?;
            let there = file.metadata()?.len();
            file.set_len(there.max(offset + length))
        });
        done(reserved, reply);
    }
}
