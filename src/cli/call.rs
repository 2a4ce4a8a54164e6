//! `asyncq call`.

use std::time::{Duration, Instant};

use clap::Args;

use super::call_args::{CallArgs, RequestOptions, typed_call};
use super::console::console;
use super::delay_options::Delay;
use super::descriptor::{give_up_at, has_given_up};
use super::enqueue::print_end;
use super::job::print_result;
use super::job_log::between;
use super::output::text;
use super::session::{Session, now};
use super::wait::how_cancelled;
use super::{exit, explain, process, stdio};
use crate::commands::call::{AwaitedCall, CallEnd, CallEvent, CallOutput, StartWith};
use crate::commands::enqueue::{EnqueueRequest, Made};
use crate::commands::follow::Followed;
use crate::commands::job::JobResult;
use crate::commands::queue::{Place, Queue};
use crate::commands::wait::JobEnd;
use crate::domain::attempt::{FailureKind, Outcome};
use crate::domain::console::Console;
use crate::domain::event::Ran;
use crate::domain::job::{JobId, State};
use crate::domain::log::Stream;
use crate::domain::new_job::Enqueued;
use crate::domain::reason::Reason;
use crate::domain::time::parse_span_or_zero;
use crate::error::{Error, Kind};
use crate::system::signals::Interrupts;

/// Call a function, wait for its end, and print what it prints
///
/// The exit code is 0 if the call completed, 75 if it failed temporarily or the time is over first, and 1 if it failed otherwise.
/// An interrupt (Ctrl-C) ends the wait but not the call; a second one cancels the call. Inside a running function, the call runs at
/// once, as with `asyncq enqueue`.
#[derive(Debug, Args)]
#[command(name = "call")]
pub struct CallNow {
    #[command(flatten)]
    call: CallArgs,

    #[command(flatten)]
    wait: WaitOptions,

    /// The service
    service: String,

    /// The function
    function: String,

    /// The arguments; one that is JSON without space around it is read as JSON, any other is a string
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    args: Vec<String>,
}

/// How to wait for a call.
#[derive(Debug, Args)]
pub struct WaitOptions {
    /// Print the result of the call, as JSON, instead of what it prints
    #[arg(long)]
    pub result: bool,

    /// How long to wait at most, as in 90s or 1h30m [default: as long as it takes]
    #[arg(long, value_name = "SPAN", value_parser = parse_span_or_zero, allow_hyphen_values = true)]
    pub timeout: Option<Duration>,

    /// Start a processor in the background if none is at work on the service; it ends when nothing is left to run
    #[arg(long)]
    pub start: bool,
}

/// How long asyncq waits for a second interrupt.
const SECOND_INTERRUPT: Duration = Duration::from_secs(2);

/// How long the last messages wait for a reader that has not read the output.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl CallNow {
    /// Runs the command.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        let delay = self.call.request.delay(session, "call")?;
        let names = (self.service.as_str(), self.function.as_str());
        let call = typed_call(names, &self.args, &self.call.kwargs, self.call.reading())?;
        let request = self.call.request.parse(session, &delay, call)?;
        let place = session.place()?;
        let mut queue = place.open()?;
        let waiter = CallWaiter { options: &self.call.request, wait: &self.wait, place: &place };
        let code = waiter.run(session, &mut queue, (request, &delay))?;
        // The end of the process closes the store too, at less cost.
        std::mem::forget(queue);
        Ok(code)
    }
}

/// Makes a call and waits for it.
pub struct CallWaiter<'a> {
    /// How it is made.
    pub options: &'a RequestOptions,
    /// How to wait for it.
    pub wait: &'a WaitOptions,
    /// The store.
    pub place: &'a Place,
}

