//! Processes that cannot be ended, as a processor's folder notes them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;

use rustix::process::geteuid;

use crate::domain::event::Unkillable;
use crate::runner::process::unkillable::{FILE, in_session};
use crate::runner::run_dir::{DeadRunDir, ENGINE, new};
use crate::runner::{Access, RunDir};

impl RunDir {
    /// Notes a process that cannot be ended, for `job cancel`. If that fails, no other process learns of it.
    pub fn note_unkillable(&self, unkillable: &Unkillable, access: Access) {
        let path = self.path.join(FILE);
        let file = new(&path, access).or_else(|_| OpenOptions::new().append(true).open(&path));
        if let (Ok(mut file), Some(note)) = (file, unkillable.note()) {
            let _ = file.write_all(note.as_bytes());
        }
    }
}

impl DeadRunDir {
    /// One of its processes that is alive and cannot be ended from here.
    pub fn unkillable(&self) -> Option<Unkillable> {
        in_session(&fs::read_to_string(self.path.join(ENGINE)).ok()?)
    }

    /// The user of the dead processor, if this process can neither see nor end that user's processes.
    ///
    /// # Errors
    /// Whatever the file system answers; then that is unknown.
    pub fn out_of_reach(&self) -> io::Result<Option<u32>> {
        let (user, me) = (self.lock.metadata()?.uid(), geteuid());
        Ok((!me.is_root() && me.as_raw() != user).then_some(user))
    }
}
