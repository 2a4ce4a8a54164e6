//! The messages of the worker protocol. `docs/protocol.md` has them word for word.

use std::{borrow::Cow, io::Write, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::exit::{ErrorKind, ReportedError};
use crate::domain::{attempt::Failure, job::Claim, json, log::Stream, nested::NestedCalls, object, time::Timestamp};
use crate::runner::call::{CallParams, write_line};
use crate::runner::worker::unicode::{mended, text};
use crate::runner::worker::{CallReport, channel, nested, oversized::LONGEST};

/// The version of the protocol that this build speaks.
const PROTOCOL: u64 = 1;

/// The code for wrong parameters (JSON-RPC 2.0).
const INVALID_PARAMS: i64 = -32602;

/// What a worker says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Hello {
    protocol: u64,
    /// Name and version.
    pub(super) worker: Option<String>,
    /// Its functions; `None` if it has every function.
    pub(super) functions: Option<Vec<String>>,
    /// How many calls it runs at once.
    #[serde(default = "one")]
    pub(super) calls: usize,
    output: Option<String>,
    /// Whether it reads `cancel` while it runs a call.
    #[serde(default)]
    pub(super) cancel: bool,
    /// Whether no call of an earlier processor still runs in a host.
    #[serde(default)]
    pub(super) idle: bool,
    /// Whether the processor prints the output that a host sends.
    #[serde(default = "yes")]
    pub(super) echo: bool,
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

impl Hello {
    /// Whether it runs one call after another.
    pub(super) fn is_serial(&self) -> bool {
        self.calls <= 1
    }

    /// The failure of a call to a function that the worker does not have.
    pub(super) fn missing(&self, function: &str) -> Option<Failure> {
        let known = self.functions.as_ref().filter(|known| !known.iter().any(|name| name == function))?;
        let has = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Some(Failure::not_found(format!("its worker has no function `{function}`; it has {has}")))
    }

    /// Whether its answers count the printed bytes.
    pub(super) fn counts_output(&self) -> bool {
        self.output.as_deref() == Some("counted")
    }
}

/// A message from a worker.
#[derive(Debug, PartialEq)]
pub(super) enum WorkerMessage {
    /// Its hello: the id as it was written, and the content, or why asyncq refuses it.
    Hello(String, Result<Hello, String>),
    /// The answer to the call with this id.
    Answer(u64, Answer),
    /// The call of this job has printed this.
    Output(i64, Stream, String),
    /// The call of this job reports something.
    Report(i64, CallReport),
    /// A notification of a later version.
    Nothing,
}

/// How a call ended, as the worker says it.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) end: CallResult,
    /// The bytes that were printed since the answer before, as the worker counts them.
    pub(super) printed: Option<[u64; 2]>,
    /// The calls that ran inside the call.
    pub(super) nested: Option<Box<NestedCalls>>,
}

/// How a call ended.
#[derive(Debug, PartialEq)]
pub(super) enum CallResult {
    /// With this value as JSON text, if there is one, and whether the function has completed its job itself.
    Value(Option<String>, bool),
    /// With a value that cannot be used: what is wrong with the answer, to continue "its".
    BadValue(String),
    /// With an error.
    Error(ReportedError),
}

#[derive(Deserialize)]
struct MessageFields<'a> {
    jsonrpc: Cow<'a, str>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Returned<'a> {
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    output: Option<[u64; 2]>,
    #[serde(default)]
    completed: bool,
    #[serde(borrow)]
    nested: Option<&'a RawValue>,
    #[serde(borrow)]
    unrecorded: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Raised<'a> {
    code: i64,
    #[serde(borrow)]
    message: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Details<'a> {
    kind: Option<ErrorKind>,
    pause: Option<f64>,
    output: Option<[u64; 2]>,
    #[serde(borrow, rename = "type")]
    class: Option<&'a RawValue>,
    #[serde(borrow)]
    traceback: Option<&'a RawValue>,
    #[serde(borrow)]
    nested: Option<&'a RawValue>,
    #[serde(borrow)]
    unrecorded: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct OutputParams {
    job: i64,
    stream: Stream,
    text: String,
}

#[derive(Deserialize)]
struct ProgressParams<'a> {
    job: i64,
    #[serde(borrow)]
    done: Option<&'a RawValue>,
    #[serde(borrow)]
    of: Option<&'a RawValue>,
    note: Option<String>,
}

