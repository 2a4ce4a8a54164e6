//! The users that may use a store, and those that could change it.
//!
//! Invariant: this uses `stat` and `access`, before SQLite opens a file and without opening one.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid, getgid, getuid};

use super::files::{SIDECARS, with_suffix};
use crate::error::{Error, Kind, Result};

const SET_GID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const GROUP_MAY_USE: u32 = 0o060;
const OTHERS_MAY_USE: u32 = 0o006;
const GROUP_OR_OTHERS_MAY_WRITE: u32 = 0o022;
const GROUP_OR_OTHERS_MAY_ENTER: u32 = 0o011;

/// Refuses a store that this process may not write, a store with sidecars of somebody else, and a store whose owner could not open
/// the files that this process would leave next to it. SQLite reports a directory, and a missing file.
pub(in crate::store) fn allow_use(given: &Path) -> Result<()> {
    let Ok(path) = fs::canonicalize(given) else { return Ok(()) };
    let Ok(store) = fs::metadata(&path) else { return Ok(()) };
    if !store.is_file() {
        return refuse_special(given, &store);
    }
    match may_use(&path) {
        Ok(()) => {}
        // Somebody has just moved it away.
        Err(Errno::NOENT) => return Ok(()),
        Err(_) => {
            return Err(Error::new(Kind::Denied, format!("the store `{}` cannot be opened", given.display()))
                .with_hint("asyncq must be able to write the file and the folder it is in"));
        }
    }
    for sidecar in SIDECARS.map(|suffix| with_suffix(&path, suffix)) {
        let Ok(found) = fs::symlink_metadata(&sidecar) else { continue };
        if !belongs_to(&store, &found) {
            return Err(foreign(&sidecar, &found));
        }
        match may_use(&sidecar) {
            // The last user of the store has just removed it.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(_) => return Err(closed(&sidecar)),
        }
    }
    if would_lock_out(&store, &path) { Err(no_common_group(given, &path)) } else { Ok(()) }
}

fn may_use(path: &Path) -> rustix::io::Result<()> {
    may(path, Access::READ_OK | Access::WRITE_OK)
}

/// Refuses everything that is neither a file nor a directory.
fn refuse_special(given: &Path, found: &Metadata) -> Result<()> {
    let kind = found.file_type();
    let what = if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        return Ok(());
    };
    Err(Error::new(Kind::Unreachable, format!("`{}` is {what}, not a store", given.display()))
        .with_hint("name a file, as in `--db queue.db`"))
}

/// Whether this process may use a file in this way.
pub(in crate::store) fn may(path: &Path, how: Access) -> rustix::io::Result<()> {
    match accessat(CWD, path, how, AtFlags::EACCESS) {
        // Older container runtimes refuse `faccessat2` with this error. `faccessat` gives the same answer if the real and the
        // effective user are the same.
        Err(Errno::PERM) if getuid() == geteuid() && getgid() == getegid() => {
            accessat(CWD, path, how, AtFlags::empty())
        }
        answer => answer,
    }
}

/// Whether a sidecar was made by somebody who may use the store. SQLite would play back a journal that a stranger made.
fn belongs_to(store: &Metadata, sidecar: &Metadata) -> bool {
    let shared = store.mode() & GROUP_MAY_USE == GROUP_MAY_USE && sidecar.gid() == store.gid();
    let anybody = store.mode() & OTHERS_MAY_USE == OTHERS_MAY_USE;
    shared || anybody || [store.uid(), 0, geteuid().as_raw()].contains(&sidecar.uid())
}

/// Whether the store's owner could not open the files that SQLite makes here: they have the mode of the store, but the owner and
/// group of this process, unless this process is root's.
fn would_lock_out(store: &Metadata, path: &Path) -> bool {
    let user = geteuid();
    if user.is_root() || user.as_raw() == store.uid() || store.mode() & OTHERS_MAY_USE == OTHERS_MAY_USE {
        return false;
    }
    let inherited = path.parent().and_then(|folder| fs::metadata(folder).ok()).filter(|it| it.mode() & SET_GID != 0);
    let group = inherited.map_or_else(|| getegid().as_raw(), |folder| folder.gid());
    group != store.gid() || store.mode() & GROUP_MAY_USE != GROUP_MAY_USE
}

fn foreign(sidecar: &Path, found: &Metadata) -> Error {
    let what = format!("`{}` belongs to user {}, not to the store's owner or group", sidecar.display(), found.uid());
    Error::new(Kind::Denied, what).with_hint(
        "a member of the group may have left it, then `chgrp` it to the store's group; from a stranger it could change \
         the store, then move it away",
    )
}

fn closed(sidecar: &Path) -> Error {
    Error::new(Kind::Denied, format!("`{}` cannot be opened", sidecar.display()))
        .with_hint("give it the owner, the group and the mode of the store: `chown` and `chmod` it")
}

fn no_common_group(given: &Path, path: &Path) -> Error {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let what = format!("using the store `{}` would lock out its owner", given.display());
    Error::new(Kind::Denied, what)
        .with_hint(format!("new files next to it must get its group: `chmod g+s {}`", folder.display()))
}

