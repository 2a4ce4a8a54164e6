//! Rates, measured by the functions themselves, while processors of one service are killed.

use std::collections::BTreeSet;

use crate::place::{Place, Running, wait_until};
use crate::scale::{figure, many, random};

/// Writes when it was claimed, as the store has it, when it began itself, in milliseconds, and for which processor.
const START: &str = "now=$(date +%s%3N)
    claim=$(sqlite3 -cmd '.timeout 60000' -separator ' ' \"$ASYNCQ_DB\" \\
        \"SELECT started_at, processor FROM asyncq_job WHERE id = $ASYNCQ_JOB AND token = '$ASYNCQ_TOKEN'\")
    [ -z \"$claim\" ] || echo $now $claim >> starts";

const PROCESSORS: usize = 3;

/// A limit: calls in a span of milliseconds, and how many may start together.
#[derive(Debug, Clone, Copy)]
struct Limit {
    calls: i64,
    span: i64,
    burst: i64,
}

struct Start {
    began: i64,
    claimed: i64,
    processor: i64,
}

fn starts(place: &Place) -> Vec<Start> {
    // The last line may be half there.
    let text = place.read("starts");
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let numbers = |line: &str| line.split(' ').map(|number| number.parse().unwrap()).collect::<Vec<i64>>();
    whole
        .lines()
        .map(|line| {
            let [began, claimed, processor] = numbers(line)[..] else { panic!("`{line}`") };
            Start { began, claimed, processor }
        })
        .collect()
}

impl Limit {
    /// Any number of starts takes as many gaps as there are starts beyond a burst, less what their clocks may differ by. So
    /// no span has more than its calls and the burst, less one.
    fn holds(self, mut times: Vec<i64>, differ: i64) {
        times.sort_unstable();
        let Limit { calls, span, burst } = self;
        for (first, from) in times.iter().enumerate() {
            for (more, to) in times[first..].iter().enumerate() {
                let count = i64::try_from(more).unwrap() + 1;
                let least = (count - burst) * span / calls - differ;
                assert!(to - from >= least, "{count} starts in {} ms, by a rate of {self:?}", to - from);
            }
        }
    }
}

/// Kills the processor that started the latest call, both processes of it.
fn kill_the_busiest(place: &Place, processors: &mut [Running]) -> bool {
    let Some(latest) = starts(place).pop().map(|start| start.processor) else { return false };
    let pid = place.query(&format!("SELECT max(pid) FROM asyncq_processor WHERE id = {latest}"));
    let Some(victim) = processors.iter_mut().find(|running| running.0.id().to_string() == pid) else {
        return false;
    };
    let engine = victim.engine();
    place.run(&format!("kill -KILL {pid} {engine}"));
    *victim = place.start("asyncq -q process --follow");
    true
}

fn measure(limit: Limit, calls: usize, kills: usize, random: &mut fastrand::Rng) -> String {
    let Limit { calls: per_span, span, burst } = limit;
    let place = Place::with_functions(&[("start", START)]);
    place.stdout(&format!("asyncq service set events --concurrency 9 --rate {per_span}/{span}ms --burst {burst}"));
    let mut processors: Vec<_> = (0..PROCESSORS).map(|_| place.start("asyncq -q process --follow")).collect();
    let (mut enqueued, mut killed) = (0, 0);
    while enqueued < calls {
        // Sometimes fewer than may start, so that all of them can take some, and sometimes more.
        let some = random.usize(1..=12).min(calls - enqueued);
        place.enqueue_many("start", some);
        enqueued += some;
        let begun = enqueued.saturating_sub(random.usize(..12));
        wait_until("some have begun", || starts(&place).len() >= begun.saturating_sub(9 * killed));
        if killed < kills && enqueued > calls * (killed + 1) / (kills + 1) {
            killed += usize::from(kill_the_busiest(&place, &mut processors));
        }
    }
    wait_until("all have run", || place.query("SELECT count(*) FROM asyncq_job WHERE state <> 'completed'") == "0");
    let starts = starts(&place);
    let delay = starts.iter().map(|start| start.began - start.claimed).max().unwrap();
    limit.holds(starts.iter().map(|start| start.claimed).collect(), 0);
    limit.holds(starts.iter().map(|start| start.began).collect(), delay);
    let by: BTreeSet<i64> = starts.iter().map(|start| start.processor).collect();
    assert!(by.len() > 1 && killed == kills && starts.len() >= calls - 9 * kills, "{killed} {by:?} {}", starts.len());
    for processor in processors {
        processor.signal("TERM");
        assert!(processor.wait().status.success());
    }
    format!(
        "{per_span} in {span} ms, burst {burst}: {} starts by {} processors, {killed} killed, at most {delay} ms after the claim",
        starts.len(),
        by.len()
    )
}

#[test]
fn no_span_has_more_starts_than_its_rate_while_processors_are_killed() {
    let name = "rates";
    let mut random = random(name);
    let limits = [(50, 1000, 4), (20, 1000, 1), (5, 500, 3), (200, 2000, 20)];
    for (calls, span, burst) in limits.into_iter().take(many(4, 1)) {
        let limit = Limit { calls, span, burst };
        figure(name, measure(limit, many(1500, 60), many(20, 1), &mut random));
    }
}

#[test]
#[should_panic(expected = "6 starts in 99 ms")]
fn a_start_too_many_would_be_seen() {
    let limit = Limit { calls: 5, span: 100, burst: 1 };
    limit.holds(vec![0, 20, 40, 60, 80, 99], 0);
}
