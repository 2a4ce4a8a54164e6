//! Schedules, while processors are killed as they fire them: every tick has one job.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::books::Books;
use crate::place::Place;
use crate::scale::{figure, many, random};

const SECOND: u64 = 1000;

/// The steps at which a processor is killed.
const STEPS: [&str; 3] = ["tick chosen", "job made", "tick moved"];

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A service whose schedules have been due for some seconds, and go on for some more.
fn place(schedules: usize, ticks: u64) -> (Place, Books) {
    let (place, books) = (Place::new(), Books::open());
    place.stdout("asyncq -q service add events --concurrency 4");
    books.worker(&place, "events quick", "65536", "");
    let first = now() / SECOND * SECOND - 4 * SECOND;
    let until = first + ticks * SECOND;
    place.execute(&format!(
        "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {schedules})
        INSERT INTO asyncq_schedule (name, service, function, every, missed, overlap, until_at, next_tick, created_at)
        SELECT 's' || n, 'events', 'quick', 1000, 'all', 'allow', {until}, {first}, 0 FROM number"
    ));
    (place, books)
}

#[test]
fn every_tick_has_one_job_while_processors_are_killed() {
    let name = "schedules";
    let (schedules, processors) = (many(1000, 20), many(16, 3));
    let ticks = many(40, 6) as u64;
    let (place, books) = place(schedules, ticks);
    let (over, kills) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for number in 0..processors {
            let mut random = random(&format!("{name} {number}"));
            let (place, over, kills) = (&place, &over, &kills);
            scope.spawn(move || {
                // Whoever is the first of its kind is killed at the first tick that it finds.
                let mut latest = 1;
                while !over.load(Ordering::SeqCst) {
                    let (step, time) = (STEPS[random.usize(..STEPS.len())], random.usize(1..=latest));
                    latest = schedules.min(100) * 5 / 4;
                    let line = format!("exec env 'ASYNCQ_FAILPOINT={step}:{time}=kill' asyncq -q process");
                    let output = place.run(&line);
                    let was_killed = String::from_utf8_lossy(&output.stderr).contains("ended by signal");
                    kills.fetch_add(was_killed.into(), Ordering::SeqCst);
                    assert!(output.status.success() || was_killed || output.status.code() == Some(75), "{output:?}");
                }
            });
        }
        // A schedule ends when its last tick is fired.
        let open = "SELECT count(*) FROM asyncq_schedule WHERE next_tick IS NOT NULL";
        crate::place::wait_until("the schedules have ended", || place.query(open) == "0");
        over.store(true, Ordering::SeqCst);
    });
    let last = place.run("asyncq -q process");
    assert!(last.status.success(), "{last:?}");
    let all = (schedules as u64 * ticks).to_string();
    for (what, sql) in [
        ("each tick", "SELECT count(DISTINCT schedule || ' ' || tick) FROM asyncq_origin"),
        ("ticks of this time", "SELECT count(*) FROM asyncq_origin WHERE tick % 1000 = 0"),
        ("jobs", "SELECT count(*) FROM asyncq_job WHERE state = 'completed'"),
        ("all jobs", "SELECT count(*) FROM asyncq_job"),
        ("counted", "SELECT sum(fired) FROM asyncq_schedule WHERE skipped = 0"),
    ] {
        assert_eq!(place.query(sql), all, "{what}");
    }
    let (begun, kills) = (books.count("START"), kills.into_inner());
    assert!(kills >= processors && begun as u64 >= schedules as u64 * ticks, "{kills} kills, {begun} starts");
    figure(name, format!("{all} ticks of {schedules} schedules, {processors} processors, {kills} kills: one job each"));
}
