//! A check of everything that can keep calls from running.

use std::time::Duration;

use super::examination::{Examination, one_or};
use super::queue::Queue;
use crate::domain::diagnosis::{Health, ImpossibleJobs, LostReferences};
use crate::domain::pattern::ServiceSelection;
use crate::domain::retention::Retention;
use crate::domain::size::show_size;
use crate::domain::status::{Finding, ProblemLimits};
use crate::domain::time::show_span;
use crate::error::{Result, reason};
use crate::processor::{Fate, fate, left_folders, missing_space};
use crate::system::disk::{file_limit, free_space, others_can_write};

/// The size of a WAL that no checkpoint can make shorter, in bytes.
const LARGE_WAL: u64 = 64 << 20;

/// How far the clock may be behind the latest time that a processor has seen.
const CLOCK: Duration = Duration::from_secs(60);

/// How many ended jobs are many, if nothing removes them.
const MANY: u64 = 1_000_000;

/// How long a call may wait.
const MAX_AGE: Duration = Duration::from_secs(600);

/// How many files a process has to be able to open, at least.
const FEW_FILES: u64 = 256;

impl Queue {
    /// Checks the store, its processors and its calls, and changes nothing. `full` reads the whole store to search for damage.
    ///
    /// # Errors
    /// When the store cannot be read, for reasons that no check names.
    pub fn examine(&mut self, full: bool) -> Result<Examination> {
        let mut found = Examination::default();
        found.add("file", Health::Ok, "it can be read and written", None);
        self.examine_rights(&mut found);
        if !self.examine_file(full, &mut found) {
            return Ok(found);
        }
        if full {
            self.examine_rows(&mut found)?;
        }
        let definitions = self.examine_definitions(&mut found)?;
        self.examine_processors(&mut found)?;
        if definitions {
            self.examine_calls(&mut found)?;
        }
        self.examine_waiting(&mut found)?;
        self.examine_size(definitions, &mut found)?;
        Ok(found)
    }

    /// Lets calls go on that wait without a reason. Returns how many.
    ///
    /// # Errors
    /// Whatever the store answers.
    pub fn free_stuck(&mut self) -> Result<u64> {
        let freed = self.store.free_stuck()?;
        Ok(freed.unlinked + freed.untold + freed.lanes)
    }

    fn examine_rights(&mut self, found: &mut Examination) {
        match self.store.location().file().ok().filter(|file| others_can_write(file)) {
            Some(file) => {
                let hint = format!("`chmod o-w '{}'` takes that right away", file.display());
                let message = "everybody can write the store, and have its processors run any program";
                found.add("rights", Health::Warning, message, Some(&hint));
            }
            None => found.add("rights", Health::Ok, "only its owner and its group can write it", None),
        }
    }

    /// Returns whether the rest can be looked at.
    fn examine_file(&mut self, full: bool, found: &mut Examination) -> bool {
        match self.store.differences() {
            Ok(None) => {
                let hint = Some("the next command that uses it upgrades it; `asyncq init` does too");
                found.add(
                    "schema",
                    Health::Warning,
                    "it has the schema of an older asyncq; nothing else was checked",
                    hint,
                );
                return false;
            }
            Ok(Some(parts)) if parts.is_empty() => {
                found.add("schema", Health::Ok, "it is as this asyncq makes it", None);
            }
            Ok(Some(parts)) => {
                for part in &parts {
                    let was = if part.was_missing { "is missing" } else { "was changed" };
                    let message = format!("{} `{}` {was}", part.kind, part.name);
                    found.add("schema", Health::Fault, message, Some("`asyncq init` makes it again"));
                }
                if parts.iter().any(|part| part.kind == "table") {
                    return false;
                }
            }
            Err(error) => {
                found.add("schema", Health::Fault, error.to_string(), error.hint());
                return false;
            }
        }
        let checked = if full { self.store.check() } else { self.store.check_pages() };
        let good = if full { "no damage" } else { "no damaged page" };
        if !found.add_result("damage", good, checked) {
            return false;
        }
        let numbers = self.store.check_numbers();
        found.add_result("numbers", "there are enough for all jobs to come", numbers);
        true
    }

