//! `asyncq rpc`: requests of a program, and how their answers are written.

use std::borrow::Cow;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use serde::Serialize;

use super::exit;
use super::explain::ExplanationView;
use super::job_view::JobView;
use super::schedule_view::View as ScheduleView;
use super::session::{Session, now};
use super::status::{OverviewView, sentence};
use super::stdio::{Sink, cannot_write};
use crate::commands::job::JobLog;
use crate::commands::rpc;
use crate::commands::rpc_answers::{Answers, RpcError, RpcResult, ShownJob};
use crate::domain::function::Registered;
use crate::domain::log::Stream;
use crate::domain::new_job::Enqueued;
use crate::domain::rpc::PROTOCOL;
use crate::domain::rpc_fault::RpcFlaw;
use crate::domain::service::Defined;
use crate::error::{Error, Kind};
use crate::system::fds;

/// At the end, a reader that takes nothing for this long counts as gone.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many bytes a ready pipe takes without a wait, by POSIX.
const AT_ONCE: usize = 4096;

/// Carries out the requests on stdin.
pub fn run(session: &Session) -> anyhow::Result<u8> {
    let input = io::stdin().as_fd().try_clone_to_owned().map_err(|error| {
        Error::new(Kind::Io, format!("cannot read stdin: {}", crate::error::reason(&error)))
            .with_hint("requests come on stdin, one a line (docs/rpc.md)")
    })?;
    rpc::run(&session.place()?, &session.caller, input.into(), &Stdout::new())?;
    Ok(exit::DONE)
}

/// Writes answers to stdout, one a line.
struct Stdout(Mutex<Writer>);

struct Writer {
    out: BufWriter<PatientSink>,
    /// Why nothing more can be written.
    failed: Option<io::Error>,
}

/// stdout, for a reader that may be slow.
#[derive(Default)]
struct PatientSink {
    /// Readable when all is to end.
    end: Option<Arc<OwnedFd>>,
    /// Whether its reader counts as gone.
    is_gone: bool,
}

impl PatientSink {
    /// Waits until the reader takes something. Returns whether it did before it counted as gone.
    fn wait(&self) -> io::Result<bool> {
        let mut ended = None;
        loop {
            let out = rustix::stdio::stdout();
            let mut watched = vec![PollFd::from_borrowed_fd(out, PollFlags::OUT)];
            watched.extend(self.end.iter().filter(|_| ended.is_none()).map(|end| PollFd::new(end, PollFlags::IN)));
            let left = ended.map(|since: Instant| PATIENCE.saturating_sub(since.elapsed()));
            fds::wait(&mut watched, left)?;
            if !watched[0].revents().is_empty() {
                return Ok(true);
            }
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(false);
            }
            if watched.get(1).is_some_and(|end| !end.revents().is_empty()) {
                ended = Some(Instant::now());
            }
        }
    }
}

