//! What a job knows about the tick that has made it.

use serde::Serialize;

use super::{time::Timestamp, zone};

/// The tick that has made a job. Its JSON is what programs read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobTick {
    /// The name of the schedule.
    pub name: String,
    /// The tick in RFC 3339, as the clock of the schedule shows it.
    pub tick: String,
    /// How many earlier ticks the job stands for as well.
    pub missed: i64,
}

impl JobTick {
    /// The `tick` of the schedule of that name. `zone` is that of its rule, if the schedule still exists and has one.
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
