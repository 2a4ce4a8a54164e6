//! Questions that a running function asks about itself.

use super::session::{Session, environment, variable};
use super::{exit, say};
use crate::commands::enqueue::inside;
use crate::domain::job::Running;
use crate::domain::text::escape_control;
use crate::error::{Error, Kind};

/// Prints whether this is run inside a function.
pub fn is_async(session: &Session) -> anyhow::Result<u8> {
    let is = running(session)?.is_some();
    say(is)?;
    Ok(if is { exit::DONE } else { exit::FAILED })
}

/// Prints on whose behalf this is run.
pub fn whoami(session: &Session) -> anyhow::Result<u8> {
    let principal = match running(session)? {
        Some(running) => running.principal.map(|principal| principal.to_string()),
        None => variable("ASYNCQ_PRINCIPAL").and_then(|text| text.into_string().ok()),
    };
    let Some(principal) = principal else { return Ok(exit::FAILED) };
    say(escape_control(&principal))?;
    Ok(exit::DONE)
}

/// The job inside which this is run. Where the environment names none, no store is needed to know it.
fn running(session: &Session) -> anyhow::Result<Option<Running>> {
    let environment = environment();
    if environment.job.is_none() || environment.token.is_none() {
        return Ok(None);
    }
    let found = session.open().and_then(|mut store| Ok(inside(&mut store, &environment)?));
    match found {
        Err(error) if error.downcast_ref::<Error>().is_some_and(|error| error.kind() == Kind::Unreachable) => Ok(None),
        found => found,
    }
}
