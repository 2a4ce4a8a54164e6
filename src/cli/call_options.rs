//! The options that say when a call may run.

use std::io::Read;

use clap::Args;

use super::clap_error::one_of;
use super::stdio::claim_stdin;
use crate::domain::job::JobId;
use crate::domain::lane::Lane;
use crate::domain::meta::Meta;
use crate::domain::needs::{Need, Needs, parse_jobs};
use crate::domain::new_job::{CallOptions, Expiry, IfTaken, KeyUntil, Priority};
use crate::domain::text::escape_control;
use crate::error::{Error, Kind, Result};
use crate::system::error::io_error;

/// When a call may run.
#[derive(Debug, Args)]
pub struct CallOptionArgs {
    /// Run the call before those with a larger priority, from -1000 to 1000 [default: 0]
    #[arg(long, value_name = "N", value_parser = parse_priority, allow_hyphen_values = true)]
    priority: Option<Priority>,

    /// The lane of the call: of a service's calls in one lane, one runs at a time, or as many as --lane-width says
    #[arg(long, value_name = "LANE")]
    lane: Option<String>,

    /// Cancel the call if no attempt has begun by then: a span from when it is due, as in 10m, or a time as with --at
    #[arg(long, value_name = "SPAN|TIME", allow_hyphen_values = true)]
    expires: Option<String>,

    /// When the key becomes free again: only one call with the key waits (`started`), or waits or runs (`ended`)
    #[arg(long, value_name = "started|ended", value_parser = one_of(KeyUntil::ALL, KeyUntil::as_str))]
    key_until: Option<KeyUntil>,

    /// With --key-until, what to do if a call with the key waits already: keep it, replace its arguments, or postpone it too [default: keep]
    #[arg(long, value_name = "keep|replace|postpone", value_parser = one_of(IfTaken::ALL, IfTaken::as_str))]
    if_taken: Option<IfTaken>,

    /// Metadata for the function, as in tenant=acme; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    meta: Vec<String>,

    /// Run the call after these jobs have completed; numbers and ranges, as in 7,9-12; `-` reads stdin
    #[arg(long, value_name = "IDS", allow_hyphen_values = true)]
    after: Option<String>,

    /// Run the call after these jobs have ended, even if they failed
    #[arg(long, value_name = "IDS", allow_hyphen_values = true)]
    after_any: Option<String>,

    /// Run the call after these jobs have failed or were cancelled; it is cancelled if one completes
    #[arg(long, value_name = "IDS", allow_hyphen_values = true)]
    after_failed: Option<String>,
}

impl CallOptionArgs {
    /// Whether they say when the call expires.
    pub fn has_expiry(&self) -> bool {
        self.expires.is_some()
    }

    /// What to do if a waiting call has the same key, and that key has a lifetime.
    pub fn if_taken(&self) -> Option<IfTaken> {
        self.key_until.map(|_| self.if_taken.unwrap_or_default())
    }

    /// Refuses options about a key if there is no key.
    ///
    /// # Errors
    /// [`Kind::Usage`].
    pub fn check_key(&self, has_key: bool) -> Result<()> {
        let refuse = |option: &str, needed: &str| {
            Err(Error::new(Kind::Usage, format!("`--{option}` needs `--{needed}`"))
                .with_hint("write, for example, `--key reindex --key-until started --if-taken replace`"))
        };
        match (has_key, self.key_until, self.if_taken) {
            (false, Some(_), _) => refuse("key-until", "key"),
            (_, None, Some(_)) => refuse("if-taken", "key-until"),
            _ => Ok(()),
        }
    }

    /// The values of the options. `expiry` reads when the call expires.
    ///
    /// # Errors
    /// [`Kind::Usage`] for an invalid lane or list of jobs, [`Kind::Io`] if stdin cannot be read, and any error of `expiry`.
    pub fn parse(&self, expiry: impl Fn(&str) -> Result<Expiry>) -> Result<CallOptions> {
        let mut needs = Needs::default();
        let lists =
            [(&self.after, Need::Completed), (&self.after_any, Need::Ended), (&self.after_failed, Need::Failed)];
        for (list, need) in lists {
            match list.as_deref() {
                None => {}
                Some("-") => needs.add(jobs_of_stdin()?, need)?,
                Some(list) => needs.add(parse_jobs(list)?, need)?,
            }
        }
        Ok(CallOptions {
            priority: self.priority.unwrap_or_default(),
            lane: self.lane.as_deref().map(Lane::parse).transpose()?,
            expires: self.expires.as_deref().map(expiry).transpose()?,
            key_until: self.key_until,
            if_taken: self.if_taken.unwrap_or_default(),
            meta: meta_of(&self.meta)?,
            needs,
        })
    }
}

/// The metadata that these words give.
///
/// # Errors
/// [`Kind::Usage`] where a name or a value is missing; as [`Meta::of_texts`].
pub fn meta_of(words: &[String]) -> Result<Option<Meta>> {
    let pairs: Vec<(&str, &str)> = words.iter().map(|word| name_and_value(word)).collect::<Result<_>>()?;
    Meta::of_texts(&pairs)
}

/// Parses a name and a value of `--meta`.
///
/// # Errors
/// [`Kind::Usage`] where one is missing.
pub fn name_and_value(word: &str) -> Result<(&str, &str)> {
    word.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
        let message = format!("`--meta {}` has no name and value", escape_control(word));
        Error::new(Kind::Usage, message).with_hint("write `--meta NAME=VALUE`, as in `--meta tenant=acme`")
    })
}

/// Parses a priority.
///
/// # Errors
/// What a priority is.
pub fn parse_priority(text: &str) -> Result<Priority, String> {
    text.parse().ok().and_then(Priority::new).ok_or_else(|| format!("it is {}", Priority::RANGE))
}

/// Reads numbers of jobs from stdin.
///
/// # Errors
/// [`Kind::Usage`] when it contains none, or anything else; [`Kind::Io`] when it cannot be read.
pub fn jobs_of_stdin() -> Result<Vec<JobId>> {
    let text = stdin()?;
    if text.trim().is_empty() {
        return Err(Error::new(Kind::Usage, "stdin contains no number of a job")
            .with_hint("the command before the pipe may have failed: `set -o pipefail` shows that in bash"));
    }
    parse_jobs(&text)
}

/// As much of stdin as numbers of jobs can take.
fn stdin() -> Result<String> {
    claim_stdin("a list of jobs")?;
    let most = 20 * Needs::MOST as u64;
    let mut text = String::new();
    match std::io::stdin().take(most).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(Error::new(Kind::Usage, "stdin is not text, so it cannot contain job numbers"))
        }
        Err(error) => Err(io_error("stdin", &error)),
    }
}
