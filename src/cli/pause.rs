//! `asyncq pause` and `asyncq resume`.

use std::time::Duration;

use clap::Args;

use super::exit;
use super::session::Session;
use crate::domain::pause::Pause;
use crate::domain::time::parse_span_or_zero;
use crate::error::{Error, Kind};

/// Run no calls at all, but accept new ones, until `asyncq resume`
///
/// This pauses the whole store. A service that is paused on its own stays so when you resume the store. Calls that run go on
/// to their end, and ticks of schedules in the pause count as missed.
#[derive(Debug, Args)]
pub struct PauseAll {
    #[command(flatten)]
    why: WhyOption,
    /// Return only when no call runs any longer, as before an upgrade or a move
    #[arg(long)]
    wait: bool,
    /// With --wait: give up after this time, with exit code 75; the pause stays
    #[arg(long, value_name = "SPAN", value_parser = parse_span_or_zero, requires = "wait", allow_hyphen_values = true)]
    timeout: Option<Duration>,
}

/// The reason of a pause.
#[derive(Debug, Args)]
pub struct WhyOption {
    /// The reason, which `asyncq status` and `asyncq explain` show
    #[arg(long, value_name = "TEXT", value_parser = parse_pause)]
    why: Option<Pause>,
}

fn parse_pause(text: &str) -> Result<Pause, Error> {
    Pause::because(text)
}

impl WhyOption {
    /// The pause with this reason.
    pub fn pause(self) -> Pause {
        self.why.unwrap_or_default()
    }
}

impl PauseAll {
    /// Runs the command.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        let mut queue = session.open()?;
        if self.wait && queue.is_inside(&session.caller)? {
            return Err(Error::new(
                Kind::Usage,
                "this command is part of a call that runs, so `--wait` would never end",
            )
            .with_hint("pause without `--wait` here")
            .into());
        }
        queue.set_pause(Some(&self.why.pause()))?;
        if self.wait {
            queue.wait_until_nothing_runs(self.timeout, |job| session.notice(&format!("job {job} still runs")))?;
        }
        Ok(exit::DONE)
    }
}

/// Ends the pause of the whole store.
pub fn resume(session: &Session) -> anyhow::Result<u8> {
    session.open()?.set_pause(None)?;
    Ok(exit::DONE)
}
