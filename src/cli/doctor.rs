//! `asyncq doctor`.

use clap::Args;
use serde::Serialize;

use super::output::text;
use super::session::{Session, now};
use super::stdio::print_line;
use super::{exit, status};
use crate::commands::examination::{Examination, unreachable};
use crate::domain::diagnosis::{Diagnosis, Health};
use crate::domain::status::Finding;

/// Check the store, its processors and its calls
///
/// Prints a line for each check, with `ok`, `warning` or `fault`, and what to do. Exits with 1 if there is a fault. Changes nothing
/// without --fix.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Read the whole store for damage, as `asyncq init` does
    #[arg(long)]
    full: bool,
    /// Let calls go on that wait without a reason; change nothing else
    #[arg(long)]
    fix: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A result as JSON.
#[derive(Serialize)]
struct DiagnosisView<'a> {
    check: &'a str,
    health: &'a str,
    message: &'a str,
    hint: Option<&'a str>,
}

impl Doctor {
    /// Runs the command.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        let found = match session.open() {
            Err(error) => unreachable(&error),
            Ok(mut queue) => {
                let mut found = queue.examine(self.full)?;
                if self.fix && found.results.iter().any(|it| it.check == "waiting" && it.health == Health::Fault) {
                    queue.free_stuck()?;
                    session.info("let the calls go on that waited without a reason");
                    found = queue.examine(self.full)?;
                }
                found
            }
        };
        let results = all(found);
        if self.json {
            let views: Vec<DiagnosisView<'_>> = results.iter().map(view).collect();
            print_line(serde_json::to_string(&views)?)?;
        } else {
            for it in &results {
                print_line(format!("{:<8} {:<11} {}", it.health.as_str(), it.check, text(&it.message)))?;
                if let Some(hint) = &it.hint {
                    print_line(format!("{:<21}{}", "", text(hint)))?;
                }
            }
        }
        let has_fault = results.iter().any(|it| it.health == Health::Fault);
        Ok(if has_fault { exit::FAILED } else { exit::DONE })
    }
}

fn view(it: &Diagnosis) -> DiagnosisView<'_> {
    DiagnosisView { check: it.check, health: it.health.as_str(), message: &it.message, hint: it.hint.as_deref() }
}

/// All results. Those of `asyncq status --check` have the same words as there.
fn all(found: Examination) -> Vec<Diagnosis> {
    let now = now();
    let troubles = found.troubles.iter().map(|trouble| {
        let health =
            if matches!(trouble, Finding::Broken(..) | Finding::Unfit(..)) { Health::Fault } else { Health::Warning };
        let (message, hint) = status::describe(trouble, now);
        Diagnosis { check: "calls", health, message, hint }
    });
    let troubles: Vec<Diagnosis> = troubles.collect();
    found.results.into_iter().chain(troubles).collect()
}
