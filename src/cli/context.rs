//! Questions that a running function asks about itself.

use super::exit;
use super::session::Session;
use super::stdio::say;
use crate::commands::enqueue::{inside, principal};
use crate::domain::text::escape_control;

/// Prints whether this is run inside a function.
pub fn is_async(session: &Session) -> anyhow::Result<u8> {
    let is = inside(&session.caller, || session.open())?.is_some();
    say(is)?;
    Ok(if is { exit::DONE } else { exit::FAILED })
}

/// Prints on whose behalf this is run.
pub fn whoami(session: &Session) -> anyhow::Result<u8> {
    let Some(principal) = principal(&session.caller, || session.open())? else { return Ok(exit::FAILED) };
    say(escape_control(&principal))?;
    Ok(exit::DONE)
}
