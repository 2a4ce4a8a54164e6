//! The encoding in which a database keeps text. The program that made the database chose it.

use std::borrow::Cow;

/// How a database keeps text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Encoding {
    Utf8,
    Utf16Little,
    Utf16Big,
}

impl Encoding {
    /// Reads what `PRAGMA encoding` gives.
    pub(super) fn named(name: &str) -> Encoding {
        match name {
            "UTF-16le" => Encoding::Utf16Little,
            "UTF-16be" => Encoding::Utf16Big,
            _ => Encoding::Utf8,
        }
    }

    /// A text as its bytes in the database.
    pub(super) fn of(self, text: &str) -> Cow<'_, [u8]> {
        match self {
            Encoding::Utf8 => Cow::Borrowed(text.as_bytes()),
            Encoding::Utf16Little => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            Encoding::Utf16Big => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        }
    }
}
