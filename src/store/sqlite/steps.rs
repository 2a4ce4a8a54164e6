//! The steps from each version of the schema to the next one.
//!
//! An upgrade waits for nobody: processors of the older build may be at work while it happens. They may then only end
//! that work ([`Store::write_in_any_schema`](crate::store::Store)): record how their calls ended, put back those that they had
//! not begun, and unregister. So there are three rules for steps:
//! - A step only adds or widens: tables, indexes, triggers, columns that may be left out, constraints that allow more.
//!   All that an older build writes to end its work stays valid, though it fills nothing new.
//! - No step relies on a trigger to complete what processors write: they work without triggers. Triggers are for clients,
//!   which need not know of them.
//! - No step rewrites rows of `asyncq_job`, of which there may be millions, nor copies a table: an application may have
//!   indexes, triggers and foreign keys of its own there. [`Redefine`] widens a CHECK without reading a row.

use super::schema_script::FRESH;

/// The version of this build's schema.
pub(super) const VERSION: i64 = 6;

/// A schema and the way to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schema {
    /// Its number.
    pub(super) version: i64,
    /// The script that makes it in a database without one.
    pub(super) fresh: &'static str,
    /// The steps from version 1 to 2, from 2 to 3, and so on.
    pub(super) steps: &'static [&'static [SchemaChange]],
}

/// The schema of this build.
pub(super) const SCHEMA: Schema = Schema { version: VERSION, fresh: FRESH, steps: &[TO_2, TO_3, TO_4, TO_5, TO_6] };