impl Write for PatientSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_gone = self.is_gone || !self.wait()?;
        if self.is_gone {
            return Err(ErrorKind::TimedOut.into());
        }
        Sink(Stream::Out).write(&bytes[..bytes.len().min(AT_ONCE)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stdout {
    fn new() -> Stdout {
        let out = BufWriter::with_capacity(64 * 1024, PatientSink::default());
        Stdout(Mutex::new(Writer { out, failed: None }))
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn try_to(&mut self, write: impl FnOnce(&mut BufWriter<PatientSink>) -> io::Result<()>) {
        if self.failed.is_none() {
            self.failed = write(&mut self.out).err();
        }
    }
}

impl Answers for Stdout {
    fn answer(&self, id: &str, answer: Result<RpcResult<'_>, RpcError>) {
        let mut writer = self.writer();
        writer.try_to(|out| {
            write!(out, r#"{{"jsonrpc":"2.0","id":{id},"#)?;
            match answer {
                Ok(result) => {
                    out.write_all(br#""result":"#)?;
                    write_result(out, &result)?;
                }
                Err(error) => {
                    out.write_all(br#""error":"#)?;
                    serde_json::to_writer(&mut *out, &ErrorView::of(&error))?;
                }
            }
            out.write_all(b"}\n")
        });
    }

    fn flush(&self) {
        self.writer().try_to(BufWriter::flush);
    }

    fn is_closed(&self) -> bool {
        self.writer().failed.is_some()
    }

    fn end_with(&self, end: Arc<OwnedFd>) {
        self.writer().out.get_mut().end = Some(end);
    }

    fn failure(&self) -> Option<Error> {
        // Even if the reader does not want the answers, the requests are carried out.
        let failed = self.writer().failed.take().filter(|error| error.kind() != ErrorKind::BrokenPipe)?;
        if failed.kind() == ErrorKind::TimedOut {
            return Some(
                Error::new(Kind::Io, "nobody reads the answers")
                    .with_hint("what was read of the requests was carried out; read answers until the end of stdout"),
            );
        }
        Some(cannot_write(Stream::Out, failed))
    }
}

fn write_result(out: &mut impl Write, result: &RpcResult<'_>) -> io::Result<()> {
    match result {
        RpcResult::Enqueued(enqueued) => serde_json::to_writer(out, &EnqueuedView::of(*enqueued))?,
        RpcResult::EnqueuedAll(all) => {
            let jobs = all.iter().map(|one| match one {
                Ok(enqueued) => CallView::Job(EnqueuedView::of(*enqueued)),
                Err(error) => CallView::Error { error: ErrorView::of(error) },
            });
            serde_json::to_writer(out, &EnqueuedAllView { jobs: jobs.collect() })?;
        }
        RpcResult::Hello(store) => {
            let (asyncq, store) = (env!("CARGO_PKG_VERSION"), store.to_string_lossy());
            serde_json::to_writer(out, &HelloView { protocol: PROTOCOL, asyncq, store: &store })?;
        }
        RpcResult::Defined(defined) => serde_json::to_writer(out, &DefinedView { outcome: outcome(*defined) })?,
        RpcResult::Registered(all) => {
            let functions = all
                .iter()
                .map(|Registered { outcome: defined, differs }| RegisteredView { outcome: outcome(*defined), differs });
            serde_json::to_writer(out, &RegisteredAllView { functions: functions.collect() })?;
        }
        RpcResult::Job(shown) => serde_json::to_writer(out, &view(shown))?,
        RpcResult::Jobs(shown) => serde_json::to_writer(out, &JobsView { jobs: shown.iter().map(view).collect() })?,
        RpcResult::Rerun(done) => {
            serde_json::to_writer(out, &RerunView { job: done.new.0, cancelled: done.cancelled })?;
        }
        RpcResult::Log(log) => serde_json::to_writer(out, &LogView::of(log))?,
        RpcResult::Explained(it) => serde_json::to_writer(out, &ExplanationView::new(it, now()))?,
        RpcResult::Overview(it) => serde_json::to_writer(out, &OverviewView(it))?,
        RpcResult::Problems(found, at) => {
            let problems = found.iter().map(|problem| sentence(problem, *at)).collect();
            serde_json::to_writer(out, &ProblemsView { problems })?;
        }
        RpcResult::Services(count) => serde_json::to_writer(out, &ServicesView { services: *count })?,
        RpcResult::Schedule(it) => serde_json::to_writer(out, &ScheduleView(it))?,
        RpcResult::Schedules(all) => {
            serde_json::to_writer(out, &SchedulesView { schedules: all.iter().map(ScheduleView).collect() })?;
        }
        RpcResult::Ticks(rule, ticks) => {
            let ticks = ticks.iter().map(|tick| rule.local(*tick)).collect();
            serde_json::to_writer(out, &TicksView { rule: rule.to_string(), ticks })?;
        }
        RpcResult::Made(made) => {
            let jobs = made.jobs.iter().map(|job| job.0).collect();
            serde_json::to_writer(out, &MadeView { jobs, had: made.had })?;
        }
        RpcResult::Done => out.write_all(b"{}")?,
    }
    Ok(())
}

fn view((job, attempts): &ShownJob) -> JobView<'_> {
    JobView { job, attempts: Some(attempts) }
}

fn outcome(defined: Defined) -> &'static str {
    match defined {
        Defined::Added => "added",
        Defined::Same => "same",
        Defined::Changed => "changed",
        Defined::Kept => "kept",
    }
}

/// The code of an error: that of JSON-RPC for a wrong message, otherwise the exit code of a command.
fn code(error: &RpcError, exit_code: u8) -> i32 {
    match error.flaw {
        None => exit_code.into(),
        Some(RpcFlaw::Syntax) => -32700,
        Some(RpcFlaw::Form) => -32600,
        Some(RpcFlaw::Method) => -32601,
        Some(RpcFlaw::Params) => -32602,
    }
}

#[derive(Serialize)]
struct HelloView<'a> {
    protocol: u64,
    asyncq: &'a str,
    store: &'a str,
}

#[derive(Serialize)]
struct EnqueuedView {
    job: i64,
    new: bool,
}

impl EnqueuedView {
    fn of(enqueued: Enqueued) -> EnqueuedView {
        EnqueuedView { job: enqueued.id().0, new: matches!(enqueued, Enqueued::New(_)) }
    }
}

#[derive(Serialize)]
struct EnqueuedAllView<'a> {
    jobs: Vec<CallView<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum CallView<'a> {
    Job(EnqueuedView),
    Error { error: ErrorView<'a> },
}

#[derive(Serialize)]
struct DefinedView {
    outcome: &'static str,
}

#[derive(Serialize)]
struct RegisteredAllView<'a> {
    functions: Vec<RegisteredView<'a>>,
}

#[derive(Serialize)]
struct RegisteredView<'a> {
    outcome: &'static str,
    differs: &'a [&'static str],
}