impl CallWaiter<'_> {
    /// Makes the call and waits until it has ended. Returns the exit code.
    pub fn run(
        &self,
        session: &Session,
        queue: &mut Queue,
        (request, delay): (EnqueueRequest, &Delay),
    ) -> anyhow::Result<u8> {
        let service = request.call.service.clone();
        let what = format!("(`{service}` `{}`)", request.call.function);
        let is_nested = queue.is_inside(&session.caller)?;
        if let (true, Some(_)) = (is_nested, self.wait.timeout) {
            return Err(Error::new(
                Kind::Usage,
                "a call inside a running function runs at once, so it takes no `--timeout`",
            )
            .with_hint("set the time limit of the function instead: `asyncq function set --timeout`")
            .into());
        }
        let enqueued = match queue.enqueue(request, &session.caller, self.console())? {
            Made::Queued(enqueued) => enqueued,
            Made::Ran(ran) => return self.end_nested(session, &what, &ran),
        };
        let id = enqueued.id();
        // From here on, an interrupt names the job.
        let cannot_wait =
            |error: Error| error.with_hint(format!("it is enqueued: `asyncq wait {id}` waits for job {id}"));
        let interrupts = Interrupts::catch().map_err(cannot_wait)?;
        let output = CallOutput::start(self.console(), self.wait.timeout, &interrupts).map_err(cannot_wait)?;
        if let Enqueued::Same(id) = enqueued {
            session.verbose(&self.options.describe_same(id));
        } else {
            session.verbose(&format!("enqueued as job {id}"));
            delay.tell(session, id, self.options.hold);
        }
        let start = StartWith { place: self.place, caller: &session.caller, service: &service };
        let start = self.wait.start.then_some(start);
        let awaited = AwaitedCall { id, caller: &session.caller, start, output: &output };
        let ended = queue.wait_for_call(&awaited, &mut |event| self.print(session, (id, &output), &event));
        let ended = match ended {
            Ok(CallEnd::Ended(end)) => {
                report(session, &what, &end);
                Ok(Some(end))
            }
            Ok(CallEnd::Interrupted) => {
                let offered = offer_to_cancel(session, queue, id, &interrupts);
                output.give_up();
                offered.map(|()| None)
            }
            Err(error) => Err(error.into()),
        };
        let (is_read, until) = (output.finish(), output.until());
        drop(output);
        if !is_read {
            give_up_at(Instant::now() + LAST_WORDS);
        }
        match ended? {
            Some(end) if is_read => {
                interrupts.release();
                self.print_result(queue, &end, until)?;
                Ok(exit_code(&end))
            }
            Some(_) if interrupts.take() => {
                let unread = unread(id);
                session.info_with_hint(&unread.to_string(), unread.hint().unwrap_or_default());
                die()
            }
            Some(_) => Err(unread(id).into()),
            None => die(),
        }
    }

    /// Prints the result of a call that is completed, if it is wanted, until the time is over.
    fn print_result(&self, queue: &mut Queue, end: &JobEnd, until: Option<Instant>) -> anyhow::Result<()> {
        stdio::report_losses(true);
        if let (true, State::Completed) = (self.wait.result, end.state)
            && let JobResult::Completed(result) = queue.job_result(end.id)?
        {
            until.into_iter().for_each(give_up_at);
            print_result(&result).map_err(|error| if has_given_up() { unread(end.id).into() } else { error })?;
        }
        Ok(())
    }

    /// Where the output of a nested call goes.
    fn console(&self) -> Console {
        let messages_only = |stream, bytes: &[u8], own_line| {
            if own_line {
                stdio::put(stream, bytes, own_line);
            }
        };
        if self.wait.result { Console { write: messages_only, ..console() } } else { console() }
    }

    fn end_nested(&self, session: &Session, what: &str, ran: &Ran) -> anyhow::Result<u8> {
        let code = print_end(session, what, ran);
        if let (true, Outcome::Completed | Outcome::CompletedItself) = (self.wait.result, &ran.outcome) {
            print_result(ran.result.as_ref().map_or("null", |result| result.as_str()))?;
        }
        Ok(code)
    }

    fn print(&self, session: &Session, (id, output): (JobId, &CallOutput<'_>), event: &CallEvent<'_>) {
        match event {
            CallEvent::Followed(Followed::Output(..) | Followed::Lost(_)) if self.wait.result => {}
            CallEvent::Followed(Followed::Output(stream, bytes)) => output.print(*stream, bytes, false),
            CallEvent::Followed(Followed::Lost(count)) => {
                output.print(Stream::Err, format!("... {count} bytes were not kept ...\n").as_bytes(), true);
            }
            CallEvent::Followed(Followed::Between(job, attempt)) => session.notice(&between(job, attempt)),
            CallEvent::Followed(Followed::Barred(error)) if !self.wait.result => {
                session.info_with_hint(&error.to_string(), error.hint().unwrap_or_default());
            }
            // The line between the attempts has said that.
            CallEvent::Followed(_) | CallEvent::Waits(_, Reason::Retry(..)) => {}
            CallEvent::Waits(job, Reason::NoProcessor(_)) if !self.wait.start => {
                session.info(&format!("no processor is at work on `{}`; `--start` starts one", job.call.service));
            }
            CallEvent::Waits(_, Reason::Paused(paused)) => session.info(&process::paused(paused)),
            CallEvent::Waits(job, reason) => {
                let waits = format!("job {id} has not ended: {}", explain::line(job, reason, now()));
                match reason {
                    Reason::DeadProcessor(_) if self.wait.start => {}
                    Reason::DeadProcessor(_) | Reason::OutOfReach(..) | Reason::NoService => session.info(&waits),
                    _ => session.notice(&waits),
                }
            }
        }
    }
}

