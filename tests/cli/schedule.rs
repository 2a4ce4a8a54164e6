//! Schedules on the command line: their rules, and what becomes of them.

use crate::place::{Place, wait_until};

#[test]
fn the_next_times_of_a_pattern() {
    Place::new().session(
        r#"
        $ asyncq -v schedule next --cron '30 2 * * *' --tz Europe/Berlin -n 3 --from 2036-03-28T02:30:00+01:00
        TIME                           FROM NOW
        Fri 2036-03-28 02:30:00+01:00  in [..]d
        Sat 2036-03-29 02:30:00+01:00  in [..]d
        Sun 2036-03-30 03:00:00+02:00  in [..]d
        ! asyncq: at 02:30, Europe/Berlin
        $ asyncq schedule next --cron '*/30 2 * * *' --tz europe/berlin -n 4 --from 2036-10-26T00:00:00Z --json
        [{"tick":"2036-10-26T02:00:00+02:00"},{"tick":"2036-10-26T02:30:00+02:00"},{"tick":"2036-10-26T02:00:00+01:00"},{"tick":"2036-10-26T02:30:00+01:00"}]
        $ TZ=Asia/Kolkata asyncq -v schedule next --cron @yearly -n 2 --from 2036-01-01T00:00:00Z --output csv
        tick
        2037-01-01T00:00:00+05:30
        2038-01-01T00:00:00+05:30
        ! asyncq: at 00:00 on day 1 of the month in January, Asia/Kolkata (the time zone of this machine)
        $ TZ=UTC asyncq schedule next --cron @daily --tz Europe/Berlin -n 1 --from 2036-07-01 --json
        [{"tick":"2036-07-01T00:00:00+02:00"}]
        $ asyncq schedule next --cron '* * * * *' --tz UTC | wc -l
        6
        $ asyncq schedule next --cron '0 0 1 1 *' --tz UTC --from 2016-12-01T00:00:00Z -n 1
        TIME                           FROM NOW
        Sun 2017-01-01 00:00:00+00:00  [..]d ago
        "#,
    );
}

#[test]
fn the_next_times_of_exact_time() {
    Place::new().session(
        r#"
        $ asyncq -v schedule next --every 1h30m -n 2 --from 2036-03-28T02:30:00+01:00 --json
        [{"tick":"2036-03-28T01:30:00Z"},{"tick":"2036-03-28T03:00:00Z"}]
        ! asyncq: every 1h30m
        $ TZ=Asia/Tokyo asyncq schedule next --every 1h -n 1 --from '2036-07-01 09:00' --json
        [{"tick":"2036-07-01T00:00:00Z"}]
        $ asyncq schedule next --every 0.5s
        ! error: a schedule cannot run every 500ms
        ! hint: the shortest span is 1s
        ? 2
        $ asyncq schedule next --every 20000d --from 2036-01-01T00:00:00Z
        ! error: `every 20000d` does not come within ten years
        ! hint: choose a shorter span
        ? 2
        $ asyncq schedule next --every 1d --tz Europe/Berlin
        ! error: `--every` is exact time, in which time zones make no difference
        ! hint: leave `--tz` out, or use --cron '0 9 * * *' for a time of day
        ? 2
        "#,
    );
}

