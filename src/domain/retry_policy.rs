//! How often a function is tried again, after which failures, and how long it pauses before. Pure.

use std::{fmt, num::NonZeroU32, time::Duration};

use serde::{Deserialize, Serialize};

use super::attempt::{Failure, FailureKind};
use super::suggest::nearest;
use super::text::escape_control;
use super::time::{parse_span, write_span};
use crate::error::{Error, Kind, Result};

/// How often a function that reports a conflict, or that cannot be started, is tried in all, unless its policy says otherwise.
const CONFLICTS: NonZeroU32 = NonZeroU32::new(3).unwrap();

/// The longest pause that a policy may ask for: 366 days.
pub const LONGEST_WAIT: Duration = Duration::from_secs(366 * 24 * 3600);

/// The kinds of failure that a list may name.
const KINDS: [(&str, FailureKind); 7] = [
    ("exit", FailureKind::Exit),
    ("error", FailureKind::Error),
    ("signal", FailureKind::Signal),
    ("timeout", FailureKind::Timeout),
    ("conflict", FailureKind::Conflict),
    ("cannot-run", FailureKind::CannotRun),
    ("bad-result", FailureKind::BadResult),
];

/// What is tried again where no list says more.
const USUAL: &str = "exit,error,signal,timeout,conflict";

/// The name of all of them.
const ANY: &str = "any";

/// How a function is tried again. By default, it is tried three times in all after conflicts, and not again after any other
/// failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct RetryPolicy {
    /// How many times a failed call is tried again.
    pub retries: u32,
    /// How long it pauses before that.
    pub backoff: Backoff,
    /// After which failures; `None` for those that may soon be over: [`FailureKind::Exit`], [`FailureKind::Error`],
    /// [`FailureKind::Signal`], [`FailureKind::Timeout`] and [`FailureKind::Conflict`].
    pub on: Option<FailureList>,
    /// After which failures it is not tried again, even if they are in the other list.
    pub not_on: Option<FailureList>,
    /// How often a call that reports a conflict is tried in all, before it counts as failed.
    pub conflicts: NonZeroU32,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy { retries: 0, backoff: Backoff::default(), on: None, not_on: None, conflicts: CONFLICTS }
    }
}

impl RetryPolicy {
    /// Whether a call that failed like this may be tried again, if it has not been tried too often.
    #[must_use]
    pub fn retries_after(&self, failure: &Failure) -> bool {
        let is_usual = || {
            use FailureKind::{Conflict, Error, Exit, Signal, Timeout};
            matches!(failure.kind, Exit | Error | Signal | Timeout | Conflict)
        };
        let is_on = self.on.as_ref().map_or_else(is_usual, |on| on.has(failure));
        is_on && !self.not_on.as_ref().is_some_and(|not_on| not_on.has(failure))
    }

    /// After which failures it is tried again, as text.
    #[must_use]
    pub fn on_text(&self) -> String {
        self.on.as_ref().map_or_else(|| USUAL.to_owned(), FailureList::to_string)
    }

    /// As the store keeps it; `None` for the default.
    #[must_use]
    pub fn to_json(&self) -> Option<String> {
        (*self != RetryPolicy::default()).then(|| serde_json::to_string(self).unwrap_or_default())
    }
}

/// A policy as it is written in the store, without default values.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    retries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backoff: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_on: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_retry_on: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conflicts: Option<NonZeroU32>,
}

impl TryFrom<Written> for RetryPolicy {
    type Error = Error;

    fn try_from(written: Written) -> Result<RetryPolicy> {
        let list = |text: Option<String>| text.as_deref().map(FailureList::parse).transpose();
        Ok(RetryPolicy {
            retries: written.retries.unwrap_or_default(),
            backoff: written.backoff.as_deref().map(Backoff::parse).transpose()?.unwrap_or_default(),
            on: list(written.retry_on)?,
            not_on: list(written.no_retry_on)?,
            conflicts: written.conflicts.unwrap_or(CONFLICTS),
        })
    }
}

