//! What a person at a terminal sees of `asyncq process`.

use std::io::Read;

use crate::place::{Place, Running, WORKER, wait_until};

/// Output of a terminal, with `TIME` for each span.
fn without_times(shown: &str) -> String {
    let is_time = |word: &str| {
        let unit = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        unit != word && ["ms", "s", "h"].contains(&unit.trim_end_matches([',', ';', ':']))
    };
    let word = |word: &str| {
        let end = word.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
        if is_time(word) { format!("TIME{end}") } else { word.to_owned() }
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    shown.replace("\r\n", "\n").split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// What a terminal shows in the end, whose lines end with `\r\n`: erased lines are gone.
fn remains(shown: &str) -> String {
    let line = |line: &str| line.rsplit("\r\x1b[K").next().unwrap().to_owned();
    shown.split("\r\n").map(line).collect::<Vec<_>>().join("\n")
}

/// Starts a command on a terminal; what it shows comes into the file `shown`.
fn start(place: &Place, columns: u16, line: &str) -> Running {
    place.write("line", &format!("stty cols {columns}; {line}"));
    place.start("env TERM=xterm SHELL=/bin/sh script -qefc '. ./line' /dev/null > shown")
}

const FUNCTIONS: [(&str, &str); 7] = [
    ("hello", "echo hello"),
    ("fails", "echo oops >&2; exit 3"),
    ("meets", "exit 75"),
    ("snoozes", "echo 1h > \"$ASYNCQ_LATER\"; exit 75"),
    ("vain", "echo 1h > \"$ASYNCQ_LATER\""),
    ("cancelled", "asyncq job cancel $ASYNCQ_JOB >/dev/null; sleep 60"),
    ("gone", ""),
];

#[test]
fn each_call_has_a_line_and_the_drain_a_summary() {
    let place = Place::with_functions(&FUNCTIONS);
    place.stdout("for f in hello fails meets snoozes vain cancelled gone; do asyncq enqueue events $f; done; rm gone");
    let shown =
        place.on_terminal(80, "NO_COLOR=1 asyncq process --max-jobs 7").replace(place.path().to_str().unwrap(), ".");
    assert_eq!(
        without_times(&shown),
        "hello
ok     job 1 events hello TIME
oops
failed job 2 events fails TIME: exit code 3
retry  job 3 events meets TIME: temporary failure (exit code 75); tried again in TIME
later  job 4 events snoozes TIME: it asks to run later; runs again in TIME, and no attempt counts
ok     job 5 events vain TIME: it wrote to `$ASYNCQ_LATER`, which counts only with exit code 75
cancelled job 6 events cancelled TIME
retry  job 7 events gone TIME: its program `./gone` is gone; tried again in TIME
asyncq: 7 attempts in TIME; 1 job ended in an error
"
    );
}

#[test]
fn on_a_terminal_only_asyncq_speaks_in_colours() {
    let place = Place::with_functions(&FUNCTIONS);
    place.stdout("for f in hello fails meets; do asyncq enqueue events $f; done");
    let shown = place
        .on_terminal(80, "asyncq process --max-jobs 3 > printed; asyncq --quiet job retry 2; asyncq --quiet process");
    assert_eq!(
        without_times(&shown),
        "\x1b[32mok    \x1b[0m job 1 events hello TIME
oops
\x1b[31mfailed\x1b[0m job 2 events fails TIME: exit code 3
\x1b[33mretry \x1b[0m job 3 events meets TIME: temporary failure (exit code 75); tried again in TIME
asyncq: 3 attempts in TIME; 1 job ended in an error
oops
"
    );
    assert_eq!(place.read("printed"), "hello\n");
}

#[test]
fn a_long_drain_shows_how_far_it_is() {
    let long = "printf begun; touch begun; until [ -e go ]; do sleep 0.01; done; echo ' and ended'";
    let place =
        Place::with_functions(&[("long", long), ("quiet", "sleep 0.01; until [ -e end ]; do sleep 0.01; done")]);
    place.stdout("asyncq service set events --concurrency 2; asyncq enqueue events quiet; asyncq enqueue events quiet");
    place.stdout("for n in 1 2 3; do asyncq enqueue events long; done");
    let process = start(&place, 30, "NO_COLOR=1 asyncq process");
    wait_until("it is shown", || place.read("shown").contains("0 done, 2 running, 3 queued"));
    place.write("end", "");
    wait_until("a call has printed", || place.at("begun").exists());
    let narrow = place.read("shown");
    assert!(!narrow.contains("/s") && !narrow.contains("/min"), "{narrow}");
    place.write("go", "");
    process.wait();
    let shown = place.read("shown");
    let expected = "ok     job 1 events quiet TIME
ok     job 2 events quiet TIME
begun and ended
ok     job 3 events long TIME
begun and ended
ok     job 4 events long TIME
begun and ended
ok     job 5 events long TIME
asyncq: 5 attempts in TIME; 0 jobs ended in an error
";
    let lines = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(&without_times(&remains(&shown))), lines(expected), "{shown:?}");
}

#[test]
fn progress_is_shown_while_calls_run_and_where_it_can_be_erased() {
    let place = Place::with_functions(&[("long", "touch begun-$ASYNCQ_JOB; until [ -e go ]; do sleep 0.01; done")]);
    place.stdout("asyncq service set events --concurrency 2; asyncq enqueue events long; asyncq enqueue events long");
    place.write("dumb", "TERM=dumb exec asyncq process --max-jobs 1");
    let dumb = place.start("env SHELL=/bin/sh script -qefc '. ./dumb' /dev/null > dumb-shown");
    wait_until("the first has begun", || place.at("begun-1").exists());
    let process = start(&place, 80, "exec asyncq process --follow");
    wait_until("it is shown", || place.read("shown").contains("0 done, 1 running, 0 queued"));
    place.write("go", "");
    dumb.wait();
    assert_eq!(without_times(&place.read("dumb-shown")).lines().count(), 2, "{}", place.read("dumb-shown"));
    wait_until("it is gone", || !remains(&place.read("shown")).contains("running"));
    drop(process);
}

#[test]
fn a_killed_processor_does_not_spoil_the_message_about_it() {
    let place = Place::with_functions(&[("long", "printf unfinished; echo $PPID > pid; sleep 60")]);
    place.stdout("asyncq enqueue events long");
    let process = start(&place, 80, "NO_COLOR=1 asyncq process");
    wait_until("it prints", || place.read("shown").contains("unfinished") && !place.read("pid").is_empty());
    place.stdout("kill -9 $(cat pid)");
    process.wait();
    let shown = place.read("shown");
    assert!(remains(&shown).starts_with("unfinished\nerror: the processor was ended by signal 9"), "{shown:?}");
}

#[test]
fn a_terminal_that_stands_still_holds_up_no_call() {
    let place = Place::with_functions(&[]);
    place.program("worker.py", &format!("{WORKER}serve(lambda call: 1)"));
    place.stdout("asyncq function add events worker --worker -- ./worker.py");
    place.enqueue_many("worker", 4000);
    let mut process = place.start("env TERM=xterm SHELL=/bin/sh NO_COLOR=1 script -qefc 'asyncq process' /dev/null");
    wait_until("all have ended", || place.count("--state completed") == 4000);
    let mut shown = String::new();
    process.0.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    assert!(shown.contains(" lines like this are left out"), "{}", shown.len());
    assert!(shown.contains("asyncq: 4000 attempts in "), "{}", shown.len());
}