#[test]
fn what_is_no_rule() {
    Place::new().session(
        r"
        $ asyncq schedule next
        ! error: the rule of the schedule is missing
        ! hint: give times with `--cron`, as in --cron '30 2 * * *', or a span with `--every`, as in --every 90s
        ? 2
        $ asyncq schedule next --cron '* * * * *' --every 5m
        ! error: `--cron` and `--every` exclude each other
        ! hint: leave one of them out
        ? 2
        $ asyncq schedule next --cron '* * * * * *' --tz UTC
        ! error: a schedule needs 5 fields, `* * * * * *` has 6
        ! hint: for seconds use --every, as in --every 10s
        ? 2
        $ asyncq schedule next --cron '60 * * * *' --tz UTC
        ! error: `60` is not a minute
        ! hint: minutes go from 0 to 59
        ? 2
        $ asyncq schedule next --cron '0 0 31 2 *' --tz UTC
        ! error: `0 0 31 2 *` never comes
        ! hint: no such month has such a day; `L` is the last day of a month, as in `0 0 L 2 *`
        ? 2
        $ asyncq schedule next --cron '0 0 29 2 */7' --tz UTC --from 2032-03-01T00:00:00Z
        ! error: `0 0 29 2 */7` does not come within ten years
        ! hint: choose other days or months
        ? 2
        $ asyncq schedule next --cron '0 9 * * *' --tz Europe/Berln
        ! error: there is no time zone `Europe/Berln`
        ! hint: did you mean `Europe/Berlin`?
        ? 2
        $ TZ=Europe/Berln asyncq schedule next --cron '0 9 * * *'
        ! error: `$TZ` is `Europe/Berln`, which names no time zone
        ! hint: did you mean `Europe/Berlin`?
        ? 2
        $ TZ=CET-1CEST,M3.5.0,M10.5.0/3 asyncq schedule next --cron '0 9 * * *'
        ! error: the time zone of this machine has no name
        ! hint: name one with `--tz`, as in `--tz Europe/Berlin`
        ? 2
        $ asyncq schedule next --every 5m -n 0
        ! error: `-n` cannot be `0`: it must be a whole number from 1 to 10000
        ! hint: `asyncq schedule next --help` shows how
        ? 2
        $ asyncq schedule next --every 5m --from yesterday
        ! error: `yesterday` is not a time
        ! hint: write `14:30`, `tomorrow 9:00`, `2026-12-01 09:00` or `2026-12-01T09:00+01:00`
        ? 2
        ",
    );
}

/// A service `reports` with a function that says what it knows of its tick.
fn reports() -> Place {
    let place = Place::new();
    place.session(
        r#"
        $ asyncq -q service add reports --concurrency 2
        $ asyncq function add reports build --stdin none -- sh -c 'echo "$ASYNCQ_SCHEDULE missed=$ASYNCQ_MISSED"' x
        $ asyncq function add reports read -- cat
        "#,
    );
    place
}

