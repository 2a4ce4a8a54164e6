//! The options of `asyncq job set`.

use clap::Args;

use super::call_options::parse_priority;
use super::delay_options::{Delay, DelayOptions};
use super::session::Session;
use crate::domain::job::JobId;
use crate::domain::job_edit::JobEdit;
use crate::domain::lane::Lane;
use crate::domain::new_job::Priority;
use crate::error::{Error, Kind};

/// Changes of waiting calls.
#[derive(Debug, Args)]
pub struct JobEditOptions {
    #[command(flatten)]
    due: DelayOptions,

    /// Hold the call until `asyncq job start` releases it
    #[arg(long)]
    hold: bool,

    /// Run the call before those with a larger priority, from -1000 to 1000
    #[arg(long, value_name = "N", value_parser = parse_priority, allow_hyphen_values = true)]
    priority: Option<Priority>,

    /// Put the call into this lane, from the lane in which it is; '' for none
    #[arg(long, value_name = "LANE")]
    lane: Option<String>,

    /// Cancel the call if no attempt has begun by then: a span from when it is due, or from now if that has passed; a time
    /// as with --at; or `never`
    #[arg(long, value_name = "SPAN|TIME|never", allow_hyphen_values = true)]
    expires: Option<String>,
}

/// The changes, and the time as the user gave it.
pub struct JobEdits {
    /// What changes.
    pub edit: JobEdit,
    delay: Delay,
}

impl JobEditOptions {
    /// The values of the options.
    ///
    /// # Errors
    /// [`Kind::Usage`] if there are none, or if they are impossible.
    pub fn parse(&self, session: &Session) -> Result<JobEdits, Error> {
        self.due.check_zone(self.expires.is_some(), "job set")?;
        let delay = self.due.delay(session)?;
        let edit = JobEdit {
            due: self.due.is_given().then_some(delay.due),
            hold: self.hold,
            priority: self.priority,
            lane: match self.lane.as_deref() {
                None => None,
                Some("") => Some(None),
                Some(lane) => Some(Some(Lane::parse(lane)?)),
            },
            expires: match self.expires.as_deref() {
                None => None,
                Some("never") => Some(None),
                Some(text) => Some(Some(self.due.expiry(session, &delay, text)?)),
            },
        };
        if edit == JobEdit::default() {
            return Err(Error::new(Kind::Usage, "`job set` needs something to change").with_hint(
                "`--at`, `--in`, `--hold`, `--priority`, `--lane` and `--expires` change a call that waits",
            ));
        }
        Ok(JobEdits { edit, delay })
    }
}

impl JobEdits {
    /// Prints when a job that was changed is due.
    pub fn tell(&self, session: &Session, id: JobId) {
        self.delay.tell(session, id, self.edit.hold);
    }
}
