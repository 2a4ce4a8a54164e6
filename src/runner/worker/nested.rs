//! The calls inside a call, as answers report them. An invalid report is left out and counted: it never harms the call.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::attempt::Outcome;
use crate::domain::call::Call;
use crate::domain::exit::{ErrorKind, ReportedError};
use crate::domain::function::FunctionName;
use crate::domain::json::Json;
use crate::domain::nested::{LONGEST, NestedCall, NestedCalls};
use crate::domain::object;
use crate::domain::service::ServiceName;
use crate::runner::worker::unicode::{mended, text};

/// The longest time that a call can be said to have taken, in milliseconds.
const LONGEST_TIME: u32 = u32::MAX;

#[derive(Deserialize)]
struct Depth {
    depth: i64,
}

#[derive(Deserialize)]
struct Reported<'a> {
    #[serde(borrow)]
    service: Cow<'a, str>,
    #[serde(borrow)]
    function: Cow<'a, str>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
    #[serde(borrow)]
    kwargs: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    milliseconds: Option<f64>,
}

#[derive(Deserialize)]
struct NestedError<'a> {
    #[serde(borrow)]
    message: Cow<'a, str>,
    kind: Option<ErrorKind>,
    #[serde(borrow, rename = "type")]
    class: Option<&'a RawValue>,
}

/// Reads a list of reports, and how many calls it leaves out; `None` if there were no calls. If the line `is_mended`, U+FFFD in it
/// may stand for anything.
pub(super) fn read(
    list: Option<&RawValue>,
    unrecorded: Option<&RawValue>,
    is_mended: bool,
) -> Option<Box<NestedCalls>> {
    let reports: Vec<&RawValue> = list.and_then(|list| serde_json::from_str(list.get()).ok()).unwrap_or_default();
    let (mut nested, mut bytes) = (NestedCalls::default(), 0);
    for (number, report) in reports.iter().map(|report| report.get()).enumerate() {
        if !nested.has_room() {
            nested.leave_out((reports.len() - number) as u64);
            break;
        }
        let depth = object::read(report).map_or(0, |it: Depth| it.depth);
        let fits = bytes + report.len() <= LONGEST;
        let recorded = nested.calls.len();
        nested.add(depth, if fits { call(report, is_mended) } else { None });
        if nested.calls.len() > recorded {
            bytes += report.len();
        }
    }
    nested.leave_out(unrecorded.and_then(|count| count.get().parse().ok()).unwrap_or_default());
    (!nested.calls.is_empty() || nested.unrecorded > 0).then(|| Box::new(nested))
}

fn call(report: &str, is_mended: bool) -> Option<NestedCall> {
    let Reported { service, function, args, kwargs, value, error, milliseconds } = object::read(report).ok()?;
    let json = |part: &str| {
        // asyncq never changes a value.
        let may_be_changed = is_mended && part.contains(char::REPLACEMENT_CHARACTER);
        Json::parse(part).ok().filter(|_| !may_be_changed)
    };
    let args = json(args.map_or("[]", RawValue::get)).filter(Json::is_array)?;
    let kwargs = json(kwargs.map_or("{}", RawValue::get)).filter(Json::is_object)?;
    let call = Call::new(ServiceName::parse(&service).ok()?, FunctionName::parse(&function).ok()?, args, kwargs);
    let (outcome, result) = match (error, value) {
        (Some(error), _) => (outcome(error.get())?, None),
        (None, Some(value)) => (Outcome::Completed, Some(json(value.get())?)),
        (None, None) => (Outcome::Completed, None),
    };
    let milliseconds = milliseconds.unwrap_or_default();
    let is_possible = (0.0..=f64::from(LONGEST_TIME)).contains(&milliseconds);
    let took = Duration::try_from_secs_f64(milliseconds / 1000.0).ok().filter(|_| is_possible)?;
    Some(NestedCall { call, parent: None, depth: 0, outcome, result, took })
}