    /// What only a look at all rows finds.
    fn examine_rows(&mut self, found: &mut Examination) -> Result<()> {
        let lost = self.store.lost_references()?;
        for LostReferences { table, refers_to, rows } in &lost {
            let refer = if *rows == 1 { "row refers" } else { "rows refer" };
            let message = format!("in table `{table}`, {rows} {refer} to what is not in table `{refers_to}`");
            let hint = format!(
                "a program has removed rows without a look at foreign keys: restore a backup, or stop every processor and remove what \
                 `PRAGMA foreign_key_check({table})` lists"
            );
            found.add("references", Health::Fault, message, Some(&hint));
        }
        if lost.is_empty() {
            found.add("references", Health::Ok, "each row refers to one that is there", None);
        }
        let jobs = self.store.impossible_jobs()?;
        if let Some((count, first)) = jobs.contradictory {
            let message = if count == 1 {
                format!("the state of job {first} contradicts the rest of it")
            } else {
                format!("the states of {count} jobs contradict the rest of them; the first is job {first}")
            };
            let hint = "a program has changed it without the triggers of the store: restore a backup, or make the call again with \
                        `asyncq job rerun`";
            found.add("jobs", Health::Fault, message, Some(hint));
        }
        if let Some((count, service)) = &jobs.without_service {
            let message =
                format!("{} for service `{service}`, which does not exist", one_or("job waits", "jobs wait", *count));
            found.add("jobs", Health::Fault, message, Some(&format!("`asyncq service add {service}` adds it again")));
        }
        if jobs == ImpossibleJobs::default() {
            found.add("jobs", Health::Ok, "each has ended, runs, or can", None);
        }
        Ok(())
    }

    /// Whether services and functions can be read, without which calls cannot be looked at.
    fn examine_definitions(&mut self, found: &mut Examination) -> Result<bool> {
        let (services, functions) = (self.store.services(), self.store.functions(None));
        let services = found.readable("definitions", services)?;
        let functions = found.readable("definitions", functions)?;
        let all = services.zip(functions);
        let all = all.map(|(services, functions)| (services.len() as u64, functions.len() as u64));
        if let Some((services, functions)) = all {
            let services = one_or("service", "services", services);
            let functions = one_or("function", "functions", functions);
            found.add("definitions", Health::Ok, format!("{services} and {functions} can be read"), None);
        }
        let schedules = self.store.schedules(None);
        if let Some(schedules) = found.readable("schedules", schedules)? {
            found.add("schedules", Health::Ok, format!("{} can be read, with their zones", schedules.len()), None);
        }
        Ok(all.is_some())
    }

    fn examine_processors(&mut self, found: &mut Examination) -> Result<()> {
        let processors = self.store.processors()?;
        let (mut alive, mut bad) = (Vec::new(), false);
        for processor in &processors {
            let who = format!("processor {} (process {} on {})", processor.id.0, processor.is.pid, processor.is.host);
            let (message, hint) = match fate(&self.store, processor) {
                Fate::Lives => {
                    alive.push(processor);
                    continue;
                }
                Fate::Dead => (
                    format!("{who} died, and its calls wait for another"),
                    "`asyncq process` puts them back and runs them",
                ),
                Fate::OutOfReach(_) => (
                    format!("{who} died, and what it left running is out of reach"),
                    "run `asyncq process` as the user, and in the container, in which it ran",
                ),
            };
            bad = true;
            found.add("processors", Health::Fault, message, Some(hint));
        }
        if let Some(older) = self.store.newest_older()? {
            for outdated in alive.iter().filter(|it| it.id <= older) {
                bad = true;
                let message = format!("processor {} is older than the store, and begins no call", outdated.id.0);
                found.add("processors", Health::Fault, message, Some("restart it with this version of asyncq"));
            }
        }
        if !bad {
            found.add("processors", Health::Ok, format!("{} at work, none dead", alive.len()), None);
        }
        let left = left_folders(&self.store, &processors);
        if left > 0 {
            let message = format!(
                "{} of processors that the store does not know",
                one_or("folder is left", "folders are left", left as u64)
            );
            let hint = format!("remove what is in `{}` while no processor runs", self.store.run_folder().display());
            found.add("folders", Health::Warning, message, Some(&hint));
        } else {
            found.add("folders", Health::Ok, "nothing is left of earlier processors", None);
        }
        let unowned = self.store.orphaned()?.len();
        if unowned > 0 {
            let message =
                format!("{} to no processor", one_or("job that runs belongs", "jobs that run belong", unowned as u64));
            found.add("unowned", Health::Fault, message, Some("`asyncq init` puts them back"));
        } else {
            found.add("unowned", Health::Ok, "each job that runs has a processor", None);
        }
        let missing = missing_space(&self.store, &alive);
        let free = self.store.location().file().ok().and_then(free_space);
        match free {
            Some(free) if free < missing => found.add(
                "space",
                Health::Fault,
                format!("{} of disk space are left, too little to begin a call", show_size(free)),
                Some("make room on the file system of the store"),
            ),
            Some(free) => found.add("space", Health::Ok, format!("{} of disk space are free", show_size(free)), None),
            None => {}
        }
        let files = file_limit();
        if files < FEW_FILES {
            let message = format!("a process may open only {files} files");
            found.add(
                "limits",
                Health::Warning,
                message,
                Some("raise it with `ulimit -n`, or `LimitNOFILE=` of systemd"),
            );
        } else if let Err(error) = self.store.watch() {
            let hint = "raise `fs.inotify.max_user_instances` and `max_user_watches` with `sysctl`";
            let message = format!("this user can watch no more files: {}", reason(&error));
            found.add("limits", Health::Warning, message, Some(hint));
        } else {
            found.add("limits", Health::Ok, "files can be opened and watched", None);
        }
        Ok(())
    }

