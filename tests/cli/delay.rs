//! Calls that are due later, and processors that wait for them.

use crate::place::{Place, wait_until};

/// A place with a function, and `due`, which prints when each job is due.
fn place() -> Place {
    let place = Place::with_functions(&[("mail", "echo mail $1")]);
    place.write(
        "due",
        "asyncq job show $1 --json | grep -o '\"state\":\"[a-z]*\"\\|\"run_at\":\"[^\"]*\"' | cut -d'\"' -f4 | xargs\n",
    );
    place
}

#[test]
fn a_call_is_due_at_the_time_that_is_given() {
    place().session(
        r"
        $ asyncq enqueue --at 2036-07-01T09:00+05:30 events mail; sh due 1
        1
        delayed 2036-07-01T03:30:00.000Z
        $ asyncq enqueue --at 2036-07-01T09:00:00.25Z events mail; sh due 2
        2
        delayed 2036-07-01T09:00:00.250Z
        $ asyncq enqueue --at '2036-07-01T09:00[America/New_York]' events mail; sh due 3
        3
        delayed 2036-07-01T13:00:00.000Z
        $ TZ=Europe/Berlin asyncq enqueue --at '2036-07-01 9:00' events mail; sh due 4
        4
        delayed 2036-07-01T07:00:00.000Z
        $ asyncq enqueue --at '2036-07-01 09:00:30' --tz america/new_york events mail; sh due 5
        5
        delayed 2036-07-01T13:00:30.000Z
        $ asyncq enqueue --at 2036-07-01 --tz UTC events mail; sh due 6
        6
        delayed 2036-07-01T00:00:00.000Z
        $ asyncq enqueue --at @2097561600 events mail; sh due 7
        7
        delayed 2036-06-20T08:00:00.000Z
        $ asyncq enqueue --at now events mail; sh due 8 | cut -d' ' -f1
        8
        queued
        $ asyncq enqueue --at 2036-07-01 --tz UTC --hold events mail; asyncq job start 9; sh due 9
        9
        delayed 2036-07-01T00:00:00.000Z
        $ TZ=CET-1CEST,M3.5.0,M10.5.0/3 asyncq enqueue --at '2036-07-01 9:00' events mail; sh due 10
        10
        delayed 2036-07-01T07:00:00.000Z
        $ asyncq process
        mail
        ",
    );
}

#[test]
fn a_time_of_day_and_a_day_by_its_name_lie_ahead() {
    let place = place();
    let forms = ["09:00", "9:00:30", "tomorrow", "'tomorrow 9:00'", "mon", "'Sunday 09:00'"];
    for (at, form) in forms.into_iter().enumerate() {
        place.stdout(&format!("asyncq enqueue --tz UTC --at {form} events mail"));
        let due = place.stdout(&format!("sh due {}", at + 1));
        assert!(due.starts_with("delayed "), "{form}: {due}");
    }
}

#[test]
fn a_call_runs_after_its_span() {
    place().session(
        r#"
        $ asyncq enqueue --in 100ms events mail soon; asyncq enqueue --in 1h30m events mail late -v
        1
        2
        ! asyncq: job 2 is due at [..]Z, in 1h
        $ until asyncq process | grep .; do sleep 0.02; done
        mail soon
        $ asyncq job list --state delayed
        ID  SERVICE  FUNCTION  ARGUMENTS  PRINCIPAL  STATE    WHEN
        2   events   mail      ["late"]   -          delayed  in 1h
        "#,
    );
}

#[test]
fn a_time_that_has_passed_is_due_now() {
    place().session(
        r"
        $ asyncq enqueue events mail 1; asyncq enqueue --at '1970-01-01 00:00' --tz UTC events mail 2
        1
        2
        ! asyncq: 1970-01-01T00:00:00.000Z has passed, so the call is due now
        $ asyncq enqueue -q --at @-5 events mail 3
        3
        $ asyncq process
        mail 1
        mail 2
        mail 3
        ",
    );
}

