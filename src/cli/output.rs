//! Shows data to people.
//!
//! Invariant: text that asyncq did not write reaches a terminal only through [`escape_control`].

use std::io::ErrorKind;

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;

use super::{session::to_terminal, stdio};
use crate::domain::time::{Timestamp, show_span};
use crate::domain::{job::State, text::escape_control};

/// One thing, as one line for each field with its name and its value.
pub struct FieldList(Vec<(&'static str, String)>);

impl FieldList {
    /// A list without fields.
    pub fn new() -> FieldList {
        FieldList(Vec::new())
    }

    /// Adds a field. Its value is already safe to show.
    pub fn line(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.push((name, value.into()));
    }

    /// Prints it.
    pub fn print(self) -> anyhow::Result<()> {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut lines = String::new();
        for (name, value) in &self.0 {
            lines += format!("{name:width$}  {value}").trim_end();
            lines.push('\n');
        }
        Ok(stdio::print(&lines)?)
    }
}

/// A command line that a shell can read.
pub fn command_line(command: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c);
    let words = command.iter().map(|word| {
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A state, with its colour.
pub fn state(state: State) -> String {
    let style = match state {
        State::Completed => AnsiColor::Green.on_default(),
        State::Error => AnsiColor::Red.on_default(),
        State::Processing => AnsiColor::Cyan.on_default(),
        State::Held | State::Blocked | State::Delayed | State::Cancelled => AnsiColor::Yellow.on_default(),
        State::Queued => Style::new(),
    };
    format!("{style}{state}{style:#}")
}

/// Text that asyncq did not write, safe to show.
pub fn text(text: &str) -> String {
    escape_control(text).into_owned()
}

/// The same, or a dash if there is none.
pub fn or_dash(value: Option<&str>) -> String {
    value.map_or_else(|| "-".to_owned(), text)
}

/// A moment: local time on a terminal, else RFC 3339 in UTC.
pub fn moment(moment: Timestamp) -> String {
    let local = || {
        let zone = TimeZone::try_system().ok()?;
        let local = jiff::Timestamp::from_millisecond(moment.0).ok()?.to_zoned_datetime(zone);
        Some(local.strftime("%Y-%m-%d %H:%M:%S %Z").to_string())
    };
    let local = if to_terminal() { local() } else { None };
    local.unwrap_or_else(|| moment.to_string())
}

/// A moment as the clocks of a time zone show it, with the day of the week.
pub fn moment_in(moment: Timestamp, zone: &TimeZone) -> String {
    let Ok(exact) = jiff::Timestamp::from_millisecond(moment.0) else { return moment.to_string() };
    exact.to_zoned_datetime(zone.clone()).strftime("%a %Y-%m-%d %H:%M:%S%:z").to_string()
}

/// A moment relative to now: `3m ago`, `in 5h`.
pub fn relative(moment: Timestamp, now: Timestamp) -> String {
    if moment > now {
        format!("in {}", show_span(moment.since(now)))
    } else if now.since(moment).as_secs() == 0 {
        "now".to_owned()
    } else {
        format!("{} ago", show_span(now.since(moment)))
    }
}

/// Whether this error means that the reader of our output has closed it, as `head` does. That is no failure.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_pipe = |error: &std::io::Error| error.kind() == ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(is_pipe))
}

/// Things one after another: `1, 2, 3`.
pub fn list(things: impl IntoIterator<Item = impl ToString>) -> String {
    things.into_iter().map(|thing| thing.to_string()).collect::<Vec<_>>().join(", ")
}

/// A number with its noun: `1 job`, `2 jobs`.
pub fn count(number: impl Into<i128>, one: &str, many: &str) -> String {
    let number = number.into();
    format!("{number} {}", if number == 1 { one } else { many })
}
