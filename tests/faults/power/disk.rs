//! A disk that has a power cut after any call: what was synced is kept, of everything else anything may be lost.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;

use super::trace::{Argument, Call};

/// What disks write as a whole, at best.
const SECTOR: usize = 512;

/// What a call does to a disk.
#[derive(Debug)]
pub enum Deed {
    /// Opens a file, makes it when it is missing, and empties it when that is asked for.
    Create {
        path: PathBuf,
        empty: bool,
    },
    Folder(PathBuf),
    /// Writes at an offset, or at the end.
    Write {
        path: PathBuf,
        at: Option<usize>,
        bytes: Vec<u8>,
    },
    Resize {
        path: PathBuf,
        length: usize,
    },
    /// `data`: what is in the file, and not what else concerns it.
    Sync {
        path: PathBuf,
        data: bool,
    },
    Remove(PathBuf),
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Link {
        from: PathBuf,
        to: PathBuf,
    },
}

/// What a call does to a disk, and the lines of the trace on which it begins and ends.
#[derive(Debug)]
pub struct Act {
    pub deed: Deed,
    begun: usize,
    pub ended: usize,
}

/// What a call does to the files in `root`.
pub fn act(call: &Call, root: &Path) -> Option<Act> {
    let deed = understand(call)?;
    let (Deed::Create { path, .. }
    | Deed::Folder(path)
    | Deed::Write { path, .. }
    | Deed::Resize { path, .. }
    | Deed::Sync { path, .. }
    | Deed::Remove(path)
    | Deed::Rename { from: path, .. }
    | Deed::Link { from: path, .. }) = &deed;
    assert!(path.is_absolute(), "nobody knows where that is: {deed:?}");
    let counts = path.starts_with(root) && !is_never_read_again(path);
    counts.then_some(Act { deed, begun: call.begun, ended: call.ended })
}

/// SQLite makes the -shm anew after a power cut, and never syncs it; of a reserve only the space is of use.
fn is_never_read_again(path: &Path) -> bool {
    path.to_string_lossy().ends_with("-shm") || path.ends_with("reserve")
}

fn understand(call: &Call) -> Option<Deed> {
    let path = |index: usize| named(&call.arguments[index..]);
    Some(match (call.name.as_str(), &call.arguments[..]) {
        ("openat", [_, _, Argument::Word(flags), ..]) => {
            let create = flags.contains("O_CREAT");
            let empty = flags.contains("O_TRUNC");
            if !create && !empty {
                return None;
            }
            Deed::Create { path: path(0)?, empty }
        }
        ("mkdir" | "mkdirat", _) => Deed::Folder(path(0)?),
        ("write", [Argument::File(_, file), Argument::Text(bytes), ..]) => {
            let bytes = bytes[..length(call.result)].to_vec();
            Deed::Write { path: file.clone()?, at: None, bytes }
        }
        ("pwrite64", [Argument::File(_, file), Argument::Text(bytes), _, Argument::Word(at)]) => {
            let bytes = bytes[..length(call.result)].to_vec();
            Deed::Write { path: file.clone()?, at: Some(at.parse().unwrap()), bytes }
        }
        ("ftruncate", [_, Argument::Word(length)]) => Deed::Resize { path: path(0)?, length: length.parse().unwrap() },
        ("fsync" | "fdatasync", _) => Deed::Sync { path: path(0)?, data: call.name == "fdatasync" },
        ("unlink" | "unlinkat" | "rmdir", _) => Deed::Remove(path(0)?),
        ("rename" | "link", _) => two(&call.name, path(0)?, path(1)?),
        ("renameat" | "renameat2" | "linkat", _) => two(&call.name, path(0)?, path(2)?),
        ("fallocate", _) if is_never_read_again(&path(0)?) => return None,
        // A descriptor for a name, as sockets are reached through, opens nothing.
        ("open" | "openat", _) if has_flag(&call.arguments, "O_PATH") => return None,
        ("execve" | "exited", _) => return None,
        (name, arguments) => panic!("what `{name}` does to files is not simulated: {arguments:?}"),
    })
}

fn has_flag(arguments: &[Argument], flag: &str) -> bool {
    arguments.iter().any(|it| matches!(it, Argument::Word(flags) if flags.split('|').any(|it| it == flag)))
}

fn two(name: &str, from: PathBuf, to: PathBuf) -> Deed {
    if name.starts_with("rename") { Deed::Rename { from, to } } else { Deed::Link { from, to } }
}

/// The path that a call names first: by a text, by a folder and a text, or by a descriptor.
fn named(arguments: &[Argument]) -> Option<PathBuf> {
    let text = |bytes: &[u8]| PathBuf::from(String::from_utf8(bytes.to_vec()).unwrap());
    match arguments {
        [Argument::Text(path), ..] => Some(text(path)),
        [Argument::File(_, Some(folder)), Argument::Text(path), ..] => Some(folder.join(text(path))),
        [Argument::File(_, file), ..] => file.clone(),
        _ => None,
    }
}

