//! What somebody says about a schedule: everything about a new one, or what changes in an existing one.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::call::{Call, Principal};
use super::lane::Lane;
use super::meta::Meta;
use super::moment::moment;
use super::new_job::Priority;
use super::schedule::ScheduleDefinition;
use super::tick::{Lateness, Missed, Overlap};
use super::time::Timestamp;
use super::timetable::{Rule, Timetable};
use super::zone::machine_zone_name;
use crate::error::{Error, Kind, Result};

/// The moment and the zone in which times without a zone are read.
pub struct Viewpoint<'a> {
    /// The time now.
    pub now: Timestamp,
    /// The zone of those who give the times.
    pub zone: &'a dyn Fn() -> Result<TimeZone>,
}

/// The words of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleWords {
    /// A pattern of times.
    pub cron: Option<String>,
    /// The zone of the pattern.
    pub tz: Option<String>,
    /// The span between two ticks.
    pub every: Option<Duration>,
}

/// A rule, and whether it has the zone of the viewpoint because nobody named one.
pub type ZonedRule = (Rule, bool);

impl RuleWords {
    /// The rule.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the words make no rule, or more than one.
    pub fn rule(&self, from: &Viewpoint<'_>) -> Result<ZonedRule> {
        let refuse = |message: &str, hint: &str| Err(Error::new(Kind::Usage, message).with_hint(hint));
        match (&self.cron, self.every) {
            (Some(_), Some(_)) => refuse("`--cron` and `--every` exclude each other", "leave one of them out"),
            (None, None) => refuse(
                "the rule of the schedule is missing",
                "give times with `--cron`, as in --cron '30 2 * * *', or a span with `--every`, as in --every 90s",
            ),
            (None, Some(_)) if self.tz.is_some() => Err(no_zone()),
            (None, Some(every)) => Ok((Rule::every(every)?, false)),
            (Some(cron), None) => {
                let Some(zone) = &self.tz else {
                    let zone = (from.zone)()?;
                    let name = zone.iana_name().map_or_else(machine_zone_name, |name| Ok(name.to_owned()))?;
                    return Ok((Rule::cron(cron, &name)?, true));
                };
                Ok((Rule::cron(cron, zone)?, false))
            }
        }
    }

    /// The rule that the words make of an existing one, if they say anything.
    ///
    /// # Errors
    /// As [`RuleWords::rule`].
    pub fn changed(&self, old: &Rule, from: &Viewpoint<'_>) -> Result<Option<ZonedRule>> {
        match (&self.cron, self.every, &self.tz, old.as_cron()) {
            (None, None, None, _) => Ok(None),
            (None, None, Some(zone), Some((pattern, _))) => Ok(Some((Rule::cron(pattern, zone)?, false))),
            (Some(cron), None, None, Some((_, zone))) => Ok(Some((Rule::cron(cron, zone)?, false))),
            (None, None, Some(_), None) => Err(no_zone()),
            _ => self.rule(from).map(Some),
        }
    }
}

/// The error for a zone of exact time.
fn no_zone() -> Error {
    Error::new(Kind::Usage, "`--every` is exact time, in which time zones make no difference")
        .with_hint("leave `--tz` out, or use --cron '0 9 * * *' for a time of day")
}

/// A time, read in the zone of the rule if it has one.
///
/// # Errors
/// As [`moment`].
pub fn time_by(rule: &Rule, text: &str, from: &Viewpoint<'_>) -> Result<Timestamp> {
    moment(text, from.now, || if rule.as_cron().is_some() { Ok(rule.zone()) } else { (from.zone)() })
}

/// A value that can be removed: `None` leaves it as it is, and `Some(None)` removes it.
pub type Edit<T> = Option<Option<T>>;

