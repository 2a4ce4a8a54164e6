//! `asyncq job log`.

use std::borrow::Cow;
use std::os::fd::BorrowedFd;

use clap::Args;

use super::clap_error::whole_number;
use super::job_selection::job_number;
use super::output::relative;
use super::session::{Session, now};
use super::{exit, explain, stdio, wait};
use crate::commands::follow::{Followed, Onlooker};
use crate::commands::job::JobLog;
use crate::commands::queue::Queue;
use crate::domain::attempt::{Attempt, Ending};
use crate::domain::job::{Job, JobId, State};
use crate::domain::log::Stream;
use crate::domain::text::escape_control_in_lines;

/// Print the output of a job: stdout to stdout, stderr to stderr
///
/// With -f, the exit code is 0 if the job completed, and 1 if it failed or was cancelled.
#[derive(Debug, Args)]
pub struct PrintLog {
    /// The number of the job
    #[arg(value_parser = job_number, allow_negative_numbers = true)]
    id: i64,
    /// Follow the output, through retries, until the job has ended
    #[arg(short, long, conflicts_with = "attempt")]
    follow: bool,
    /// Print the output of this attempt [default: the latest]
    #[arg(long, value_name = "N", value_parser = attempt_number, allow_negative_numbers = true)]
    attempt: Option<i64>,
    /// Print control characters unchanged to a terminal
    #[arg(long)]
    raw: bool,
}

fn attempt_number(text: &str) -> Result<i64, String> {
    whole_number(text, "the number of an attempt", i64::MIN)
}

impl PrintLog {
    /// Runs the command.
    pub fn run(self, session: &Session, queue: &mut Queue) -> anyhow::Result<u8> {
        let id = JobId(self.id);
        let mut output = JobOutput::new(self.raw);
        if self.follow { follow(session, queue, id, &mut output) } else { self.print(session, queue, &mut output) }
    }

    /// Prints the output of an attempt, or of the latest one that has ended. If the job has not ended, it may print more, which is
    /// an error here.
    fn print(&self, session: &Session, queue: &mut Queue, output: &mut JobOutput) -> anyhow::Result<u8> {
        let JobLog { log, never_began, incomplete, .. } = queue.job_log(JobId(self.id), self.attempt)?;
        if let Some(log) = &log {
            let mut gap_shown = log.dropped == 0;
            for (stream, bytes, after_gap) in log.parts() {
                if after_gap {
                    gap_shown = true;
                    output.print_gap(log.dropped)?;
                }
                output.print(stream, bytes)?;
            }
            if !gap_shown {
                output.print_gap(log.dropped)?;
            }
        }
        output.finish()?;
        if never_began {
            session.notice(&format!("job {} was cancelled before it began", self.id));
        }
        incomplete.map_or(Ok(exit::DONE), |incomplete| Err(incomplete.into()))
    }
}

/// Prints what a job prints until it has ended.
fn follow(session: &Session, queue: &mut Queue, id: JobId, output: &mut JobOutput) -> anyhow::Result<u8> {
    let by = Onlooker { caller: &session.caller, reader: reader() };
    let ended = queue.follow(id, by, &mut |queue, happened| {
        match happened {
            Followed::Output(stream, bytes) => output.print(stream, bytes)?,
            Followed::Lost(count) => output.print_gap(count)?,
            Followed::Waits(job) => {
                if let Some(reason) = queue.held_up_by(job)? {
                    session.notice(&format!("job {id} has not ended: {}", explain::line(job, &reason, now())));
                }
            }
            Followed::Between(job, attempt) => {
                output.finish()?;
                session.info(&between(job, attempt));
            }
            Followed::Barred(error) => session.info_with_hint(&error.to_string(), error.hint().unwrap_or_default()),
            Followed::Quiet(_) => {}
        }
        Ok::<(), anyhow::Error>(())
    })?;
    output.finish()?;
    Ok(wait::report(session, &ended))
}

/// The message about an attempt that did not end the job.
pub fn between(job: &Job, attempt: &Attempt) -> String {
    let how = match (&attempt.error, attempt.ending) {
        (Some(error), _) => error.message.clone(),
        (None, Some(Ending::Interrupted)) => "interrupted".to_owned(),
        (None, Some(Ending::Snoozed)) => "it asks to run later".to_owned(),
        (None, Some(ending)) => ending.as_str().to_owned(),
        (None, None) => "its end is not recorded".to_owned(),
    };
    let next = match job.state {
        State::Delayed => format!("; the next one is due {}", relative(job.times.run_at, now())),
        _ => "; another one follows".to_owned(),
    };
    format!("attempt {} of job {} has ended ({how}){next}", attempt.number, job.id)
}

/// stdout, if it is a pipe, whose reader may go away.
fn reader() -> Option<BorrowedFd<'static>> {
    let stdout = rustix::stdio::stdout();
    let is_pipe = rustix::fs::fstat(stdout).is_ok_and(|is| rustix::fs::FileType::from_raw_mode(is.st_mode).is_fifo());
    is_pipe.then_some(stdout)
}

/// What a job prints, on its way to the same streams of this process.
struct JobOutput {
    raw: bool,
    /// The first bytes of a character whose rest has not come, for each stream.
    begun: [Vec<u8>; 2],
}

impl JobOutput {
    fn new(raw: bool) -> JobOutput {
        JobOutput { raw, begun: Default::default() }
    }

    /// Prints a piece. On a terminal, control characters are escaped.
    fn print(&mut self, stream: Stream, bytes: &[u8]) -> anyhow::Result<()> {
        if self.raw || !stdio::is_terminal(stream) {
            return Ok(stdio::print_bytes(stream, bytes)?);
        }
        let begun = &mut self.begun[usize::from(stream == Stream::Err)];
        let bytes = if begun.is_empty() { Cow::from(bytes) } else { [&std::mem::take(begun), bytes].concat().into() };
        let whole = whole_characters(&bytes);
        *begun = bytes[whole..].to_vec();
        Ok(stdio::print_bytes(stream, escape_control_in_lines(&bytes[..whole]).as_bytes())?)
    }

    /// Says that bytes are missing.
    fn print_gap(&mut self, count: u64) -> anyhow::Result<()> {
        self.finish()?;
        stdio::print_message(&format!("... {count} bytes were not kept ...\n"));
        Ok(())
    }

    /// Prints incomplete characters.
    fn finish(&mut self) -> anyhow::Result<()> {
        for (begun, stream) in self.begun.iter_mut().zip([Stream::Out, Stream::Err]) {
            let begun = std::mem::take(begun);
            if !begun.is_empty() {
                stdio::print_bytes(stream, escape_control_in_lines(&begun).as_bytes())?;
            }
        }
        Ok(())
    }
}

/// How many bytes come before a character that is not complete yet.
fn whole_characters(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last();
    let rest = last.map_or(&[][..], |last| last.invalid());
    let has_begun = std::str::from_utf8(rest).is_err_and(|error| error.error_len().is_none());
    if has_begun { bytes.len() - rest.len() } else { bytes.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_has_only_begun_waits_for_its_rest() {
        for (bytes, whole) in
            [("a😀".as_bytes(), 5), (&"a😀".as_bytes()[..3], 1), (b"a\xff", 2), (b"\xe2\x82", 0), (b"", 0)]
        {
            assert_eq!(whole_characters(bytes), whole, "{bytes:?}");
        }
    }
}
