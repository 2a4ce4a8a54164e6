//! The file in which a function may say when to run instead of now.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::domain::attempt::Outcome;
use crate::domain::job::Fence;
use crate::domain::snooze::{LONGEST_TEXT, asks_for, unusable};
use crate::domain::zone::machine_zone;
use crate::error::reason;
use crate::runner::clock::now;

/// How much stack it takes to find a time zone, generously, in bytes. A slot has less.
const STACK: usize = 2 * 1024 * 1024;

/// The place where one attempt may say when to run. The function makes the file.
#[derive(Debug)]
pub(in crate::runner) struct LaterFile(PathBuf);

impl LaterFile {
    pub(in crate::runner) fn new(folder: &Path, fence: &Fence) -> LaterFile {
        LaterFile(folder.join(format!("later-{}-{}", fence.job, fence.attempt)))
    }

    pub(in crate::runner) fn path(&self) -> &Path {
        &self.0
    }

    /// Removes the file. Returns whether there was one.
    pub(in crate::runner) fn remove(&self) -> bool {
        match fs::remove_file(&self.0) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            // It may be a folder.
            Err(_) => fs::remove_dir_all(&self.0).is_ok(),
        }
    }

    /// The outcome of a function that asked to be tried again, if this file says when, or tries to. Removes the file.
    pub(in crate::runner) fn take(&self) -> Option<Outcome> {
        let outcome = match self.read() {
            Ok(text) if text.trim().is_empty() => None,
            Ok(text) => Some(understand(&text)),
            Err(why) => Some(unusable(&why)),
        };
        self.remove();
        outcome
    }

    /// The text in the file, which is empty if there is no file.
    fn read(&self) -> Result<String, String> {
        // Not through a link, and without waiting for a pipe.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
            Err(error) => return Err(format!("it is unreadable: {}", reason(&error))),
        };
        if !file.metadata().is_ok_and(|meta| meta.is_file()) {
            return Err("it is not a regular file".to_owned());
        }
        let mut bytes = Vec::new();
        match file.take(LONGEST_TEXT as u64 + 1).read_to_end(&mut bytes) {
            Ok(_) if bytes.len() > LONGEST_TEXT => Err(format!("it has more than {LONGEST_TEXT} bytes")),
            Ok(_) => String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()),
            Err(error) => Err(format!("it is unreadable: {}", reason(&error))),
        }
    }
}

/// The outcome of a function that has written this text.
fn understand(text: &str) -> Outcome {
    let thread = std::thread::Builder::new().name("later".to_owned()).stack_size(STACK);
    std::thread::scope(|scope| match thread.spawn_scoped(scope, || asks_for(text, now(), machine_zone)) {
        Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        Err(error) => unusable(&format!("no thread reads it: {}", reason(&error))),
    })
}
