//! What limits when a call may run: its priority, its end, its key, and the rate of its service.

use crate::place::{Place, wait_until};

fn place() -> Place {
    Place::with_functions(&[("say", "echo $1"), ("fail", "exit 3")])
}

#[test]
fn a_call_with_a_smaller_priority_runs_first() {
    place().session(
        "
        $ asyncq enqueue events say last --priority 1000; asyncq enqueue events say second
        1
        2
        $ asyncq enqueue events say first --priority -1000; asyncq job show 3 | grep priority
        3
        priority   -1000
        $ asyncq process
        first
        second
        last
        ",
    );
}

#[test]
fn what_is_no_priority() {
    let place = place();
    place.session(
        r#"
        $ asyncq enqueue events say --priority high
        ! error: `--priority` cannot be `high`: it is a whole number from -1000 to 1000
        ! hint: `asyncq enqueue --help` shows how
        ? 2
        $ asyncq enqueue events say --priority -1001
        ! error: `--priority` cannot be `-1001`: it is a whole number from -1000 to 1000
        ! hint: `asyncq enqueue --help` shows how
        ? 2
        $ echo '{"service":"events","function":"say","priority":1001}' | asyncq enqueue --batch -
        ! error: line 1: `priority` is 1001, which is not a whole number from -1000 to 1000; nothing was enqueued
        ! hint: a call with a smaller priority runs first; 0 is the default
        ? 65
        $ asyncq job list --output csv | wc -l
        1
        "#,
    );
}

#[test]
fn a_call_that_expires_before_it_begins_is_cancelled() {
    let place = place();
    place.session(
        r#"
        $ asyncq enqueue events say late --expires 1ms; asyncq enqueue events say dependent --after 1
        1
        2
        $ asyncq enqueue events say good --expires 1h; asyncq enqueue events say held --hold --expires 1ms
        3
        4
        $ asyncq enqueue events say later --in 2h --expires 10m; asyncq job show 5 | grep -E '^(due|expires)'
        5
        due      [..]  in 1h
        expires  [..]  in 2h
        $ sleep 0.01; asyncq process
        good
        $ asyncq job show 1 | grep -E '^(state|error)'; asyncq job show 2 | grep error
        state      cancelled
        error      it expired before an attempt began
        error      job 1, which this needs, was cancelled
        $ asyncq job show 1 --json | grep -o '"kind":"[a-z]*"'
        "kind":"expired"
        $ asyncq job show 3 --json | grep -o '"expires_at":"20'
        "expires_at":"20
        $ asyncq job retry 1; asyncq process
        late
        dependent
        ! asyncq: job 1 is queued; 1 call that needs it waits again
        "#,
    );
    assert_eq!(place.jobs("state"), "completed, completed, completed, cancelled, delayed");
}

#[test]
fn a_processor_that_follows_wakes_up_for_what_expires() {
    let place = place();
    place.stdout("asyncq service add other && asyncq function add other say -- ./say");
    let follow = place.start("asyncq process --follow");
    wait_until("it follows", || place.processors() == 1);
    place.session(
        "
        $ asyncq service pause other; asyncq enqueue other say 1 --expires 50ms
        1
        $ asyncq enqueue events say 2 --hold --expires 50ms
        2
        ",
    );
    wait_until("both have expired", || place.jobs("state") == "cancelled, cancelled");
    follow.signal("TERM");
    follow.wait();
}

#[test]
fn a_claimed_call_that_expires_before_its_slot_starts_it_does_not_begin() {
    let mut place = place();
    place.set("ASYNCQ_FAILPOINT", "claims made=stop");
    place.stdout("asyncq enqueue events say late --expires 700ms");
    let processor = place.start("asyncq process");
    wait_until("it is claimed", || place.jobs("state") != "queued");
    let expires = place.job(1)["expires_at"].as_str().unwrap().to_owned();
    wait_until("it has expired", || place.stdout("date -u +%FT%T.%3NZ").trim() > expires.as_str());
    place.stdout(&format!("kill -CONT {}", processor.engine()));
    let output = processor.wait();
    assert_eq!((output.stdout.as_slice(), output.status.code()), (b"".as_slice(), Some(0)));
    assert_eq!(place.jobs("state error.kind attempt"), "cancelled expired 0");
}

