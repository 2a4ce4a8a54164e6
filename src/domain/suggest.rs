//! "Did you mean ...?"

/// The candidate that `given` was most likely meant to be, if one is near enough: at most a third of its letters
/// mistyped, left out, added or swapped (Damerau-Levenshtein distance), or only its end missing.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(given, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= candidate.chars().count() / 3 || given.len() > 2 && candidate.starts_with(given)
        })
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn near_names_only() {
        assert_eq!(nearest("heavy_computng", ["mail", "heavy_computing"]), Some("heavy_computing"));
        assert_eq!(nearest("evnets", ["events", "event-log"]), Some("events"));
        assert_eq!(nearest("heavy", ["mail", "heavy_computing"]), Some("heavy_computing"));
        assert_eq!(nearest("x", ["y", "events", "mail"]), None);
    }
}