impl From<RetryPolicy> for Written {
    fn from(policy: RetryPolicy) -> Written {
        let text = |list: Option<FailureList>| list.map(|list| list.to_string());
        Written {
            retries: (policy.retries > 0).then_some(policy.retries),
            backoff: (policy.backoff != Backoff::default()).then(|| policy.backoff.to_string()),
            retry_on: text(policy.on),
            no_retry_on: text(policy.not_on),
            conflicts: (policy.conflicts != CONFLICTS).then_some(policy.conflicts),
        }
    }
}

/// Changes of a policy. A field that is `None` stays unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryChange {
    /// Whether to forget everything except for the number of conflicts first.
    pub none: bool,
    /// How many times a failed call is tried again.
    pub retries: Option<u32>,
    /// How long it pauses before that.
    pub backoff: Option<Backoff>,
    /// After which failures.
    pub on: Option<FailureList>,
    /// After which not.
    pub not_on: Option<FailureList>,
    /// How often in all a call that reports a conflict is tried.
    pub conflicts: Option<NonZeroU32>,
}

impl RetryChange {
    /// Makes the changes.
    pub fn apply(&self, policy: &mut RetryPolicy) {
        if self.none {
            *policy = RetryPolicy { conflicts: policy.conflicts, ..RetryPolicy::default() };
        }
        policy.retries = self.retries.unwrap_or(policy.retries);
        policy.conflicts = self.conflicts.unwrap_or(policy.conflicts);
        if let Some(backoff) = &self.backoff {
            policy.backoff.clone_from(backoff);
        }
        if self.on.is_some() {
            policy.on.clone_from(&self.on);
        }
        if self.not_on.is_some() {
            policy.not_on.clone_from(&self.not_on);
        }
    }

    /// A member that has no effect without `retries` and is given without it, if there is one.
    #[must_use]
    pub fn idle_member(&self) -> Option<&'static str> {
        let members = [
            ("backoff", self.backoff.is_some()),
            ("retry_on", self.on.is_some()),
            ("no_retry_on", self.not_on.is_some()),
        ];
        let has_none = self.retries.is_none_or(|retries| retries == 0);
        members.into_iter().find(|(_, is_given)| *is_given && has_none).map(|(member, _)| member)
    }

    /// The changes that would change something in this policy.
    #[must_use]
    pub fn beyond(&self, policy: &RetryPolicy) -> RetryChange {
        RetryChange {
            none: false,
            retries: self.retries.filter(|retries| *retries != policy.retries),
            backoff: self.backoff.clone().filter(|backoff| *backoff != policy.backoff),
            on: self.on.clone().filter(|on| policy.on.as_ref() != Some(on)),
            not_on: self.not_on.clone().filter(|not_on| policy.not_on.as_ref() != Some(not_on)),
            conflicts: self.conflicts.filter(|conflicts| *conflicts != policy.conflicts),
        }
    }

    /// Refuses options that have no effect on a function with this policy, because it is never tried again.
    ///
    /// # Errors
    /// [`Kind::Usage`] then.
    pub fn check(&self, old: &RetryPolicy) -> Result<()> {
        let mut policy = old.clone();
        self.apply(&mut policy);
        let options = [
            ("--backoff", self.backoff.is_some()),
            ("--retry-on", self.on.is_some()),
            ("--no-retry-on", self.not_on.is_some()),
        ];
        match options.into_iter().find(|(_, is_given)| *is_given) {
            Some((option, _)) if policy.retries == 0 => {
                Err(Error::new(Kind::Usage, format!("`{option}` says nothing about a function without retries"))
                    .with_hint("add `--retries`, as in `--retries 5`"))
            }
            _ => Ok(()),
        }
    }
}

/// How long a failed call pauses before it is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backoff {
    /// For each retry its own pause; the last one for all later ones. Never empty.
    Listed(Vec<Duration>),
    /// The lowest pause, doubled each time, up to the highest. Each pause is drawn between half and all of that, so that calls that
    /// failed together do not come back together.
    Doubling(Duration, Duration),
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff::Doubling(Duration::from_secs(15), Duration::from_secs(3600))
    }
}

