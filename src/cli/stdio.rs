//! stdin, stdout and stderr, as this process shares them with others.
//!
//! Invariants: if another process sets `O_NONBLOCK` on one of them, asyncq waits and loses nothing. A message is one write, on
//! a line of its own. Output that cannot be written while a processor runs is counted and reported, and the next output is
//! tried again.

use std::borrow::Cow;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};

use anstream::{AutoStream, ColorChoice};

use super::descriptor::{Written, descriptor, write};
use crate::domain::{console::Messages, log::Stream};
use crate::error::{Error, Kind, reason};

/// stdout or stderr, without a buffer.
#[derive(Debug, Clone, Copy)]
pub struct Sink(pub Stream);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let outcome = write(self.0, bytes)?;
        if let Written::Bytes(count) = outcome {
            state().record(self.0, &bytes[..count]);
            return Ok(count);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a stream is a terminal.
pub fn is_terminal(stream: Stream) -> bool {
    descriptor(stream).is_terminal()
}

/// Whether both streams end in the same file, and so in one order.
pub static JOINT: LazyLock<bool> = LazyLock::new(|| {
    let ends = [Stream::Out, Stream::Err].map(|stream| rustix::fs::fstat(descriptor(stream)));
    matches!(ends, [Ok(out), Ok(err)] if (out.st_dev, out.st_ino) == (err.st_dev, err.st_ino))
});

/// Whether stdout is a terminal. It counts as the one that stderr shows.
static ON_TERMINAL: LazyLock<bool> = LazyLock::new(|| is_terminal(Stream::Out));

/// Takes standard input for one purpose. Two values cannot both come from there.
///
/// # Errors
/// [`Kind::Usage`] when another value comes from there.
pub fn claim_stdin(what: &str) -> Result<(), Error> {
    static TAKEN: OnceLock<String> = OnceLock::new();
    let taken = TAKEN.get_or_init(|| what.to_owned());
    if taken == what {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, format!("{taken} and {what} cannot both come from standard input"))
        .with_hint("put one of them into a file"))
}

/// Prints text to stdout, with styles only if they are wanted. If that fails, so does the command.
pub fn print(text: &str) -> Result<(), Error> {
    print_bytes(Stream::Out, styled(Stream::Out, text).as_bytes())
}

/// Prints a line of data. If that fails, so does the command.
pub fn print_line(line: impl std::fmt::Display) -> anyhow::Result<()> {
    Ok(print_bytes(Stream::Out, format!("{line}\n").as_bytes())?)
}

/// Writes data unchanged. If that fails, so does the command.
pub fn print_bytes(stream: Stream, bytes: &[u8]) -> Result<(), Error> {
    Sink(stream).write_all(bytes).map_err(|error| cannot_write(stream, error))
}

/// The error for data that could not be written.
pub fn cannot_write(stream: Stream, error: io::Error) -> Error {
    let hint = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "make room there, or send the output elsewhere, and run the command again"
        }
        ErrorKind::FileTooLarge => "`ulimit -f` shows how large a file may be, in blocks",
        _ => "send the output elsewhere, and run the command again",
    };
    let message = format!("cannot write to {}: {}", name(stream), in_words(&error));
    Error::new(Kind::Io, message).with_hint(hint).with_source(error)
}

/// The reason for a failed write, as a part of a sentence.
pub fn in_words(error: &io::Error) -> String {
    if error.kind() == ErrorKind::StorageFull {
        return "no space left on the device".to_owned();
    }
    let mut said = reason(error);
    if let Some(first) = said.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    said
}

fn styled(stream: Stream, text: &str) -> Cow<'_, str> {
    let choice = match stream {
        Stream::Out => AutoStream::choice(&io::stdout()),
        Stream::Err => AutoStream::choice(&io::stderr()),
    };
    if choice == ColorChoice::Never { anstream::adapter::strip_str(text).to_string().into() } else { text.into() }
}

