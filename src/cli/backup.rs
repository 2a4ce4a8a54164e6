//! `asyncq backup`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::clap_error::whole_number;
use super::exit;
use super::output::{count, text};
use super::session::{Session, now};
use super::stdio::print_line;
use crate::commands::backup::BackupRequest;
use crate::domain::size::show_size;

/// Copy the store into a new file, also while it is in use
///
/// Prints the path of the file when it is complete, is found undamaged, and is on the disk. In an application's database the
/// backup is the whole database. `asyncq restore` puts a backup back.
#[derive(Debug, Args)]
pub struct Backup {
    /// A file that is not there yet; or a folder, in which the backup gets a name such as queue-20261130T023000Z.db
    #[arg(value_name = "FILE|DIR")]
    to: PathBuf,
    /// In a folder: keep the newest N backups of this store, the new one included, and remove the others
    #[arg(long, value_name = "N", value_parser = parse_keep, allow_negative_numbers = true)]
    keep: Option<NonZeroUsize>,
}

fn parse_keep(number: &str) -> Result<NonZeroUsize, String> {
    let number = whole_number(number, "a number of backups", 1)?;
    usize::try_from(number).ok().and_then(NonZeroUsize::new).ok_or_else(|| "it is too large".to_owned())
}

impl Backup {
    /// Runs the command.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        let mut queue = session.open()?;
        let request = BackupRequest { to: self.to, keep: self.keep, now: now() };
        let made = queue.back_up(&session.caller, &request)?;
        print_line(text(&made.path.display().to_string()))?;
        if made.is_shared {
            session.info("the database also holds tables of an application: the backup is the whole database");
        }
        let removed = match made.removed {
            0 => String::new(),
            some => format!(", and removed {}", count(some as u64, "older backup", "older backups")),
        };
        session.verbose(&format!("copied {}{removed}", show_size(made.bytes)));
        Ok(exit::DONE)
    }
}