/// One change on the way to a newer schema.
#[derive(Debug, Clone, Copy)]
pub(super) enum SchemaChange {
    /// A statement.
    Run(&'static str),
    /// Gives a table the definition that it has in the script for new stores. It has those columns already; its rows stay as
    /// they are, and constraints may become wider.
    Redefine(&'static str),
    /// Puts a text in the place of another one in the definition of a table, which may have columns of an application.
    Reword(&'static str, [&'static str; 2]),
    /// Adds a column, unless an earlier step has made the table with it.
    Widen(&'static str, &'static str),
    /// Makes a table as the script does.
    Create(&'static str),
    /// Makes an index or a trigger as the script does, instead of one that may be there.
    Recreate(&'static str),
}
use SchemaChange::{Create, Recreate, Redefine, Reword, Run, Widen};

/// How functions take their calls, which workers are too old, and on which file a processor works. Claims are counted, and fence what processors write, so
/// that `attempt` can be the number of runs that began. Names and columns in constraints, as tools expect them.
const TO_2: &[SchemaChange] = &[
    Run("ALTER TABLE asyncq_function ADD COLUMN args TEXT NOT NULL DEFAULT 'words'"),
    Run("ALTER TABLE asyncq_function ADD COLUMN stdin TEXT NOT NULL DEFAULT 'call'"),
    Run("ALTER TABLE asyncq_function ADD COLUMN generation INTEGER NOT NULL DEFAULT 0"),
    Run("ALTER TABLE asyncq_job ADD COLUMN claim INTEGER NOT NULL DEFAULT 0"),
    Run("ALTER TABLE asyncq_processor ADD COLUMN store TEXT"),
    Redefine("asyncq_service"),
    Redefine("asyncq_function"),
    Redefine("asyncq_job"),
    Redefine("asyncq_large"),
    Redefine("asyncq_processor"),
    Redefine("asyncq_slot"),
    Redefine("asyncq_progress"),
    Recreate("asyncq_job_stopped"),
    Recreate("asyncq_job_insert"),
    Recreate("asyncq_job_update"),
    Recreate("asyncq_job_released"),
    Run("DROP TRIGGER IF EXISTS asyncq_job_completed"),
    Recreate("asyncq_job_ended"),
    Recreate("asyncq_job_delete"),
];

/// The column `created_at`, which gets a default.
const CREATED_AT: [&str; 2] = [
    "created_at  INTEGER NOT NULL",
    "created_at  INTEGER NOT NULL
              DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER))",
];

/// Clients add services and functions, and nothing that no processor could read. Calls inside an attempt that are not recorded are
/// counted.
const TO_3: &[SchemaChange] = &[
    Run("ALTER TABLE asyncq_attempt ADD COLUMN unrecorded INTEGER NOT NULL DEFAULT 0"),
    Redefine("asyncq_attempt"),
    Reword("asyncq_service", CREATED_AT),
    Reword("asyncq_function", CREATED_AT),
    Recreate("asyncq_job_insert"),
    Recreate("asyncq_service_insert"),
    Recreate("asyncq_service_update"),
    Recreate("asyncq_service_delete"),
    Recreate("asyncq_function_insert"),
    Recreate("asyncq_function_update"),
    Recreate("asyncq_function_delete"),
];

/// The state and the ending that are new, also in a table with columns of an application.
const BLOCKED: [&str; 2] = ["OR state = 'cancelled')", "OR state = 'cancelled' OR state = 'blocked')"];
const SNOOZED: [&str; 2] = ["OR ending = 'crash')", "OR ending = 'crash' OR ending = 'snoozed')"];

/// Calls wait in lanes and for other calls, expire, and are made by schedules and hooks; services and functions have policies.
const TO_4: &[SchemaChange] = &[
    Run("ALTER TABLE asyncq_schema ADD COLUMN clock INTEGER NOT NULL DEFAULT 0"),
    Run("ALTER TABLE asyncq_schema ADD COLUMN older INTEGER NOT NULL DEFAULT 0"),
    Run("UPDATE asyncq_schema SET older = (SELECT coalesce(max(id), 0) FROM asyncq_processor)"),
    // No older store has anything that this column speaks of.
    Run("ALTER TABLE asyncq_schema ADD COLUMN used INTEGER NOT NULL DEFAULT 7"),
    Run("UPDATE asyncq_schema SET used = 0"),
    Run("ALTER TABLE asyncq_service ADD COLUMN lane_width INTEGER NOT NULL DEFAULT 1"),
    Run("ALTER TABLE asyncq_service ADD COLUMN rate TEXT"),
    Run("ALTER TABLE asyncq_service ADD COLUMN rate_at INTEGER NOT NULL DEFAULT 0"),
    Run("ALTER TABLE asyncq_service ADD COLUMN on_error TEXT"),
    Run("ALTER TABLE asyncq_service ADD COLUMN on_success TEXT"),
    Run("ALTER TABLE asyncq_function ADD COLUMN retry TEXT"),
    Run("ALTER TABLE asyncq_function ADD COLUMN lane TEXT"),
    Run("ALTER TABLE asyncq_function ADD COLUMN on_error TEXT"),
    Run("ALTER TABLE asyncq_function ADD COLUMN on_success TEXT"),
    Run("ALTER TABLE asyncq_job ADD COLUMN lane TEXT"),
    Run("ALTER TABLE asyncq_job ADD COLUMN expires_at INTEGER"),
    Run("ALTER TABLE asyncq_job ADD COLUMN after TEXT"),
    Run("ALTER TABLE asyncq_job ADD COLUMN key_until TEXT"),
    Run("ALTER TABLE asyncq_job ADD COLUMN meta TEXT"),
    Run("ALTER TABLE asyncq_job ADD COLUMN waits INTEGER NOT NULL DEFAULT 0"),
    Redefine("asyncq_schema"),
    Redefine("asyncq_service"),
    Redefine("asyncq_function"),
    Redefine("asyncq_job"),
    Reword("asyncq_job", BLOCKED),
    Redefine("asyncq_attempt"),
    Reword("asyncq_attempt", SNOOZED),
    Recreate("asyncq_job_blocked"),
    Recreate("asyncq_job_lane"),
    Recreate("asyncq_job_expires"),
    Create("asyncq_after"),
    Recreate("asyncq_after_job"),
    Create("asyncq_settle"),
    Create("asyncq_schedule"),
    Recreate("asyncq_schedule_next"),
    Create("asyncq_origin"),
    Recreate("asyncq_job_insert"),
    Recreate("asyncq_job_update"),
    Recreate("asyncq_job_args"),
    Recreate("asyncq_job_replaced"),
    Recreate("asyncq_job_moved"),
    Recreate("asyncq_job_released"),
    Recreate("asyncq_job_lane_left"),
    Recreate("asyncq_job_ended"),
    Recreate("asyncq_job_settle"),
    Recreate("asyncq_job_key_freed"),
    Recreate("asyncq_job_needed"),
    Recreate("asyncq_job_delete"),
    Recreate("asyncq_service_insert"),
    Recreate("asyncq_service_update"),
    Recreate("asyncq_function_insert"),
    Recreate("asyncq_function_update"),
];

/// Functions can have one pipe for their output, and the jobs of schedules metadata. Looks leave out what a store does not use.
/// One trigger after each INSERT instead of four, and one index less for each UPDATE of a job.
const TO_5: &[SchemaChange] = &[
    Widen("asyncq_schema", "used INTEGER NOT NULL DEFAULT 7"),
    // Whether a job that has ended would expire if it were queued again, nobody knows.
    Run("UPDATE asyncq_schema SET used = used & (1 + 2 * EXISTS (SELECT 1 FROM asyncq_schedule)
        + 4 * (EXISTS (SELECT 1 FROM asyncq_after) OR EXISTS (SELECT 1 FROM asyncq_settle)))"),
    Widen(
        "asyncq_function",
        "merge INTEGER NOT NULL DEFAULT 0 CONSTRAINT asyncq_function_merge CHECK (merge IN (0, 1))",
    ),
    Widen("asyncq_schedule", "meta TEXT"),
    Redefine("asyncq_schema"),
    Redefine("asyncq_function"),
    Redefine("asyncq_schedule"),
    Run("DROP INDEX IF EXISTS asyncq_job_retry"),
    Recreate("asyncq_job_delayed"),
    Run("DROP TRIGGER IF EXISTS asyncq_job_after"),
    Run("DROP TRIGGER IF EXISTS asyncq_job_line"),
    Run("DROP TRIGGER IF EXISTS asyncq_job_later"),
    Run("DROP TRIGGER IF EXISTS asyncq_job_empty"),
    Run("DROP TRIGGER IF EXISTS asyncq_job_large"),
    Recreate("asyncq_job_insert"),
    Recreate("asyncq_job_inserted"),
    Recreate("asyncq_job_update"),
    Recreate("asyncq_job_expiry"),
    Recreate("asyncq_schedule_insert"),
    Recreate("asyncq_function_insert"),
    Recreate("asyncq_function_update"),
];

/// The whole store can be paused, and each pause has a reason. Services say how long their jobs are kept. Functions have signatures,
/// secret arguments and files of variables.
const TO_6: &[SchemaChange] = &[
    Widen("asyncq_schema", "paused TEXT"),
    Widen("asyncq_schema", "pruned_at INTEGER NOT NULL DEFAULT 0"),
    Widen("asyncq_schema", "pruned_to INTEGER NOT NULL DEFAULT 0"),
    Widen("asyncq_service", "paused_why TEXT"),
    Widen("asyncq_service", "keep INTEGER CONSTRAINT asyncq_service_keep CHECK (keep > 0)"),
    Widen("asyncq_service", "keep_errors INTEGER CONSTRAINT asyncq_service_keep_errors CHECK (keep_errors > 0)"),
    Widen("asyncq_function", "takes TEXT"),
    Widen("asyncq_function", "args_min INTEGER"),
    Widen("asyncq_function", "args_max INTEGER"),
    Widen("asyncq_function", "secret TEXT"),
    Widen("asyncq_function", "env_file TEXT"),
    Widen(
        "asyncq_function",
        "local INTEGER NOT NULL DEFAULT 0 CONSTRAINT asyncq_function_local CHECK (local IN (0, 1))",
    ),
    Redefine("asyncq_schema"),
    Redefine("asyncq_service"),
    Redefine("asyncq_function"),
    Recreate("asyncq_job_insert"),
    Recreate("asyncq_job_args"),
    Recreate("asyncq_service_insert"),
    Recreate("asyncq_service_update"),
    Recreate("asyncq_function_insert"),
    Recreate("asyncq_function_update"),
];