fn length(result: i64) -> usize {
    usize::try_from(result).unwrap()
}

/// When names are safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// As on a journalling file system: they reach the disk in their order, and every sync takes all before it along.
    Ordered,
    /// As far as POSIX goes: by a sync of their folder only, and until then each for itself.
    Loose,
}

/// Where a name leads.
#[derive(Debug, Clone, Copy)]
enum Node {
    Folder,
    File(usize),
}

/// A name that was given or taken, and may not be on the disk yet.
#[derive(Debug)]
struct Naming {
    ended: usize,
    path: PathBuf,
    node: Option<Node>,
}

/// The files in one folder, as programs see them and as they are on the disk.
pub struct Disk {
    names: Names,
    root: PathBuf,
    seen: BTreeMap<PathBuf, Node>,
    safe: BTreeMap<PathBuf, Node>,
    pending: Vec<Naming>,
    files: Vec<File>,
}

/// What a power cut leaves: folders, and files, each with its number and its content. A file may have several names.
pub type Left<'a> = BTreeMap<PathBuf, Option<(usize, Cow<'a, [u8]>)>>;

/// Makes the files that are left of those in `root`; gives the folder that has them.
pub fn make_files(left: &Left<'_>, root: &Path, folder: &Path) -> PathBuf {
    let folder = folder.join("left");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).unwrap();
    let mut made: BTreeMap<usize, PathBuf> = BTreeMap::new();
    for (path, is) in left {
        let path = folder.join(path.strip_prefix(root).unwrap());
        match is {
            None => fs::create_dir(path).unwrap(),
            Some((file, bytes)) => {
                if let Some(other) = made.get(file) {
                    fs::hard_link(other, path).unwrap();
                } else {
                    fs::write(&path, bytes).unwrap();
                    made.insert(*file, path);
                }
            }
        }
    }
    folder
}

impl Disk {
    pub fn new(root: &Path, names: Names) -> Disk {
        Disk {
            names,
            root: root.to_owned(),
            seen: BTreeMap::new(),
            safe: BTreeMap::new(),
            pending: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Does what a call does.
    pub fn act(&mut self, act: &Act) {
        let ended = act.ended;
        match &act.deed {
            Deed::Create { path, empty } => {
                if !self.seen.contains_key(path) {
                    self.files.push(File::default());
                    self.name(ended, path, Some(Node::File(self.files.len() - 1)));
                }
                if *empty && let Some(file) = self.file(path) {
                    file.change(ended, Change::Resize(0));
                }
            }
            Deed::Folder(path) => self.name(ended, path, Some(Node::Folder)),
            Deed::Write { path, at, bytes } => {
                if let Some(file) = self.file(path) {
                    let at = at.unwrap_or(file.length);
                    file.change(ended, Change::Write(at, bytes.clone()));
                }
            }
            Deed::Resize { path, length } => {
                if let Some(file) = self.file(path) {
                    file.change(ended, Change::Resize(*length));
                }
            }
            Deed::Sync { path, data } => self.sync(path, *data, act.begun),
            Deed::Remove(path) => self.name(ended, path, None),
            Deed::Rename { from, to } => {
                let node = self.seen.get(from).copied();
                self.name(ended, from, None);
                self.name(ended, to, node);
            }
            Deed::Link { from, to } => self.name(ended, to, self.seen.get(from).copied()),
        }
    }

    fn file(&mut self, path: &Path) -> Option<&mut File> {
        match self.seen.get(path)? {
            Node::File(index) => Some(&mut self.files[*index]),
            Node::Folder => None,
        }
    }

    fn name(&mut self, ended: usize, path: &Path, node: Option<Node>) {
        bind(&mut self.seen, path, node);
        self.pending.push(Naming { ended, path: path.to_owned(), node });
    }

    /// What ended before the sync began is safe.
    fn sync(&mut self, path: &Path, data: bool, begun: usize) {
        let names = self.names;
        let is_file = self.file(path).map(|file| file.settle(begun)).is_some();
        let settles = |naming: &Naming| {
            naming.ended < begun
                && match names {
                    // What a folder holds is names.
                    Names::Ordered => !data || !is_file,
                    Names::Loose => !is_file && naming.path.parent() == Some(path),
                }
        };
        for naming in self.pending.extract_if(.., |naming| settles(naming)) {
            bind(&mut self.safe, &naming.path, naming.node);
        }
    }

    /// Whether a power cut could leave one thing or another of what lies under the names that `counts` accepts.
    pub fn is_open(&self, counts: impl Fn(&Path) -> bool) -> bool {
        let unsynced = |node: &Node| matches!(node, Node::File(index) if !self.files[*index].pending.is_empty());
        self.pending.iter().any(|naming| counts(&naming.path))
            || self.seen.iter().any(|(path, node)| counts(path) && unsynced(node))
    }

    /// Cuts the power.
    pub fn cut(&self, random: &mut Rng) -> Left<'_> {
        let mut names = self.safe.clone();
        match self.names {
            Names::Ordered => {
                let count = self.pending.len();
                let count = [0, random.usize(..=count), count][random.usize(..3)];
                let last = count.checked_sub(1).map(|last| self.pending[last].ended);
                // A rename is one thing with two names.
                for naming in self.pending.iter().take_while(|naming| Some(naming.ended) <= last) {
                    bind(&mut names, &naming.path, naming.node);
                }
            }
            // A name that has changed several times may be what it was at any of them.
            Names::Loose => {
                for naming in self.pending.iter().filter(|_| random.bool()) {
                    bind(&mut names, &naming.path, naming.node);
                }
            }
        }
        let is_folder = |path: &Path| path == self.root || matches!(names.get(path), Some(Node::Folder));
        let reachable = |path: &Path| path.ancestors().skip(1).take_while(|above| *above != self.root).all(is_folder);
        let found = names.iter().filter(|(path, _)| reachable(path));
        let mut contents: BTreeMap<usize, Cow<'_, [u8]>> = BTreeMap::new();
        found
            .map(|(path, node)| match node {
                Node::Folder => (path.clone(), None),
                Node::File(index) => {
                    let content = contents.entry(*index).or_insert_with(|| self.files[*index].cut(random));
                    (path.clone(), Some((*index, content.clone())))
                }
            })
            .collect()
    }
}

fn bind(names: &mut BTreeMap<PathBuf, Node>, path: &Path, node: Option<Node>) {
    match node {
        Some(node) => names.insert(path.to_owned(), node),
        None => names.remove(path),
    };
}

/// A file: what is safe of it, and what has changed since.
#[derive(Debug, Default)]
struct File {
    safe: Vec<u8>,
    pending: Vec<(usize, Change)>,
    /// For programs.
    length: usize,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Resize(usize),
}

impl File {
    fn change(&mut self, ended: usize, change: Change) {
        self.length = match &change {
            Change::Write(at, bytes) => self.length.max(at + bytes.len()),
            Change::Resize(length) => *length,
        };
        self.pending.push((ended, change));
    }