/// Reads a message. U+FFFD replaces everything in its texts that is not a character.
///
/// # Errors
/// What is wrong with it, to continue "its worker".
pub(super) fn read(frame: channel::Frame<'_>) -> Result<WorkerMessage, String> {
    let channel::Frame { bytes, is_cut } = frame;
    let said = str::from_utf8(bytes).map_err(|_| invalid("it is not UTF-8")).and_then(|text| parse(text, false));
    let said = match said {
        Err(flaw) => mended(bytes).map_or(Err(flaw), |text| parse(&text, true).map(without_mended_value)),
        said => said,
    };
    if is_cut { said.map(cut) } else { said }
}

/// asyncq never changes a value: it refuses it.
fn without_mended_value(said: WorkerMessage) -> WorkerMessage {
    match said {
        WorkerMessage::Answer(id, answer) if matches!(&answer.end, CallResult::Value(Some(value), _) if value.contains(char::REPLACEMENT_CHARACTER)) =>
        {
            let end = CallResult::BadValue("result has a string that is not valid Unicode".to_owned());
            WorkerMessage::Answer(id, Answer { end, ..answer })
        }
        said => said,
    }
}

/// The meaning of a message that was too long, from the parts that were kept.
fn cut(said: WorkerMessage) -> WorkerMessage {
    let too_long = |what: &str| format!("{what} is longer than {} MiB", LONGEST >> 20);
    match said {
        WorkerMessage::Hello(id, _) => WorkerMessage::Hello(id, Err(too_long("this hello"))),
        WorkerMessage::Answer(id, mut answer) => {
            // Their values may be cut.
            if let Some(nested) = &mut answer.nested {
                nested.leave_out_all();
            }
            if !matches!(answer.end, CallResult::Error(_)) {
                answer.end = CallResult::BadValue(too_long("answer"));
            }
            WorkerMessage::Answer(id, answer)
        }
        WorkerMessage::Output(job, stream, mut text) => {
            let end = if text.ends_with('\n') { "" } else { "\n" };
            text += &format!("{end}asyncq: the rest is left out, as the message {}\n", too_long("").trim_start());
            WorkerMessage::Output(job, stream, text)
        }
        said => said,
    }
}

fn invalid(what: &str) -> String {
    format!("sent an invalid message: {what}")
}

/// Reads a message. If it `is_mended`, U+FFFD may stand in it for anything.
fn parse(text: &str, is_mended: bool) -> Result<WorkerMessage, String> {
    let frame: MessageFields<'_> = object::read(text).map_err(|flaw| invalid(&flaw))?;
    if frame.jsonrpc != "2.0" {
        return Err(invalid("`jsonrpc` is not \"2.0\""));
    }
    let params = frame.params.map_or("{}", RawValue::get);
    let wrong = |flaw: String| invalid(&format!("in its `params`, {flaw}"));
    Ok(match (frame.method.as_deref(), frame.id) {
        (Some("hello"), Some(id)) => WorkerMessage::Hello(id.get().to_owned(), hello(params)),
        (Some("output"), None) => {
            let OutputParams { job, stream, text } = object::read(params).map_err(wrong)?;
            WorkerMessage::Output(job, stream, text)
        }
        (Some("progress"), None) => {
            let ProgressParams { job, done, of, note } = object::read(params).map_err(wrong)?;
            WorkerMessage::Report(job, CallReport::Progress(progress(done, of, note.as_deref())))
        }
        (Some(_), None) => WorkerMessage::Nothing,
        (Some(method), Some(_)) => return Err(format!("called the unknown method `{method}`")),
        (None, None) => return Err(invalid("it has neither `method` nor `id`")),
        (None, Some(id)) => {
            let id: u64 = serde_json::from_str(id.get()).map_err(|_| invalid("its `id` is not a number of asyncq"))?;
            let answer = answer(frame.result, frame.error, is_mended).map_err(|error| invalid(&error))?;
            WorkerMessage::Answer(id, answer)
        }
    })
}

