//! The owner and mode of the run folder and its content. They follow the store, so that the first user does not lock out the
//! others.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, lchown};
use std::path::Path;

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::failpoint::reached;

const GROUP_MAY_USE: u32 = 0o060;
const MODE: u32 = 0o7777;

/// The users who may use a store.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    user: u32,
    group: u32,
    /// Whether its group may use it too.
    shared: bool,
}

impl Access {
    /// Those who may use the store, by the mode of its file.
    pub fn of(store: &Metadata) -> Access {
        Access { user: store.uid(), group: store.gid(), shared: store.mode() & GROUP_MAY_USE == GROUP_MAY_USE }
    }

    /// Makes the run folder if it is missing, for exactly those who may use the store.
    ///
    /// # Errors
    /// When the folder does not belong to the store, or would not if this process made it.
    pub(in crate::runner) fn make_run_folder(self, path: &Path) -> io::Result<()> {
        let found = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.make(path)?;
                fs::symlink_metadata(path)?
            }
            found => found?,
        };
        self.refuse_foreign(&found)?;
        let is_right = found.mode() & MODE == self.mode() && found.gid() == self.group && found.uid() == self.user;
        let me = geteuid();
        if !is_right && (me.is_root() || me.as_raw() == found.uid()) {
            self.give(&open_folder(path)?)?;
        }
        Ok(())
    }

    /// Makes it appear complete with its owner, group and mode, or not at all.
    fn make(self, path: &Path) -> io::Result<()> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        let private = Permissions::from_mode(0o700);
        let parent = path.parent().unwrap_or(Path::new("/"));
        let draft = tempfile::Builder::new().prefix(&name).suffix(".new").permissions(private).tempdir_in(parent);
        // The error is kept without the name of the draft, which helps nobody.
        let draft = draft.map_err(|error| error.kind())?;
        self.give(&open_folder(draft.path())?)?;
        reached("run folder drafted");
        // It never replaces a folder that another processor has just made.
        let renamed = match renameat_with(CWD, draft.path(), CWD, path, RenameFlags::NOREPLACE) {
            // The file system cannot do that.
            Err(Errno::INVAL) => fs::rename(draft.path(), path),
            renamed => renamed.map_err(io::Error::from),
        };
        match renamed {
            Ok(()) => drop(draft.keep()),
            // Another processor was faster.
            Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn mode(self) -> u32 {
        if self.shared { 0o2770 } else { 0o700 }
    }

    fn give(self, folder: &File) -> io::Result<()> {
        let me = geteuid();
        let mut mode = self.mode();
        if me.is_root() {
            fchown(folder, Some(self.user), Some(self.group))?;
        } else if !self.shared && me.as_raw() != self.user {
            return Err(io::Error::new(ErrorKind::PermissionDenied, "the store belongs to another user"));
        } else if self.shared && folder.metadata()?.gid() != self.group {
            match fchown(folder, None, Some(self.group)) {
                // If the owner is not in the store's group, the folder cannot be shared, but its owner may use it.
                Err(_) if me.as_raw() == self.user => mode = 0o700,
                done => done?,
            }
        }
        folder.set_permissions(Permissions::from_mode(mode))
    }

    /// Refuses a folder that a stranger has made who may write to the folder above.
    fn refuse_foreign(self, found: &Metadata) -> io::Result<()> {
        let foreign = |why: String| Err(io::Error::new(ErrorKind::PermissionDenied, why));
        let of_group = self.shared && found.gid() == self.group;
        if !found.is_dir() {
            foreign("it is not a folder".to_owned())
        } else if ![self.user, 0].contains(&found.uid()) && !of_group {
            foreign(format!("it belongs to user {}, not to the store's owner", found.uid()))
        } else {
            Ok(())
        }
    }

    /// Lets others who may use the store find out whether a processor lives. They can enter its folder and open its lock, but
    /// cannot list or write it. If the group cannot be set, they cannot do that either.
    pub(in crate::runner) fn show(self, file: &File, mode: u32) -> io::Result<()> {
        let given =
            self.has_others() && (file.metadata()?.gid() == self.group || fchown(file, None, Some(self.group)).is_ok());
        if given { file.set_permissions(Permissions::from_mode(mode)) } else { Ok(()) }
    }

    /// Whether others than the owner of a processor may use the store.
    fn has_others(self) -> bool {
        self.shared || geteuid().is_root() && self.user != 0
    }

    /// Lets the same users connect to a socket, and nobody else.
    pub(in crate::runner) fn show_socket(self, path: &Path) -> io::Result<()> {
        let of_group = || path.metadata().is_ok_and(|is| is.gid() == self.group);
        let given = self.has_others() && (of_group() || lchown(path, None, Some(self.group)).is_ok());
        fs::set_permissions(path, Permissions::from_mode(if given { 0o660 } else { 0o600 }))
    }
}

/// Opens a folder, but no link in its place.
pub(in crate::runner) fn open_folder(path: &Path) -> io::Result<File> {
    let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}
