//! `asyncq restore`.

use std::path::PathBuf;

use clap::Args;

use super::exit;
use super::output::count;
use super::session::{Session, now};
use crate::commands::restore::RestoreRequest;

/// Put a backup in the place of the store
///
/// What is there moves into a folder next to it, such as queue.db.before-restore-20261130T023000Z. Calls that ran when the
/// backup was made are in the queue again. New calls get numbers a million later, so that none is used twice. asyncq
/// refuses while a processor works on the store. Whatever fails, the store stays as it was.
#[derive(Debug, Args)]
pub struct Restore {
    /// The backup: a file that `asyncq backup` has made
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// Also restore the tables of an application that are in the same file
    #[arg(long)]
    force: bool,
}

impl Restore {
    /// Runs the command.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        let place = session.place()?;
        let request = RestoreRequest { from: self.from, force: self.force, now: now() };
        let restored = place.restore(&session.caller, &request)?;
        let before = match &restored.before {
            Some(folder) => format!("; what was there is in `{}`", folder.display()),
            None => String::new(),
        };
        session.info(&format!("restored `{}` from `{}`{before}", place.path().display(), request.from.display()));
        if restored.put_back > 0 {
            let calls = count(
                restored.put_back as u64,
                "call that ran when the backup was made is",
                "calls that ran when the backup was made are",
            );
            session.info(&format!("{calls} in the queue again"));
        }
        if restored.again > 0 {
            let calls = count(restored.again as u64, "call that waits in it has", "calls that wait in it have");
            session.info(&format!("{calls} ended since the backup was made, or been removed, and will run again"));
        }
        if let (true, Some(folder), Some(name)) = (restored.lost > 0, &restored.before, restored.file.file_name()) {
            let calls = count(
                restored.lost as u64,
                "call that had not ended is not waiting in the backup",
                "calls that had not ended are not waiting in the backup",
            );
            let file = folder.join(name);
            let list = format!("`asyncq --db '{}' job list` shows what was there", file.display());
            session.info(&format!("{calls}, and will not run; {list}"));
        }
        Ok(exit::DONE)
    }
}
