//! `asyncq run`.

use clap::Args;

use super::call::{CallWaiter, WaitOptions};
use super::call_args::RequestOptions;
use super::console::console;
use super::enqueue::{print_end, print_number};
use super::session::{Session, now};
use super::{exit, explain};
use crate::commands::call::StartWith;
use crate::commands::enqueue::Made;
use crate::commands::run::{FUNCTION, SERVICE, ShellCommand};
use crate::domain::new_job::Enqueued;
use crate::domain::service::ServiceName;
use crate::domain::time::parse_span_or_zero;
use crate::error::{Error, Kind};

/// Run a command later, in the current folder, and print the number of its job
///
/// It is a call of the function `run` on the service `shell`; both are added if that service is not there. The program is looked up
/// now. The command gets the environment of the processor, and what `--env` names. Its arguments are taken as they are, without a
/// shell; `-c` takes a script for one.
#[derive(Debug, Args)]
#[command(
    override_usage = "asyncq run [OPTIONS] [--] <CMD> [ARG]...\n       asyncq run [OPTIONS] -c <SCRIPT>",
    name = "run"
)]
pub struct RunLater {
    /// The service whose function `run` is called
    #[arg(long, default_value = SERVICE)]
    service: String,

    /// Start a processor in the background if none is at work on the service; it ends when nothing is left to run
    #[arg(long)]
    start: bool,

    /// Wait for the end of the command, and print what it prints, as `asyncq call` does
    #[arg(long)]
    wait: bool,

    /// With --wait: how long to wait at most, as in 90s or 1h30m [default: as long as it takes]
    #[arg(long, value_name = "SPAN", value_parser = parse_span_or_zero, allow_hyphen_values = true, requires = "wait")]
    timeout: Option<std::time::Duration>,

    /// Give the command an environment variable, with this value or its current one; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,

    /// A script for `sh` instead of a command
    #[arg(short = 'c', value_name = "SCRIPT", value_parser = parse_script, conflicts_with = "command", allow_hyphen_values = true)]
    script: Option<String>,

    #[command(flatten)]
    request: RequestOptions,

    /// The program and its arguments
    #[arg(value_name = "CMD", trailing_var_arg = true, allow_hyphen_values = true, required_unless_present = "script")]
    command: Vec<String>,
}

fn parse_script(text: &str) -> Result<String, Error> {
    if text.trim().is_empty() {
        return Err(
            Error::new(Kind::Usage, "it is empty").with_hint("give a script, as in `asyncq run -c './fetch | sort'`")
        );
    }
    Ok(text.to_owned())
}

impl RunLater {
    /// Runs the command.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        let delay = self.request.delay(session, "run")?;
        let service = ServiceName::parse(&self.service)?;
        let is_script = self.script.is_some();
        let words = self.script.map_or(self.command, |script| vec![script]);
        let command = ShellCommand { words, is_script, env: self.env };
        let call = command.call(service.clone(), &session.caller)?;
        let request = self.request.parse(session, &delay, call)?;
        let mut queue = session.open_or_create()?;
        if queue.add_shell(&service, &session.caller)? {
            session.info(&format!("added the service `{service}` with the function `{FUNCTION}`"));
        }
        let place = session.place()?;
        if self.wait {
            let wait = WaitOptions { result: false, timeout: self.timeout, start: self.start };
            let waiter = CallWaiter { options: &self.request, wait: &wait, place: &place };
            return waiter.run(session, &mut queue, (request, &delay));
        }
        let enqueued = match queue.enqueue(request, &session.caller, console())? {
            Made::Queued(enqueued) => enqueued,
            Made::Ran(ran) => return Ok(print_end(session, &format!("(`{service}` `{FUNCTION}`)"), &ran)),
        };
        let id = enqueued.id();
        print_number(id)?;
        if let Enqueued::Same(id) = enqueued {
            session.verbose(&self.request.describe_same(id));
        } else {
            delay.tell(session, id, self.request.hold);
        }
        if self.start {
            let start = StartWith { place: &place, caller: &session.caller, service: &service };
            if let Some((job, reason)) = queue.start_for(id, start)? {
                session.info(&format!("`--start` does not help job {id}: {}", explain::line(&job, &reason, now())));
            }
        }
        Ok(exit::DONE)
    }
}