#[test]
fn the_same_key_stays_the_same_call_whenever_it_is_due() {
    place().session(
        r"
        $ asyncq enqueue --key k --at 2036-07-01 --tz UTC events mail
        1
        $ asyncq enqueue --key k --at 2020-07-01 --tz UTC events mail
        1
        $ asyncq enqueue --key k --in 5s events mail; sh due 1
        1
        delayed 2036-07-01T00:00:00.000Z
        ",
    );
}

#[test]
fn a_time_that_the_clocks_skip_or_repeat_is_refused() {
    place().session(
        r"
        $ TZ=Europe/Berlin asyncq enqueue --at '2035-03-25 02:30' events mail
        ! error: 02:30 on 2035-03-25 does not exist in Europe/Berlin: the clocks go from 02:00 to 03:00
        ! hint: write `03:30`, or give the offset, as in `2035-03-25T02:30+01:00`
        ? 2
        $ TZ=Europe/Berlin asyncq enqueue --at '2035-10-28 02:30' events mail
        ! error: 02:30 on 2035-10-28 happens twice in Europe/Berlin
        ! hint: write `2035-10-28T02:30+02:00` for the first time, or `2035-10-28T02:30+01:00` for the second
        ? 2
        $ asyncq enqueue --at 2035-03-25T02:30+01:00 events mail; sh due 1
        1
        delayed 2035-03-25T01:30:00.000Z
        $ asyncq enqueue --at '2035-03-25 02:30' --tz UTC events mail; sh due 2
        2
        delayed 2035-03-25T02:30:00.000Z
        ",
    );
}

#[test]
fn what_is_not_a_time_is_refused() {
    let place = place();
    place.session(
        r"
        $ asyncq enqueue --at 'tea time' events mail
        ! error: `tea time` is not a time
        ! hint: write `14:30`, `tomorrow 9:00`, `2026-12-01 09:00` or `2026-12-01T09:00+01:00`
        ? 2
        $ asyncq enqueue --at 10m events mail
        ! error: `10m` is not a time
        ! hint: `--in 10m` delays a call by a span
        ? 2
        $ asyncq enqueue --at tommorow events mail
        ! error: `tommorow` is not a time
        ! hint: did you mean `tomorrow`?
        ? 2
        $ asyncq enqueue --at @1795474163341 events mail
        ! error: `@1795474163341` is not a time
        ! hint: `@` takes whole seconds since 1970, until the year 9999, as in `@1795474163`
        ? 2
        $ asyncq enqueue --at -1 events mail
        ! error: `-1` is not a time
        ! hint: write `14:30`, `tomorrow 9:00`, `2026-12-01 09:00` or `2026-12-01T09:00+01:00`
        ? 2
        $ asyncq enqueue --at '' events mail
        ! error: `` is not a time
        ! hint: write `14:30`, `tomorrow 9:00`, `2026-12-01 09:00` or `2026-12-01T09:00+01:00`
        ? 2
        $ asyncq enqueue --at '2036-07-01T09:00+01:00[Europe/Berlin]' events mail
        ! error: Europe/Berlin has another offset from UTC than +01:00 at 09:00 on 2036-07-01
        ! hint: give the offset or the zone, and leave the other out
        ? 2
        ",
    );
    assert_eq!(place.count(""), 0);
}

