//! How a drain is shown: how its calls end, and how far it is.

use std::time::Duration;

use anstyle::AnsiColor;

use super::session::{Session, print_outcome};
use super::stdio;
use crate::domain::attempt::{Ending, FailureKind};
use crate::domain::event::{DrainProgress, Report};
use crate::domain::status::Count;
use crate::domain::time::show_span;
use crate::domain::{job::State, log::Stream};

/// How a call has ended, for a person.
struct EndText {
    /// In a word, and its colour.
    word: (&'static str, AnsiColor),
    /// What a message says.
    text: String,
    /// The short form for a terminal, which shows it after a word and the time.
    brief: String,
    hint: Option<String>,
    /// Whether it is shown only on a terminal or with `--verbose`.
    is_quiet: bool,
}

impl EndText {
    fn of(report: &Report) -> EndText {
        let Report { job, service, function, state, .. } = report;
        let took = show_span(report.took);
        let pause = report.pause.unwrap_or_default();
        let later = format!("tried again in {:.1}s", pause.as_secs_f64());
        let ok = ("ok", AnsiColor::Green);
        let quiet = |word, text: String| EndText { word, brief: text.clone(), text, hint: None, is_quiet: true };
        let (retry, failed) = (("retry", AnsiColor::Yellow), ("failed", AnsiColor::Red));
        match (&report.error, report.ending) {
            (error, Ending::Snoozed) if *state == State::Delayed => {
                let why = error.as_ref().map_or("it asks to run later", |error| error.message.as_str());
                let text = format!("{why}; runs again in {}, and no attempt counts", show_span(pause));
                quiet(("later", AnsiColor::Yellow), text)
            }
            (Some(error), _) if *state == State::Delayed => {
                let then = report
                    .retry
                    .map_or(later, |retry| format!("retry {} of {} in {}", retry.number, retry.of, show_span(pause)));
                quiet(retry, format!("{}; {then}", error.message))
            }
            (Some(error), _) => {
                let hint = if report.lacks_own_site {
                    Some(format!("only this call has that site: make the directory, then run `asyncq job retry {job}`"))
                } else {
                    // Without an exit code, the message already says what to do.
                    let cannot_run = error.kind == FailureKind::CannotRun && error.exit_code.is_some();
                    cannot_run.then(|| {
                        format!(
                            "`asyncq function set {service} {function}` changes its program, site or environment file"
                        )
                    })
                };
                EndText { hint, is_quiet: false, ..quiet(failed, error.message.clone()) }
            }
            (None, Ending::Conflict) if *state == State::Delayed => {
                quiet(retry, format!("temporary failure (exit code 75); {later}"))
            }
            (None, Ending::Interrupted) => {
                let word = ("stopped", AnsiColor::Yellow);
                EndText { is_quiet: false, ..quiet(word, "ended and put back".to_owned()) }
            }
            (None, Ending::Cancelled) => {
                let word = ("cancelled", AnsiColor::Yellow);
                EndText { brief: String::new(), ..quiet(word, format!("cancelled after {took}")) }
            }
            (None, ending) => {
                let in_vain = ending == Ending::Completed && report.in_vain;
                let brief =
                    if in_vain { "it wrote to `$ASYNCQ_LATER`, which counts only with exit code 75" } else { "" };
                let end = format!("{state} after {took}");
                let text = if in_vain { format!("{end}; {brief}") } else { end };
                EndText { brief: brief.to_owned(), ..quiet(ok, text) }
            }
        }
    }
}

/// Prints how a call has ended.
pub fn print_end(session: &Session, report: &Report) {
    let Report { job, service, function, .. } = report;
    let EndText { word, text, brief, hint, is_quiet } = EndText::of(report);
    if session.is_interactive() {
        let brief = if brief.is_empty() { brief } else { format!(": {brief}") };
        let line = format!("job {job} {service} {function} {}{brief}", show_span(report.took));
        return print_outcome(word, &line, hint.as_deref(), is_quiet);
    }
    let text = format!("job {job} (`{service}` `{function}`): {text}");
    match hint {
        _ if is_quiet => session.verbose(&text),
        Some(hint) => session.info_with_hint(&text, &hint),
        None => session.info(&text),
    }
}

/// Shows at the end of the terminal how far a drain is, or removes that line.
pub fn show_progress(progress: Option<&DrainProgress>) {
    let width = stdio::terminal_width(Stream::Err).unwrap_or(80);
    stdio::show_status(progress.map(|progress| progress_line(progress, width)));
}

/// How far a drain is: as many parts as fit into this many columns.
fn progress_line(progress: &DrainProgress, columns: usize) -> String {
    let DrainProgress { done, time, running, queued: Count { number, more } } = progress;
    let more = if *more { "+" } else { "" };
    let mut line = format!("{done} done");
    // Of fewer calls, it would say little.
    let rate = (*done >= 10).then(|| rate(*done, *time));
    for part in [Some(format!("{running} running")), Some(format!("{number}{more} queued")), rate].into_iter().flatten()
    {
        // A terminal may continue on the next line if its last column is used.
        if line.len() + ", ".len() + part.len() < columns {
            line += &format!(", {part}");
        }
    }
    line.truncate(columns.saturating_sub(1));
    line
}

/// How many calls end per second; per minute or hour if that is less than one.
fn rate(done: u64, time: Duration) -> String {
    let of = |unit: u128| u128::from(done) * unit * 1000 / time.as_millis().max(1);
    match (of(1), of(60)) {
        (0, 0) => format!("{}/h", of(3600)),
        (0, minute) => format!("{minute}/min"),
        (second, _) => format!("{second}/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_progress_line_has_room_in_the_terminal() {
        let queued = Count { number: 100_000, more: true };
        let progress = DrainProgress { done: 4127, time: Duration::from_secs(20), running: 8, queued };
        for (columns, line) in [
            (160, "4127 done, 8 running, 100000+ queued, 206/s"),
            (44, "4127 done, 8 running, 100000+ queued, 206/s"),
            (43, "4127 done, 8 running, 100000+ queued"),
            (30, "4127 done, 8 running, 206/s"),
            (12, "4127 done"),
            (4, "412"),
            (0, ""),
        ] {
            assert_eq!(progress_line(&progress, columns), line, "{columns}");
        }
    }

    #[test]
    fn a_rate_is_a_whole_number() {
        for (done, seconds, text) in
            [(5000, 2, "2500/s"), (10, 10, "1/s"), (10, 40, "15/min"), (10, 3600, "10/h"), (7, 0, "7000/s")]
        {
            assert_eq!(rate(done, Duration::from_secs(seconds)), text);
        }
    }
}
