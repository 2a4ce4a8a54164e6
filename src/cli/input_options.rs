//! The options for what a function takes: its signature, its secret arguments, and a file that only it reads.

use clap::Args;

use super::output::{FieldList, text};
use super::session::Session;
use crate::commands::queue::Queue;
use crate::domain::function::{Function, InputChange};
use crate::domain::secret::Secrets;
use crate::domain::signature::Signature;
use crate::error::Error;

/// What a function takes.
#[derive(Debug, Args)]
pub struct InputOptions {
    /// The arguments that it takes, as in 'to subject:text [body] files... --from [--html:bool]' (docs/functions.md); other
    /// calls are refused
    #[arg(long, value_name = "SIGNATURE", value_parser = Signature::parse, allow_hyphen_values = true)]
    takes: Option<Signature>,
    /// Hide this argument in all output of asyncq, and keep it off the command line; may be repeated
    #[arg(long, value_name = "NAME|POSITION")]
    secret: Vec<String>,
    /// A file of environment variables, one NAME=VALUE a line, that is read at each start of the program and never stored;
    /// relative to the site
    #[arg(long, value_name = "FILE")]
    env_file: Option<String>,
}

impl InputOptions {
    /// What they change.
    ///
    /// # Errors
    /// As [`Secrets::parse`].
    pub fn change(self) -> Result<InputChange, Error> {
        let InputOptions { takes, secret, env_file } = self;
        let secret = (!secret.is_empty()).then(|| Secrets::parse(&secret)).transpose()?;
        Ok(InputChange { takes: takes.map(Some), secret, env_file: env_file.map(Some) })
    }
}

/// What to take away of that.
#[derive(Debug, Args)]
pub struct NoInputOptions {
    /// It takes any arguments
    #[arg(long, conflicts_with = "takes")]
    no_takes: bool,
    /// None of its arguments is secret
    #[arg(long, conflicts_with = "secret")]
    no_secret: bool,
    /// It has no file of environment variables
    #[arg(long, conflicts_with = "env_file")]
    no_env_file: bool,
}

impl NoInputOptions {
    /// Adds what they change.
    pub fn add_to(&self, change: &mut InputChange) {
        if self.no_takes {
            change.takes = Some(None);
        }
        if self.no_secret {
            change.secret = Some(Secrets::default());
        }
        if self.no_env_file {
            change.env_file = Some(None);
        }
    }
}

/// Adds what there is of that.
pub fn print_inputs(sheet: &mut FieldList, function: &Function) {
    let inputs = &function.definition.inputs;
    if let Some(takes) = &inputs.takes {
        sheet.line("takes", or_nothing(&takes.to_string()));
        let usage = format!("asyncq enqueue {} {} {}", function.service, function.name, takes.usage());
        sheet.line("usage", usage.trim_end().to_owned());
    }
    if !inputs.secret.is_empty() {
        sheet.line("secret", text(&inputs.secret.words().collect::<Vec<_>>().join(", ")));
    }
    if let Some(file) = &inputs.env_file {
        sheet.line("env file", text(file));
    }
}

/// Whether secret arguments are shown.
#[derive(Debug, Clone, Copy, Args)]
pub struct RevealOption {
    /// Show secret arguments, too
    #[arg(long)]
    reveal: bool,
}

impl RevealOption {
    /// Makes a queue show secrets, if the option says so.
    pub fn apply(self, queue: &mut Queue) {
        if self.reveal {
            queue.reveal_secrets();
        }
    }

    /// Opens the store to show what it says.
    pub fn open(self, session: &Session) -> Result<Queue, Error> {
        let mut queue = session.open()?;
        self.apply(&mut queue);
        Ok(queue)
    }
}

/// A signature, in words if it is empty.
pub fn or_nothing(signature: &str) -> String {
    if signature.is_empty() { "no arguments".to_owned() } else { signature.to_owned() }
}