#[test]
fn a_time_zone_that_does_not_exist_is_refused() {
    let place = place();
    place.session(
        r"
        $ asyncq enqueue --at 2036-07-01 --tz Europe/Berln events mail
        ! error: there is no time zone `Europe/Berln`
        ! hint: did you mean `Europe/Berlin`?
        ? 2
        $ asyncq enqueue --at 2036-07-01T09:00Z --tz Berlin events mail
        ! error: there is no time zone `Berlin`
        ! hint: did you mean `Europe/Berlin`?
        ? 2
        $ TZ=Europe/Berln asyncq enqueue --at 09:00 events mail
        ! error: `$TZ` is `Europe/Berln`, which names no time zone
        ! hint: did you mean `Europe/Berlin`?
        ? 2
        $ TZ=CET-1CEST asyncq enqueue --at 09:00 events mail
        ! error: `$TZ` is `CET-1CEST`, which names no time zone
        ! hint: name one with `--tz`, as in `--tz Europe/Berlin`
        ? 2
        $ asyncq enqueue --tz Europe/Berlin events mail
        ! error: `--tz` needs `--at` or `--expires`
        ! hint: `asyncq enqueue --help` shows how
        ? 2
        ",
    );
    assert_eq!(place.count(""), 0);
    // Where nothing is read in it, nobody needs to know it.
    place.stdout("TZ=Europe/Berln asyncq enqueue --at 2036-07-01T09:00Z events mail");
}

/// As in a small container, which has neither time zones nor a zone of its own.
#[test]
fn a_machine_without_time_zones_knows_them_all_and_is_in_utc() {
    let place = place();
    let unshare = if place.stdout("id -u").trim() == "0" { "unshare -m" } else { "unshare -rm" };
    place.write(
        "bare",
        "mount -t tmpfs none /etc; [ ! -e /usr/share/zoneinfo ] || mount -t tmpfs none /usr/share/zoneinfo\n",
    );
    place.session(&format!(
        r#"
        $ {unshare} sh -c '. ./bare; asyncq enqueue --at "2036-07-01 9:00" --tz Europe/Berlin events mail'; sh due 1
        1
        delayed 2036-07-01T07:00:00.000Z
        $ {unshare} sh -c '. ./bare; unset TZ; asyncq enqueue --at "2036-07-01 9:00" events mail'; sh due 2
        2
        delayed 2036-07-01T09:00:00.000Z
        "#
    ));
}

/// Wherever an option takes a span.
#[test]
fn no_option_takes_a_span_that_is_negative() {
    let place = place();
    for (command, option) in [
        ("call events mail", "--timeout"),
        ("wait 1", "--timeout"),
        ("run --wait -c true", "--timeout"),
        ("pause --wait", "--timeout"),
        ("status --check", "--max-age"),
        ("function set events mail", "--timeout"),
        ("function set events mail", "--idle"),
        ("function set events mail", "--backoff"),
        ("job clean", "--older-than"),
        ("process", "--max-time"),
        ("process", "--grace"),
        ("job list", "--lock-timeout"),
    ] {
        for text in ["-1", "-5s", "-1.5"] {
            place.session(&format!(
                "
                $ asyncq {command} {option} {text}
                ! error: `{option}` cannot be `{text}`: a span cannot be negative
                ! hint: a span is a number with its unit, as in `90s`, `10m` or `1h30m`
                ? 2
                "
            ));
        }
    }
    place.session(
        "
        $ asyncq function add events new --timeout -1 -- true
        ! error: `--timeout` cannot be `-1`: a span cannot be negative
        ! hint: a span is a number with its unit, as in `90s`, `10m` or `1h30m`
        ? 2
        ",
    );
}