impl Backoff {
    /// Parses `1m`, `15s..1h` or `1m,10m,1h`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when it is none of these, in words that can follow "`TEXT`: ".
    pub fn parse(text: &str) -> Result<Backoff> {
        if let Some((lowest, highest)) = text.split_once("..") {
            let (lowest, highest) = (pause(lowest)?, pause(highest)?);
            if lowest > highest {
                let hint = format!("put the shorter pause first: `{}..{}`", write_span(highest), write_span(lowest));
                return Err(Error::new(Kind::Usage, "its lowest pause is above its highest").with_hint(hint));
            }
            return Ok(Backoff::Doubling(lowest, highest));
        }
        text.split(',').map(pause).collect::<Result<_>>().map(Backoff::Listed)
    }

    /// The pause before this retry, counted from 1; `draw` is a random number from 0 up to 1.
    #[must_use]
    pub fn pause(&self, retry: u32, draw: f64) -> Duration {
        match self {
            Backoff::Listed(pauses) => {
                let at = usize::try_from(retry.saturating_sub(1)).unwrap_or(usize::MAX);
                pauses.get(at).or(pauses.last()).copied().unwrap_or_default()
            }
            Backoff::Doubling(lowest, highest) => {
                let factor = 2_u32.saturating_pow(retry.saturating_sub(1));
                let whole = lowest.checked_mul(factor).map_or(*highest, |pause| pause.min(*highest));
                whole.mul_f64(f64::midpoint(1.0, draw.clamp(0.0, 1.0)))
            }
        }
    }
}

/// As [`Backoff::parse`] reads it.
impl fmt::Display for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Backoff::Listed(pauses) => {
                f.write_str(&pauses.iter().copied().map(write_span).collect::<Vec<_>>().join(","))
            }
            Backoff::Doubling(lowest, highest) => write!(f, "{}..{}", write_span(*lowest), write_span(*highest)),
        }
    }
}

fn pause(text: &str) -> Result<Duration> {
    let forms = "write `1m`, `15s..1h` for pauses that double, or `1m,10m,1h` for one after the other";
    if text.trim().is_empty() {
        return Err(Error::new(Kind::Usage, "one of its pauses is empty").with_hint(forms));
    }
    let span = parse_span(text)?;
    if span > LONGEST_WAIT {
        return Err(Error::new(Kind::Usage, "a pause is at most 366 days").with_hint(forms));
    }
    Ok(span)
}

/// Failures, by their exit codes and kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureList(Vec<ListItem>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ListItem {
    /// An exit code from the first to the last of these.
    Codes(u8, u8),
    /// A kind of failure.
    Of(FailureKind),
    /// All kinds.
    Any,
}

impl FailureList {
    /// Parses a list such as `1,64-78,timeout` or `any`.
    ///
    /// # Errors
    /// [`Kind::Usage`] for what is not such a list, in words that can follow "`TEXT`: ".
    pub fn parse(text: &str) -> Result<FailureList> {
        text.split(',').map(|item| ListItem::parse(item.trim())).collect::<Result<_>>().map(FailureList)
    }

    /// Whether it has this failure.
    #[must_use]
    pub fn has(&self, failure: &Failure) -> bool {
        self.0.iter().any(|item| match item {
            ListItem::Codes(first, last) => {
                failure.exit_code.is_some_and(|code| (i32::from(*first)..=i32::from(*last)).contains(&code))
            }
            ListItem::Of(kind) => failure.kind == *kind,
            ListItem::Any => KINDS.iter().any(|(_, kind)| failure.kind == *kind),
        })
    }
}