#[derive(Serialize)]
struct JobsView<'a> {
    jobs: Vec<JobView<'a>>,
}

#[derive(Serialize)]
struct RerunView {
    job: i64,
    cancelled: bool,
}

/// The output of an attempt.
#[derive(Serialize)]
struct LogView<'a> {
    attempt: Option<i64>,
    complete: bool,
    parts: Vec<PartView<'a>>,
}

/// Text of a stream, or how many bytes were not kept.
#[derive(Serialize)]
#[serde(untagged)]
enum PartView<'a> {
    Text { stream: &'static str, text: Cow<'a, str> },
    Gap { dropped: u64 },
}

impl LogView<'_> {
    fn of(shown: &JobLog) -> LogView<'_> {
        let mut parts = Vec::new();
        if let Some(log) = &shown.log {
            let mut is_gap_shown = log.dropped == 0;
            for (stream, bytes, after_gap) in log.joined_parts() {
                if after_gap {
                    is_gap_shown = true;
                    parts.push(PartView::Gap { dropped: log.dropped });
                }
                let stream = if stream == Stream::Out { "out" } else { "err" };
                parts.push(PartView::Text { stream, text: String::from_utf8_lossy(bytes) });
            }
            if !is_gap_shown {
                parts.push(PartView::Gap { dropped: log.dropped });
            }
        }
        let attempt = (shown.attempt > 0).then_some(shown.attempt);
        LogView { attempt, complete: shown.incomplete.is_none(), parts }
    }
}

#[derive(Serialize)]
struct ProblemsView {
    problems: Vec<String>,
}

#[derive(Serialize)]
struct ServicesView {
    services: usize,
}

#[derive(Serialize)]
struct SchedulesView<'a> {
    schedules: Vec<ScheduleView<'a>>,
}

#[derive(Serialize)]
struct TicksView {
    rule: String,
    ticks: Vec<String>,
}

#[derive(Serialize)]
struct MadeView {
    jobs: Vec<i64>,
    had: usize,
}

#[derive(Serialize)]
struct ErrorView<'a> {
    code: i32,
    message: String,
    data: ErrorData<'a>,
}

#[derive(Serialize)]
struct ErrorData<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    exit_code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<usize>,
}

impl<'a> ErrorView<'a> {
    fn of(told: &'a RpcError) -> ErrorView<'a> {
        // The mistake is in the data, not on the command line.
        let exit_code = match told.error.kind() {
            Kind::Usage => exit::DATA,
            kind => exit::code_of(kind),
        };
        let data = ErrorData { hint: told.error.hint(), exit_code, call: told.call };
        ErrorView { code: code(told, exit_code), message: told.error.to_string(), data }
    }
}
