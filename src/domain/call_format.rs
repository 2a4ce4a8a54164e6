//! How a command gets its call.

use super::text::has_names;
use crate::error::{Error, Kind, Result};

/// How a command gets its call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CallFormat {
    /// The arguments as words, and the whole call on standard input.
    #[default]
    WordsAndStdin,
    /// The arguments as words; its standard input is empty.
    Words,
    /// Only the call on standard input.
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

/// What a command reads on its standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdin {
    /// The whole call.
    Call,
    /// Nothing.
    Nothing,
}

impl CallFormat {
    /// The call format of these two.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the call would not reach the command at all.
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

    /// What it reads on its standard input.
    #[must_use]
    pub fn stdin(self) -> Stdin {
        if self == CallFormat::Words { Stdin::Nothing } else { Stdin::Call }
    }
}

has_names! { Args { Words: "words", Stdin: "stdin", } }
has_names! { Stdin { Call: "call", Nothing: "none", } }
