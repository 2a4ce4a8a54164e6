//! Faults: kills, cuts, full disks, moved files, and a count of what came of each.
//!
//! Each test runs small and seeded with `cargo test`. `sh tests/faults.sh [TEST]...` runs them at full size, with
//! optimized code and a new seed, and prints their figures; `ASYNCQ_SEED` repeats a seed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use support::{fixture, place, rules};

mod backup;
mod books;
mod clock;
mod contention;
mod cron;
mod damage;
mod descriptors;
mod disk;
mod explorer;
mod failpoints;
mod flood;
mod hostile;
mod hostile_workers;
mod hosts;
mod immune;
mod io;
mod model;
mod moves;
mod poison;
mod power;
mod process;
mod properties;
mod protocol;
mod rates;
mod referee;
mod reference;
mod rights;
mod rpc;
mod scale;
mod scarce;
mod schedules;
mod servers;
mod shells;
mod shim;
mod steps;
mod stops;
mod storm;
mod ticks;
mod ties;
mod trees;
mod upgrade;
mod waiters;
mod waiting;
mod workers;