fn hello(params: &str) -> Result<Hello, String> {
    let hello: Hello = object::read(params)?;
    if hello.protocol != PROTOCOL {
        return Err(format!("this asyncq speaks protocol {PROTOCOL}"));
    }
    match hello.output.as_deref() {
        None | Some("counted") => Ok(hello),
        Some(_) => Err("`output` can only be \"counted\"".to_owned()),
    }
}

fn answer(result: Option<&RawValue>, error: Option<&RawValue>, is_mended: bool) -> Result<Answer, String> {
    match (result, error) {
        (Some(result), None) => {
            let Returned { value, output, completed, nested, unrecorded } =
                object::read(result.get()).map_err(|flaw| format!("in its `result`, {flaw}"))?;
            let end = CallResult::Value(value.map(|value| value.get().to_owned()), completed);
            Ok(Answer { end, printed: output, nested: nested::read(nested, unrecorded, is_mended) })
        }
        (None, Some(error)) => {
            let Raised { code, message, data } =
                object::read(error.get()).map_err(|flaw| format!("in its `error`, {flaw}"))?;
            let data = data.map(|data| object::read(data.get())).transpose();
            let Details { kind, pause, output, class, traceback, nested, unrecorded } =
                data.map_err(|flaw| format!("in the `data` of its `error`, {flaw}"))?.unwrap_or_default();
            let pause = pause.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
            let (class, traceback) = (class.and_then(text), traceback.and_then(text));
            let end =
                CallResult::Error(ReportedError { code, kind, pause, message: message.into_owned(), class, traceback });
            Ok(Answer { end, printed: output, nested: nested::read(nested, unrecorded, is_mended) })
        }
        _ => Err("it needs either `result` or `error`".to_owned()),
    }
}

/// A progress report as one text.
fn progress(done: Option<&RawValue>, of: Option<&RawValue>, note: Option<&str>) -> String {
    let number = |value: Option<&RawValue>| value.and_then(|value| value.get().parse::<f64>().ok());
    let mut text = match (number(done), number(of)) {
        (Some(done), Some(of)) => format!("{done} of {of}"),
        (Some(done), None) => done.to_string(),
        (None, _) => String::new(),
    };
    if let Some(note) = note.filter(|note| !note.is_empty()) {
        // Not every database keeps a NUL in a text.
        let note: String = note.chars().filter(|it| *it != '\0').take(200).collect();
        text += &if text.is_empty() { note } else { format!(": {note}") };
    }
    text
}

/// Writes the answer to a hello.
pub(super) fn write_welcome(into: &mut Vec<u8>, id: &str, refused: Option<&str>) {
    let _ = match refused {
        None => write!(
            into,
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"protocol":{PROTOCOL},"asyncq":"{}"}}}}"#,
            env!("CARGO_PKG_VERSION")
        ),
        Some(why) => write!(
            into,
            r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{INVALID_PARAMS},"message":{}}}}}"#,
            json::quote(why)
        ),
    };
    into.push(b'\n');
}

/// A call, as JSON-RPC has it.
#[derive(Serialize)]
struct CallMessage<'a> {
    jsonrpc: &'static str,
    id: u64,
    method: &'static str,
    params: CallParams<'a>,
}

/// Writes a call with this id.
pub(super) fn write_call(into: &mut Vec<u8>, id: u64, claim: &Claim, deadline: Option<Timestamp>) {
    let params = CallParams::for_worker(claim, deadline);
    write_line(into, &CallMessage { jsonrpc: "2.0", id, method: "call", params });
}

