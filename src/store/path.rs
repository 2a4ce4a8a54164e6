//! Paths as somebody gives them: made absolute, but never resolved, because a link may lead elsewhere tomorrow.

use std::path::{Component, Path, PathBuf};
use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, os::unix::fs::MetadataExt};

/// The working directory `folder` under the name that the shell shows (`pwd -L`), which is in `shown` (`$PWD`); `folder` itself if
/// `shown` names another place.
#[must_use]
pub fn as_shown(folder: PathBuf, shown: Option<&OsStr>) -> PathBuf {
    let Some(shown) = shown.map(Path::new).filter(|shown| shown.is_absolute()) else { return folder };
    let plain = shown.components().all(|part| part != Component::ParentDir);
    if plain && !is_ones_own(shown) && is_same(shown, &folder) { shown.components().collect() } else { folder }
}

/// A path made absolute: a relative one counts from `folder`. Links stay as they are. A `..` is removed together with the name
/// before it, unless a link makes that lead elsewhere. Only parts that mean something different to each process are resolved.
#[must_use]
pub fn absolute(folder: &Path, path: &Path) -> PathBuf {
    let mut made = PathBuf::new();
    for part in folder.join(path).components() {
        match (part, made.file_name().is_some()) {
            (Component::ParentDir, true) => {
                let above = made.parent().unwrap_or(Path::new("/"));
                if is_same(&made.join(".."), above) {
                    made.pop();
                } else {
                    made.push("..");
                }
            }
            // Above the root is the root.
            (Component::ParentDir, false) if made.parent().is_none() => {}
            (part, _) => made.push(part),
        }
    }
    if is_ones_own(&made) {
        made = resolved(&made).unwrap_or(made);
    }
    // It says that a folder is meant.
    if path.as_os_str().as_bytes().ends_with(b"/") {
        made.push("");
    }
    made
}

/// Whether a path may mean something different to another process, as `/proc/self/cwd` does.
fn is_ones_own(path: &Path) -> bool {
    path.starts_with("/proc") || path.starts_with("/dev/fd")
}

/// A path without links. The last name need not exist.
fn resolved(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok().or_else(|| Some(fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?)))
}

/// Whether both paths lead to the same file or folder.
#[must_use]
pub fn is_same(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    id(one).is_some_and(|one| id(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_and_never_resolved() {
        let place = tempfile::tempdir().unwrap();
        let here = place.path().canonicalize().unwrap();
        fs::create_dir_all(here.join("releases/1/bin")).unwrap();
        std::os::unix::fs::symlink("releases/1", here.join("current")).unwrap();
        let made = |folder: &str, path: &str| {
            let path = absolute(&here.join(folder), Path::new(path));
            path.strip_prefix(&here).map_or(path.clone(), Path::to_owned)
        };
        for (folder, path, expected) in [
            ("", "current", "current"),
            ("", "./current//bin/.", "current/bin"),
            ("current/bin", "..", "current"),
            ("releases/1", "../..", ""),
            ("", "gone/../x", "gone/../x"),
            // A shell's `cd ..` would lead to where the link is, all programs are led to `releases`.
            ("current", "..", "current/.."),
            ("current", "../2/x", "current/../2/x"),
            ("current", "../../current/bin/../x", "current/../../current/x"),
            ("", "/", "/"),
            ("", "/../..", "/"),
        ] {
            assert_eq!(made(folder, path), Path::new(expected), "{folder} {path}");
        }
        assert!(absolute(&here, Path::new("current/")).as_os_str().as_bytes().ends_with(b"current/"));
        let shown = |shown: &str| as_shown(here.join("releases/1"), Some(here.join(shown).as_os_str()));
        assert_eq!(shown("current"), here.join("current"));
        assert_eq!(shown("./current/"), here.join("current"));
        for other in ["releases", "gone", "current/../1", ""] {
            assert_eq!(shown(other), here.join("releases/1"), "{other}");
        }
        assert_eq!(as_shown(here.clone(), Some(OsStr::new("current"))), here);
        assert_eq!(as_shown(here.clone(), None), here);
        let own = std::env::current_dir().unwrap();
        assert_eq!(absolute(&here, Path::new("/proc/self/cwd/src/..")), own);
        assert_eq!(absolute(&here, Path::new("/proc/self/cwd/new")), own.join("new"));
        assert_eq!(as_shown(own.clone(), Some(OsStr::new("/proc/self/cwd"))), own);
    }
}