/// Refuses a store at `given` that anybody but root could change, before it is opened.
pub(in crate::store) fn only_root_can_change(given: &Path) -> Result<()> {
    match fs::canonicalize(given) {
        Ok(path) if !path.is_dir() => refuse_changeable(given, &path),
        _ => Ok(()),
    }
}

/// Keeps root from making a store at `path` in a folder of another user, who could not use it.
pub(in crate::store) fn refuse_foreign_folder(path: &Path) -> Result<()> {
    if !geteuid().is_root() || fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    let owner = path.ancestors().find_map(|folder| fs::metadata(folder).ok()).map_or(0, |folder| folder.uid());
    if owner == 0 {
        return Ok(());
    }
    let what = format!("root would make `{}` in a folder that belongs to user {owner}", path.display());
    Err(Error::new(Kind::Denied, what).with_hint(
        "run this as that user (`sudo -u`), with root's own home (`sudo -H`), or name the store with `--db`",
    ))
}

/// Refuses the store in the file `path` if anybody but root could change it: directly, by a file next to it, or by a link on the
/// way from `given`.
pub(super) fn refuse_changeable(given: &Path, path: &Path) -> Result<()> {
    if let Some(why) = weakness(path) {
        return Err(changeable(given, &why)
            .with_hint("let its owner process it, or trust all who can write it, with `--trust-store-writers`"));
    }
    match links(given).iter().find_map(|link| weak_link(link)) {
        Some(why) => Err(changeable(given, &why).with_hint(format!(
            "name the file itself, `{}`, or trust all who can change the links to it, with `--trust-store-writers`",
            path.display()
        ))),
        None => Ok(()),
    }
}

/// How many links there are on a path at most (`MAXSYMLINKS` of the kernel).
const MAX_LINKS: usize = 40;

/// The links that a path leads through, each in a folder without links.
fn links(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut at = PathBuf::from("/");
    let parts = |path: &Path| path.iter().rev().map(OsStr::to_owned).collect::<Vec<_>>();
    let mut rest = parts(path);
    while let Some(part) = rest.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(part);
        match fs::read_link(&next) {
            Ok(target) if found.len() < MAX_LINKS => {
                found.push(next);
                rest.extend(parts(&target));
            }
            // An absolute part begins at the root again.
            _ => at = next,
        }
    }
    found
}

/// Why anybody but root can make a link lead elsewhere, if so.
fn weak_link(link: &Path) -> Option<String> {
    let mut folders: Vec<&Path> = link.ancestors().skip(1).collect();
    folders.reverse();
    for folder in folders {
        let Ok(found) = fs::symlink_metadata(folder) else { continue };
        let why = weak_owner(folder, &found).or_else(|| {
            let open = found.mode() & GROUP_OR_OTHERS_MAY_WRITE != 0 && found.mode() & STICKY == 0;
            open.then(|| others_can_write(folder))
        });
        if why.is_some() {
            return why;
        }
        // Nobody else reaches files in a folder that only root can enter.
        if found.mode() & GROUP_OR_OTHERS_MAY_ENTER == 0 {
            return None;
        }
    }
    weak_owner(link, &fs::symlink_metadata(link).ok()?)
}

fn weak_owner(place: &Path, found: &Metadata) -> Option<String> {
    (found.uid() != 0).then(|| format!("`{}` belongs to user {}", place.display(), found.uid()))
}

fn others_can_write(place: &Path) -> String {
    format!("others can write `{}`", place.display())
}

/// The folders that contain a store, from the top, and then the store and the files next to it.
fn places(store: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = store.ancestors().skip(1).map(Path::to_owned).collect();
    folders.reverse();
    folders.push(store.to_owned());
    folders.extend(SIDECARS.into_iter().chain(["-asyncq"]).map(|suffix| with_suffix(store, suffix)));
    folders
}

/// Why anybody but root can change a store, if so.
fn weakness(store: &Path) -> Option<String> {
    let mut writable = GROUP_OR_OTHERS_MAY_WRITE;
    for place in places(store) {
        let Ok(found) = fs::symlink_metadata(&place) else { continue };
        if let Some(why) = weak_owner(&place, &found) {
            return Some(why);
        }
        // Nobody can replace root's files in a sticky folder, but anybody could put a journal next to a store.
        let above = store.parent().is_some_and(|folder| folder != place && folder.starts_with(&place));
        let safe = above && found.mode() & STICKY != 0;
        if found.mode() & writable != 0 && !safe {
            return Some(others_can_write(&place));
        }
        // Nobody else reaches files in a folder that only root can enter.
        if found.is_dir() && found.mode() & GROUP_OR_OTHERS_MAY_ENTER == 0 {
            writable = 0;
        }
    }
    None
}

fn changeable(store: &Path, why: &str) -> Error {
    let what = format!("root runs no functions out of `{}`, which others can change: {why}", store.display());
    Error::new(Kind::Denied, what)
}
