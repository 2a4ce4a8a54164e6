//! Making a call: queued, or run at once when it is made inside a running function.

use crate::domain::job::{JobId, NewJob, Running, Token};
use crate::error::{Error, Kind, Result};
use crate::store::Store;

/// What the environment says about where a command is run.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `ASYNCQ_JOB`.
    pub job: Option<String>,
    /// `ASYNCQ_TOKEN`.
    pub token: Option<String>,
}

/// The job inside which this command is run, if it is: the one that the environment names, while exactly that attempt
/// is being processed. A stale or forged token means that there is none.
///
/// # Errors
/// Whatever the store answers.
pub fn inside(store: &mut Store, environment: &Environment) -> Result<Option<Running>> {
    let Environment { job: Some(job), token: Some(token) } = environment else { return Ok(None) };
    let Ok(job) = job.parse() else { return Ok(None) };
    store.running(JobId(job), &Token::from_text(token))
}

/// The operating system's name for who runs this, or the number when there is no name.
#[must_use]
pub fn os_user() -> String {
    crate::runner::process::identity::user_name(rustix::process::getuid().as_raw())
}

/// Refuses what a call made inside a running function cannot ask for, unless it is deferred.
///
/// # Errors
/// [`Kind::Denied`] for a principal of its own, [`Kind::Usage`] for what only makes sense on a queue.
pub fn check_nested(new: &NewJob) -> Result<()> {
    let hint = "`--defer` queues the call instead of running it now";
    if new.hold {
        return Err(Error::new(Kind::Usage, "a call inside a running function is run at once, so it cannot be held")
            .with_hint(hint));
    }
    if new.key.is_some() {
        return Err(Error::new(Kind::Usage, "a call inside a running function is run at once, so it takes no key")
            .with_hint(hint));
    }
    Ok(())
}

/// Refuses a principal that is not the one of the running function.
///
/// # Errors
/// [`Kind::Denied`] when one is given.
pub fn refuse_principal(given: bool) -> Result<()> {
    if !given {
        return Ok(());
    }
    Err(Error::new(Kind::Denied, "a call inside a running function has the principal of that function")
        .with_hint("leave `--principal` out"))
}
