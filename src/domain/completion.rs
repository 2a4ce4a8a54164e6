//! Completions for shells: names and numbers in a store that begin with what somebody has typed.

use super::job::State;

/// What a word of a command line names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topic {
    /// A service.
    Service,
    /// A function of this service, or of any service.
    Function(Option<String>),
    /// A function with its service, as in `shop/add`.
    Hook,
    /// A schedule.
    Schedule,
    /// A lane of calls of this service, or of any service.
    Lane(Option<String>),
    /// A job in one of these states; in any state, if there are none.
    Job(Vec<State>),
}

/// A word that somebody may mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The whole word.
    pub word: String,
    /// What it stands for, in one short line.
    pub about: Option<String>,
}

/// The numbers of jobs that begin with these digits, as ranges from the first to the last, the largest numbers first.
#[must_use]
pub fn numbers_that_begin(start: &str) -> Vec<[i64; 2]> {
    if start.is_empty() {
        return vec![[1, i64::MAX]];
    }
    let is_beginning = start.bytes().all(|b| b.is_ascii_digit()) && !start.starts_with('0');
    let Some(number) = start.parse::<i64>().ok().filter(|_| is_beginning) else { return Vec::new() };
    let mut ranges = vec![[number, number]];
    while let Some([first, last]) = ranges.last() {
        let Some(first) = first.checked_mul(10) else { break };
        let last = last.checked_mul(10).and_then(|last| last.checked_add(9)).unwrap_or(i64::MAX);
        ranges.push([first, last]);
    }
    ranges.reverse();
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_begin_with_digits() {
        assert_eq!(numbers_that_begin(""), [[1, i64::MAX]]);
        for none in ["0", "07", "-1", "+7", "x", "1x", "99999999999999999999"] {
            assert!(numbers_that_begin(none).is_empty(), "{none}");
        }
        let ranges = numbers_that_begin("12");
        assert_eq!(ranges[ranges.len() - 3..], [[1200, 1299], [120, 129], [12, 12]]);
        assert_eq!(ranges[0], [1_200_000_000_000_000_000, 1_299_999_999_999_999_999]);
        assert_eq!(numbers_that_begin("9")[0], [9_000_000_000_000_000_000, i64::MAX]);
        assert_eq!(numbers_that_begin("92233720368547758")[0], [9_223_372_036_854_775_800, i64::MAX]);
    }
}
