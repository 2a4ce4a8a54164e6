//! Changes of waiting calls by `job set`. If their time changes, triggers of the schema move them to another state.

use super::engine::{Tx, Value};
use super::lane;
use crate::domain::job::JobId;
use crate::domain::job_edit::JobEdit;
use crate::domain::new_job::Expiry;
use crate::domain::time::Timestamp;
use crate::error::Result;

/// The lane at whose head job `?1` is.
const HEADS: &str = "SELECT service, lane FROM asyncq_job WHERE id = ?1 AND lane IS NOT NULL AND state = 'queued'
    /*! FOR NO KEY UPDATE */";
const NEXT: &str = "SELECT id FROM asyncq_job WHERE waits <> 0 AND waits = 2 AND service = ?1 AND lane = ?2 LIMIT 1";

/// Changes job `id` if it waits. Returns how many jobs it changed, or the rule of the application that refuses the change.
pub(super) fn edit(tx: &mut dyn Tx, id: JobId, edit: &JobEdit) -> Result<Result<u64>> {
    let headed: Option<(String, String)> = match edit.lane {
        Some(_) => tx.row(HEADS, &[id.into()])?,
        None => None,
    };
    let (sql, args) = statement(id, edit, tx.now());
    let changed = tx.try_execute(&sql, &args)?;
    if let (Ok(1..), Some((service, lane))) = (&changed, headed)
        && let Some(next) = tx.row::<JobId>(NEXT, &[(&service).into(), (&lane).into()])?
    {
        lane::let_out(tx, next)?;
    }
    Ok(changed)
}

/// The statement sets only the columns that change, because a trigger of the application may watch one of them.
fn statement(id: JobId, edit: &JobEdit, now: Timestamp) -> (String, Vec<Value<'_>>) {
    let mut args: Vec<Value<'_>> = vec![id.into()];
    let mut arg = |value| {
        args.push(value);
        format!("CAST(?{} AS {})", args.len(), if matches!(value, Value::Text(_)) { "TEXT" } else { "BIGINT" })
    };
    let mut set = Vec::new();
    if let Some(priority) = edit.priority {
        set.push(format!("priority = {}", arg(priority.get().into())));
    }
    let due = match edit.due {
        None => "run_at".to_owned(),
        Some(due) => {
            let at = arg(due.moment(now).unwrap_or(now).max(now).into());
            set.push(format!("run_at = {at}"));
            at
        }
    };
    match edit.expires {
        None => {}
        Some(None) => set.push("expires_at = NULL".to_owned()),
        Some(Some(Expiry::At(moment))) => set.push(format!("expires_at = {}", arg(moment.into()))),
        Some(Some(Expiry::In(span))) => {
            let (soonest, span) = (arg(now.into()), arg(Timestamp(0).after(span).into()));
            set.push(format!("expires_at = CASE WHEN {due} > {soonest} THEN {due} ELSE {soonest} END + {span}"));
        }
    }
    if let Some(lane) = &edit.lane {
        let lane = arg(lane.as_ref().map_or("", |lane| lane.as_str()).into());
        set.push(format!("lane = NULLIF({lane}, '')"));
        if !edit.hold {
            let (enters, later) = (
                format!("(state = 'queued' OR waits = 2) AND COALESCE(lane, '') <> {lane}"),
                format!("{due} > {}", arg(now.into())),
            );
            set.push(format!(
                "state = CASE WHEN {enters} THEN CASE WHEN {later} THEN 'delayed' WHEN {lane} = '' THEN 'queued'
                    ELSE 'blocked' END ELSE state END,
                waits = CASE WHEN {enters} THEN CASE WHEN {later} OR {lane} = '' THEN 0 ELSE 2 END ELSE waits END"
            ));
        }
    }
    if edit.hold {
        set.push("state = 'held', waits = 0".to_owned());
    }
    let which = "id = ?1 AND immediate = 0 AND state IN ('held', 'blocked', 'delayed', 'queued')";
    (format!("UPDATE asyncq_job SET {} WHERE {which}", set.join(", ")), args)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::lane::Lane;
    use crate::domain::new_job::{Due, Priority};
    use crate::store::sqlite::plan::ways_to_jobs;

    #[test]
    fn a_job_is_found_by_its_number_and_a_lane_by_its_index() {
        let edit = JobEdit {
            due: Some(Due::Now),
            hold: false,
            priority: Priority::new(1),
            lane: Some(Some(Lane::parse("gpu").unwrap())),
            expires: Some(Some(Expiry::In(std::time::Duration::from_secs(1)))),
        };
        for sql in [HEADS, &statement(JobId(1), &edit, Timestamp(0)).0] {
            assert_eq!(ways_to_jobs(sql), ["INTEGER PRIMARY KEY (rowid=?)"], "{sql}");
        }
        assert_eq!(ways_to_jobs(NEXT), ["COVERING INDEX asyncq_job_blocked (service=? AND waits=? AND lane=?)"]);
    }
}
