//! `asyncq job`.

use clap::Subcommand;

use super::call_args::{typed_keywords, typed_positional};
use super::clap_error::{one_of, whole_number};
use super::enqueue::print_number;
use super::input_options::RevealOption;
use super::job_edit_options::JobEditOptions;
use super::job_log::PrintLog;
use super::job_selection::{JobSelection, MatchingJobs, job_number};
use super::job_view::{self, JobView};
use super::session::{Session, to_terminal};
use super::stdio::print_line;
use super::{exit, format::FormatOptions, job_list::List, output};
use crate::commands::job::JobResult;
use crate::commands::queue::Queue;
use crate::domain::call::Reading;
use crate::domain::job::{JobId, State};
use crate::domain::job_edit::JobEdit;
use crate::domain::new_job::Rerun;
use crate::domain::query::JobChange;
use crate::domain::text::escape_control;

/// Jobs: calls in the store, and their outcomes
#[derive(Debug, Subcommand)]
pub enum Job {
    /// List jobs, newest first
    List(List),
    /// Show one job and its attempts
    Show {
        /// The number of the job
        #[arg(value_parser = job_number, allow_negative_numbers = true)]
        id: i64,
        #[command(flatten)]
        reveal: RevealOption,
        #[command(flatten)]
        format: FormatOptions,
    },
    /// Print the result of a job, as JSON
    Result {
        /// The number of the job
        #[arg(value_parser = job_number, allow_negative_numbers = true)]
        id: i64,
    },
    /// Print the output of a job: stdout to stdout, stderr to stderr
    Log(PrintLog),
    /// Cancel jobs; running ones are ended
    #[command(override_usage = "asyncq job cancel [OPTIONS] <ID>...\n       asyncq job cancel [OPTIONS] --all")]
    Cancel {
        #[command(flatten)]
        which: JobSelection,
        /// Only jobs in this state; may be repeated [default: all that wait or run]
        #[arg(long, value_name = "STATE", value_parser = one_of(JobChange::Cancel.states(), State::as_str))]
        #[arg(default_values_t = JobChange::Cancel.states(), hide_default_value = true)]
        state: Vec<State>,
    },
    /// Queue jobs again that ended in an error or were cancelled
    #[command(override_usage = "asyncq job retry [OPTIONS] <ID>...\n       asyncq job retry [OPTIONS] --all")]
    Retry {
        #[command(flatten)]
        which: JobSelection,
        /// Only jobs in this state; may be repeated
        #[arg(long, value_name = "STATE", value_parser = one_of(JobChange::Retry.states(), State::as_str))]
        #[arg(default_values_t = [State::Error])]
        state: Vec<State>,
    },
    /// Call the function of a job again, as a new job, and print its number
    ///
    /// The new job has the arguments, the principal, the site, the metadata, the priority and the lane of the other one, but not
    /// its key. If the other job waits, it is cancelled, with all calls that need it. The new one is due at the same time and waits for the
    /// same jobs. In a lane, the call that waits next may run first.
    #[command(override_usage = "asyncq job rerun [OPTIONS] <ID> [-- <ARG>...]")]
    Rerun {
        /// The number of the job
        #[arg(value_parser = job_number, allow_negative_numbers = true)]
        id: i64,
        #[command(flatten)]
        arguments: NewArguments,
    },
    /// Release held jobs
    #[command(override_usage = "asyncq job start [OPTIONS] <ID>...\n       asyncq job start [OPTIONS] --all")]
    Start {
        #[command(flatten)]
        which: JobSelection,
        /// Only jobs in this state
        #[arg(long, value_name = "STATE", value_parser = one_of(JobChange::Start.states(), State::as_str))]
        #[arg(default_values_t = JobChange::Start.states())]
        state: Vec<State>,
    },
    /// Change the time, priority, lane or expiry of waiting calls
    #[command(override_usage = "asyncq job set [OPTIONS] <ID>...\n       asyncq job set [OPTIONS] --all")]
    Set {
        #[command(flatten)]
        which: JobSelection,
        /// Only jobs in this state; may be repeated [default: all that wait]
        #[arg(long, value_name = "STATE", value_parser = one_of(waiting(), State::as_str))]
        #[arg(default_values_t = waiting(), hide_default_value = true)]
        state: Vec<State>,
        #[command(flatten)]
        changes: JobEditOptions,
    },
    /// Remove jobs that have ended
    Clean {
        #[command(flatten)]
        matching: MatchingJobs,
        /// Only jobs in this state; may be repeated [default: all that have ended]
        #[arg(long, value_name = "STATE", value_parser = one_of(JobChange::Remove.states(), State::as_str))]
        #[arg(default_values_t = JobChange::Remove.states(), hide_default_value = true)]
        state: Vec<State>,
        /// Keep the newest N of the jobs that match
        #[arg(long, value_name = "N", value_parser = parse_kept, allow_negative_numbers = true, default_value_t = 0)]
        #[arg(hide_default_value = true)]
        keep: u64,
    },
}

