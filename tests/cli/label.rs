//! `asyncq process --label`.

use crate::place::{Place, WORKER};

/// What a processor prints to both streams.
fn printed(place: &Place, line: &str) -> [Vec<u8>; 2] {
    let output = place.run(line);
    assert!(output.status.success(), "{output:?}");
    [output.stdout, output.stderr]
}

/// The same with a label before each line.
fn labelled(label: &str, bytes: &[u8]) -> Vec<u8> {
    bytes.split_inclusive(|byte| *byte == b'\n').flat_map(|line| [label.as_bytes(), line].concat()).collect()
}

#[test]
fn each_line_of_a_call_begins_with_its_job_and_function() {
    let place = Place::with_functions(&[
        ("lines", "echo one; echo; echo two >&2; printf 'windows\\r\\n'; printf 'progress\\rmore\\n'"),
        ("no_end", "printf 'half a '; printf 'line'; printf ' of stderr' >&2"),
        ("nests", "echo before; asyncq enqueue events lines; printf after"),
        ("fails", "printf oops >&2; exit 3"),
    ]);
    place.stdout("for f in lines no_end no_end nests fails; do asyncq enqueue events $f; done");
    place.session(
        "
        $ asyncq process --label
        1 lines | one
        1 lines |[..]
        1 lines | windows[..]
        1 lines | progress[..]more
        2 no_end | half a line
        3 no_end | half a line
        4 nests | before
        4 nests | one
        4 nests |[..]
        4 nests | windows[..]
        4 nests | progress[..]more
        4 nests | after
        ! 1 lines | two
        ! 2 no_end |  of stderr
        ! 3 no_end |  of stderr
        ! 4 nests | two
        ! 5 fails | oops
        ! asyncq: job 5 (`events` `fails`): exit code 3
        ? 1
        $ asyncq job log 2
        half a line
        !  of stderr
        ",
    );
}

#[test]
fn lines_of_calls_that_run_at_once_have_the_right_labels() {
    let turns = |own: &str, other: &str| {
        format!(
            "for n in 1 2 3; do printf {own}; touch {own}$n; until [ -e {other}$n ]; do sleep 0.01; done; echo -$n; done"
        )
    };
    let place = Place::with_functions(&[("ping", &turns("ping", "pong")), ("pong", &turns("pong", "ping"))]);
    place.stdout("asyncq service set events --concurrency 2; asyncq enqueue events ping; asyncq enqueue events pong");
    let [out, _] = printed(&place, "asyncq process --label");
    let lines = String::from_utf8(out).unwrap();
    for (job, name) in [(1, "ping"), (2, "pong")] {
        let own: Vec<&str> = lines.lines().filter(|line| line.starts_with(&job.to_string())).collect();
        assert_eq!(own, [1, 2, 3].map(|n| format!("{job} {name} | {name}-{n}")), "{lines}");
    }
    assert_eq!(lines.lines().count(), 6);
}

#[test]
fn labels_change_nothing_else_of_long_lines_and_of_bytes() {
    let place = Place::with_functions(&[("shows", "cat \"$1\"")]);
    let long = vec![b'x'; 10_000_000];
    let mut bytes: Vec<u8> = (0..300_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    bytes.push(b'\n');
    let many = b"\n".repeat(100_000);
    for (name, text) in [("long", &long), ("bytes", &bytes), ("many", &many)] {
        std::fs::write(place.at(name), text).unwrap();
        let job = place.stdout(&format!("asyncq enqueue events shows {name}"));
        let [out, _] = printed(&place, "asyncq process --label");
        assert!(out == labelled(&format!("{} shows | ", job.trim()), text), "{name}: {} bytes", out.len());
    }
}

#[test]
fn a_worker_has_the_label_of_its_call() {
    let place = Place::with_functions(&[]);
    let run = "def run(call):\n    print(*call['args'], end='')\n    return 1\n";
    place.program("worker.py", &format!("{WORKER}{run}serve(run)"));
    place.stdout("asyncq function add events say --worker -- ./worker.py");
    place.stdout("for words in one 'two\nlines\n' three; do asyncq enqueue events say \"$words\"; done");
    let [out, _] = printed(&place, "asyncq process --label");
    assert_eq!(String::from_utf8(out).unwrap(), "1 say | one\n2 say | two\n2 say | lines\n3 say | three");
}

/// Calls that run at the same time in one worker, whose messages come in turns.
#[test]
fn calls_inside_one_worker_keep_their_lines() {
    let place = Place::with_functions(&[]);
    let run = "
hello(calls=2)
calls = [hear() for _ in range(2)]
for text in ('a', 'b', 'c\\n', 'd'):
    for call in calls:
        say(method='output', params={'job': call['params']['job'], 'stream': 'out', 'text': text})
for call in calls:
    say(id=call['id'], result={'value': 1})
hear()
";
    place.program("worker.py", &format!("{WORKER}{run}"));
    place.stdout("asyncq service set events --concurrency 2");
    place.stdout("asyncq function add events say --worker -- ./worker.py");
    place.stdout("asyncq enqueue events say; asyncq enqueue events say");
    let [out, _] = printed(&place, "asyncq process --label");
    let out = String::from_utf8(out).unwrap();
    assert_eq!(out, "1 say | abc\n2 say | abc\n1 say | d\n2 say | d", "{out}");
}