impl ListItem {
    fn parse(text: &str) -> Result<ListItem> {
        let refuse = |message: String, hint: &str| Err(Error::new(Kind::Usage, message).with_hint(hint));
        let codes = "exit codes of failures are 1 to 255, as in `1,64-78`";
        if text.is_empty() {
            return refuse(
                "one of its items is empty".to_owned(),
                "write one comma between items, as in `1,64-78,timeout`",
            );
        }
        if text == ANY {
            return Ok(ListItem::Any);
        }
        if let Some((_, kind)) = KINDS.iter().find(|(name, _)| *name == text) {
            return Ok(ListItem::Of(*kind));
        }
        if !text.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            let near = nearest(text, KINDS.iter().map(|(name, _)| *name).chain([ANY]));
            let names: Vec<String> = KINDS.iter().map(|(name, _)| format!("`{name}`")).collect();
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("give exit codes, or {} or `{ANY}`", names.join(", ")),
            };
            let shown = escape_control(text);
            return refuse(format!("`{shown}` is neither an exit code nor a kind of failure"), &hint);
        }
        let code = |text: &str| text.parse::<u8>().ok().filter(|code| *code > 0);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (code(first), code(last)) {
            (Some(first), Some(last)) if first <= last => Ok(ListItem::Codes(first, last)),
            (Some(first), Some(last)) => {
                refuse(format!("`{text}` has its lowest code last"), &format!("write `{last}-{first}`"))
            }
            _ => refuse(format!("`{}` is not an exit code of a failure", escape_control(text)), codes),
        }
    }
}

