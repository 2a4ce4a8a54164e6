//! Sizes of memory, as people write them.

/// The units, each 1,024 times the one before.
const UNITS: [char; 5] = ['B', 'K', 'M', 'G', 'T'];

/// Parses a size such as `500M` or `2G`. Without a unit it is in bytes.
///
/// # Errors
/// What is wrong with it, for a person.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wanted = "write an amount of memory such as 500M or 2G".to_owned();
    let upper = text.trim().to_ascii_uppercase();
    let plain = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
    let digits = plain.trim_end_matches(UNITS);
    let power = match plain[digits.len()..].chars().collect::<Vec<_>>()[..] {
        [] => 0,
        [unit] => UNITS.iter().position(|known| *known == unit).unwrap_or(0),
        _ => return Err(wanted),
    };
    let number: u64 = digits.trim_end().parse().map_err(|_| wanted.clone())?;
    let bytes = number.checked_mul(1024_u64.pow(u32::try_from(power).unwrap_or(0)));
    // As the store keeps it.
    bytes.filter(|bytes| *bytes > 0 && i64::try_from(*bytes).is_ok()).ok_or(wanted)
}

/// Writes a size so that [`parse_size`] reads the same value.
#[must_use]
pub fn write_size(bytes: u64) -> String {
    let mut number = bytes;
    let mut unit = 0;
    while number > 0 && number.is_multiple_of(1024) && unit + 1 < UNITS.len() {
        number /= 1024;
        unit += 1;
    }
    format!("{number}{}", if unit == 0 { String::new() } else { UNITS[unit].to_string() })
}

/// A size for people: two digits at least, as in `840 kB` or `1.2 GB`; 1 kB is 1,000 bytes.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    let (mut scaled, mut unit) = (bytes, "bytes");
    let mut rest = 0;
    for larger in ["kB", "MB", "GB", "TB"] {
        if scaled < 1000 {
            break;
        }
        (rest, scaled, unit) = (scaled % 1000 / 100, scaled / 1000, larger);
    }
    if scaled < 10 && unit != "bytes" { format!("{scaled}.{rest} {unit}") } else { format!("{scaled} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_short() {
        for (bytes, shown) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1000, "1.0 kB"),
            (84_321_000, "84 MB"),
            (1_250_000_000, "1.2 GB"),
            (5_000_000_000_000_000, "5000 TB"),
        ] {
            assert_eq!(show_size(bytes), shown);
        }
    }

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in
            [("1", 1), ("512B", 512), ("2k", 2048), ("500M", 524_288_000), ("1 GiB", 1 << 30), ("3TB", 3 << 40)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(parse_size(&write_size(bytes)), Ok(bytes), "{text}");
        }
        for bad in ["", "0", "M", "-1M", "1.5G", "5MM", "5X", "99999999999T", "9000000T", "1 2M"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