/// Writes the request to end a call.
pub(super) fn write_cancel(into: &mut Vec<u8>, claim: &Claim, why: &str) {
    let job = claim.fence.job;
    let _ = writeln!(into, r#"{{"jsonrpc":"2.0","method":"cancel","params":{{"job":{job},"why":"{why}"}}}}"#);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(params: &str) -> Result<WorkerMessage, String> {
        read_all(format!(r#"{{"jsonrpc":"2.0",{params}}}"#).as_bytes())
    }

    fn read_all(bytes: &[u8]) -> Result<WorkerMessage, String> {
        read(channel::Frame { bytes, is_cut: false })
    }

    fn reported(code: i64, kind: Option<ErrorKind>, pause: Option<Duration>, message: &str) -> CallResult {
        let message = message.to_owned();
        CallResult::Error(ReportedError { code, kind, pause, message, ..ReportedError::default() })
    }

    #[test]
    fn hello_is_understood() {
        let Ok(WorkerMessage::Hello(id, Ok(hello))) =
            said(r#""id":"a","method":"hello","params":{"protocol":1,"new":[]}"#)
        else {
            panic!("no hello")
        };
        assert_eq!(
            (id.as_str(), hello.is_serial(), hello.counts_output(), hello.cancel),
            ("\"a\"", true, false, false)
        );
        for (params, why) in [
            (r#"{"protocol":2}"#, "this asyncq speaks protocol 1"),
            ("{}", "`protocol` is missing"),
            (r#"{"protocol":"1"}"#, "`protocol` has to be a whole number from 0"),
            ("[1,null,null,1,null,false,false]", "it has to be an object"),
            (r#"{"protocol":1,"output":"some"}"#, "can only be"),
        ] {
            match said(&format!(r#""id":0,"method":"hello","params":{params}"#)) {
                Ok(WorkerMessage::Hello(_, Err(refused))) => assert!(refused.contains(why), "{refused}"),
                other => panic!("{params}: {other:?}"),
            }
        }
    }

    #[test]
    fn answers_are_understood() {
        let end = |text: &str| match said(&format!(r#""id":7,{text}"#)) {
            Ok(WorkerMessage::Answer(7, answer)) => answer.end,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(end(r#""result":{}"#), CallResult::Value(None, false));
        assert_eq!(end(r#""result":{"value":null}"#), CallResult::Value(None, false));
        assert_eq!(
            end(r#""result":{"value":1.10,"completed":true}"#),
            CallResult::Value(Some("1.10".to_owned()), true)
        );
        let error = |code, data: &str| end(&format!(r#""error":{{"code":{code},"message":"no\n"{data}}}"#));
        let reported = |code, kind, pause| reported(code, kind, pause, "no\n");
        assert_eq!(error(1, ""), reported(1, None, None));
        for (name, kind) in [
            ("error", ErrorKind::Error),
            ("conflict", ErrorKind::Conflict),
            ("snooze", ErrorKind::Snooze),
            ("cannot-run", ErrorKind::CannotRun),
        ] {
            assert_eq!(error(75, &format!(r#","data":{{"kind":"{name}"}}"#)), reported(75, Some(kind), None));
        }
        let pause = error(1, r#","data":{"kind":"conflict","pause":0.5}"#);
        assert_eq!(pause, reported(1, Some(ErrorKind::Conflict), Some(Duration::from_millis(500))));
        assert_eq!(error(75, r#","data":{"pause":-1}"#), reported(75, None, Some(Duration::ZERO)));
        assert_eq!(error(75, r#","data":{"pause":1e300}"#), reported(75, None, None));
    }

    #[test]
    fn progress_is_told_in_words() {
        let progress = |params: &str| match said(&format!(r#""method":"progress","params":{params}"#)) {
            Ok(WorkerMessage::Report(job, CallReport::Progress(text))) => (job, text),
            other => panic!("{params}: {other:?}"),
        };
        assert_eq!(progress(r#"{"job":1,"done":3,"of":10,"note":"x"}"#), (1, "3 of 10: x".to_owned()));
        assert_eq!(progress(r#"{"job":1,"done":0.5}"#), (1, "0.5".to_owned()));
        assert_eq!(progress(r#"{"job":1,"note":"x"}"#), (1, "x".to_owned()));
        assert_eq!(progress(r#"{"job":1,"note":"a\u0000b"}"#), (1, "ab".to_owned()));
    }

    #[test]
    fn what_is_invalid_is_refused() {
        for bad in [
            "",
            "no",
            "[]",
            r#"["2.0",1,null,null,{},null]"#,
            "{}",
            r#""id":1"#,
            r#"{"jsonrpc":"1.0","id":1,"result":{}}"#,
        ] {
            assert!(read_all(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(read_all(b"\xff").is_err());
        for bad in [
            r#""id":1"#,
            r#""id":1,"result":{},"error":{"code":1,"message":""}"#,
            r#""id":"x","result":{}"#,
            r#""id":1,"result":3"#,
            r#""id":1,"result":[null,null,false]"#,
            r#""id":1,"error":[1,"no",null]"#,
            r#""id":1,"error":{"code":1,"message":"no","data":["conflict",null,null]}"#,
            r#""method":"output","params":[1,"out","text"]"#,
            r#""method":"progress","params":[1,1,2,null]"#,
            r#""id":1,"id":1,"result":{}"#,
            r#""id":1,"method":"drop","params":{}"#,
            r#""method":"output","params":{"job":1,"stream":"up","text":""}"#,
        ] {
            assert!(said(bad).is_err(), "{bad}");
        }
        assert_eq!(said(r#""method":"later","params":[1]"#), Ok(WorkerMessage::Nothing));
    }

    #[test]
    fn what_is_no_character_is_replaced_in_texts_and_refused_in_values() {
        let line = |text: &[u8]| {
            let answer = [br#"{"jsonrpc":"2.0","\ud800":1,"id":7,"#, text, b"}"].concat();
            match read_all(&answer) {
                Ok(WorkerMessage::Answer(7, answer)) => answer.end,
                other => panic!("{}: {other:?}", text.escape_ascii()),
            }
        };
        let error = |message: &[u8]| line(&[br#""error":{"code":1,"message":""#, message, br#""}"#].concat());
        for (message, told) in [
            (&br"caf\ud83d"[..], "caf\u{fffd}"),
            (br"\uDC00\ud83d\udc00\\ud83d", "\u{fffd}\u{1f400}\\ud83d"),
            (br"\ud83d\ud83d\udc00\ud83d\n", "\u{fffd}\u{1f400}\u{fffd}\n"),
            (b"a\xffb\xc3", "a\u{fffd}b\u{fffd}"),
            (b"\\ud83d\xed\xa0\xbd\xc3\xa4", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{e4}"),
        ] {
            assert_eq!(error(message), reported(1, None, None, told), "{}", message.escape_ascii());
        }
        let value = |value: &[u8]| line(&[br#""result":{"value":"#, value, b"}"].concat());
        assert!(matches!(value(b"[\"\xff\"]"), CallResult::BadValue(_)));
        assert!(matches!(value(br#"["\ud83d"]"#), CallResult::BadValue(_)));
        assert_eq!(value("\"\u{e4}\"".as_bytes()), CallResult::Value(Some("\"\u{e4}\"".to_owned()), false));
        for bad in [&b"\"a\xff"[..], br#""\ud8""#, br#""\ud83d\x""#, b"\"\\\xff\""] {
            assert!(read_all(&[br#"{"jsonrpc":"2.0","id":7,"result":{"value":"#, bad, b"}}"].concat()).is_err());
        }
    }

    #[test]
    fn what_was_cut_is_told() {
        let cut = |params: &str| {
            let line = format!(r#"{{"jsonrpc":"2.0",{params}}}"#);
            read(channel::Frame { bytes: line.as_bytes(), is_cut: true }).unwrap()
        };
        let too_long = CallResult::BadValue("answer is longer than 4 MiB".to_owned());
        let answer = |end, printed| WorkerMessage::Answer(1, Answer { end, printed, nested: None });
        assert_eq!(cut(r#""id":1,"result":{"value":null,"output":[1,0]}"#), answer(too_long, Some([1, 0])));
        assert_eq!(cut(r#""id":1,"error":{"code":75,"message":"x"}"#), answer(reported(75, None, None, "x"), None));
        assert!(matches!(cut(r#""id":1,"method":"hello","params":{"protocol":1}"#), WorkerMessage::Hello(_, Err(_))));
        let text = "ab\nasyncq: the rest is left out, as the message is longer than 4 MiB\n".to_owned();
        let params = r#""method":"output","params":{"job":1,"stream":"out","text":"ab"}"#;
        assert_eq!(cut(params), WorkerMessage::Output(1, Stream::Out, text));
    }
}
