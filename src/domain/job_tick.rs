//! What a job knows of the tick that has made it.

use serde::Serialize;

use super::{time::Timestamp, zone};

/// The tick that has made a job, as programs read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobTick {
    /// The name of the schedule.
    pub name: String,
    /// The tick, in RFC 3339, with the clock of the schedule.
    pub tick: String,
    /// How many earlier ticks the job stands for, too.
    pub missed: i64,
}

impl JobTick {
    /// The `tick` of a schedule of that name whose rule has this zone, if it still exists and has one.
    #[must_use]
    pub fn new(name: String, tick: Timestamp, missed: i64, zone: Option<&str>) -> JobTick {
        let zone = zone.and_then(|name| zone::zone(name).ok());
        let tick = match (jiff::Timestamp::from_millisecond(tick.0), zone) {
            (Ok(exact), Some(zone)) => exact.display_with_offset(zone.to_offset(exact)).to_string(),
            (Ok(exact), None) => exact.to_string(),
            (Err(_), _) => tick.to_string(),
        };
        JobTick { name, tick, missed }
    }
}
