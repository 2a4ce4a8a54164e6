//! What the hints about wrong TOML files say.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// A key that no file has.
const STAND_IN: &str = "{stand-in}";

/// Where the first of two equal keys of one table is, when this is the second. Up to that, the text has to be correct.
pub(super) fn first_place(text: &str, second: &Range<usize>) -> Option<usize> {
    let before = text.get(..second.start)?;
    let key = text.get(second.clone())?.trim_matches(['"', '\'']);
    let line = before.rsplit('\n').next()?;
    let ends = if line.trim_start().starts_with('[') { ["]", "]"] } else { [" = 0", " = 0 }"] };
    // With another key in place of the second one, both are in the same table.
    ends.into_iter().find_map(|end| {
        let text = format!("{before}\"{STAND_IN}\"{end}\n");
        beside_stand_in(DeTable::parse(&text).ok()?.get_ref(), key)
    })
}

/// Where a key is in the table that has the stand-in, at or below this one.
fn beside_stand_in(table: &DeTable<'_>, key: &str) -> Option<usize> {
    let place = |wanted: &str| table.keys().find(|it| &**it.get_ref() == wanted).map(|it| it.span().start);
    if place(STAND_IN).is_some() {
        return place(key);
    }
    table.values().find_map(|value| match value.get_ref() {
        DeValue::Table(inner) => beside_stand_in(inner, key),
        _ => None,
    })
}

/// How a text is written that is the value of this key.
pub(super) fn example(key: &str) -> &'static str {
    match key {
        "timeout" | "idle" | "expires" | "within" | "every" => "\"90s\"",
        "keep" | "keep_errors" => "\"30d\"",
        "rate" => "\"10/s\"",
        "backoff" => "\"15s..1h\"",
        "memory_growth" => "\"500M\"",
        "cron" => "\"30 2 * * *\"",
        "tz" => "\"Europe/Berlin\"",
        "from" | "until" => "\"2026-12-01 9:00\"",
        "call" => "\"reports/weekly\"",
        "on_error" | "on_success" => "\"alerts/page\"",
        "site" => "\"/srv/app\"",
        "takes" => "\"user [--html:bool]\"",
        "env_file" => "\"secrets.env\"",
        _ => "\"a text\"",
    }
}
