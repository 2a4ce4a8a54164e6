//! Time zones by name, and the zone of this machine.
//!
//! jiff reads the machine's time zone database, or its own copy if the machine has none.

use jiff::tz::{self, TimeZone};

use super::suggest::nearest;
use super::text::escape_control;
use crate::error::{Error, Kind, Result};

/// The time zone with this name in the IANA database, as in `Europe/Berlin`. Upper and lower case make no difference;
/// [`TimeZone::iana_name`] has the usual spelling.
///
/// # Errors
/// [`Kind::Usage`] when there is none, with the name that somebody probably meant.
pub fn zone(name: &str) -> Result<TimeZone> {
    if let Ok(zone) = TimeZone::get(name)
        && !zone.is_unknown()
    {
        return Ok(zone);
    }
    let hint = match meant(name) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "a time zone has a name such as `Europe/Berlin`, `America/New_York` or `UTC`".to_owned(),
    };
    Err(Error::new(Kind::Usage, format!("there is no time zone `{}`", escape_control(name))).with_hint(hint))
}

/// The zone that `$TZ` names, or otherwise the zone to which this machine is set. It may have no name, as with
/// `TZ=CET-1CEST,M3.5.0,M10.5.0/3`; then [`TimeZone::iana_name`] is `None`.
///
/// # Errors
/// [`Kind::Usage`] when `$TZ` or the machine names a zone that does not exist.
pub fn machine_zone() -> Result<TimeZone> {
    match TimeZone::try_system() {
        Ok(zone) if !zone.is_unknown() => Ok(zone),
        _ => Err(Error::new(Kind::Usage, "the time zone of this machine cannot be found")
            .with_hint("name one with `--tz`, as in `--tz Europe/Berlin`, or set `$TZ`")),
    }
}

/// The name of [`machine_zone`].
///
/// # Errors
/// The same, and [`Kind::Usage`] when that zone has no name.
pub fn machine_zone_name() -> Result<String> {
    machine_zone()?.iana_name().map(str::to_owned).ok_or_else(|| {
        Error::new(Kind::Usage, "the time zone of this machine has no name")
            .with_hint("name one with `--tz`, as in `--tz Europe/Berlin`")
    })
}

/// The names of all time zones.
#[must_use]
pub fn zone_names() -> Vec<String> {
    let mut names: Vec<String> = tz::db().available().map(|name| name.as_str().to_owned()).collect();
    // Debian has all zones under these two folders, too.
    names.retain(|name| !name.starts_with("posix/") && !name.starts_with("right/"));
    names
}

/// The zone that `given`, which is not a zone, probably means: it may have a typo, or name only the city.
#[must_use]
pub fn meant(given: &str) -> Option<String> {
    let names = zone_names();
    let given = given.trim().replace(' ', "_");
    let is_city = |name: &&String| name.rsplit_once('/').is_some_and(|(_, city)| city.eq_ignore_ascii_case(&given));
    let city = names.iter().filter(is_city).min().cloned();
    city.or_else(|| nearest(&given, names.iter().map(String::as_str)).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_has_its_usual_name() {
        assert_eq!(zone("Europe/Berlin").unwrap().iana_name(), Some("Europe/Berlin"));
        assert_eq!(zone("america/new_york").unwrap().iana_name(), Some("America/New_York"));
        assert_eq!(zone("UTC").unwrap().iana_name(), Some("UTC"));
    }

    #[test]
    fn a_zone_that_does_not_exist_suggests_one() {
        for (given, hint) in [
            ("Europe/Berln", "did you mean `Europe/Berlin`?"),
            ("berlin", "did you mean `Europe/Berlin`?"),
            ("New York", "did you mean `America/New_York`?"),
            ("", "a time zone has a name such as `Europe/Berlin`, `America/New_York` or `UTC`"),
            ("CET-1CEST", "a time zone has a name such as `Europe/Berlin`, `America/New_York` or `UTC`"),
            ("Etc/Unknown", "a time zone has a name such as `Europe/Berlin`, `America/New_York` or `UTC`"),
            ("../../../etc/passwd", "a time zone has a name such as `Europe/Berlin`, `America/New_York` or `UTC`"),
        ] {
            let error = zone(given).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert_eq!(error.to_string(), format!("there is no time zone `{given}`"));
            assert_eq!(error.hint(), Some(hint), "{given}");
        }
    }
}
