//! How SQLite runs a statement, for tests: on millions of jobs only a plan shows what a statement costs.

/// The steps in which SQLite runs a statement on a new store.
pub(in crate::store) fn plan(sql: &str) -> Vec<String> {
    let database = rusqlite::Connection::open_in_memory().unwrap();
    database.execute_batch(super::schema_script::FRESH).unwrap();
    let mut plan = database.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    plan.raw_query().mapped(|row| row.get(3)).collect::<Result<_, _>>().unwrap()
}

/// The steps that look for jobs.
pub(in crate::store) fn ways_to_jobs(sql: &str) -> Vec<String> {
    let steps = plan(sql).into_iter().filter(|step| step.contains("asyncq_job"));
    steps.map(|step| step.replace("SEARCH asyncq_job USING ", "")).collect()
}