/// What somebody says about a schedule. What is left out stays as it is; a new schedule gets the default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScheduleEdit {
    /// The call. Its principal does not count.
    pub call: Option<Call>,
    /// On whose behalf the calls are made.
    pub principal: Edit<Principal>,
    /// The rule.
    pub rule: RuleWords,
    /// What happens to missed ticks.
    pub missed: Option<Missed>,
    /// How late a tick may be.
    pub within: Option<Duration>,
    /// What a tick does while the job of an earlier one has not ended.
    pub overlap: Option<Overlap>,
    /// When it begins.
    pub from: Edit<String>,
    /// When it ends.
    pub until: Edit<String>,
    /// The priority of its jobs.
    pub priority: Option<Priority>,
    /// Their lane.
    pub lane: Edit<Lane>,
    /// How long after its tick a job expires.
    pub expires: Edit<Duration>,
    /// The metadata of its jobs.
    pub meta: Edit<Meta>,
    /// What it is for.
    pub description: Edit<String>,
}

impl ScheduleEdit {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == ScheduleEdit::default()
    }

    /// A new schedule, and whether it has the zone of the viewpoint because nobody named one.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the call or the rule is missing, and for parts that do not fit together.
    pub fn new_definition(&self, from: &Viewpoint<'_>) -> Result<(ScheduleDefinition, bool)> {
        let call = self.call.clone().ok_or_else(|| {
            Error::new(Kind::Usage, "the call of the schedule is missing")
                .with_hint("name its service and its function")
        })?;
        let (rule, is_here) = self.rule.rule(from)?;
        let definition = ScheduleDefinition {
            call: Call { principal: self.principal.clone().flatten(), ..call },
            timetable: self.timetable(rule, (None, None), from)?,
            lateness: Lateness::new(self.missed.unwrap_or_default(), self.within, self.overlap)?,
            priority: self.priority.unwrap_or_default(),
            lane: self.lane.clone().flatten(),
            expires: self.expires.flatten(),
            meta: self.meta.clone().flatten(),
            description: self.description.clone().flatten(),
        };
        Ok((definition, is_here))
    }

    /// The schedule after the change, and whether its new zone is that of the viewpoint because nobody named one.
    ///
    /// # Errors
    /// [`Kind::Usage`] for parts that do not fit together.
    pub fn changed(&self, old: &ScheduleDefinition, from: &Viewpoint<'_>) -> Result<(ScheduleDefinition, bool)> {
        let mut is = old.clone();
        if let Some(new) = &self.call {
            let Call { principal, site, .. } = is.call;
            is.call = Call { principal, site: new.site.clone().or(site), ..new.clone() };
        }
        is.call.principal = self.principal.clone().unwrap_or(is.call.principal);
        let changed = self.rule.changed(&old.timetable.rule, from)?;
        let (rule, is_here) = changed.unwrap_or_else(|| (old.timetable.rule.clone(), false));
        is.timetable = self.timetable(rule, (old.timetable.from(), old.timetable.until()), from)?;
        is.lateness = self.lateness(&old.lateness)?;
        is.priority = self.priority.unwrap_or(is.priority);
        is.lane = self.lane.clone().unwrap_or(is.lane);
        is.expires = self.expires.unwrap_or(is.expires);
        is.meta = self.meta.clone().unwrap_or(is.meta);
        is.description = self.description.clone().unwrap_or(is.description);
        Ok((is, is_here))
    }

    /// The timetable of a rule. `old` says when the schedule begins and ends, if nothing else does.
    fn timetable(
        &self,
        rule: Rule,
        old: (Option<Timestamp>, Option<Timestamp>),
        viewpoint: &Viewpoint<'_>,
    ) -> Result<Timetable> {
        let read = |text: &Edit<String>, old: Option<Timestamp>| match text {
            None => Ok(old),
            Some(text) => text.as_deref().map(|text| time_by(&rule, text, viewpoint)).transpose(),
        };
        let (from, until) = (read(&self.from, old.0)?, read(&self.until, old.1)?);
        Timetable::new(rule, from, until)
    }

    fn lateness(&self, old: &Lateness) -> Result<Lateness> {
        let missed = self.missed.unwrap_or(old.missed());
        // The overlap for one way to handle missed ticks does not apply to another way.
        let overlap = self.overlap.or((missed == old.missed()).then_some(old.overlap()));
        Lateness::new(missed, self.within.or(old.given_within()), overlap)
    }
}
