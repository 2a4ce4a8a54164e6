//! The command line.
//!
//! Invariant: no other layer prints, or reads the environment of its caller. Each noun has a file with its arguments and
//! what they do. The doc comments of the arguments are the help texts.

mod apply;
mod backup;
mod batch;
mod call;
mod call_args;
mod call_options;
mod clap_error;
mod complete;
mod console;
mod context;
mod delay_options;
mod descriptor;
mod doctor;
mod drain_view;
mod due;
mod enqueue;
mod exit;
mod explain;
mod format;
mod function;
mod function_options;
mod hook_options;
mod input_options;
mod job;
mod job_edit_options;
mod job_list;
mod job_log;
mod job_selection;
mod job_view;
mod output;
mod pause;
mod process;
mod reference;
mod remove;
mod restore;
mod rpc;
mod run;
mod schedule;
mod schedule_options;
mod schedule_view;
mod schema;
mod service;
mod service_options;
mod session;
mod status;
mod stdio;
mod table;
mod wait;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use session::{Global, Session};

use crate::system::signals;

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
    /// Create a store, upgrade an old one, or check an up-to-date one for damage
    ///
    /// A check reads the whole file. It also makes tables, indexes and triggers again that are missing or were changed.
    Init,
    /// Check the store, its processors and its calls
    Doctor(doctor::Doctor),
    /// Copy the store into a new file, also while it is in use
    Backup(backup::Backup),
    /// Put a backup in the place of the store
    Restore(restore::Restore),
    /// Remove asyncq's tables from an application's database
    Remove(remove::Remove),
    /// Services: named queues and their limits
    Service(Noun<service::Service>),
    /// Functions: the names that you can call, and the program behind each
    Function(Noun<function::Function>),
    /// Call a function: queue the call and print the number of its job
    Enqueue(enqueue::Enqueue),
    /// Call a function, wait for its end, and print what it prints
    Call(call::CallNow),
    /// Run a command later, in the current folder, and print the number of its job
    Run(run::RunLater),
    /// Run the calls that are ready, then exit
    Process(process::Process),
    /// Run no calls at all, but accept new ones, until `asyncq resume`
    Pause(pause::PauseAll),
    /// Run calls again after `asyncq pause`
    Resume,
    /// Jobs: calls in the store, and their outcomes
    Job(Noun<job::Job>),
    /// Schedules: rules for when a call is made, again and again
    Schedule(Noun<schedule::Schedule>),
    /// Make services, functions and schedules what a file says
    Apply(apply::Apply),
    /// Print services, functions and schedules as a file that `asyncq apply` reads
    Export(apply::Export),
    /// Print when `asyncq process` next has something to do: `now`, or a time
    Due(due::Due),
    /// Show all services with their calls, and the processors and schedules
    Status(status::Status),
    /// Wait until jobs have ended
    Wait(wait::Wait),
    /// Explain why calls do not run, or why they ended as they did
    Explain(explain::Explain),
    /// Print JSON Schemas of what commands print with --json, and of the lines of a batch
    Schema(schema::Schema),
    /// Carry out the requests of a program that stays: JSON-RPC on stdin and stdout (docs/rpc.md)
    Rpc,
    /// Print whether this runs inside a running function: true (exit code 0) or false (1)
    IsAsync,
    /// Print the principal on whose behalf this runs; without one, print nothing and exit with 1
    Whoami,
}

// A noun with its verbs. As the arguments of a deferred command, they are built only if somebody typed the noun. It has no
// docstring, because that would be the help of each noun.
#[derive(Debug, clap::Args)]
struct Noun<Verb: Subcommand> {
    #[command(subcommand)]
    verb: Verb,
}

/// Runs the command line and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(code) = complete::answer(Cli::command) {
        return code;
    }
    let cli = match Cli::try_parse_from(std::env::args_os().map(call_args::escape_negative)) {
        Ok(cli) => cli,
        Err(error) => return clap_error::report(&error, Cli::command),
    };
    let done = Session::new(cli.global).map_err(Into::into).and_then(|session| run(&session, cli.command));
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) if output::is_broken_pipe(&error) => ExitCode::from(exit::DONE),
        Err(error) => {
            session::show_error(&error);
            ExitCode::from(exit::code(&error))
        }
    }
}

fn run(session: &Session, command: Command) -> anyhow::Result<u8> {
    signals::outlive_limits()?;
    match command {
        Command::Init => {
            let (queue, prepared) = session.place()?.prepare(&mut |event| process::print_aside(session, &event))?;
            let place = queue.place();
            session.info(&if prepared.made {
                format!("the store `{place}` is ready")
            } else {
                format!("`{place}` is up to date")
            });
            if prepared.is_shared {
                session.info("from now on, programs need SQLite 3.37 or later to read any table of this file");
            }
            Ok(exit::DONE)
        }
        Command::Doctor(doctor) => doctor.run(session),
        Command::Backup(backup) => backup.run(session),
        Command::Restore(restore) => restore.run(session),
        Command::Remove(remove) => remove.run(session),
        Command::Service(service) => service.verb.run(session),
        Command::Function(function) => function.verb.run(session),
        Command::Enqueue(enqueue) => enqueue.run(session),
        Command::Call(call) => call.run(session),
        Command::Run(run) => run.run(session),
        Command::Process(process) => process.run(session),
        Command::Pause(pause) => pause.run(session),
        Command::Resume => pause::resume(session),
        Command::Job(job) => job.verb.run(session),
        Command::Schedule(schedule) => schedule.verb.run(session),
        Command::Apply(apply) => apply.run(session),
        Command::Export(export) => export.run(session),
        Command::Due(due) => due.run(session),
        Command::Status(status) => status.run(session),
        Command::Wait(wait) => wait.run(session),
        Command::Explain(explain) => explain.run(session),
        Command::Schema(schema) => schema.run(),
        Command::Rpc => rpc::run(session),
        Command::IsAsync => context::is_async(session),
        Command::Whoami => context::whoami(session),
    }
}

/// The commands, each with the options that its page of the reference shows.
#[must_use]
pub fn pages() -> Vec<clap::Command> {
    reference::pages(Cli::command())
}

/// The reference of the command line in Markdown: the content of `docs/cli.md`.
#[must_use]
pub fn reference() -> String {
    reference::reference(Cli::command())
}