#[test]
fn a_schedule_is_added_shown_changed_and_removed() {
    reports().session(
        r#"
        $ TZ=Europe/Berlin asyncq -v schedule add nightly --cron '30 2 * * *' --description 'for Zoe' reports build full
        ! asyncq: schedule `nightly`: at 02:30, Europe/Berlin (the time zone of this machine)
        ! asyncq: next: [..] 02:30, [..] 02:30, [..] 02:30, [..] 02:30, [..] 02:30
        $ TZ=Europe/Berlin asyncq -v schedule add nightly --cron '30 2 * * *' --description 'for Zoe' reports build full
        ! asyncq: schedule `nightly` already exists
        $ asyncq schedule add nightly --cron '30 3 * * *' --tz Europe/Berlin --description 'for Zoe' reports build full
        ! error: schedule `nightly` exists with another rule
        ! hint: `asyncq schedule set nightly --cron '30 3 * * *' --tz Europe/Berlin` changes it
        ? 77
        $ asyncq schedule add nightly --every 8h --lane x --description 'for Zoe' reports build full
        ! error: schedule `nightly` exists with another rule and lane
        ! hint: `asyncq schedule show nightly` shows it, `asyncq schedule set nightly` changes it
        ? 77
        $ asyncq schedule show nightly
        schedule   nightly
        for        for Zoe
        calls      reports build ["full"]
        principal  -
        rule       at 02:30, Europe/Berlin
        cron       30 2 * * *
        missed     once, within 1d
        overlap    skip
        state      active
        next       [..] 02:30, [..] 02:30, [..] 02:30, [..] 02:30, [..] 02:30
        made       0 jobs
        created    [..]
        $ asyncq schedule set nightly --cron '15 4 * * *' --lane l --until 2036-01-01 --expires 2h --priority -7 --principal zoe --meta tenant=acme
        $ asyncq schedule set nightly reports build -k a=1 2 3 && asyncq schedule set nightly --missed all --description ''
        $ asyncq schedule show nightly --json
        {"name":"nightly","service":"reports","function":"build","args":[2,3],"kwargs":{"a":1},"principal":"zoe","site":null,"priority":-7,"lane":"l","expires":7200.0,"meta":{"tenant":"acme"},"cron":"15 4 * * *","zone":"Europe/Berlin","every":null,"missed":"all","within":86400.0,"overlap":"allow","from":null,"until":"2036-01-01T00:00:00+01:00","state":"active","next_tick":"[..]T04:15:00+0[..]:00","last_tick":null,"last_job":null,"fired":0,"skipped":0,"last_skip":null,"description":null,"created_at":"[..]"}
        $ asyncq schedule show nightly | grep metadata
        metadata   {"tenant":"acme"}
        $ asyncq schedule set nightly --no-until --no-lane --no-expires --no-meta --tz UTC --overlap allow && asyncq schedule next nightly -n 1 --from 2036-05-05
        TIME                           FROM NOW
        Mon 2036-05-05 04:15:00+00:00  in [..]d
        $ asyncq -v schedule add often --every 20s reports build
        ! asyncq: schedule `often`: every 20s
        ! asyncq: next: [..] (UTC)
        ! asyncq: cron starts `asyncq process` once a minute at most; `asyncq process --follow` makes a call at each tick
        $ asyncq schedule pause often nightly; asyncq schedule resume nightly
        $ asyncq schedule list reports
        SCHEDULE  CALLS                        RULE           STATE   NEXT
        nightly   reports build [2,3] {"a":1}  at 04:15, UTC  active  in [..]
        often     reports build                every 20s      paused  -
        $ asyncq schedule list --output csv | cut -d, -f1,2,3,11,20-
        name,service,function,meta,state,next_tick,last_tick,last_job,fired,skipped,last_skip.tick,last_skip.why,description,created_at
        nightly,reports,build,,,active,[..],,,0,0,,,,[..]
        often,reports,build,,paused,,,,0,0,,,,[..]
        $ asyncq schedule remove often; asyncq schedule list other
        ! error: there is no service `other`
        ! hint: `asyncq service list` shows all
        ? 66
        $ asyncq schedule remove often
        ! error: there is no schedule `often`
        ! hint: `asyncq schedule list` shows all
        ? 66
        "#,
    );
}

