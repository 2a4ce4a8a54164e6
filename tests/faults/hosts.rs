//! Programs that drain into themselves: whatever is killed, no call runs twice at once, and none is lost.

use std::fs;
use std::time::Duration;

use crate::place::{HOST, Place, Running, WORKER, wait_until};
use crate::scale;
use crate::shim::{Error, Fault, Shim};

/// What each call does, in whatever process: it holds a lock while it runs, which nobody else can have then.
const CALL: &str = "
import fcntl, random
def run(call):
    with open(f'locks/{call[\"job\"]}', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note('twice', call['job'])
        note('starts', call['job'])
        time.sleep(random.random() ** 8 / 2)
        note('ends', call['job'])
";

/// Drains into itself, again and again; says that it is idle only when it is.
const DRAINS: &str = "
def answer(to, id, call):
    run(call)
    again = {'error': {'code': 75, 'message': 'once more', 'data': {'kind': 'conflict', 'pause': 0}}}
    reply = again if random.random() < 0.3 else {'result': {}}
    try:
        to.sendall(json.dumps({'jsonrpc': '2.0', 'id': id, **reply}).encode() + b'\\n')
    except OSError:
        pass  # its processor is gone
calls = []
while not os.path.exists('stop'):
    idle = random.random() < 0.5
    while idle and calls:
        calls.pop().join()
    try:
        start('events', '--wait-retries', functions=['work'], calls=2, idle=idle)
        while message := hear():
            calls.append(threading.Thread(target=answer, args=(line, message['id'], message['params'])))
            calls[-1].start()
    except (OSError, ValueError):
        pass
    processor.wait()
";

/// How many calls wait or run at most, so that those which are left at the end do not take long.
const ENOUGH: u32 = 40;

fn start(place: &Place, random: &mut fastrand::Rng) -> Running {
    let host = place.start("./host.py 2> /dev/null");
    std::thread::sleep(Duration::from_millis(random.u64(..200)));
    host
}

/// Kills one half of a host's processor, or both; says whether there was one.
fn kill_processor(place: &Place, random: &mut fastrand::Rng) -> bool {
    let Some(supervisor) = place.read("processor").lines().last().map(str::to_owned) else { return false };
    let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap_or_default();
    let Some(engine) = children.split_whitespace().next() else { return false };
    let which = match random.u8(..3) {
        0 => supervisor.clone(),
        1 => engine.to_owned(),
        _ => format!("{supervisor} {engine}"),
    };
    // Stopped first, so that neither sees the other one die.
    place.run(&format!("kill -STOP {which}; kill -9 {which}")).status.success()
}

#[test]
fn a_storm_of_kills_of_hosts_and_their_processors_runs_nothing_twice_at_once() {
    let kills = scale::many(1000, 40);
    let place = Place::with_functions(&[]);
    fs::create_dir(place.at("locks")).unwrap();
    place.program("work.py", &format!("{WORKER}{CALL}\nserve(run)"));
    place.program("host.py", &format!("{HOST}{CALL}{DRAINS}"));
    place.stdout("asyncq function add events work --worker -- ./work.py; asyncq service set events --concurrency 4");
    let mut random = scale::random("hosts");
    // Somebody else, who comes and goes: for most of the time, the host has all slots.
    let others =
        place.start("sh -c 'until [ -e over ]; do asyncq process --max-jobs 2; sleep 0.05; done' 2> /dev/null");
    let mut host = start(&place, &mut random);
    let mut killed = [0, 0];
    let open = || -> u32 {
        let open = "SELECT count(*) FROM asyncq_job WHERE state NOT IN ('completed', 'error')";
        place.query(open).parse().unwrap()
    };
    while killed[0] + killed[1] < kills {
        if open() < ENOUGH {
            let calls = "{\"service\":\"events\",\"function\":\"work\"}\n".repeat(4);
            place.stdout(&format!("asyncq enqueue --batch - <<'END'\n{calls}END"));
        }
        std::thread::sleep(Duration::from_millis(random.u64(..120)));
        if random.u8(..5) == 0 {
            host.signal("KILL");
            drop(host);
            host = start(&place, &mut random);
            killed[1] += 1;
        } else if kill_processor(&place, &mut random) {
            killed[0] += 1;
        }
    }
    wait_until("all calls have ended", || open() == 0);
    place.write("stop", "");
    wait_until("the host ends", || host.0.try_wait().unwrap().is_some());
    place.write("over", "");
    others.wait();
    place.run("asyncq process");
    assert_eq!(place.read("twice"), "", "these ran twice at once");
    let unexplained = "SELECT count(*) FROM asyncq_job WHERE state = 'error' AND crashes < 3 AND conflicts < 3";
    assert_eq!(place.query(unexplained), "0");
    // Whatever is completed was run to its end, and what was repeated neither for a crash nor for a conflict began once.
    let (starts, ends) = (place.read("starts"), place.read("ends"));
    let count = |book: &str, job: &str| book.lines().filter(|line| *line == job).count();
    let completed = place.query("SELECT group_concat(id, ' ') FROM asyncq_job WHERE state = 'completed'");
    assert!(completed.split(' ').all(|job| count(&ends, job) > 0));
    let calm = place.query("SELECT group_concat(id, ' ') FROM asyncq_job WHERE crashes + conflicts = 0");
    let repeated: Vec<&str> = calm.split(' ').filter(|job| count(&starts, job) > 1).collect();
    assert_eq!(repeated, [""; 0]);
    assert_eq!(place.query("SELECT count(*) FROM asyncq_processor"), "0");
    scale::figure(
        "hosts",
        format!(
            "{} kills of hosts' processors and {} of hosts, {} calls, {} of them repeated, {} after a crash: 0 lost, 0 at once",
            killed[0],
            killed[1],
            place.query("SELECT count(*) FROM asyncq_job"),
            place.query("SELECT count(*) FROM asyncq_job WHERE crashes + conflicts > 0"),
            place.query("SELECT count(*) FROM asyncq_job WHERE crashes > 0"),
        ),
    );
}

/// Holds what it is told to run, or tells how its processor ended without that.
const HOLDS: &str = "
start('events', functions=['work'])
if message := hear():
    lock = open(f'locks/{message[\"params\"][\"job\"]}', 'w')
    fcntl.flock(lock, fcntl.LOCK_EX)
    note('begun', 1)
else:
    note('code', processor.wait())
until(exists('go'))
";

/// Whatever cannot be written beside the store, from one write on: a call that was sent to a host is known to be there.
#[test]
fn a_host_whose_calls_cannot_be_marked_gets_none() {
    let (mut sent, mut refused) = (0, 0);
    for from in 1.. {
        let place = Place::with_functions(&[]);
        fs::create_dir(place.at("locks")).unwrap();
        place.program("work.py", &format!("{WORKER}{CALL}\nserve(run)"));
        place.program("host.py", &format!("{HOST}{CALL}{HOLDS}"));
        place.stdout("asyncq function add events work --worker -- ./work.py; asyncq enqueue events work");
        let folder = place.at(".local/share/asyncq/queue.db-asyncq");
        let shim = Shim::new(&folder, place.path(), Fault::for_ever(Error::Eio, from));
        let mut command = place.command("exec ./host.py 2> told");
        shim.preload(&mut command);
        let host = Running(command.spawn().unwrap());
        let says = |name: &str| place.read(name).ends_with('\n');
        wait_until("it is sent a call, or none ever", || says("begun") || says("code"));
        if says("begun") {
            let supervisor = place.read("processor").trim().to_owned();
            let engine = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap();
            place.run(&format!("kill -STOP {supervisor} {engine}; kill -9 {supervisor} {engine}"));
            sent += 1;
        } else {
            assert_eq!(place.read("code"), "74\n", "from {from}: {}", place.read("told"));
            refused += 1;
        }
        place.run("asyncq process");
        assert_eq!(place.read("twice"), "", "from {from} on");
        place.write("go", "");
        host.wait();
        place.run("asyncq process");
        assert_eq!(place.query("SELECT state FROM asyncq_job"), "completed", "from {from} on");
        if shim.fired() == 0 {
            break;
        }
    }
    assert!(sent > 0 && refused > 0, "{sent} {refused}");
    scale::figure("hosts whose calls cannot be marked", format!("{sent} sent, {refused} not"));
}