#[test]
fn what_cannot_be_the_time_when_a_call_expires() {
    let place = place();
    for (text, message, hint) in [
        (
            "5",
            "`--expires` cannot be `5`: the unit is missing",
            "a span is a number with its unit, as in `90s`, `10m` or `1h30m`",
        ),
        (
            "-5m",
            "`--expires` cannot be `-5m`: a span cannot be negative",
            "a span is a number with its unit, as in `90s`, `10m` or `1h30m`",
        ),
        ("0s", "`--expires` cannot be `0s`: a span must be at least one millisecond", "the shortest span is `1ms`"),
        ("1000y", "`--expires` cannot be `1000y`: months and years have no fixed length", "write days, as in `30d`"),
        (
            "soon",
            "`soon` is not a time",
            "write `14:30`, `tomorrow 9:00`, `2026-12-01 09:00` or `2026-12-01T09:00+01:00`",
        ),
    ] {
        place.session(&format!(
            "$ asyncq enqueue events say --expires '{text}'\n! error: {message}\n! hint: {hint}\n? 2"
        ));
    }
    place.session(
        r#"
        $ asyncq enqueue events say --expires '2020-07-01 9:00' --tz UTC
        ! error: `--expires` cannot be `2020-07-01 9:00`: 2020-07-01T09:00:00.000Z has passed
        ! hint: a call that has expired never runs; a span, as in `10m`, counts from when the call is due
        ? 2
        $ asyncq enqueue events say --at 2036-07-02 --expires '2036-07-01 9:00' --tz UTC
        ! error: `--expires` cannot be `2036-07-01 9:00`: 2036-07-01T09:00:00.000Z comes before the call is due
        ! hint: a call that has expired never runs; a span, as in `10m`, counts from when the call is due
        ? 2
        $ echo '{"service":"events","function":"say","expires":"soon"}' | asyncq enqueue --batch -
        ! error: line 1: `expires` is `soon`, which is not a time with its offset from UTC; nothing was enqueued
        ! hint: write it as in "2026-11-23T22:29:00Z" or "2026-11-23T23:29:00+01:00"
        ? 65
        $ echo '{"service":"events","function":"say","expires":"0s"}' | asyncq enqueue --batch -
        ! error: line 1: `expires` is `0s`: a span must be at least one millisecond; nothing was enqueued
        ! hint: the shortest span is `1ms`
        ? 65
        $ echo '{"service":"events","function":"say","expires":"2036-07-01T00:00:00Z"}' | asyncq enqueue --batch -
        1
        $ asyncq job show 1 --json | grep -o '"expires_at":"[^"]*"'
        "expires_at":"2036-07-01T00:00:00.000Z"
        "#,
    );
}

#[test]
fn of_the_calls_with_a_key_one_waits() {
    let place = place();
    place.session(
        "
        $ asyncq enqueue events say 1 --key k --key-until started; asyncq -v enqueue events say 2 --key k --key-until started
        1
        1
        ! asyncq: job 1 has this key
        $ asyncq enqueue events say 3 --key k --key-until started --if-taken replace; asyncq process
        1
        3
        $ asyncq enqueue events say 4 --key k --key-until started --if-taken postpone --in 1h
        2
        $ asyncq -v enqueue events say 5 --key k --key-until started --if-taken postpone
        2
        ! asyncq: job 2, which has this key, has the arguments and the time of this call now
        $ asyncq job show 2 --json | grep -o '\"key_until\":\"started\"'
        \"key_until\":\"started\"
        $ asyncq process
        5
        $ asyncq job show 2 | grep key
        ? 1
        ",
    );
}

#[test]
fn a_call_with_a_key_that_is_running_cannot_be_replaced() {
    let place = Place::with_functions(&[("wait", "touch begun; until [ -e go ]; do sleep 0.01; done")]);
    place.stdout("asyncq enqueue events wait --key reindex --key-until ended");
    let processor = place.start("asyncq process");
    wait_until("it runs", || place.at("begun").exists());
    place.session(
        r#"
        $ asyncq enqueue events wait --key reindex --key-until ended
        1
        $ asyncq enqueue events wait 7 --key reindex --key-until ended --if-taken replace
        ! error: job 1, which has the key `reindex`, is running
        ! hint: with --key-until started a second call could wait
        ? 75
        $ call='{"service":"events","function":"wait","args":[7],"key":"reindex","key_until":"ended","if_taken":"replace"}'; echo "$call" | asyncq enqueue --batch -
        ! error: line 1: job 1, which has the key `reindex`, is running; nothing was enqueued
        ! hint: with --key-until started a second call could wait
        ? 75
        "#,
    );
    place.write("go", "");
    assert!(processor.wait().status.success());
    place.session("$ asyncq enqueue events wait 7 --key reindex --key-until ended --if-taken replace\n2");
}

