//! `asyncq enqueue --batch`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::stdio::claim_stdin;
use super::stdio::{Sink, in_words};
use super::{exit, session::Session};
use crate::commands::batch::{BatchProgress, BatchRequest};
use crate::domain::{log::Stream, new_job::Enqueued, text::escape_control};
use crate::error::{Error, Kind, reason};

/// Enqueues all calls of a batch and prints the numbers of their jobs in the order of the lines, one number a line.
pub fn run(session: &Session, request: BatchRequest) -> anyhow::Result<u8> {
    let bar = progress_bar(session, &request.input);
    let mut count = 0;
    let done = session.open()?.enqueue_batch(request, &session.caller, |progress: &BatchProgress<'_>| {
        count += progress.jobs.len();
        bar.set_position(progress.bytes);
        bar.set_message(format!("{count} calls"));
        bar.suspend(|| print(progress.jobs))
    });
    bar.finish_and_clear();
    done.map(|()| exit::DONE)
}

/// A file to read; `-` is stdin, and `option` tells how to name it.
pub fn open(path: &Path, option: &str) -> anyhow::Result<File> {
    let input = if path == Path::new("-") {
        claim_stdin("the batch")?;
        io::stdin().as_fd().try_clone_to_owned().map(File::from)
    } else {
        File::open(path)
    };
    let input = input.and_then(|file| {
        let is_folder = file.metadata()?.is_dir();
        if is_folder { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(file) }
    });
    input.map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => Kind::NotFound,
            io::ErrorKind::PermissionDenied => Kind::Denied,
            _ => Kind::Io,
        };
        let name = escape_control(&path.to_string_lossy()).into_owned();
        Error::new(kind, format!("cannot read `{name}`: {}", reason(&error)))
            .with_hint(format!("`{option} -` reads stdin"))
            .into()
    })
}

/// A progress bar, if a person reads stderr.
fn progress_bar(session: &Session, input: &File) -> ProgressBar {
    if !session.is_interactive() {
        return ProgressBar::hidden();
    }
    let length = input.metadata().ok().filter(std::fs::Metadata::is_file).map(|meta| meta.len());
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    let style = if length.is_some() { "{bar:30} {percent}%, {msg}, {eta} left" } else { "{spinner} {msg}" };
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.tick();
    bar
}

fn print(jobs: &[Enqueued]) -> anyhow::Result<()> {
    let (Some(first), Some(last)) = (jobs.first(), jobs.last()) else { return Ok(()) };
    let mut out = BufWriter::new(Sink(Stream::Out));
    let printed = jobs.iter().try_for_each(|job| writeln!(out, "{}", job.id())).and_then(|()| out.flush());
    match printed {
        // A reader that does not want the numbers still wants the calls.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            let (first, last, why) = (first.id(), last.id(), in_words(&error));
            let message =
                format!("jobs {first} to {last} were enqueued, but their numbers could not be printed: {why}");
            Err(Error::new(Kind::Io, message)
                .with_hint("do not enqueue these calls again; `asyncq job list` shows them")
                .into())
        }
        Ok(()) => Ok(()),
    }
}