/// An option that takes `0` takes it with a unit, too.
#[test]
fn no_time_at_all_may_have_a_unit() {
    let place = place();
    for zero in ["0", "0s", "0m"] {
        place.session(&format!(
            "
            $ asyncq -q call events mail --in 1h --timeout {zero}
            ! error: job [..] has not ended in time: it is [..]
            ! hint: [..]
            ? 75
            $ asyncq wait 1 --timeout {zero}
            ! error: job 1 has not ended yet: it is [..]
            ! hint: [..]
            ? 75
            $ asyncq -q run --in 1h --wait --timeout {zero} -c true
            ! error: job [..] has not ended in time: it is [..]
            ! hint: [..]
            ? 75
            $ asyncq pause --wait --timeout {zero}; asyncq resume
            $ asyncq process --grace {zero}
            "
        ));
    }
    let shortest = "the shortest span is `1ms`";
    for (command, option, hint) in [
        ("schedule add s --every 1h events mail", "--within", shortest),
        ("function set events mail", "--backoff", shortest),
        ("function set events mail", "--timeout", shortest),
        ("process", "--max-time", shortest),
        ("service set events", "--keep", "write `forever`, or a span as in `30d`"),
    ] {
        place.session(&format!(
            "
            $ asyncq {command} {option} 0s
            ! error: `{option}` cannot be `0s`: a span must be at least one millisecond
            ! hint: {hint}
            ? 2
            "
        ));
    }
}

