//! The outcome of a call, as its processor notes it next to the store until the store records it. If the processor dies, the next
//! one records these notes instead of repeating the calls.

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize};

use super::{finished::FinishedCall, random::draw_for};
use crate::domain::attempt::{Failure, Outcome};
use crate::domain::hook::EndHooks;
use crate::domain::job::{Claim, Fence, Finish, JobId};
use crate::domain::log::{Log, Stream};
use crate::domain::{json::Json, nested::NestedCalls, processor::ProcessorId, service::ServiceName, time::Timestamp};
use crate::domain::{retry::AttemptCounts, retry_policy::RetryPolicy};
use crate::error::Result;
use crate::runner::{Ended, LONGEST_NOTE, Marks, clock::now, worker::EndedCall};

/// How many bytes of output a note holds at most. A call that printed more is repeated.
const SHORT: usize = LONGEST_NOTE / 2;

/// When a text is cut to fit into a note, at least this many bytes of it stay.
const SHORTEST_TEXT: usize = 200;

/// Everything but the output, which follows in the next line.
#[derive(Serialize, Deserialize)]
struct JournalHead<'a> {
    attempt: i64,
    /// Missing in notes of older builds, which do not count claims.
    #[serde(default)]
    claim: i64,
    service: &'a str,
    function: String,
    before: AttemptCounts,
    /// How the function is tried again, if that is not the default.
    #[serde(default, skip_serializing_if = "is_usual")]
    retry: Cow<'a, RetryPolicy>,
    outcome: Outcome,
    result: Option<String>,
    took: Duration,
    /// When the call ended, in milliseconds since 1970. Only for a call that asked to run later: the pause counts from then, not
    /// from when it is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_at: Option<i64>,
    /// How many calls ran inside it. A note does not hold them, so they count as not recorded.
    #[serde(default, skip_serializing_if = "is_zero")]
    nested: u64,
    /// Of the output, each piece's stream and length.
    pieces: Vec<(i64, usize)>,
}

fn is_usual(policy: &RetryPolicy) -> bool {
    *policy == RetryPolicy::default()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Writes the note, unless it is too long, or something else than the function may have caused the end. Shortens a long error.
fn write(claim: &Claim, ended: &Ended) -> Option<Vec<u8>> {
    if !ended.outcome.is_own_doing() || ended.output.kept() > SHORT {
        return None;
    }
    let log = ended.output.log();
    if log.dropped > 0 {
        return None;
    }
    let nested = ended.nested.as_ref().map_or(0, |nested| nested.unrecorded.saturating_add(nested.calls.len() as u64));
    let mut head = JournalHead {
        attempt: claim.fence.attempt,
        claim: claim.fence.claim,
        service: claim.call.service.as_str(),
        function: claim.call.function.as_str().to_owned(),
        before: claim.before,
        retry: Cow::Borrowed(&claim.definition.policy.retry),
        outcome: ended.outcome.clone(),
        result: ended.result.as_ref().map(Json::to_string),
        took: ended.took,
        ended_at: matches!(ended.outcome, Outcome::Snoozed(_)).then(|| now().0),
        nested,
        pieces: log.pieces.iter().map(|(stream, length)| (stream.fd(), *length)).collect(),
    };
    loop {
        let mut text = serde_json::to_vec(&head).ok()?;
        if text.len() + 1 + log.bytes.len() <= LONGEST_NOTE {
            text.push(b'\n');
            text.extend(log.bytes);
            return Some(text);
        }
        if !head.outcome.failure_mut().is_some_and(shorten) {
            return None;
        }
    }
}

/// Shortens a long text of a failure. Keeps the end of a traceback and the beginning of a message, because these say most. Returns
/// whether there was such a text.
fn shorten(failure: &mut Failure) -> bool {
    if let Some(traceback) = failure.traceback.as_mut().filter(|text| text.len() > SHORTEST_TEXT) {
        let from = (traceback.len() / 2).max(traceback.len().saturating_sub(LONGEST_NOTE / 2));
        let from = (from..traceback.len()).find(|at| traceback.is_char_boundary(*at)).unwrap_or_default();
        traceback.drain(..from);
        return true;
    }
    let is_long = failure.message.len() > SHORTEST_TEXT;
    if is_long {
        let end = (0..=failure.message.len() / 2).rev().find(|at| failure.message.is_char_boundary(*at));
        failure.message.truncate(end.unwrap_or_default());
    }
    is_long
}

/// Reads the note of a job; `None` if it cannot be read.
///
/// # Errors
/// When the system gives no random numbers.
pub(super) fn read(processor: ProcessorId, job: JobId, text: &[u8]) -> Result<Option<FinishedCall>> {
    let Some((mut head, log)) = parse(text) else { return Ok(None) };
    if let (Outcome::Snoozed(snooze), Some(ended_at)) = (&mut head.outcome, head.ended_at) {
        snooze.pause = snooze.pause.saturating_sub(now().since(Timestamp(ended_at)));
    }
    let (Ok(service), Ok(result)) =
        (ServiceName::parse(head.service), head.result.as_deref().map(Json::parse).transpose())
    else {
        return Ok(None);
    };
    // The note says neither whether the job is tied nor which hooks it has, so the store looks that up.
    let fence = Fence { job, attempt: head.attempt, claim: head.claim, processor, tied: true };
    let decision = head.retry.decide(&head.outcome, head.before, draw_for(&head.outcome, &head.retry)?);
    let nested = (head.nested > 0).then(|| {
        let mut nested = NestedCalls::default();
        nested.leave_out(head.nested);
        Box::new(nested)
    });
    let finish = Finish { fence, decision, result, took: head.took, log, nested, hooks: EndHooks::Unknown };
    Ok(Some(FinishedCall::elsewhere(service, head.function, finish)))
}

fn parse(text: &[u8]) -> Option<(JournalHead<'_>, Log)> {
    let end = text.iter().position(|byte| *byte == b'\n')?;
    let head: JournalHead<'_> = serde_json::from_slice(&text[..end]).ok()?;
    let pieces = head.pieces.iter().map(|(fd, length)| Some((Stream::from_fd(*fd)?, *length)));
    let log = Log { bytes: text[end + 1..].to_owned(), pieces: pieces.collect::<Option<_>>()?, ..Log::default() };
    let is_whole = log.pieces.iter().map(|(_, length)| length).sum::<usize>() == log.bytes.len();
    is_whole.then_some((head, log))
}

/// Notes the outcome of a call, if a note can hold it.
pub(super) fn note(marks: &Marks, done: &mut EndedCall) {
    if let (Some(mark), Some(note)) = (&mut done.mark, write(&done.claim, &done.ended)) {
        marks.note(mark, done.claim.fence.job, &note);
    }
}
