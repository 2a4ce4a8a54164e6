//! Random numbers: secrets of attempts, and how long a call waits until it is tried again.

use crate::domain::{attempt::Outcome, job::Token, retry_policy::RetryPolicy};
use crate::error::{Error, Kind, Result, reason};

/// A secret that nobody can guess.
pub(crate) fn new_token() -> Result<Token> {
    let mut bits = [0; 16];
    random(&mut bits)?;
    Ok(Token::from_random(u128::from_ne_bytes(bits)))
}

/// So many new secrets, drawn at once.
pub(crate) fn new_tokens(count: usize) -> Result<impl Iterator<Item = Token>> {
    let mut bits = vec![[0; 16]; count];
    random(bits.as_flattened_mut())?;
    Ok(bits.into_iter().map(|bits| Token::from_random(u128::from_ne_bytes(bits))))
}

/// The random number for the pause of a call that ended like this, if the pause is random.
pub(crate) fn draw_for(outcome: &Outcome, policy: &RetryPolicy) -> Result<f64> {
    match outcome {
        Outcome::Conflict(_) | Outcome::Unstarted(_) => draw(),
        Outcome::Failed(_) if policy.retries > 0 => draw(),
        _ => Ok(0.0),
    }
}

/// A random number from 0 up to 1.
fn draw() -> Result<f64> {
    let mut bits = [0; 4];
    random(&mut bits)?;
    Ok(f64::from(u32::from_ne_bytes(bits)) / f64::from(u32::MAX))
}

fn random(bits: &mut [u8]) -> Result<()> {
    getrandom::fill(bits).map_err(|error| {
        Error::new(Kind::Io, format!("the system gives no random numbers: {}", reason(&error)))
            .with_hint("asyncq needs `getrandom(2)`")
    })
}