#[test]
fn what_is_no_schedule() {
    reports().session(
        r"
        $ asyncq schedule add Nightly --every 5m reports build
        ! error: `Nightly` cannot be the name of a schedule
        ! hint: a name starts with a lower-case letter or a digit and goes on with those, `.`, `_` and `-`, at most 255 bytes
        ? 2
        $ asyncq schedule add nightly reports build
        ! error: the rule of the schedule is missing
        ! hint: give times with `--cron`, as in --cron '30 2 * * *', or a span with `--every`, as in --every 90s
        ? 2
        $ asyncq schedule add nightly --every 5m reports biuld
        ! error: service `reports` has no function `biuld`
        ! hint: did you mean `build`? `asyncq function list reports` shows all
        ? 66
        $ asyncq schedule add nightly --every 5m reprots build
        ! error: there is no service `reprots`
        ! hint: did you mean `reports`? `asyncq service list` shows all
        ? 66
        $ asyncq schedule add nightly --cron '0 0 31 2 *' --tz UTC reports build
        ! error: `0 0 31 2 *` never comes
        ! hint: no such month has such a day; `L` is the last day of a month, as in `0 0 L 2 *`
        ? 2
        $ asyncq schedule add nightly --cron '@reboot' --tz UTC reports build
        ! error: asyncq does not know `@reboot`
        ! hint: a schedule has times; to run something when the machine starts, put `@reboot asyncq enqueue ...` into a crontab
        ? 2
        $ asyncq schedule add nightly --cron '0 9 * * *' --tz UTC --from 2036-01-02 --until 2036-01-01 reports build
        ! error: --until 2036-01-01T00:00:00+00:00 is not later than --from 2036-01-02T00:00:00+00:00
        ! hint: the schedule runs at `--from` or later, and before `--until`
        ? 2
        $ asyncq schedule add nightly --every 1h --until 2020-01-01T00:00Z reports build
        ! error: `every 1h` does not come before --until
        ! hint: give a later --until, or leave it out
        ? 2
        $ asyncq schedule add nightly --cron '30 2 * * *' --tz Europe/Berlin --from '2036-03-30 02:30' reports build
        ! error: 02:30 on 2036-03-30 does not exist in Europe/Berlin: the clocks go from 02:00 to 03:00
        ! hint: write `03:30`, or give the offset, as in `2036-03-30T02:30+01:00`
        ? 2
        $ asyncq schedule add nightly --every 5m --missed all --overlap skip reports build
        ! error: `--missed all` makes several jobs at once, which `--overlap skip` forbids
        ! hint: use `--overlap allow`: a service runs no more calls at once than its concurrency
        ? 2
        $ asyncq schedule add nightly --every 5m --missed never reports build
        ! error: `--missed` cannot be `never`: it must be `once`, `skip` or `all`
        ! hint: `asyncq schedule add --help` shows how
        ? 2
        $ asyncq schedule add nightly --every 5m --within 5 reports build
        ! error: `--within` cannot be `5`: the unit is missing
        ! hint: a span is a number with its unit, as in `90s`, `10m` or `1h30m`
        ? 2
        $ asyncq schedule add nightly --every 5m --lane '' reports build
        ! error: `` cannot be a lane
        ! hint: a lane is 1 to 255 bytes of text without control characters
        ? 2
        $ asyncq schedule add nightly --every 5m -k x reports build
        ! error: `-k x` is not a keyword argument
        ! hint: write `-k NAME=VALUE`
        ? 2
        $ asyncq schedule list
        $ asyncq schedule add nightly --every 5m reports build
        $ asyncq schedule set nightly
        ! error: `asyncq schedule set` needs something to change
        ! hint: give an option, or a new call: its service, its function and its arguments
        ? 2
        $ asyncq schedule set nightly --raw
        ! error: arguments change only with the whole call
        ! hint: give the service and the function, too, and all arguments
        ? 2
        $ asyncq schedule set nightly --tz UTC
        ! error: `--every` is exact time, in which time zones make no difference
        ! hint: leave `--tz` out, or use --cron '0 9 * * *' for a time of day
        ? 2
        $ asyncq schedule set nihgtly --every 6m
        ! error: there is no schedule `nihgtly`
        ! hint: did you mean `nightly`? `asyncq schedule list` shows all
        ? 66
        $ asyncq schedule pause nightly nihgtly
        ! error: there is no schedule `nihgtly`
        ! hint: did you mean `nightly`? `asyncq schedule list` shows all
        ? 66
        $ asyncq schedule run nightly --until 2036-01-01
        ! error: `--until` needs `--from`
        ! hint: `asyncq schedule run --help` shows how
        ? 2
        $ asyncq function remove reports build --force
        ! error: schedule `nightly` calls `reports build`
        ! hint: `asyncq schedule remove nightly` first
        ? 77
        $ asyncq service remove reports
        ! error: service `reports` has the schedule `nightly`
        ! hint: `--force` removes the service with its schedules, and cancels its waiting jobs
        ? 77
        $ asyncq service remove reports --force && asyncq schedule list
        ",
    );
}