fn parse_kept(text: &str) -> Result<u64, String> {
    whole_number(text, "a number of jobs", 0).map(i64::cast_unsigned)
}

fn waiting() -> Vec<State> {
    JobChange::Set(JobEdit::default()).states()
}

/// Arguments in place of those of a job.
#[derive(Debug, clap::Args)]
pub struct NewArguments {
    /// Keyword arguments in place of those of the job; may be repeated. NAME=@- reads a value from standard input
    #[arg(short, long = "kwarg", value_name = "NAME=VALUE")]
    kwargs: Vec<String>,
    /// Take every argument as a string, even if it is JSON
    #[arg(long)]
    raw: bool,
    /// Arguments in place of those of the job, as in `asyncq enqueue`
    #[arg(value_name = "ARG", last = true)]
    args: Vec<String>,
}

impl NewArguments {
    fn parse(&self) -> crate::Result<Rerun> {
        let reading = if self.raw { Reading::Raw } else { Reading::Json };
        let args = (!self.args.is_empty()).then(|| typed_positional(&self.args, reading)).transpose()?;
        let kwargs = (!self.kwargs.is_empty()).then(|| typed_keywords(&self.kwargs, reading)).transpose()?;
        let is_typed = args.is_some() || kwargs.is_some();
        Ok(Rerun { args, kwargs, is_typed, ..Rerun::default() })
    }
}

impl Job {
    /// Runs the command.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        let mut queue = session.open()?;
        match self {
            Job::List(list) => list.run(session, &mut queue)?,
            Job::Show { id, reveal, format } => {
                reveal.apply(&mut queue);
                let format = format.format()?;
                let (job, attempts) = queue.job(JobId(id))?;
                let record = JobView { job: &job, attempts: Some(&attempts) };
                format.print_one(&record, || job_view::show(&mut queue, &job, &attempts))?;
            }
            Job::Result { id } => return result(session, &mut queue, JobId(id)),
            Job::Log(log) => return log.run(session, &mut queue),
            Job::Cancel { which, state } => {
                return which.each(session, &mut queue, (JobChange::Cancel, state), Queue::cancel_job);
            }
            Job::Retry { which, state } => {
                let retry = |queue: &mut Queue, id: JobId| {
                    let revived = queue.retry_job(id)?;
                    if revived > 0 {
                        let calls = output::count(revived, "call that needs it waits", "calls that need it wait");
                        session.info(&format!("job {id} is queued; {calls} again"));
                    }
                    Ok(())
                };
                return which.each(session, &mut queue, (JobChange::Retry, state), retry);
            }
            Job::Rerun { id, arguments } => {
                let (id, again) = (JobId(id), arguments.parse()?);
                let done = queue.rerun_job(id, again, &session.caller)?;
                print_number(done.new)?;
                if done.cancelled {
                    session.notice(&format!("job {id} is cancelled; job {} replaces it", done.new));
                }
            }
            Job::Start { which, state } => {
                return which.each(session, &mut queue, (JobChange::Start, state), Queue::start_job);
            }
            Job::Set { which, state, changes } => {
                let changes = changes.parse(session)?;
                return which.each(session, &mut queue, (JobChange::Set(changes.edit.clone()), state), |queue, id| {
                    queue.set_job(id, &changes.edit)?;
                    changes.tell(session, id);
                    Ok(())
                });
            }
            Job::Clean { matching, state, keep } => {
                return matching.clean(session, &mut queue, (state, keep));
            }
        }
        Ok(exit::DONE)
    }
}

fn result(session: &Session, queue: &mut Queue, id: JobId) -> anyhow::Result<u8> {
    match queue.job_result(id)? {
        JobResult::Completed(result) => {
            print_result(&result)?;
            return Ok(exit::DONE);
        }
        JobResult::Failed(why) => session.info(&format!("job {id} ended in an error: {why}")),
        JobResult::Cancelled => session.info(&format!("job {id} was cancelled")),
    }
    Ok(exit::FAILED)
}

/// Prints a result as the job wrote it. Escapes what could control a terminal, if it goes to one.
pub fn print_result(result: &str) -> anyhow::Result<()> {
    if to_terminal() { print_line(escape_control(result)) } else { print_line(result) }
}