fn outcome(error: &str) -> Option<Outcome> {
    let mended = mended(error.as_bytes());
    let NestedError { message, kind, class } =
        object::read(error).ok().or_else(|| object::read(mended.as_deref()?).ok())?;
    let kind = Some(kind.unwrap_or(ErrorKind::Error));
    let error =
        ReportedError { kind, message: message.into_owned(), class: class.and_then(text), ..ReportedError::default() };
    Some(error.outcome())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(list: &str) -> NestedCalls {
        let list: &RawValue = serde_json::from_str(list).unwrap();
        read(Some(list), None, false).map_or_else(NestedCalls::default, |nested| *nested)
    }

    fn failure(error: &str) -> Option<(String, Option<String>)> {
        let report = format!(r#"[{{"service":"events","function":"inner","depth":1,"error":{error}}}]"#);
        match read_text(&report).calls.pop()?.outcome {
            Outcome::Failed(failure) => Some((failure.message, failure.class)),
            Outcome::Conflict(conflict) => Some(("in conflict: ".to_owned() + &conflict.failure(1).message, None)),
            outcome => panic!("{outcome:?}"),
        }
    }

    #[test]
    fn a_call_is_read() {
        let mut nested = read_text(
            r#"[{"service":"events","function":"shop.inner","args":[1.10],"kwargs":{"a":1},"depth":1,"milliseconds":2.5,"value":3,"new":[]}]"#,
        );
        let NestedCall { call, parent, depth, outcome, result, took } = nested.calls.pop().unwrap();
        assert_eq!((call.service.as_str(), call.function.as_str()), ("events", "shop.inner"));
        assert_eq!((call.args.as_str(), call.kwargs.as_str()), ("[1.10]", r#"{"a":1}"#));
        assert_eq!((parent, depth, outcome, took), (None, 1, Outcome::Completed, Duration::from_micros(2500)));
        assert_eq!((result.unwrap().as_str(), nested.unrecorded), ("3", 0));
        let plain = read_text(r#"[{"service":"events","function":"inner","depth":1,"args":null,"value":null}]"#);
        let call = &plain.calls[0];
        assert_eq!((call.call.args.as_str(), call.result.as_ref(), call.took), ("[]", None, Duration::ZERO));
    }

    #[test]
    fn an_error_is_read() {
        let of = |error: &str| failure(error).unwrap();
        assert_eq!(of(r#"{"message":"no","type":"shop.Late"}"#), ("no".to_owned(), Some("shop.Late".to_owned())));
        assert_eq!(of(r#"{"message":"caf\ud83d","type":7}"#), ("caf\u{fffd}".to_owned(), None));
        assert_eq!(of(r#"{"message":"locked","kind":"conflict"}"#).0, "in conflict: locked");
        assert_eq!(failure(r#"{"type":"shop.Late"}"#), None);
        assert_eq!(failure(r#""no""#), None);
    }

    #[test]
    fn what_is_not_valid_is_left_out_and_counted() {
        for report in [
            "3",
            "null",
            "[]",
            r#"{"function":"inner","depth":1}"#,
            r#"{"service":"Events","function":"inner","depth":1}"#,
            r#"{"service":"events","function":"-x","depth":1}"#,
            r#"{"service":"events","function":"inner"}"#,
            r#"{"service":"events","function":"inner","depth":0}"#,
            r#"{"service":"events","function":"inner","depth":2}"#,
            r#"{"service":"events","function":"inner","depth":-9223372036854775808}"#,
            r#"{"service":"events","function":"inner","depth":"1"}"#,
            r#"{"service":"events","function":"inner","depth":1,"args":{}}"#,
            r#"{"service":"events","function":"inner","depth":1,"args":["\ud83d"]}"#,
            r#"{"service":"events","function":"inner","depth":1,"args":["\u0000"]}"#,
            r#"{"service":"events","function":"inner","depth":1,"kwargs":[]}"#,
            r#"{"service":"events","function":"inner","depth":1,"kwargs":{"a":1,"a":2}}"#,
            r#"{"service":"events","function":"inner","depth":1,"value":"\ud83d"}"#,
            r#"{"service":"events","function":"inner","depth":1,"milliseconds":-1}"#,
            r#"{"service":"events","function":"inner","depth":1,"milliseconds":1e300}"#,
            r#"{"service":"events","function":"inner","depth":1,"milliseconds":"3"}"#,
        ] {
            let nested = read_text(&format!("[{report}]"));
            assert_eq!((nested.calls.len(), nested.unrecorded), (0, 1), "{report}");
        }
        for list in ["3", "{}", "\"x\"", "[]"] {
            assert_eq!(read_text(list), NestedCalls::default(), "{list}");
        }
        let count = |text: &str| {
            let count: &RawValue = serde_json::from_str(text).unwrap();
            read(None, Some(count), false).map_or(0, |nested| nested.unrecorded)
        };
        assert_eq!(["7", "18446744073709551615", "-1", "1.5", "\"7\"", "[]"].map(count), [7, u64::MAX, 0, 0, 0, 0]);
    }

    #[test]
    fn a_hundred_calls_and_a_mebibyte_of_them_are_kept() {
        let many = vec![r#"{"service":"events","function":"inner","depth":1}"#; 10_000].join(",");
        let nested = read_text(&format!("[{many}]"));
        assert_eq!((nested.calls.len(), nested.unrecorded), (100, 9900));
        let value = "x".repeat(LONGEST / 3);
        let long = format!(r#"{{"service":"events","function":"inner","depth":1,"value":"{value}"}}"#);
        let child = r#"{"service":"events","function":"inner","depth":2}"#;
        let nested = read_text(&format!("[{long},{long},{long},{child},{child}]"));
        assert_eq!((nested.calls.len(), nested.unrecorded), (2, 3));
        assert!(nested.bytes() > LONGEST / 2);
    }
}