/// Prints a message to stderr, on lines of its own. `text` ends with a line feed. While functions print, the message comes after
/// everything that they have printed before. It is no error if nobody reads stderr.
pub fn print_message(text: &str) {
    let bytes = styled(Stream::Err, text).into_owned().into_bytes();
    let messages = state().messages.clone();
    let unsent = match messages {
        Some(messages) => messages.say(bytes).err(),
        None => Some(bytes),
    };
    if let Some(bytes) = unsent {
        put(Stream::Err, &bytes, true);
    }
}

/// From now on, messages go through `messages`; with `None`, they are written at once.
pub fn send_messages_through(messages: Option<Messages>) {
    state().messages = messages;
}

/// Prints a line that nobody should wait for. While many messages wait for their reader, it only counts the line, and a later line
/// says how many are missing. `text` ends with a line feed.
pub fn print_passing(text: &str) {
    let mut state = state();
    if state.is_behind() {
        state.skipped += 1;
        return;
    }
    drop(state);
    report_skipped();
    print_message(text);
}

/// Says how many lines of [`print_passing`] are missing.
pub fn report_skipped() {
    let skipped = std::mem::take(&mut state().skipped);
    if skipped > 0 {
        print_message(&format!("[{skipped} lines like this are left out, because the terminal was too slow]\n"));
    }
}

/// What erases the line of a terminal.
const ERASE: &[u8] = b"\r\x1b[K";

/// Keeps this line, which has no line feed, at the end of a terminal, below everything else. `None` removes it. It is hidden while
/// the line before it is not complete. stderr has to be a terminal. Nothing waits for this line.
pub fn show_status(line: Option<String>) {
    let messages = {
        let mut state = state();
        state.status = line;
        if state.is_behind() {
            return;
        }
        state.messages.clone()
    };
    // An empty message draws the line, in the thread that writes everything else.
    if messages.is_none_or(|messages| messages.say(Vec::new()).is_err()) {
        put(Stream::Err, b"", true);
    }
}

/// Somebody else may have left an incomplete line on stderr, so the next message begins a new line.
pub fn begin_line() {
    state().of(Stream::Err).line = LastLine::Begun;
}

/// Draws the line that stays at the end of the terminal. A failure is neither reported nor tried again.
fn draw_status() {
    let mut state = state();
    if state.may_show_status()
        && let Some(line) = state.status.clone()
    {
        state.status_is_shown = true;
        drop(state);
        let _ = rustix::io::write(descriptor(Stream::Err), line.as_bytes());
    }
}

/// How many columns a terminal has.
pub fn terminal_width(stream: Stream) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(descriptor(stream)).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Writes a piece, and waits for its reader. Lost bytes are counted, unless the reader is gone.
pub fn put(stream: Stream, piece: &[u8], own_line: bool) {
    let before = state().before(stream, own_line, piece.is_empty());
    if piece.is_empty() {
        let _ = rustix::io::write(descriptor(Stream::Err), before);
        return draw_status();
    }
    let bytes = if before.is_empty() { Cow::from(piece) } else { [before, piece].concat().into() };
    match write_all(stream, &bytes) {
        Ok(()) => report_losses(false),
        Err((error, _)) if error.kind() == ErrorKind::BrokenPipe => true,
        Err((error, rest)) => {
            let reports = state().lose(stream, rest.min(piece.len()), &error);
            let text = format!(
                "asyncq: cannot write to {}: {}; trying again with the next output\n",
                name(stream),
                in_words(&error)
            );
            reports && print_at_once(&text)
        }
    };
    draw_status();
}

/// Writes everything, or returns the error and how many bytes were left.
fn write_all(stream: Stream, bytes: &[u8]) -> Result<(), (io::Error, usize)> {
    let mut left = bytes;
    while !left.is_empty() {
        match Sink(stream).write(left) {
            Ok(0) => return Err((ErrorKind::WriteZero.into(), left.len())),
            Ok(count) => left = &left[count..],
            Err(error) => return Err((error, left.len())),
        }
    }
    state().of(stream).failing = false;
    Ok(())
}

fn name(stream: Stream) -> &'static str {
    match stream {
        Stream::Out => "stdout",
        Stream::Err => "stderr",
    }
}

