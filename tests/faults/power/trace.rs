//! What strace wrote, as system calls.

use std::collections::HashMap;
use std::path::PathBuf;

/// The calls that [`parse`] understands: all that make, change, sync, name or unname a file, and those that tell which
/// program is at work. What else could change a file is traced too, so that nothing is missed: see `disk::act`.
pub const TRACED: &str = "execve,openat,?open,?creat,write,pwrite64,writev,pwritev,pwritev2,sendfile,splice,\
    copy_file_range,fallocate,ftruncate,truncate,fsync,fdatasync,sync_file_range,msync,sync,syncfs,?unlink,unlinkat,\
    ?rename,?renameat,renameat2,?link,linkat,?symlink,symlinkat,?mkdir,mkdirat,?rmdir";

/// One call that succeeded, or the end of a process (`exited`).
#[derive(Debug)]
pub struct Call {
    /// The thread; the number of its process, for the main one.
    pub thread: u32,
    pub name: String,
    pub arguments: Vec<Argument>,
    pub result: i64,
    /// The lines of the trace on which it begins and ends.
    pub begun: usize,
    pub ended: usize,
}

/// What a call was given.
#[derive(Debug)]
pub enum Argument {
    Text(Vec<u8>),
    /// A descriptor and what it stands for. That is nothing for a file that has no name any more.
    File(i64, Option<PathBuf>),
    List(Vec<Vec<u8>>),
    Word(String),
}

/// Reads what `strace -f -xx -y` wrote: calls on files in `root`, and what programs tell.
pub fn parse(text: &str, root: &str) -> Vec<Call> {
    let root = root.bytes().fold(String::new(), |text, byte| text + &format!("\\x{byte:02x}"));
    let mut unfinished = HashMap::new();
    let mut calls = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let (thread, line) = line.split_once(' ').unwrap();
        let (thread, line) = (thread.parse().unwrap(), line.trim_start());
        if let Some(begin) = line.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, (number, begin));
        } else if let Some((_, end)) = line.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            let (begun, begin) = unfinished.remove(&thread).unwrap();
            calls.extend(call(&format!("{begin}{end}"), &root).map(|call| Call {
                thread,
                begun,
                ended: number,
                ..call
            }));
        } else {
            calls.extend(call(line, &root).map(|call| Call { thread, begun: number, ended: number, ..call }));
        }
    }
    calls
}

fn call(line: &str, root: &str) -> Option<Call> {
    let ended =
        |result| Call { thread: 0, name: "exited".to_owned(), arguments: Vec::new(), result, begun: 0, ended: 0 };
    if let Some(code) = line.strip_prefix("+++ exited with ") {
        return Some(ended(code.split(' ').next()?.parse().unwrap()));
    }
    if line.starts_with("+++ killed") {
        return Some(ended(-1));
    }
    let tells = ["execve(", "write(1<", "write(2<"].iter().any(|start| line.starts_with(start));
    if !tells && !line.contains(root) {
        return None;
    }
    let (name, rest) = line.split_once('(')?;
    let (arguments, rest) = Reader(rest.as_bytes()).arguments();
    let result = std::str::from_utf8(rest).unwrap().trim_start_matches([')', ' ', '=']);
    let digits = result.find(|c: char| !c.is_ascii_digit()).unwrap_or(result.len());
    // Without a number: it failed, or the process ended in it.
    let result = result[..digits].parse().ok()?;
    Some(Call { name: name.to_owned(), arguments, ..ended(result) })
}

/// What is left of a line.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn arguments(mut self) -> (Vec<Argument>, &'a [u8]) {
        let mut arguments = Vec::new();
        loop {
            match self.0 {
                [b')', ..] | [] => return (arguments, self.0),
                [b',' | b' ', rest @ ..] => self.0 = rest,
                [b'"', rest @ ..] => arguments.push(Argument::Text(Reader(rest).text(&mut self.0))),
                [b'[', rest @ ..] => {
                    self.0 = rest;
                    arguments.push(Argument::List(self.list()));
                }
                _ => arguments.push(self.word()),
            }
        }
    }

    fn list(&mut self) -> Vec<Vec<u8>> {
        let mut list = Vec::new();
        loop {
            match self.0 {
                [b']', rest @ ..] => {
                    self.0 = rest;
                    return list;
                }
                [b'"', rest @ ..] => list.push(Reader(rest).text(&mut self.0)),
                [_, rest @ ..] => self.0 = rest,
                [] => return list,
            }
        }
    }

    /// A word, a number or a descriptor with its path.
    fn word(&mut self) -> Argument {
        let end = self.0.iter().position(|byte| b",)<".contains(byte)).unwrap_or(self.0.len());
        let word = String::from_utf8(self.0[..end].to_vec()).unwrap();
        self.0 = &self.0[end..];
        let [b'<', rest @ ..] = self.0 else { return Argument::Word(word) };
        let path = Reader(rest).text(&mut self.0);
        let number = if word == "AT_FDCWD" { -1 } else { word.parse().unwrap() };
        let gone = self.0.starts_with(b"(deleted)");
        let skipped = self.0.iter().position(|byte| b",)".contains(byte)).unwrap_or(self.0.len());
        self.0 = if gone { &self.0[b"(deleted)".len()..] } else { &self.0[skipped..] };
        let path = PathBuf::from(String::from_utf8_lossy(&path).into_owned());
        Argument::File(number, (!gone && path.is_absolute()).then_some(path))
    }

    /// Bytes, all in the form `\x00`, up to the `"` or `>` after them; `left` is what follows that.
    fn text(mut self, left: &mut &'a [u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len().min(4096));
        while let [b'\\', b'x', high, low, rest @ ..] = self.0 {
            bytes.push(digit(*high) << 4 | digit(*low));
            self.0 = rest;
        }
        let [b'"' | b'>', rest @ ..] = self.0 else {
            // A pipe or a socket, as in `pipe:[17]`, is no path; its name is not told in that form.
            let end = self.0.iter().position(|byte| *byte == b'>').unwrap();
            *left = &self.0[end + 1..];
            return Vec::new();
        };
        assert!(!rest.starts_with(b"..."), "strace has cut a text short");
        *left = rest;
        bytes
    }
}

fn digit(hex: u8) -> u8 {
    if hex <= b'9' { hex - b'0' } else { hex - b'a' + 10 }
}