#[test]
fn what_is_not_a_span_is_refused() {
    let place = place();
    let example = "a span is a number with its unit, as in `90s`, `10m` or `1h30m`";
    for (text, why, hint) in [
        ("90", "the unit is missing", example),
        ("-10m", "a span cannot be negative", example),
        ("0s", "a span must be at least one millisecond", "the shortest span is `1ms`"),
        ("1000y", "months and years have no fixed length", "write days, as in `30d`"),
        ("365250d", "it is too long", "the longest span is a hundred years, `36600d`"),
        ("soon", "it is not a span", example),
        ("09:00", "it is not a span", example),
    ] {
        place.session(&format!(
            "
            $ asyncq enqueue --in {text} events mail
            ! error: `--in` cannot be `{text}`: {why}
            ! hint: {hint}
            ? 2
            "
        ));
        place.write("calls", &format!(r#"{{"service":"events","function":"mail","in":"{text}"}}"#));
        place.session(&format!(
            "
            $ asyncq enqueue --batch calls
            ! error: line 1: `in` is `{text}`: {why}; nothing was enqueued
            ! hint: {hint}
            ? 65
            "
        ));
    }
    assert_eq!(place.count(""), 0);
    place.session(
        r"
        $ asyncq enqueue --in 5m --at 09:00 events mail
        ! error: `--in` cannot be used with `--at`
        ! hint: `asyncq enqueue --help` shows how
        ? 2
        $ asyncq enqueue --in 5m --batch calls
        ! error: `--in` cannot be used with `--batch`
        ! hint: `asyncq enqueue --help` shows how
        ? 2
        $ asyncq enqueue --delay 5m events mail
        ! error: `asyncq enqueue` has no option `--delay`
        ! hint: `--in 10m` or `--at 14:30` runs a call later
        ? 2
        ",
    );
}

#[test]
fn lines_of_a_batch_may_be_due_later() {
    let place = place();
    let line = |more: &str| format!("{{\"service\":\"events\",\"function\":\"mail\"{more}}}\n");
    place.write("calls", &[line(r#","in":"10m""#), line(r#","in":"1h30m","hold":true"#)].concat());
    place.write("both", &line(r#","in":"10m","at":"2036-07-01T00:00:00Z""#));
    place.write("number", &line(r#","in":600"#));
    place.session(
        "
        $ asyncq enqueue --batch calls
        1
        2
        $ asyncq job start 2
        $ asyncq job list --state delayed
        ID  SERVICE  FUNCTION  ARGUMENTS  PRINCIPAL  STATE    WHEN
        2   events   mail      []         -          delayed  in 1h
        1   events   mail      []         -          delayed  in [..]m
        $ asyncq enqueue --batch both
        ! error: line 1: `at` and `in` both say when the call is due; nothing was enqueued
        ! hint: leave one of them out
        ? 65
        $ asyncq enqueue --batch number
        ! error: line 1: not a call in JSON: `in` has to be a string; nothing was enqueued
        ! hint: write {\"service\":\"events\",\"function\":\"mail\",\"args\":[2,7]}
        ? 65
        ",
    );
}

#[test]
fn inside_a_running_function_only_a_deferred_call_is_due_later() {
    let place = Place::with_functions(&[
        ("inner", "echo inner"),
        ("outer", r#"asyncq enqueue "$@" events inner; echo "code $?""#),
    ]);
    for option in ["--in 5m", "--at 2036-07-01T09:00Z", "--at 2016-07-01T09:00Z"] {
        place.stdout(&format!("asyncq enqueue --raw events outer -- {option}"));
        place.session(
            "
            $ asyncq process
            code 2
            ! error: a call inside a running function runs at once, so it cannot be delayed
            ! hint: `asyncq enqueue --defer` queues the call instead of running it now
            ",
        );
    }
    place.session(
        "
        $ asyncq enqueue --raw events outer -- --at now; asyncq process
        4
        inner
        code 0
        $ asyncq enqueue --raw events outer -- --defer --in 5m; asyncq process
        6
        7
        code 0
        $ asyncq job show 7 --json | grep -o '.state.:.[a-z]*'
        \"state\":\"delayed
        ",
    );
}

#[test]
fn a_processor_may_wait_for_calls_that_are_due_soon() {
    place().session(
        "
        $ asyncq enqueue --in 200ms events mail soon; asyncq enqueue --in 1h events mail late
        1
        2
        $ asyncq process --wait 1m
        mail soon
        $ asyncq enqueue --in 200ms events mail sooner; asyncq process --wait-retries
        3
        mail sooner
        $ asyncq process --wait 2h --max-time 1s
        $ asyncq job list --state delayed --json | grep -c '.id.:2,'
        1
        ",
    );
}

#[test]
fn each_call_that_runs_renews_the_time_that_a_processor_waits() {
    let place = place();
    // In one transaction, so that nothing comes between them.
    let line =
        |span| format!("{{\"service\":\"events\",\"function\":\"mail\",\"args\":[\"{span}\"],\"in\":\"{span}\"}}\n");
    place.write("calls", &["300ms", "600ms", "900ms"].map(line).concat());
    place.session(
        "
        $ asyncq enqueue --batch calls > ids; asyncq process --wait 700ms
        mail 300ms
        mail 600ms
        mail 900ms
        ",
    );
}

#[test]
fn no_service_waits_while_another_one_is_ready() {
    let place = Place::with_functions(&[("mail", "touch $1")]);
    for service in ["aside", "other"] {
        place.stdout(&format!("asyncq service add {service}; asyncq function add {service} mail -- ./mail"));
    }
    place.stdout("asyncq service pause other; asyncq enqueue other mail never");
    place.stdout("asyncq enqueue --in 1h aside mail late; asyncq enqueue events mail now");
    let process = place.start("asyncq process -v --wait 2h");
    let waits_for = |file: &str| wait_until(file, || place.at(file).exists());
    waits_for("now");
    // And then it waits for all of them.
    place.stdout("asyncq enqueue --in 20ms events mail then; asyncq enqueue --in 10ms aside mail last");
    waits_for("then");
    waits_for("last");
    process.signal("TERM");
    let output = process.wait();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    assert_eq!(told.matches("service `other` is paused").count(), 1, "{told}");
    assert!(!place.at("never").exists() && !place.at("late").exists());
}

#[test]
fn a_time_to_wait_is_a_span() {
    place().session(
        "
        $ asyncq process --wait 5
        ! error: `--wait` cannot be `5`: the unit is missing
        ! hint: a span is a number with its unit, as in `90s`, `10m` or `1h30m`
        ? 2
        $ asyncq process --wait 5s --follow
        ! error: `--wait` cannot be used with `--follow`
        ! hint: `asyncq process --help` shows how
        ? 2
        $ asyncq process --wait 5s --wait-retries
        ! error: `--wait` cannot be used with `--wait-retries`
        ! hint: `asyncq process --help` shows how
        ? 2
        ",
    );
}
