//! An overview of a store, and its problems.

use std::time::{Duration, Instant};

use super::flaw::broken;
use super::lookout::Lookout;
use super::queue::Queue;
use crate::domain::pattern::ServiceSelection;
use crate::domain::pause::Paused;
use crate::domain::status::{Finding, Overview, ProblemLimits};
use crate::domain::time::Timestamp;
use crate::error::Result;
use crate::processor::lives;

/// A tick that is later than this counts as a problem, because no processor makes its job.
const OVERDUE: Duration = Duration::from_secs(60);

/// The shortest and the longest time between two updates of a watched overview. Times in it change even if nothing else does.
const SOONEST: Duration = Duration::from_millis(200);
const LATEST: Duration = Duration::from_secs(10);

/// The time between two updates is at least this many times the one that the first of them took, so that watching a busy store takes
/// little from those who work in it.
const REST: u32 = 100;

impl Queue {
    /// An overview of these services, or of all if none is named. A pattern may match no service.
    ///
    /// # Errors
    /// [`crate::Kind::NotFound`] when a named service does not exist.
    pub fn overview(&mut self, services: &ServiceSelection, exact: bool) -> Result<Overview> {
        let store = &mut self.store;
        let services = store.select_services(services)?;
        let (now, overviews) = store.overview(&services, exact)?;
        let processors = store.processors()?.into_iter().map(|processor| {
            let is_alive = lives(store, &processor);
            (processor, is_alive)
        });
        let processors = processors.collect();
        let (schedules, pause, bytes) = (store.count_schedules(&services)?, store.pause()?, self.bytes());
        Ok(Overview { services: overviews, processors, schedules, pause, bytes, now })
    }

    /// How many bytes the files of the store have.
    fn bytes(&self) -> u64 {
        ["", "-wal", "-shm"].iter().map(|suffix| self.bytes_of(suffix)).sum()
    }

    /// How many bytes the WAL has.
    pub(super) fn wal_bytes(&self) -> u64 {
        self.bytes_of("-wal")
    }

    /// How many bytes one of its files has.
    fn bytes_of(&self, suffix: &str) -> u64 {
        let Ok(file) = self.store.location().file() else { return 0 };
        let mut path = file.as_os_str().to_owned();
        path.push(suffix);
        std::fs::metadata(path).map_or(0, |meta| meta.len())
    }

    /// The problems of the services in this overview.
    ///
    /// # Errors
    /// Whatever the store answers.
    pub fn troubles(&mut self, overview: &Overview, limits: ProblemLimits) -> Result<Vec<Finding>> {
        let dead = overview.processors.iter().filter(|(_, lives)| !lives);
        let mut troubles: Vec<Finding> = dead.map(|(processor, _)| Finding::DeadProcessor(processor.clone())).collect();
        troubles.extend(overview.pause.clone().map(|pause| Finding::Paused(Paused::Store(pause))));
        let is_late = |since: Timestamp, limit| overview.now.since(since) > limit;
        for it in &overview.services {
            let name = || it.service.name.to_string();
            if let Some(pause) = &it.service.pause {
                troubles.push(Finding::Paused(Paused::Service(it.service.name.clone(), pause.clone())));
            }
            if let Some(oldest) = it.oldest.filter(|oldest| is_late(*oldest, limits.max_age)) {
                troubles.push(Finding::Old(name(), oldest));
            }
            let tick = it
                .next_tick
                .as_ref()
                .filter(|(tick, _)| it.service.pause.is_none() && overview.pause.is_none() && is_late(*tick, OVERDUE));
            if let Some((tick, schedule)) = tick {
                troubles.push(Finding::Overdue(schedule.clone(), *tick));
            }
            for (schedule, error) in self.store.idle_schedules(&it.service.name)? {
                troubles.push(Finding::Unfit(schedule.to_string(), error.to_string()));
            }
            if limits.max_errors.is_some_and(|most| it.errors.number > most) {
                troubles.push(Finding::Errors(name(), it.errors));
            }
            for function in self.store.functions(Some(&it.service.name))? {
                if let Some(why) = broken(&function.definition, None) {
                    troubles.push(Finding::Broken(name(), function.name.to_string(), why));
                }
            }
        }
        Ok(troubles)
    }

    /// Shows an overview whenever the store has changed, until `show` fails.
    ///
    /// # Errors
    /// As [`Queue::overview`], and whatever `show` answers.
    pub fn watch_overview<E: From<crate::Error>>(
        &mut self,
        services: &ServiceSelection,
        mut show: impl FnMut(&Overview) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut lookout = Lookout::of(&mut self.store)?;
        loop {
            let began = Instant::now();
            let overview = self.overview(services, false)?;
            let soonest = SOONEST.max(began.elapsed() * REST).min(LATEST);
            show(&overview)?;
            lookout.sleep(&mut self.store, Some(began + LATEST), None)?;
            std::thread::sleep(soonest.saturating_sub(began.elapsed()));
        }
    }
}
