//! The words in which the schema says which jobs are in which index, as statements have to say it too.

use crate::domain::job::State;

/// Where the index of the active jobs, which are queued or claimed, has a job: 0 for those that nobody has claimed, else the
/// number of the processor with a minus sign. So the last that were claimed stand in front of the next that will be, mostly
/// in the same page.
macro_rules! claimant {
    () => {
        "CASE WHEN token IS NULL THEN 0 ELSE -processor END"
    };
}
pub(super) use claimant;

/// Which jobs are queued, and claimed by nobody.
macro_rules! queued {
    () => {
        concat!("state = 'queued' AND ", super::active::claimant!(), " = 0")
    };
}
pub(super) use queued;

/// Which jobs a processor has claimed, and not ended; its number is the first parameter.
macro_rules! claimed {
    () => {
        concat!("token IS NOT NULL AND ", super::active::claimant!(), " = -?1")
    };
}
pub(super) use claimed;

/// Which jobs any processor has claimed.
macro_rules! claimed_by_any {
    () => {
        concat!("token IS NOT NULL AND ", super::active::claimant!(), " < 0")
    };
}
pub(super) use claimed_by_any;

/// Which jobs are in the index of those that nobody works on until somebody looks at them.
pub(super) const STOPPED: &str = "state = 'error' OR state = 'cancelled' OR state = 'held'";

/// Which jobs are in a state, so that an index finds them.
pub(super) fn are(state: State) -> String {
    match state {
        State::Queued => queued!().to_owned(),
        State::Processing => concat!("state = 'processing' AND ", claimed_by_any!()).to_owned(),
        State::Error | State::Cancelled | State::Held => format!("state = '{state}' AND ({STOPPED})"),
        State::Delayed | State::Completed => format!("state = '{state}'"),
    }
}
