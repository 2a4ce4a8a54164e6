//! What rows are read for.

/// What rows are read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To say what they are.
    Look,
    /// To change them: nobody else may change them before the commit.
    Change,
}

impl Purpose {
    /// The statement that reads them: one that locks nothing, or one that locks them.
    pub(super) fn choose(self, look: &'static str, change: &'static str) -> &'static str {
        match self {
            Purpose::Look => look,
            Purpose::Change => change,
        }
    }
}
