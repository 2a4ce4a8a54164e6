//! `asyncq is-async` and `asyncq whoami`: what a running function can ask about itself.

use super::{exit, session::Session, stdio::print_line};
use crate::commands::enqueue::{inside, principal};
use crate::domain::text::escape_control;

/// Prints whether this runs inside a function.
pub fn is_async(session: &Session) -> anyhow::Result<u8> {
    let is = inside(&session.caller, || session.open())?.is_some();
    print_line(is)?;
    Ok(if is { exit::DONE } else { exit::FAILED })
}

/// Prints on whose behalf this runs.
pub fn whoami(session: &Session) -> anyhow::Result<u8> {
    let Some(principal) = principal(&session.caller, || session.open())? else { return Ok(exit::FAILED) };
    print_line(escape_control(&principal))?;
    Ok(exit::DONE)
}
