//! The outcome of a call, as it is noted next to the store until the store records it. The processor that takes over from a
//! dead one records its notes, instead of repeating the calls.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{finished::FinishedCall, random::draw_for};
use crate::domain::job::{Claim, Fence, Finish, JobId};
use crate::domain::log::{Log, Stream};
use crate::domain::retry::{AttemptCounts, decide};
use crate::domain::{attempt::Outcome, json::Json, processor::ProcessorId, service::ServiceName};
use crate::error::Result;
use crate::runner::{Ended, LONGEST_NOTE, Marks, worker::EndedCall};

/// How many bytes of output are noted with a call at most; one that has printed more is repeated.
const SHORT: usize = LONGEST_NOTE / 2;

/// All of it but what was printed, which follows in the next line.
#[derive(Serialize, Deserialize)]
struct JournalHead<'a> {
    attempt: i64,
    /// Missing in notes of older builds, which do not count claims.
    #[serde(default)]
    claim: i64,
    service: &'a str,
    function: String,
    before: AttemptCounts,
    outcome: Outcome,
    result: Option<String>,
    took: Duration,
    /// Of the output, each piece's stream and length.
    pieces: Vec<(i64, usize)>,
}

/// Writes it down, unless it is too long for that, as with nested calls, or is not surely the function's own doing.
fn write(claim: &Claim, ended: &Ended) -> Option<Vec<u8>> {
    if !ended.outcome.is_own_doing() || ended.output.kept() > SHORT || ended.nested.is_some() {
        return None;
    }
    let log = ended.output.log();
    if log.dropped > 0 {
        return None;
    }
    let head = JournalHead {
        attempt: claim.fence.attempt,
        claim: claim.fence.claim,
        service: claim.call.service.as_str(),
        function: claim.call.function.as_str().to_owned(),
        before: claim.before,
        outcome: ended.outcome.clone(),
        result: ended.result.as_ref().map(Json::to_string),
        took: ended.took,
        pieces: log.pieces.iter().map(|(stream, length)| (stream.fd(), *length)).collect(),
    };
    let mut text = serde_json::to_vec(&head).ok()?;
    text.push(b'\n');
    text.extend(log.bytes);
    Some(text)
}

/// Reads what a processor has noted of a job; `None` when it cannot be read.
///
/// # Errors
/// When the system gives no random numbers.
pub(super) fn read(processor: ProcessorId, job: JobId, text: &[u8]) -> Result<Option<FinishedCall>> {
    let Some((head, log)) = parse(text) else { return Ok(None) };
    let (Ok(service), Ok(result)) =
        (ServiceName::parse(head.service), head.result.as_deref().map(Json::parse).transpose())
    else {
        return Ok(None);
    };
    let fence = Fence { job, attempt: head.attempt, claim: head.claim, processor };
    let decision = decide(&head.outcome, head.before, draw_for(&head.outcome)?);
    let finish = Finish { fence, decision, result, took: head.took, log, nested: None };
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

/// Notes what came of a call, if that can be noted.
pub(super) fn note(marks: &Marks, done: &mut EndedCall) {
    if let (Some(mark), Some(note)) = (&mut done.mark, write(&done.claim, &done.ended)) {
        marks.note(mark, done.claim.fence.job, &note);
    }
}