#[test]
fn what_cannot_be_said_of_a_key() {
    let place = place();
    place.session(
        r#"
        $ asyncq enqueue events say --key-until started
        ! error: `--key-until` needs `--key`
        ! hint: write, for example, `--key reindex --key-until started --if-taken replace`
        ? 2
        $ asyncq enqueue events say --key k --if-taken replace
        ! error: `--if-taken` needs `--key-until`
        ! hint: write, for example, `--key reindex --key-until started --if-taken replace`
        ? 2
        $ echo '{"service":"events","function":"say","key_until":"ended"}' | asyncq enqueue --batch -
        ! error: line 1: `key_until` needs `key`; nothing was enqueued
        ! hint: write "key":"reindex","key_until":"started","if_taken":"replace"
        ? 65
        $ echo '{"service":"events","function":"say","key":"k","if_taken":"keep"}' | asyncq enqueue --batch -
        ! error: line 1: `if_taken` needs `key_until`; nothing was enqueued
        ! hint: write "key":"reindex","key_until":"started","if_taken":"replace"
        ? 65
        $ echo '{"service":"events","function":"say","key":"k","key_until":"begun"}' | asyncq enqueue --batch -
        ! error: line 1: `key_until` cannot be `begun`; nothing was enqueued
        ! hint: write "started" or "ended"
        ? 65
        $ echo '{"service":"events","function":"say","key":"k","key_until":"ended","if_taken":"x"}' | asyncq enqueue --batch -
        ! error: line 1: `if_taken` cannot be `x`; nothing was enqueued
        ! hint: write "keep", "replace" or "postpone"
        ? 65
        $ asyncq enqueue events say 1 --key k --key-until started; asyncq enqueue events fail --key k --key-until started
        1
        ! error: key `k` belongs to job 1, which is another call
        ! hint: `asyncq job show 1` shows that call; a new call needs a new key
        ? 77
        "#,
    );
}

#[test]
fn a_drain_waits_for_the_rate_of_its_service_and_keeps_its_slots() {
    let place = Place::with_functions(&[("say", "date +%s%3N >> starts; echo $1")]);
    place.session(
        "
        $ asyncq service set events --rate 20/s --burst 2 --concurrency 3; asyncq service show events | grep rate
        rate         20/s, burst 2
        $ for n in 1 2 3 4 5 6 7 8; do asyncq enqueue events say $n; done | tail -1
        8
        ",
    );
    let first = place.start("asyncq process");
    wait_until("it has begun", || place.at("starts").exists());
    // The other one finds the service busy, or done.
    let second = place.run("asyncq process");
    assert!(second.status.success() && second.stdout.is_empty(), "{second:?}");
    assert_eq!(String::from_utf8(first.wait().stdout).unwrap().lines().count(), 8);
    let starts: Vec<u64> = place.read("starts").lines().map(|line| line.parse().unwrap()).collect();
    // Two at once, and then one in 50 ms. A start may be late, by as much as the machine is busy.
    let took = starts.iter().max().unwrap() - starts.iter().min().unwrap();
    assert!(took >= 250, "{starts:?}");
}

#[test]
fn a_rate_counts_the_starts_of_all_processors() {
    let place = Place::with_functions(&[("say", "echo $1")]);
    place.stdout("asyncq service set events --rate 2/h --burst 2 --concurrency 4");
    place.stdout("for n in 1 2 3 4; do asyncq enqueue events say $n; done");
    // The time that a processor may take ends its wait for the rate.
    assert_eq!(place.stdout("asyncq process --max-time 1ms; asyncq process --max-time 200ms").lines().count(), 2);
    assert_eq!(place.jobs("state"), "completed, completed, queued, queued");
    let follow = place.start("asyncq process --follow");
    wait_until("it waits", || place.slots() != "");
    place.session(
        "
        $ asyncq job show 3 | grep why
        why        rate: the rate of service `events` is 2/h; the next call starts at [..]: `asyncq service set events --rate none`
        $ asyncq service set events --rate none
        ",
    );
    wait_until("the others have run", || place.jobs("state") == "completed, completed, completed, completed");
    follow.signal("TERM");
    assert_eq!(String::from_utf8(follow.wait().stdout).unwrap().lines().count(), 2);
}