    fn examine_calls(&mut self, found: &mut Examination) -> Result<()> {
        let overview = self.overview(&ServiceSelection::default(), false)?;
        let limits = ProblemLimits { max_age: MAX_AGE, max_errors: None };
        let troubles = self.troubles(&overview, limits)?;
        found.troubles = troubles.into_iter().filter(|it| !matches!(it, Finding::DeadProcessor(_))).collect();
        if found.troubles.is_empty() {
            found.add(
                "calls",
                Health::Ok,
                "none has waited for too long, each function has its program, and takes the arguments of its schedules",
                None,
            );
        }
        self.examine_hooks(found)
    }

    fn examine_waiting(&mut self, found: &mut Examination) -> Result<()> {
        let stuck = self.store.stuck()?;
        for (count, one, many) in [
            (
                stuck.unlinked,
                "job waits for other jobs, but is linked to none",
                "jobs wait for other jobs, but are linked to none",
            ),
            (
                stuck.untold,
                "job has ended, but the calls that need it do not know that",
                "jobs have ended, but the calls that need them do not know that",
            ),
            (stuck.lanes, "lane has room, but its calls wait", "lanes have room, but their calls wait"),
        ] {
            if count > 0 {
                let message = one_or(one, many, count);
                found.add("waiting", Health::Fault, message, Some("`asyncq doctor --fix` lets the calls go on"));
            }
        }
        if stuck.unlinked + stuck.untold + stuck.lanes == 0 {
            found.add("waiting", Health::Ok, "each call that waits has a reason", None);
        }
        let (now, seen) = self.store.clocks()?;
        if seen.since(now) > CLOCK {
            let message = format!("the clock is {} behind the latest time of a processor", show_span(seen.since(now)));
            let hint = "set the clock; calls and schedules go by the later time until then";
            found.add("clock", Health::Warning, message, Some(hint));
        } else {
            found.add("clock", Health::Ok, "it was not set back", None);
        }
        Ok(())
    }

    /// Clients may add functions whose hooks do not exist.
    fn examine_hooks(&mut self, found: &mut Examination) -> Result<()> {
        let (services, functions) = (self.store.services()?, self.store.functions(None)?);
        let owners = services.iter().map(|it| (format!("service `{}`", it.name), &it.hooks));
        let owners =
            owners.chain(functions.iter().map(|it| {
                (format!("function `{}` of service `{}`", it.name, it.service), &it.definition.policy.hooks)
            }));
        let mut bad = false;
        for (owner, hooks) in owners {
            for (_, target) in hooks.targets() {
                if !functions.iter().any(|it| it.service == target.service && it.name == target.function) {
                    bad = true;
                    let message = format!("the hook `{target}` of {owner} does not exist");
                    found.add("hooks", Health::Fault, message, Some("add that function, or set another hook"));
                }
            }
        }
        if !bad {
            found.add("hooks", Health::Ok, "each names a function that exists", None);
        }
        Ok(())
    }

    fn examine_size(&mut self, definitions: bool, found: &mut Examination) -> Result<()> {
        let wal = self.wal_bytes();
        if wal > LARGE_WAL {
            let message = format!("the WAL has {}", show_size(wal));
            let hint = "a program that reads in one long transaction keeps it from being emptied: end that transaction";
            found.add("wal", Health::Warning, message, Some(hint));
        } else {
            found.add("wal", Health::Ok, format!("the WAL has {}", show_size(wal)), None);
        }
        let keeps_all = definitions && self.store.services()?.iter().any(|it| it.retention == Retention::default());
        let ended = self.store.count_ended(MANY + 1)?;
        if keeps_all && ended > MANY {
            let hint =
                "`asyncq service set NAME --keep 30d` removes jobs after a time; `asyncq job clean` removes them now";
            found.add(
                "size",
                Health::Warning,
                "more than 1000000 jobs have ended, and nothing removes them",
                Some(hint),
            );
        } else {
            found.add("size", Health::Ok, "ended jobs are few, or are removed after a time", None);
        }
        Ok(())
    }
}
