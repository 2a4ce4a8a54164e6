//! A service: a named queue and its limits.

use std::num::NonZeroU32;

use super::hook::{HookChange, HookKind, Hooks};
pub use super::name::{MAX_NAME_BYTES, ServiceName};
use super::pause::Pause;
use super::rate::Rate;
use super::retention::{Retention, RetentionChange, write_keep};
use super::time::Timestamp;

/// A service as it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name, unique in a store.
    pub name: ServiceName,
    /// How many of its calls may run at once, across all processors.
    pub concurrency: NonZeroU32,
    /// Its pause, if it is paused. Then it accepts calls, but runs none.
    pub pause: Option<Pause>,
    /// When it was added.
    pub created_at: Timestamp,
    /// How many calls of one lane may run at once.
    pub lane_width: NonZeroU32,
    /// The functions to call when a job ends for good whose function has no such hook.
    pub hooks: Hooks,
    /// How often its calls may start, if that is limited.
    pub rate: Option<Rate>,
    /// How long its jobs are kept.
    pub retention: Retention,
}

/// What is wanted of a service. A field that is `None` stays unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceChange {
    /// The limit of calls running at once.
    pub concurrency: Option<NonZeroU32>,
    /// Another pause, or none.
    pub pause: Option<Option<Pause>>,
    /// The limit of calls of one lane running at once.
    pub lane_width: Option<NonZeroU32>,
    /// Changes of its hooks.
    pub hooks: HookChange,
    /// How often its calls may start. The inner `None` removes the limit.
    pub rate: Option<Option<Rate>>,
    /// Changes of how long its jobs are kept.
    pub retention: RetentionChange,
}

impl ServiceChange {
    /// The service with these changes.
    #[must_use]
    pub fn apply(&self, to: &Service) -> Service {
        Service {
            concurrency: self.concurrency.unwrap_or(to.concurrency),
            pause: self.pause.clone().unwrap_or_else(|| to.pause.clone()),
            lane_width: self.lane_width.unwrap_or(to.lane_width),
            hooks: self.hooks.apply(&to.hooks),
            rate: self.rate.unwrap_or(to.rate),
            retention: self.retention.apply(to.retention),
            ..to.clone()
        }
    }

    /// The options of `service set` for which an existing service differs, each with its present value in words.
    #[must_use]
    pub fn differences(&self, there: &Service) -> Vec<(String, String)> {
        let numbers =
            [("concurrency", self.concurrency, there.concurrency), ("lane-width", self.lane_width, there.lane_width)];
        let differs = numbers.into_iter().filter_map(|(name, wanted, is)| {
            let wanted = wanted.filter(|wanted| *wanted != is)?;
            Some((format!("--{name} {wanted}"), format!("{} {is}", name.replace('-', " "))))
        });
        let hooks = HookKind::ALL.into_iter().filter_map(|kind| {
            let (wanted, is) = (self.hooks.get(kind)?, there.hooks.get(kind));
            let set = match wanted {
                Some(target) => format!("--{} {target}", kind.option()),
                None => format!("--no-{}", kind.option()),
            };
            let is_text =
                is.map_or_else(|| format!("no hook {}", kind.words()), |is| format!("the hook {is} {}", kind.words()));
            (wanted.as_ref() != is).then_some((set, is_text))
        });
        let rate = self.rate.filter(|wanted| *wanted != there.rate).map(|wanted| {
            let option = wanted
                .map_or_else(|| "--rate none".to_owned(), |rate| format!("--rate {rate} --burst {}", rate.burst()));
            let is =
                there.rate.map_or_else(|| "no rate".to_owned(), |rate| format!("rate {rate}, burst {}", rate.burst()));
            (option, is)
        });
        let (wanted, is) = (self.retention, there.retention);
        let keeps = [("keep", wanted.ended, is.ended), ("keep-errors", wanted.errors, is.errors)];
        let keeps = keeps.into_iter().filter_map(|(name, wanted, is)| {
            let wanted = wanted.filter(|wanted| *wanted != is)?;
            Some((format!("--{name} {}", write_keep(wanted)), format!("{} {}", name.replace('-', " "), write_keep(is))))
        });
        differs.chain(rate).chain(keeps).chain(hooks).collect()
    }
}

/// The result of defining a service or a function that may exist already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defined {
    /// It is new.
    Added,
    /// It existed and was the same, so nothing was changed.
    Same,
    /// It existed and differed, and is as wanted now.
    Changed,
    /// It is there and differs, and stays as it is.
    Kept,
}

/// The result of adding a service or a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is new.
    New,
    /// The same one existed, so nothing was changed.
    Same,
}
