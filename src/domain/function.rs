//! A function: a name registered on a service, and how it is run.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::service::{MAX_NAME_BYTES, ServiceName};
use super::time::Timestamp;
use crate::error::{Error, Kind, Result};

/// The name of a function: `[A-Za-z_][A-Za-z0-9_.:-]*`, at most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionName(Arc<str>);

impl FunctionName {
    /// Validates `text`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when it cannot be a name.
    pub fn parse(text: &str) -> Result<FunctionName> {
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        let rest = bytes.all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b));
        if first && rest && text.len() <= MAX_NAME_BYTES {
            return Ok(FunctionName(text.into()));
        }
        let message = format!("`{}` cannot be the name of a function", super::text::escape_control(text));
        Err(Error::new(Kind::Usage, message).with_hint(format!(
            "a name starts with a letter or `_` and goes on with letters, digits, `_`, `.`, `:` and `-`, at most \
             {MAX_NAME_BYTES} bytes"
        )))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a function is run: the program and the surroundings in which it was defined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The program (an absolute path, or a path relative to the site) and its first arguments; never empty.
    pub command: Vec<String>,
    /// The directory in which the function was defined, absolute; it runs there.
    pub site: String,
    /// The environment variables recorded with it.
    pub env: BTreeMap<String, String>,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// How its program is kept, if it is a worker; else it is a command, started for each call.
    pub worker: Option<WorkerLimits>,
    /// How a command gets its call.
    pub call_format: CallFormat,
    /// The number of the latest deploy that it was told of, counted for all functions of a store together: no worker that was
    /// started for an earlier one runs its calls.
    pub generation: i64,
}

/// How a command gets its call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CallFormat {
    /// The arguments as words, and the whole call on standard input.
    #[default]
    WordsAndStdin,
    /// The arguments as words; its standard input is empty.
    Words,
    /// The call on standard input alone.
    Stdin,
}

/// How a command gets the arguments of its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Args {
    /// As the last words of its command line.
    Words,
    /// On its standard input, with the rest of the call.
    Stdin,
}

/// What a command finds on its standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdin {
    /// The whole call.
    Call,
    /// Nothing.
    Nothing,
}

impl CallFormat {
    /// Both together.
    ///
    /// # Errors
    /// [`Kind::Usage`] where the call would not reach the command at all.
    pub fn new(args: Args, stdin: Stdin) -> Result<CallFormat> {
        match (args, stdin) {
            (Args::Words, Stdin::Call) => Ok(CallFormat::WordsAndStdin),
            (Args::Words, Stdin::Nothing) => Ok(CallFormat::Words),
            (Args::Stdin, Stdin::Call) => Ok(CallFormat::Stdin),
            (Args::Stdin, Stdin::Nothing) => {
                Err(Error::new(Kind::Usage, "with `--args stdin` and `--stdin none` the program gets no arguments")
                    .with_hint("`--args words` passes them as words, `--stdin call` on standard input"))
            }
        }
    }

    /// How it gets the arguments.
    #[must_use]
    pub fn args(self) -> Args {
        if self == CallFormat::Stdin { Args::Stdin } else { Args::Words }
    }

    /// What it finds on its standard input.
    #[must_use]
    pub fn stdin(self) -> Stdin {
        if self == CallFormat::Words { Stdin::Nothing } else { Stdin::Call }
    }
}

impl Args {
    /// All of them.
    pub const ALL: [Args; 2] = [Args::Words, Args::Stdin];

    /// Its name, in the store and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Args::Words => "words",
            Args::Stdin => "stdin",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Args> {
        Args::ALL.into_iter().find(|args| args.as_str() == name)
    }
}

impl Stdin {
    /// All of them.
    pub const ALL: [Stdin; 2] = [Stdin::Call, Stdin::Nothing];

    /// Its name, in the store and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Stdin::Call => "call",
            Stdin::Nothing => "none",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Stdin> {
        Stdin::ALL.into_iter().find(|stdin| stdin.as_str() == name)
    }
}

impl Definition {
    /// Whether a worker that was started for this one in `site` can run the other in `other_site`: same program, same
    /// surroundings, and no deploy since.
    #[must_use]
    pub fn shares_worker(&self, site: &str, other: &Definition, other_site: &str) -> bool {
        self.worker.is_some() == other.worker.is_some()
            && site == other_site
            && self.command == other.command
            && self.env == other.env
            && self.generation >= other.generation
    }

    /// Whether two are defined alike, whatever was deployed since.
    #[must_use]
    pub fn is_like(&self, other: &Definition) -> bool {
        *self == Definition { generation: self.generation, ..other.clone() }
    }
}

/// How long a worker is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerLimits {
    /// It is ended after so many calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    /// It is ended when it had nothing to do for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Duration>,
    /// It is ended when it has so many more bytes of memory in use than when it said hello.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth: Option<u64>,
}

/// How long an idle worker is kept, unless its function says otherwise.
pub const IDLE: Duration = Duration::from_secs(60);

impl WorkerLimits {
    /// How long it may be idle.
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.idle.unwrap_or(IDLE)
    }
}

/// A function as it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// The service on which it is registered.
    pub service: ServiceName,
    /// Its name, unique on its service.
    pub name: FunctionName,
    /// How it is run.
    pub definition: Definition,
    /// When it was added.
    pub created_at: Timestamp,
}

/// What `function set` changes; `None` leaves a thing as it is.
#[derive(Debug, Clone, Default)]
pub struct FunctionChange {
    /// Another program and its first arguments.
    pub command: Option<Vec<String>>,
    /// Another site.
    pub site: Option<String>,
    /// Variables to record (`Some`) or to forget (`None`), by name.
    pub env: BTreeMap<String, Option<String>>,
    /// Another time limit, or none (`Some(None)`).
    pub timeout: Option<Option<Duration>>,
    /// To be kept as a worker so, or to be a command (`Some(None)`).
    pub worker: Option<Option<WorkerLimits>>,
    /// Another way in which the command gets its call.
    pub call_format: Option<CallFormat>,
}

impl FunctionChange {
    /// The definition with this change made.
    #[must_use]
    pub fn apply(&self, mut definition: Definition) -> Definition {
        if let Some(command) = &self.command {
            definition.command.clone_from(command);
        }
        if let Some(site) = &self.site {
            definition.site.clone_from(site);
        }
        if let Some(timeout) = self.timeout {
            definition.timeout = timeout;
        }
        if let Some(worker) = self.worker {
            definition.worker = worker;
        }
        if let Some(call_format) = self.call_format {
            definition.call_format = call_format;
        }
        for (name, value) in &self.env {
            match value {
                Some(value) => definition.env.insert(name.clone(), value.clone()),
                None => definition.env.remove(name),
            };
        }
        definition
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["heavy_computing", "_", "pkg.module:Class.method", "A-1"] {
            assert_eq!(FunctionName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "1st", "-x", "a b", "a/b", "ä", &"x".repeat(256)] {
            assert_eq!(FunctionName::parse(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }
}
