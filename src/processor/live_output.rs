//! The output of a call that runs in another processor.

use std::os::fd::{AsFd, BorrowedFd};

use crate::domain::job::JobId;
use crate::domain::log::Heard;
use crate::error::{Error, Kind, Result, reason};
use crate::runner::tap::feed::{Feed, NoFeed};
use crate::store::Store;
use crate::system::user::user_name;

/// The output of a running call, as the function prints it.
#[derive(Debug)]
pub struct LiveOutput(Feed);

/// Why a call cannot be followed while it runs.
#[derive(Debug)]
pub enum NotLive {
    /// Its processor does not run it now. The store says what has become of it, or will do so soon.
    Elsewhere,
    /// Another error, in one sentence.
    Barred(Error),
}

impl LiveOutput {
    /// The output of this attempt of a job, which a processor has claimed.
    ///
    /// # Errors
    /// Whatever the store answers. The inner error says why the call cannot be followed now.
    pub fn of(store: &mut Store, job: JobId, attempt: i64) -> Result<Result<LiveOutput, NotLive>> {
        let Some(folder) = store.runs_in(job)? else { return Ok(Err(NotLive::Elsewhere)) };
        let feed = Feed::open(&store.run_folder(), &folder, (job.0, attempt));
        Ok(feed.map(LiveOutput).map_err(|why| not_live(job, why)))
    }

    /// The next piece, if there is one; never blocks.
    ///
    /// # Errors
    /// Why the output ends here.
    pub fn next(&mut self, job: JobId) -> Result<Heard, NotLive> {
        self.0.next().map_err(|why| not_live(job, why))
    }
}

impl AsFd for LiveOutput {
    /// Readable when there is something next.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn not_live(job: JobId, why: NoFeed) -> NotLive {
    let what = format!("job {job} cannot be followed while it runs");
    NotLive::Barred(match why {
        NoFeed::Elsewhere => return NotLive::Elsewhere,
        NoFeed::Denied { user } => {
            let user = user.map(user_name);
            let whose = user.as_ref().map_or("another user".to_owned(), |user| format!("user {user}"));
            let message = format!("{what}: it runs in a processor of {whose}, and you may not read its output there");
            Error::new(Kind::Denied, message).with_hint(format!(
                "its output comes here when the attempt has ended; run this as {} to see it now",
                user.map_or("root".to_owned(), |user| format!("{user} or root"))
            ))
        }
        NoFeed::Fails(error) => Error::new(Kind::Io, format!("{what}: {}", reason(&error)))
            .with_hint("its output comes here when the attempt has ended"),
    })
}
