//! What a processor's folder tells of processes that may not be ended, all or some.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;

use rustix::process::geteuid;

use crate::domain::event::Unkillable;
use crate::runner::process::unkillable::{FILE, in_session};
use crate::runner::run_dir::access::Access;
use crate::runner::run_dir::{DeadRunDir, ENGINE, RunDir, new};

impl RunDir {
    /// Notes a process that may not be ended, for who wants to cancel its job. Where that is not possible, nobody else knows.
    pub fn note_immune(&self, immune: &Unkillable, access: Access) {
        let path = self.path.join(FILE);
        let file = new(&path, access).or_else(|_| OpenOptions::new().append(true).open(&path));
        if let (Ok(mut file), Some(note)) = (file, immune.note()) {
            let _ = file.write_all(note.as_bytes());
        }
    }
}

impl DeadRunDir {
    /// A process of it that lives, and may not be ended from here.
    #[must_use]
    pub fn immune(&self) -> Option<Unkillable> {
        in_session(&fs::read_to_string(self.path.join(ENGINE)).ok()?)
    }

    /// The user whose processor it was, if that is somebody whose processes this one can neither see nor end.
    ///
    /// # Errors
    /// Whatever the file system answers; then it is not known.
    pub fn out_of_reach(&self) -> io::Result<Option<u32>> {
        let (user, me) = (self.lock.metadata()?.uid(), geteuid());
        Ok((!me.is_root() && me.as_raw() != user).then_some(user))
    }
}
