//! The formats of lists and of single things.

use crate::place::Place;

/// A job that ended in an error and one that waits; cells with commas, quotes and line ends.
fn place() -> Place {
    let place = Place::with_functions(&[("fail", "exit 3")]);
    place.stdout(
        r#"asyncq enqueue events fail 1 '"a, b"' -k x='two
lines' --principal 'Bob, "Jr."'"#,
    );
    place.run("asyncq process");
    place.stdout("asyncq enqueue events fail --hold");
    place
}

#[test]
fn csv_has_all_columns_and_full_times() {
    place().session(
        r#"
        $ asyncq service list --output csv
        name,concurrency,paused,paused_why,lane_width,[..],created_at
        events,1,false,,1,[..],20[..]Z
        $ asyncq service show events --output csv
        name,concurrency,paused,paused_why,lane_width,[..],created_at
        events,1,false,,1,[..],20[..]Z
        $ asyncq function list events --output csv
        service,name,command,site,env,timeout,worker.calls_per_worker,worker.idle,worker.memory_growth,args,stdin,lane,[..],created_at
        events,fail,"[""./fail""]",/[..],{},,,,,words,call,,[..],20[..]Z
        $ asyncq function set events fail --worker --timeout 90s
        $ asyncq function show events fail --output csv
        service,name,command,site,env,timeout,worker.calls_per_worker,worker.idle,worker.memory_growth,args,stdin,lane,[..],created_at
        events,fail,"[""./fail""]",/[..],{},90.0,,60.0,,,,,[..],20[..]Z
        $ asyncq job list --output csv
        id,service,function,args,kwargs,principal,site,state,immediate,parent,attempt,failures,conflicts,crashes,created_at,run_at,started_at,finished_at,result,error.kind,error.message,error.exit_code,error.signal,error.type,error.traceback,priority,key,[..],schedule.name,schedule.tick,schedule.missed,os_user,progress
        2,events,fail,[],{},,/[..],held,false,,0,0,0,0,20[..]Z,20[..]Z,,,,,,,,,,0,,[..],
        1,events,fail,"[1,""a, b""]","{""x"":""two\nlines""}","Bob, ""Jr.""",/[..],error,false,,1,1,0,0,20[..]Z,20[..]Z,20[..]Z,20[..]Z,,exit,exit code 3,3,,,,0,,[..],
        $ asyncq job show 2 --output csv | tail -1
        2,events,fail,[],{},,/[..],held,false,,0,0,0,0,20[..]Z,20[..]Z,,,,,,,,,,0,,[..],
        $ asyncq job list --state completed --output csv | wc -l
        1
        "#,
    );
}

/// A program that reads CSV gets each text as it is. A terminal does not act on what is in it.
#[test]
fn csv_is_read_back() {
    let place = Place::with_functions(&[("say", "cat answer > \"$ASYNCQ_RESULT\"")]);
    for result in [r#""a\nb, \"c\" ""#, r#""""#, "[1, null]", r#""\u001b[31m""#] {
        place.write("answer", result);
        place.stdout("asyncq enqueue events say; asyncq process");
    }
    let read = r#"import csv, sys
for row in csv.DictReader(sys.stdin): print(ascii(row["result"]))"#;
    assert_eq!(
        place.stdout(&format!("asyncq job list --output csv | python3 -c '{read}'")),
        "'\\x1b[31m'\n'[1, null]'\n''\n'a\\nb, \"c\" '\n"
    );
    assert!(place.stdout("asyncq job show 2 --output csv").contains("Z,\"\",,"), "an empty text is not null");
    let shown = place.terminal("asyncq job show 4 --output csv");
    assert!(shown.contains(r",\u{1b}[31m,") && !shown.contains('\u{1b}'), "{shown}");
}

/// Each field of the JSON is a column, so that no new field is forgotten.
#[test]
fn csv_has_the_fields_of_json() {
    let place = place();
    place.run("asyncq function set events fail --worker");
    place.stdout("asyncq schedule add each --every 300d --missed skip --within 1ms events fail");
    place.let_ticks_pass("each", 1);
    place.stdout("asyncq service set events --concurrency 1; asyncq process");
    let compare = r#"import csv, json, sys
def fields(thing, nested):
    for name, value in thing.items():
        if name in nested and value is not None: yield from (name + "." + inner for inner in value)
        elif name not in ["attempts"]: yield name
NESTED = ["error", "worker", "last_skip"]
shown = [line for line in sys.stdin]
thing = json.loads(shown[0])
columns = next(csv.reader(shown[1:2]))
print([name for name in columns if name not in fields(thing, NESTED)])
print([name for name in fields(thing, NESTED) if name not in columns])"#;
    for (thing, more) in [
        ("service show events", "[]"),
        ("function show events fail", "[]"),
        (
            "job show 1",
            "['error.type', 'error.traceback', 'schedule.name', 'schedule.tick', 'schedule.missed', 'progress']",
        ),
        ("schedule show each", "[]"),
    ] {
        assert_eq!(
            place.stdout(&format!("(asyncq {thing} --json; asyncq {thing} --output csv) | python3 -c '{compare}'")),
            format!("{more}\n[]\n"),
            "{thing}"
        );
    }
}

#[test]
fn json_has_a_short_form() {
    place().session(
        r#"
        $ for thing in "service list" "service show events" "function list" "job list" "job show 1"; do
        > [ "$(asyncq $thing --json)" = "$(asyncq $thing --output json)" ] && echo same; done
        same
        same
        same
        same
        same
        $ [ "$(asyncq service list)" = "$(asyncq service list --output table)" ] && echo same
        same
        $ asyncq service list --json --output json
        [{"name":"events",[..]
        "#,
    );
}

#[test]
fn one_format_is_chosen() {
    place().session(
        "
        $ asyncq job list --json --output csv
        ! error: `--json` cannot be used with another `--output`
        ! hint: leave one of them out
        ? 2
        $ asyncq service show nothing --json --output table
        ! error: `--json` cannot be used with another `--output`
        ! hint: leave one of them out
        ? 2
        $ asyncq function list --output xml
        ! error: `--output` cannot be `xml`: it must be `table`, `json` or `csv`
        ! hint: `asyncq function list --help` shows how
        ? 2
        $ asyncq job show 1 --output cvs
        ! error: `--output` cannot be `cvs`: it must be `table`, `json` or `csv`
        ! hint: did you mean `csv`?
        ? 2
        ",
    );
}
