//! A newer schema that will never be released, for tests of upgrades. It exists only in builds with debug assertions.
//!
//! Invariant: a real upgrade could have these steps, and no other code knows what they make.

use super::steps::{SCHEMA as RELEASED, Schema, SchemaChange};

/// Uses the same statements for the step from this build's schema and for the end of the script for a new store.
macro_rules! future {
    ($($statement:literal,)*) => {
        const STEP: &[SchemaChange] = &[$(SchemaChange::Run($statement)),*];
        const FRESH: &str = concat!(
            include_str!("../../../schema.sql"),
            $($statement, ";\n",)*
            "UPDATE asyncq_schema SET version = version + 1;"
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

/// The steps of this build, and one more.
const STEPS: [&[SchemaChange]; RELEASED.steps.len() + 1] = {
    let mut steps = [STEP; RELEASED.steps.len() + 1];
    steps.split_at_mut(RELEASED.steps.len()).0.copy_from_slice(RELEASED.steps);
    steps
};

/// The schema of the tests.
pub(super) const SCHEMA: Schema = Schema { version: RELEASED.version + 1, fresh: FRESH, steps: &STEPS };