#[test]
fn a_tick_makes_a_call_that_knows_it() {
    let place = reports();
    place.session(
        r"
        $ asyncq schedule add each --every 300d --within 9000d reports build it
        $ asyncq schedule add reads --every 300d --within 9000d reports read
        $ asyncq schedule add thrice --every 8h reports build
        $ asyncq process
        ",
    );
    place.let_ticks_pass("each", 1);
    place.session(
        r"
        $ asyncq process
        each missed=0
        $ asyncq process
        ",
    );
    // The tick before was handled.
    place.let_ticks_pass("reads", 3);
    place.session(
        r#"
        $ asyncq process --max-jobs 1
        {"job":2,"attempt":1,"service":"reports","function":"read","args":[],"kwargs":{},"principal":null,"site":"[..]","schedule":{"name":"reads","tick":"[..]T00:00:00Z","missed":2}}
        $ asyncq job show 2 | grep -E 'schedule|created'
        schedule   reads  tick [..]T00:00:00Z  and 2 earlier ones
        created    [..]
        $ asyncq job show 2 --json | grep -o '"schedule":.*"missed":2}'
        "schedule":{"name":"reads","tick":"[..]Z","missed":2}
        $ asyncq enqueue reports read && asyncq job show 3 --json | grep -c schedule
        3
        0
        ? 1
        $ asyncq schedule run each && asyncq schedule run reads
        4
        5
        $ asyncq schedule run thrice --from 2026-01-01T00:00Z --until 2026-01-02T00:00Z
        6
        7
        8
        ! asyncq: made 3 jobs
        $ asyncq schedule run thrice --from 2025-12-31T16:00Z --until 2026-01-01T09:00Z
        9
        ! asyncq: made 1 job; 2 ticks had a job already
        $ asyncq schedule run thrice --from 2025-12-31T16:00Z --until 2026-01-01T09:00Z
        ! asyncq: made 0 jobs; 3 ticks had a job already
        $ asyncq schedule run thrice --from 2026-01-02 --until 2026-01-01
        ! error: --until 2026-01-01T00:00:00Z is not later than --from 2026-01-02T00:00:00Z
        ! hint: the schedule runs at `--from` or later, and before `--until`
        ? 2
        $ asyncq schedule run thrice --from 2001-01-01T00:00Z
        ! error: schedule `thrice` has more than 10000 ticks then
        ! hint: give `--from` and `--until` that are closer together
        ? 2
        $ asyncq schedule run thrice --from 2036-01-01T00:00Z
        ! error: schedule `thrice` has no tick then that has passed
        ! hint: `asyncq schedule next thrice --from TIME` shows its ticks
        ? 2
        "#,
    );
}

#[test]
fn a_tick_that_makes_no_job_is_explained() {
    let place = reports();
    place.session("$ asyncq schedule add each --every 300d --missed skip --within 1ms reports build");
    place.let_ticks_pass("each", 2);
    place.session(
        r"
        $ asyncq process
        $ asyncq schedule show each | grep -E 'made|skipped'
        made       0 jobs
        skipped    2 ticks; last: [..]: it was noticed [..] late, and `--within` is 1ms; `--within` has to be longer than the pause between two runs of `asyncq process`
        $ asyncq schedule set each --missed once --within 9000d && asyncq service pause reports
        ",
    );
    place.let_ticks_pass("each", 2);
    // A paused service ticks not at all.
    place.session(
        r"
        $ asyncq process
        $ asyncq job list --json
        [
        ]
        $ asyncq schedule show each | grep state
        state      active, but service `reports` is paused; `asyncq service resume reports` lets its calls run
        $ asyncq service resume reports && asyncq process
        each missed=1
        ",
    );
}

#[test]
fn a_follower_fires_while_all_slots_are_taken() {
    let place = Place::with_functions(&[("waits", "touch begun; until [ -e end ]; do sleep 0.02; done")]);
    place.session(
        r"
        $ asyncq enqueue events waits
        1
        ",
    );
    let process = place.start("asyncq process --follow");
    wait_until("the call runs", || place.at("begun").exists());
    place.session("$ asyncq schedule add each --every 1s --overlap skip events waits");
    wait_until("a tick has made a job", || place.jobs("state") == "processing, queued");
    let shown = || place.stdout("asyncq schedule show each");
    wait_until("another one has made none", || shown().contains("skipped"));
    place.session(
        r"
        $ asyncq schedule show each | grep skipped
        skipped    [..]; last: [..]: job 2 of an earlier tick was still waiting
        $ asyncq schedule pause each
        ",
    );
    place.write("end", "");
    wait_until("all have ended", || place.jobs("state") == "completed, completed");
    process.signal("TERM");
    assert!(process.wait().status.success());
}
