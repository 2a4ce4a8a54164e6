//! Whose the run folder is, and what is in it: both follow the store, so that whoever comes first locks nobody out.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::failpoint::reached;

const GROUP_MAY_USE: u32 = 0o060;
const MODE: u32 = 0o7777;

/// Who may use a store.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    user: u32,
    group: u32,
    /// Whether its group may use it as well.
    shared: bool,
}

impl Access {
    /// Reads it from the rights on the store's file.
    #[must_use]
    pub fn of(store: &Metadata) -> Access {
        Access { user: store.uid(), group: store.gid(), shared: store.mode() & GROUP_MAY_USE == GROUP_MAY_USE }
    }

    /// Sees to it that the run folder is there, for all who may use the store and nobody else.
    ///
    /// # Errors
    /// When what is there is not the store's, or would not be if this process made it.
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

    /// It appears with its owner, group and mode, or not at all.
    fn make(self, path: &Path) -> io::Result<()> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        let private = Permissions::from_mode(0o700);
        let parent = path.parent().unwrap_or(Path::new("/"));
        let draft = tempfile::Builder::new().prefix(&name).suffix(".new").permissions(private).tempdir_in(parent);
        // What it was to be called helps nobody.
        let draft = draft.map_err(|error| error.kind())?;
        self.give(&open_folder(draft.path())?)?;
        reached("run folder drafted");
        // Never in place of one in which somebody else is about to work.
        let renamed = match renameat_with(CWD, draft.path(), CWD, path, RenameFlags::NOREPLACE) {
            // A file system that cannot do that.
            Err(Errno::INVAL) => fs::rename(draft.path(), path),
            renamed => renamed.map_err(io::Error::from),
        };
        match renamed {
            Ok(()) => drop(draft.keep()),
            // Somebody else was faster.
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
                // An owner who is not in the group of the store cannot share it, and still may use it.
                Err(_) if me.as_raw() == self.user => mode = 0o700,
                done => done?,
            }
        }
        folder.set_permissions(Permissions::from_mode(mode))
    }

    /// A stranger may have made it, where he can write the folder above.
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

    /// Lets others who may use the store find out whether a processor lives: they may enter its folder and open its lock,
    /// but not list, and write neither. Where the group cannot be given, they cannot.
    pub(in crate::runner) fn show(self, file: &File, mode: u32) -> io::Result<()> {
        let others = self.shared || geteuid().is_root() && self.user != 0;
        let given = others && (file.metadata()?.gid() == self.group || fchown(file, None, Some(self.group)).is_ok());
        if given { file.set_permissions(Permissions::from_mode(mode)) } else { Ok(()) }
    }
}

/// Opens a folder, but nothing that was put in its place.
pub(in crate::runner) fn open_folder(path: &Path) -> io::Result<File> {
    let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}
