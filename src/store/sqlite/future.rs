//! A newer schema that will never be released, for tests of upgrades. Only in builds with debug assertions.
//!
//! Invariant: a real upgrade could have its steps; no other code knows what they make.

use super::steps::{Schema, SchemaChange, TO_2, TO_3};

/// Makes of the same statements the step from this build's schema and the end of the script for a new store.
macro_rules! future {
    ($($statement:literal,)*) => {
        const STEP: &[SchemaChange] = &[$(SchemaChange::Run($statement)),*];
        const FRESH: &str = concat!(
            include_str!("../../../schema.sql"),
            $($statement, ";\n",)*
            "UPDATE asyncq_schema SET version = 4;"
        );
    };
}

future! {
    "ALTER TABLE asyncq_job ADD COLUMN test_future_weight INTEGER NOT NULL DEFAULT 1",
    "CREATE TABLE asyncq_test_future_tag (
        job INTEGER NOT NULL REFERENCES asyncq_job ON DELETE CASCADE, tag TEXT NOT NULL, PRIMARY KEY (job, tag)
     ) STRICT, WITHOUT ROWID",
    "CREATE INDEX asyncq_test_future_weight ON asyncq_job (service, test_future_weight) WHERE state = 'queued'",
    "UPDATE asyncq_job SET test_future_weight = 1 + length(function)",
    "INSERT INTO asyncq_test_future_tag SELECT id, 'old' FROM asyncq_job",
    "CREATE TRIGGER asyncq_test_future_tagged AFTER INSERT ON asyncq_job BEGIN
        INSERT INTO asyncq_test_future_tag VALUES (NEW.id, 'new');
     END",
}

/// The schema of the tests.
pub(super) const SCHEMA: Schema = Schema { version: 4, fresh: FRESH, steps: &[TO_2, TO_3, STEP] };
