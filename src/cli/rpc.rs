//! `asyncq rpc`: requests of a program, and how their answers are written.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::exit;
use super::job_view::JobView;
use super::session::Session;
use super::stdio::{Sink, cannot_write};
use crate::commands::rpc;
use crate::commands::rpc_answers::{Answers, RpcError, RpcResult};
use crate::commands::wait::ShownJob;
use crate::domain::function::Registered;
use crate::domain::job::Enqueued;
use crate::domain::log::Stream;
use crate::domain::rpc::{PROTOCOL, RpcFlaw};
use crate::domain::service::Defined;
use crate::error::{Error, Kind};

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
    out: BufWriter<Sink>,
    /// Why nothing can be written any longer.
    failed: Option<io::Error>,
}

impl Stdout {
    fn new() -> Stdout {
        let out = BufWriter::with_capacity(64 * 1024, Sink(Stream::Out));
        Stdout(Mutex::new(Writer { out, failed: None }))
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn try_to(&mut self, write: impl FnOnce(&mut BufWriter<Sink>) -> io::Result<()>) {
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

    fn failure(&self) -> Option<Error> {
        // A reader that does not want the answers still wants what it asked for.
        let failed = self.writer().failed.take().filter(|error| error.kind() != ErrorKind::BrokenPipe);
        failed.map(|error| cannot_write(Stream::Out, error))
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

/// The code of an error: that of JSON-RPC for a message that is wrong, else the exit code of a command.
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
        // What is wrong is in the data, not on the command line.
        let exit_code = match told.error.kind() {
            Kind::Usage => exit::DATA,
            kind => exit::code_of(kind),
        };
        let data = ErrorData { hint: told.error.hint(), exit_code, call: told.call };
        ErrorView { code: code(told, exit_code), message: told.error.to_string(), data }
    }
}
