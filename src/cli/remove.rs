//! `asyncq remove`.

use std::io::BufRead;

use clap::Args;

use super::stdio::{self, is_terminal};
use super::{exit, output::count, session::Session};
use crate::domain::log::Stream;
use crate::error::{Error, Kind};

/// Remove asyncq's tables from an application's database
///
/// Removes all services, functions and jobs from the file, and leaves everything else as it is. asyncq refuses while a processor
/// runs, while calls wait, and while a table of the application refers to one of asyncq's tables. Triggers and indexes that the
/// application has put on asyncq's tables are removed too. Asks first.
#[derive(Debug, Args)]
pub struct Remove {
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Remove {
    /// Runs the command.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        let mut queue = session.open()?;
        let contents = queue.removal()?;
        let place = queue.place().to_string();
        if !self.yes {
            let services = count(contents.services, "service", "services");
            let functions = count(contents.functions, "function", "functions");
            let jobs = count(contents.jobs, "job", "jobs");
            ask(&format!("remove {services}, {functions} and {jobs} from `{place}`? [y/N]"))?;
        }
        queue.remove()?;
        session.info(&format!("removed asyncq's tables from `{place}`"));
        Ok(exit::DONE)
    }
}

/// Returns if a person at a terminal says yes.
fn ask(question: &str) -> Result<(), Error> {
    if !std::io::IsTerminal::is_terminal(&std::io::stdin()) || !is_terminal(Stream::Err) {
        return Err(
            Error::new(Kind::Usage, "there is no terminal on which to ask").with_hint("`--yes` removes without asking")
        );
    }
    stdio::print_message(&format!("{question}\n"));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match (read, answer.trim()) {
        (Ok(_), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Error::new(Kind::Denied, "nothing was removed").with_hint("answer `y` to remove it")),
    }
}
