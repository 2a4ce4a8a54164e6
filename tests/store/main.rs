//! The verbs of the store, each test once on each engine.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use support::fixture;

/// Makes a test on each engine out of a function that takes an empty store: an engine is one line here. So is a database
/// that keeps text in another way.
macro_rules! conformance {
    ($($(#[$meta:meta])* fn $name:ident($store:ident: &mut Store) $body:block)*) => {
        $($(#[$meta])* fn $name($store: &mut asyncq::store::Store) $body)*
        mod sqlite { $(#[test] fn $name() { crate::fixture::sqlite(super::$name); })* }
        mod utf16 { $(#[test] fn $name() { crate::fixture::utf16(super::$name); })* }
    };
}

mod apply;
mod backup;
mod clock;
mod complete;
mod doctor;
mod drain;
mod expire;
mod function;
mod hook;
mod job;
mod key;
mod lane;
mod nested;
mod place;
mod prune;
mod race;
mod rate;
mod rescue;
mod schedule;
mod service;
mod upgrade;
mod used;
mod watch;
