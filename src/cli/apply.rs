//! `asyncq apply` and `asyncq export`.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::service::print_cancelled;
use super::service_options::ServiceOptions;
use super::session::Session;
use super::stdio::{self, Sink, in_words};
use super::{batch, exit};
use crate::commands::apply::{ManifestSource, cancelled, plan_of_new_store};
use crate::domain::manifest::MAX_MANIFEST_BYTES;
use crate::domain::manifest_plan::ManifestPlan;
use crate::domain::manifest_text::EnvValues;
use crate::domain::removal::IfWaiting;
use crate::domain::text::escape_control;
use crate::domain::toml_file::TomlFile;
use crate::domain::{log::Stream, size::show_size};
use crate::error::{Error, Kind};

/// Make services, functions and schedules what a file says
///
/// The file is TOML (docs/manifest.md). This prints what it changes, one line each, and changes all of it or nothing. Applying
/// a file again changes nothing. What the file leaves out of a table is at its default.
#[derive(Debug, Args)]
pub struct Apply {
    /// The file; `-` reads stdin
    file: PathBuf,
    /// Print what would change, and change nothing; the exit code is 1 if anything would
    #[arg(long)]
    dry_run: bool,
    /// Of each service that has a table in the file, remove the functions and schedules that are not in the file
    #[arg(long)]
    prune: bool,
    /// With --prune: also remove functions with waiting jobs, and cancel these
    #[arg(long, requires = "prune")]
    force: bool,
    /// The directory from which relative paths count, and in which functions run [default: the one of the file]
    #[arg(long, value_name = "DIR")]
    site: Option<String>,
}

impl Apply {
    /// Runs the command.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        let (name, text) = read(&self.file)?;
        let path = (self.file != Path::new("-")).then_some(&*self.file);
        let source = ManifestSource { file: TomlFile { name: &name, text: &text }, path, site: self.site.as_deref() };
        let mut wanted = source.read(&session.caller, &|| session.zone(None))?;
        wanted.prune = self.prune;
        let waiting = if self.force { IfWaiting::Cancel } else { IfWaiting::Refuse };
        if !session.place()?.is_there() {
            let plan = plan_of_new_store(&wanted)?;
            if self.dry_run {
                return self.print(session, &plan);
            }
        }
        let mut queue = if self.dry_run { session.open()? } else { session.open_or_create()? };
        let plan = queue.apply(wanted, waiting, self.dry_run, &session.caller)?;
        self.print(session, &plan)
    }

    fn print(&self, session: &Session, plan: &ManifestPlan) -> anyhow::Result<u8> {
        let mut lines = String::new();
        for change in &plan.changes {
            lines += &escape_control(&change.to_string());
            lines.push('\n');
        }
        print(&lines, self.dry_run)?;
        if plan.is_empty() {
            session.verbose("nothing has to change");
        } else if self.dry_run {
            return Ok(exit::FAILED);
        } else {
            print_cancelled(session, &cancelled(plan));
        }
        Ok(exit::DONE)
    }
}

/// Prints the plan. If that fails although it was carried out, the error says so.
fn print(lines: &str, is_dry: bool) -> Result<(), Error> {
    let printed = Sink(Stream::Out).write_all(lines.as_bytes());
    printed.or_else(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ if is_dry => Err(stdio::cannot_write(Stream::Out, error)),
        _ => Err(Error::new(
            Kind::Io,
            format!("the file was applied, but not all could be printed: {}", in_words(&error)),
        )
        .with_hint("`asyncq apply` with the same file changes nothing more")),
    })
}

/// The text of a manifest, and how messages call it.
fn read(path: &Path) -> anyhow::Result<(String, String)> {
    let name = if path == Path::new("-") {
        "stdin".to_owned()
    } else {
        format!("`{}`", escape_control(&path.to_string_lossy()))
    };
    let file = batch::open(path, "asyncq apply")?;
    let mut bytes = Vec::new();
    // One byte more than may be there.
    let most = MAX_MANIFEST_BYTES as u64;
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| {
        Error::new(Kind::Io, format!("cannot read {name}: {}", in_words(&error))).with_hint("try again")
    })?;
    if bytes.len() > MAX_MANIFEST_BYTES {
        let message = format!("{name} has more than {}", show_size(most));
        return Err(Error::new(Kind::Invalid, message)
            .with_hint("divide it by services into several files, and apply one after the other")
            .into());
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].split(|byte| *byte == b'\n').count();
        Error::new(Kind::Invalid, format!("{name}, line {line}: it is not UTF-8"))
            .with_hint("convert it, as with `iconv -f latin1 -t utf-8`")
    })?;
    Ok((name, text))
}

/// Print services, functions and schedules as a file that `asyncq apply` reads
#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    services: ServiceOptions,
    /// Print the values of recorded environment variables; without it, a variable gets the value that it has during `apply`
    #[arg(long)]
    env: bool,
}

impl Export {
    /// Runs the command.
    pub fn run(&self, session: &Session) -> anyhow::Result<u8> {
        let env = if self.env { EnvValues::Shown } else { EnvValues::Hidden };
        let text = session.open()?.export(&self.services.selection(), env)?;
        if text.is_empty() && !self.services.selection().is_all() {
            session.info("no service matches");
        }
        Sink(Stream::Out).write_all(text.as_bytes()).map_err(|error| stdio::cannot_write(Stream::Out, error))?;
        Ok(exit::DONE)
    }
}