    fn settle(&mut self, begun: usize) {
        let count = self.pending.partition_point(|(ended, _)| *ended < begun);
        for (_, change) in self.pending.drain(..count) {
            match change {
                Change::Write(at, bytes) => put(&mut self.safe, at, &bytes),
                Change::Resize(length) => self.safe.resize(length, 0),
            }
        }
    }

    /// What is left of it. How much of what was not synced is kept differs from cut to cut: nothing, some, all.
    fn cut(&self, random: &mut Rng) -> Cow<'_, [u8]> {
        if self.pending.is_empty() {
            return Cow::Borrowed(&self.safe);
        }
        let kept = [0_u8, 10, 50, 90, 100][random.usize(..5)];
        let mut content = self.safe.clone();
        for (_, change) in &self.pending {
            match change {
                Change::Resize(length) if random.u8(..100) < kept => content.resize(*length, 0),
                Change::Resize(_) => {}
                Change::Write(at, bytes) => write(&mut content, *at, bytes, kept, random),
            }
        }
        Cow::Owned(content)
    }
}

/// A write of which each sector is kept, lost or torn; the file may have grown without it.
fn write(content: &mut Vec<u8>, at: usize, bytes: &[u8], kept: u8, random: &mut Rng) {
    let mut begin = 0;
    while begin < bytes.len() {
        let end = bytes.len().min((at + begin) / SECTOR * SECTOR + SECTOR - at);
        let luck = random.u8(..100);
        if luck < kept {
            put(content, at + begin, &bytes[begin..end]);
        } else if kept > 0 && luck % 8 == 1 {
            grow(content, at + end);
        } else if kept > 0 && luck.is_multiple_of(8) {
            let torn = random.usize(begin..end);
            put(content, at + begin, &bytes[begin..torn]);
            let rubbish: Vec<u8> = (torn..end).map(|_| random.u8(..)).collect();
            if random.bool() {
                put(content, at + torn, &rubbish);
            }
        }
        begin = end;
    }
}

fn grow(content: &mut Vec<u8>, length: usize) {
    if content.len() < length {
        content.resize(length, 0);
    }
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    grow(content, at + bytes.len());
    content[at..at + bytes.len()].copy_from_slice(bytes);
}