/// Reports the losses of streams that work again, or of both streams. Returns whether everything is reported.
pub fn report_losses(of_both: bool) -> bool {
    let mut all = true;
    for stream in [Stream::Out, Stream::Err] {
        let text = {
            let mut state = state();
            let one = state.of(stream);
            let Some(why) = &one.why else { continue };
            if one.failing && !of_both {
                continue;
            }
            format!("asyncq: {} bytes could not be written to {}: {}\n", one.lost, name(stream), in_words(why))
        };
        if print_at_once(&text) {
            let mut state = state();
            let one = state.of(stream);
            (one.lost, one.why) = (0, None);
        } else {
            all = false;
        }
    }
    all
}

/// Prints a problem of the streams themselves to stderr at once. Returns whether that worked.
fn print_at_once(text: &str) -> bool {
    let before = state().before(Stream::Err, true, false);
    write_all(Stream::Err, &[before, text.as_bytes()].concat()).is_ok()
}

/// The state of both streams.
#[derive(Default)]
struct Streams {
    streams: [StreamState; 2],
    messages: Option<Messages>,
    /// How many lines were left out because other messages were waiting.
    skipped: u64,
    /// The line at the end of the terminal, and whether it is there now.
    status: Option<String>,
    status_is_shown: bool,
}

/// The state of a stream.
#[derive(Default)]
struct StreamState {
    line: LastLine,
    /// Whether the last write failed.
    failing: bool,
    /// Whether a failure was reported.
    reported: bool,
    /// How many bytes are lost and not reported yet, and why.
    lost: u64,
    why: Option<io::Error>,
}

/// The state of the last line that was written.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum LastLine {
    #[default]
    Ended,
    Begun,
    /// It has no end, because its rest was lost.
    Torn,
}

fn state() -> MutexGuard<'static, Streams> {
    static STATE: LazyLock<Mutex<Streams>> = LazyLock::new(Mutex::default);
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Streams {
    fn of(&mut self, stream: Stream) -> &mut StreamState {
        &mut self.streams[usize::from(stream == Stream::Err)]
    }

    /// Whether many messages wait for their reader.
    fn is_behind(&self) -> bool {
        self.messages.as_ref().is_some_and(|messages| messages.is_behind())
    }

    /// Whether the cursor of the terminal is at the beginning of a line.
    fn may_show_status(&mut self) -> bool {
        let streams: &[Stream] = if *ON_TERMINAL { &[Stream::Out, Stream::Err] } else { &[Stream::Err] };
        streams.iter().all(|stream| self.of(*stream).line == LastLine::Ended)
    }

    /// What to write to a stream before the next output.
    fn before(&mut self, stream: Stream, own_line: bool, only_status: bool) -> &'static [u8] {
        if self.status_is_shown && (stream == Stream::Err || *ON_TERMINAL) {
            self.status_is_shown = false;
            // It is shown only where a line begins.
            return ERASE;
        }
        if !only_status && self.breaks_line(stream, own_line) { b"\n" } else { b"" }
    }

    /// Remembers whether the written bytes end a line.
    fn record(&mut self, stream: Stream, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        let line = if *last == b'\n' { LastLine::Ended } else { LastLine::Begun };
        for one in if *JOINT { &mut self.streams[..] } else { std::slice::from_mut(self.of(stream)) } {
            one.line = line;
        }
    }

    /// Whether a line feed has to come first: a message has a line of its own, and nothing continues a line that lost its end.
    fn breaks_line(&mut self, stream: Stream, own_line: bool) -> bool {
        match self.of(stream).line {
            LastLine::Ended => false,
            LastLine::Begun => own_line,
            LastLine::Torn => true,
        }
    }

    /// Counts lost bytes. Returns whether to report them at once.
    fn lose(&mut self, stream: Stream, bytes: usize, error: &io::Error) -> bool {
        let stderr_works = !*JOINT && stream == Stream::Out && !self.of(Stream::Err).failing;
        let one = self.of(stream);
        one.lost += bytes as u64;
        one.why = error.raw_os_error().map(io::Error::from_raw_os_error).or_else(|| Some(error.kind().into()));
        one.failing = true;
        if one.line == LastLine::Begun {
            one.line = LastLine::Torn;
        }
        !std::mem::replace(&mut one.reported, true) && stderr_works
    }
}