#[test]
fn what_cannot_be_a_rate() {
    let place = place();
    let hint = "write a number of calls and a span, as in `10/s`, `100/h` or `5/10m`; `none` sets no rate";
    for (rate, message) in [
        ("0/s", "`0` is not a number of calls from 1 to 1000000"),
        ("10", "the span is missing"),
        ("/s", "the number of calls is missing"),
        ("-1/s", "`-1` is not a number of calls from 1 to 1000000"),
        ("10/fortnight", "`fortnight` is not a span"),
        ("10/-5s", "`-5s` is not a span: a span cannot be negative"),
        ("10/0s", "`0s` is not a span: a span must be at least one millisecond"),
    ] {
        place.session(&format!(
            "$ asyncq service set events --rate {rate}\n! error: `--rate` cannot be `{rate}`: {message}\n! hint: {hint}\n? 2"
        ));
    }
    place.session(
        "
        $ asyncq service set events --burst 3
        ! error: `--burst` needs `--rate`
        ! hint: `asyncq service set --help` shows how
        ? 2
        $ asyncq service set events --rate none --burst 3
        ! error: `--burst` needs a rate, and `--rate none` sets none
        ! hint: leave out `--burst`, or give a rate, as in `--rate 10/s`
        ? 2
        $ asyncq service add new --burst 3 --rate none
        ! error: `--burst` needs a rate, and `--rate none` sets none
        ! hint: leave out `--burst`, or give a rate, as in `--rate 10/s`
        ? 2
        $ asyncq service set events --rate 10/s --burst 0
        ! error: `--burst` cannot be `0`: it is a whole number from 1 to 1000000
        ! hint: `asyncq service set --help` shows how
        ? 2
        $ asyncq service add mails --rate 5/10m; asyncq service add mails --rate 5/10m; asyncq service add mails --rate 6/10m
        ! error: service `mails` exists with rate 5/10m, burst 1
        ! hint: `asyncq service set mails --rate 6/10m --burst 1` changes it
        ? 77
        $ asyncq service show mails --json
        {\"name\":\"mails\",\"concurrency\":1,\"paused\":false,\"paused_why\":null,\"lane_width\":1,\"rate\":\"5/10m\",\"burst\":1,\"keep\":null,\"keep_errors\":null,\"on_error\":null,\"on_success\":null,\"created_at\":\"[..]\"}
        $ asyncq service set mails --rate none; asyncq service show mails --json | grep -o '\"rate\":null,\"burst\":null'
        \"rate\":null,\"burst\":null
        ",
    );
}

#[test]
fn what_is_due_depends_on_rates_and_expiry() {
    let place = place();
    place.session(
        "
        $ asyncq service set events --rate 2/h; asyncq enqueue events say 1; asyncq enqueue events say 2; asyncq due
        1
        2
        now
        $ asyncq process --max-time 100ms; asyncq due --in-seconds | grep -E '^(1799|1800)$' | wc -l
        1
        1
        $ asyncq service set events --rate none; asyncq process; asyncq due
        2
        ? 1
        $ asyncq enqueue events say 3 --hold --expires 2h; asyncq due --in-seconds | cut -c1
        3
        7
        ",
    );
}

#[test]
fn a_request_says_the_same_as_an_option() {
    let place = place();
    place.write(
        "request",
        r#"echo "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"enqueue\",\"params\":{\"service\":\"events\",\"function\":\"say\",$1}}" | asyncq rpc"#,
    );
    place.session(
        r#"
        $ sh request '"priority":2,"expires":"2h","key":"k","key_until":"started","if_taken":"replace","meta":{"n":1}'
        {"jsonrpc":"2.0","id":1,"result":{"job":1,"new":true}}
        $ sh request '"args":[7],"key":"k","key_until":"started","if_taken":"replace"'
        {"jsonrpc":"2.0","id":1,"result":{"job":1,"new":false}}
        $ asyncq job show 1 --json | grep -o '"priority":2,"key":"k","key_until":"started","lane":null,"expires_at":"20[^"]*","after":null,"meta":{"n":1}'
        "priority":2,"key":"k","key_until":"started","lane":null,"expires_at":"20[..]Z","after":null,"meta":{"n":1}
        $ sh request '"priority":-1001' | grep -o '"message".*"hint'
        "message":"`priority` is -1001, which is not a whole number from -1000 to 1000","data":{"hint
        $ sh request '"key_until":"ended"' | grep -o '"message":"[^"]*"'
        "message":"`key_until` needs `key`"
        $ asyncq process
        7
        "#,
    );
}
