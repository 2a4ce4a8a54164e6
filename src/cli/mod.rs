//! The command line.
//!
//! Invariant: the only module that prints, and the only one that reads the environment of its caller. One file a noun,
//! each with its arguments and what they do; the comments of the arguments are the help texts.

mod batch;
mod clap_error;
mod console;
mod context;
mod enqueue;
mod exit;
mod format;
mod function;
mod job;
mod job_list;
mod job_view;
mod job_waits;
mod job_which;
mod output;
mod process;
mod reference;
mod remove;
mod service;
mod session;
mod stdio;
mod systemd;
mod table;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use session::{Global, Session};

/// Call it now, run it later: functions queued in one SQLite file, drained from cron
#[derive(Debug, Parser)]
#[command(name = "asyncq", version = VERSION.as_str(), max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    global: Global,

    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 a call failed; 2 wrong usage; 65 bad data; 66 no such service, function or job; 69 there is no \
store; 74 input or output failed; 75 busy, try again; 77 not allowed.";

static VERSION: std::sync::LazyLock<String> =
    std::sync::LazyLock::new(|| format!("{} ({})", env!("CARGO_PKG_VERSION"), crate::commands::queue::engines()));

#[derive(Debug, Subcommand)]
#[command(defer = true)]
enum Command {
    /// Create a store, or upgrade an old one; one that is up to date is searched for damage, all of it, and what of its schema is missing or was changed is made again
    Init,
    /// Take asyncq's tables out of an application's database
    #[command(long_about = remove::ABOUT)]
    Remove(remove::Remove),
    /// Services: named queues and their limits
    #[command(subcommand)]
    Service(service::Service),
    /// Functions: names on a service, and how each is run
    #[command(subcommand)]
    Function(function::Function),
    /// Call a function: put the call on its service's queue and print the job's number
    Enqueue(enqueue::Enqueue),
    /// Run the calls that are ready, then end
    Process(process::Process),
    /// Jobs: calls in the store, and what became of them
    #[command(subcommand)]
    Job(job::Job),
    /// Tell whether this runs inside a function that asyncq runs: true (exit code 0) or false (1)
    IsAsync,
    /// Print the principal on whose behalf this runs, or nothing (exit code 1)
    Whoami,
}

/// Runs the command line and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(std::env::args_os().map(enqueue::escape_negative)) {
        Ok(cli) => cli,
        Err(error) => return clap_error::tell(&error, Cli::command),
    };
    let done = Session::new(cli.global).map_err(Into::into).and_then(|session| run(&session, cli.command));
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) if output::nobody_reads(&error) => ExitCode::from(exit::DONE),
        Err(error) => {
            session::show_error(&error);
            ExitCode::from(exit::code(&error))
        }
    }
}

fn run(session: &Session, command: Command) -> anyhow::Result<u8> {
    crate::commands::outlive_limits()?;
    match command {
        Command::Init => {
            let (queue, prepared) = session.prepare(&mut |event| process::tell_aside(session, &event))?;
            let place = queue.place();
            session.info(&if prepared.made {
                format!("the store `{place}` is ready")
            } else {
                format!("`{place}` is up to date")
            });
            if prepared.is_shared {
                session.info("programs need SQLite 3.37 or later from now on to read any table of this file");
            }
            Ok(exit::DONE)
        }
        Command::Remove(remove) => remove.run(session),
        Command::Service(service) => service.run(session),
        Command::Function(function) => function.run(session),
        Command::Enqueue(enqueue) => enqueue.run(session),
        Command::Process(process) => process.run(session),
        Command::Job(job) => job.run(session),
        Command::IsAsync => context::is_async(session),
        Command::Whoami => context::whoami(session),
    }
}

/// The reference of the command line, in Markdown, as `docs/cli.md` holds it.
#[must_use]
pub fn reference() -> String {
    reference::reference(Cli::command())
}
