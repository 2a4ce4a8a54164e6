//! The rules of schedules on the command line.

use crate::place::Place;

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