/// As [`FailureList::parse`] reads it.
impl fmt::Display for FailureList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let item = |item: &ListItem| match item {
            ListItem::Codes(first, last) if first == last => first.to_string(),
            ListItem::Codes(first, last) => format!("{first}-{last}"),
            ListItem::Of(of) => {
                KINDS.iter().find(|(_, kind)| kind == of).map_or_else(String::new, |(name, _)| (*name).to_owned())
            }
            ListItem::Any => ANY.to_owned(),
        };
        f.write_str(&self.0.iter().map(item).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32) -> Failure {
        Failure { exit_code: Some(code), ..Failure::new(FailureKind::Exit, "no") }
    }

    fn list(text: &str) -> FailureList {
        FailureList::parse(text).unwrap()
    }

    #[test]
    fn a_policy_is_read_as_it_is_written() {
        let policy = RetryPolicy {
            retries: 5,
            backoff: Backoff::parse("1m, 10m,1h").unwrap(),
            on: Some(list("1,64-78, timeout")),
            not_on: Some(list("66")),
            conflicts: NonZeroU32::MIN,
        };
        let json = policy.to_json().unwrap();
        let expected =
            r#"{"retries":5,"backoff":"1m,10m,1h","retry_on":"1,64-78,timeout","no_retry_on":"66","conflicts":1}"#;
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<RetryPolicy>(&json).unwrap(), policy);
        assert_eq!(RetryPolicy::default().to_json(), None);
        assert_eq!(serde_json::from_str::<RetryPolicy>("{}").unwrap(), RetryPolicy::default());
        assert!(serde_json::from_str::<RetryPolicy>(r#"{"retry_on":"256"}"#).is_err());
    }

    #[test]
    fn pauses_are_as_listed_or_double() {
        let pauses = |text: &str, draw| {
            let backoff = Backoff::parse(text).unwrap();
            [1, 2, 3, 4, 100].map(|retry| backoff.pause(retry, draw).as_millis())
        };
        assert_eq!(pauses("1m", 0.0), [60_000; 5]);
        assert_eq!(pauses("1s,10s,1m", 0.5), [1000, 10_000, 60_000, 60_000, 60_000]);
        assert_eq!(pauses("15s..1m", 1.0), [15_000, 30_000, 60_000, 60_000, 60_000]);
        assert_eq!(pauses("15s..1m", 0.0), [7_500, 15_000, 30_000, 30_000, 30_000]);
        assert_eq!(Backoff::default(), Backoff::parse("15s..1h").unwrap());
        assert_eq!(Backoff::default().pause(u32::MAX, 1.0), Duration::from_secs(3600));
    }

    #[test]
    fn lists_have_codes_kinds_and_any() {
        let timeout = Failure::new(FailureKind::Timeout, "late");
        for (text, has, has_not) in [
            ("1,64-78", [exit(1), exit(64), exit(78)], [exit(2), exit(79), timeout.clone()]),
            ("timeout", [timeout.clone(), timeout.clone(), timeout.clone()], [exit(1), exit(2), exit(255)]),
        ] {
            assert!(has.iter().all(|failure| list(text).has(failure)), "{text}");
            assert!(!has_not.iter().any(|failure| list(text).has(failure)), "{text}");
        }
        for (_, kind) in KINDS {
            assert!(list("any").has(&Failure::new(kind, "no")));
        }
        for kind in [FailureKind::BadCall, FailureKind::Crash, FailureKind::Refused, FailureKind::Parent] {
            assert!(!list("any").has(&Failure::new(kind, "no")));
        }
    }

    #[test]
    fn a_failure_that_is_not_to_be_retried_is_not() {
        let policy = RetryPolicy { retries: 1, ..RetryPolicy::default() };
        let after = |policy: &RetryPolicy, kind| policy.retries_after(&Failure::new(kind, "no"));
        assert!(after(&policy, FailureKind::Signal) && policy.retries_after(&exit(1)));
        assert!(!after(&policy, FailureKind::CannotRun) && !after(&policy, FailureKind::BadResult));
        let policy = RetryPolicy { on: Some(list("any")), not_on: Some(list("2-3,timeout")), ..policy };
        assert!(after(&policy, FailureKind::BadResult) && policy.retries_after(&exit(4)));
        assert!(!policy.retries_after(&exit(2)) && !after(&policy, FailureKind::Timeout));
    }

    #[test]
    fn what_is_usually_retried_is_what_the_text_says() {
        let usual = RetryPolicy { retries: 1, ..RetryPolicy::default() };
        let listed = RetryPolicy { on: Some(list(&usual.on_text())), ..usual.clone() };
        for failure in KINDS.iter().map(|(_, kind)| Failure::new(*kind, "no")).chain([exit(1), exit(126)]) {
            assert_eq!(usual.retries_after(&failure), listed.retries_after(&failure), "{failure:?}");
        }
    }

    #[test]
    fn what_is_not_a_list_is_refused() {
        let codes = "exit codes of failures are 1 to 255, as in `1,64-78`";
        let comma = "write one comma between items, as in `1,64-78,timeout`";
        let kinds =
            "give exit codes, or `exit`, `error`, `signal`, `timeout`, `conflict`, `cannot-run`, `bad-result` or `any`";
        for (text, message, hint) in [
            ("256", "`256` is not an exit code of a failure", codes),
            ("0", "`0` is not an exit code of a failure", codes),
            ("-1", "`-1` is not an exit code of a failure", codes),
            ("1-", "`1-` is not an exit code of a failure", codes),
            ("1-2-3", "`1-2-3` is not an exit code of a failure", codes),
            ("1,,2", "one of its items is empty", comma),
            ("", "one of its items is empty", comma),
            ("78-64", "`78-64` has its lowest code last", "write `64-78`"),
            ("timeuot", "`timeuot` is neither an exit code nor a kind of failure", "did you mean `timeout`?"),
            ("weather", "`weather` is neither an exit code nor a kind of failure", kinds),
            ("crash", "`crash` is neither an exit code nor a kind of failure", kinds),
        ] {
            let error = FailureList::parse(text).expect_err(text);
            assert_eq!((error.to_string().as_str(), error.hint()), (message, Some(hint)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_backoff_is_refused() {
        let forms = "write `1m`, `15s..1h` for pauses that double, or `1m,10m,1h` for one after the other";
        for (text, message, hint) in [
            ("1m,,1h", "one of its pauses is empty", forms),
            ("", "one of its pauses is empty", forms),
            ("15s..", "one of its pauses is empty", forms),
            ("1h..15s", "its lowest pause is above its highest", "put the shorter pause first: `15s..1h`"),
            ("367d", "a pause is at most 366 days", forms),
            ("90", "the unit is missing", "a span is a number with its unit, as in `90s`, `10m` or `1h30m`"),
        ] {
            let error = Backoff::parse(text).expect_err(text);
            assert_eq!((error.to_string().as_str(), error.hint()), (message, Some(hint)), "{text}");
        }
    }
}