/// Says how a call ended.
fn report(session: &Session, what: &str, end: &JobEnd) {
    let id = end.id;
    match (end.state, &end.error) {
        (State::Completed, _) => session.verbose(&format!("job {id} is completed")),
        (State::Cancelled, error) => session.info(&format!("job {id} {what} was {}", how_cancelled(error.as_ref()))),
        (_, error) => {
            let why = error.as_ref().map_or_else(|| "unknown".to_owned(), |error| text(&error.message));
            session.info(&format!("job {id} {what}: {why}"));
        }
    }
}

/// The exit code for a call that has ended.
fn exit_code(end: &JobEnd) -> u8 {
    match &end.error {
        _ if end.state == State::Completed => exit::DONE,
        Some(error) if end.state != State::Cancelled && error.kind == FailureKind::Conflict => exit::BUSY,
        _ => exit::FAILED,
    }
}

/// The error for output that nobody read while this command waited.
fn unread(id: JobId) -> Error {
    Error::new(Kind::Busy, format!("job {id} has ended, but its output was not read in time")).with_hint(format!(
        "`asyncq job log {id}` prints what is kept of it, `asyncq job result {id}` its result, and `asyncq wait {id}` says how it ended"
    ))
}

/// Ends this process as an interrupt does.
fn die() -> anyhow::Result<u8> {
    Interrupts::die()?;
    Ok(exit::FAILED)
}

/// Names the job, and cancels it if another interrupt follows.
fn offer_to_cancel(session: &Session, queue: &mut Queue, id: JobId, interrupts: &Interrupts) -> anyhow::Result<()> {
    session.info_with_hint(
        &format!("job {id} goes on without this command; interrupt again within 2 seconds to cancel it"),
        &format!("`asyncq wait {id}` waits for it, and `asyncq job log {id}` prints what it has printed"),
    );
    if interrupts.wait(SECOND_INTERRUPT) {
        let is_cancelled = queue.cancel_call(id, interrupts)?;
        session.info(&if is_cancelled {
            format!("job {id} was cancelled")
        } else {
            format!("job {id} was asked to end; `asyncq wait {id}` waits for it")
        });
    }
    Ok(())
}
