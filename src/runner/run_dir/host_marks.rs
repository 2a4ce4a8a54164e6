//! The host in a processor's folder: which process it is, and which calls run in it. It may go on when the processor is dead.
//!
//! Invariant: the host is written down before it gets its first call. The mark of a call in the host is the negative number of its
//! job, from before the call is sent until its answer has arrived.

use std::fs;
use std::io::{self, Write};

use crate::domain::job::JobId;
use crate::runner::run_dir::{DeadRunDir, job, new, open_file};
use crate::runner::worker::host::Host;
use crate::runner::{Access, Mark, Marks, RunDir};

/// The file that identifies the host.
const HOST: &str = "host";

impl RunDir {
    /// Writes down the host in which calls may run.
    ///
    /// # Errors
    /// Whatever the file system answers.
    pub fn note_host(&self, host: &Host, access: Access) -> io::Result<()> {
        new(&self.path.join(HOST), access)?.write_all(host.note().as_bytes())
    }
}

impl Marks {
    /// Marks a job that is about to be sent to the host; `None` if that cannot be written. Then the job must not be sent: if this
    /// process died, another one would run the job at the same time as the host.
    pub fn set_in_host(&self, job: JobId) -> Option<Mark> {
        let place = self.free().take();
        let mark = Mark { place, noted: false, awaited: false };
        if self.write(place, -job.0) {
            return Some(mark);
        }
        self.clear(&mark);
        None
    }

    /// Notes that the host has answered a job.
    pub fn came_out(&self, mark: &Mark, job: JobId) {
        self.write(mark.place, job.0);
    }
}

impl DeadRunDir {
    /// The host of the dead processor, if there is one that may still run its calls.
    ///
    /// # Errors
    /// Whatever the file system answers; then that is unknown.
    pub fn host(&self) -> io::Result<Option<Host>> {
        let path = self.path.join(HOST);
        let file = match open_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let host = Host::parse(&io::read_to_string(file)?);
        host.map(Some).ok_or_else(|| io::Error::other("its note of the host cannot be read"))
    }

    /// The jobs that were in the host.
    ///
    /// # Errors
    /// Whatever the file system answers; then that is unknown.
    pub fn in_host(&self) -> io::Result<Vec<JobId>> {
        Ok(self.marks()?.into_iter().filter(|(_, mark)| *mark < 0).map(|(_, mark)| job(mark)).collect())
    }

    /// Notes that the host no longer runs any of them.
    ///
    /// # Errors
    /// Whatever the file system answers; then nothing has changed.
    pub fn forget_host(&self) -> io::Result<()> {
        fs::remove_file(self.path.join(HOST))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, OnceLock};

    use super::*;

    #[test]
    fn a_job_is_in_the_host_only_where_that_is_written_down() {
        let [readable, writable] = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&readable));
        let (file, free, flaw) = (fs::File::open(path).unwrap(), Mutex::default(), OnceLock::new());
        let mut marks = Marks { file, outcomes: writable.try_clone().unwrap(), free, flaw };
        assert!(marks.set_in_host(JobId(1)).is_none());
        assert!(marks.flaw().is_some());
        marks.file = writable;
        let mark = marks.set_in_host(JobId(1)).unwrap();
        assert_eq!(mark.place, 0, "a place that could not be used is not lost");
    }
}
