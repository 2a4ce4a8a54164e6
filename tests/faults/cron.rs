//! The cron of the distribution calls `asyncq process` each minute, twice at once, as a crontab of a user does.
//!
//! At full size its minutes are real ones. Otherwise its own clock goes faster, and all spans are shorter. Only root can
//! start it; for others this test says so and passes, but not at full size.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use crate::books::compiled;
use crate::clock::{Clock, truth};
use crate::place::{Place, Running};
use crate::scale::{figure, full, many};

/// All in milliseconds of the true clock.
struct Spans {
    /// Between two runs of cron,
    minute: i64,
    /// between two ticks of the schedules that come often,
    often: i64,
    /// and for how long the function runs that takes long.
    long: i64,
}

const REAL: Spans = Spans { minute: 60_000, often: 20_000, long: 90_000 };
const SHORT: Spans = Spans { minute: 4_000, often: 1_000, long: 6_000 };

/// Cron, in a mount and a PID namespace, where it finds this crontab and no other, and mail goes to a file. It ends when
/// there is a file `over`; the processors that it started go on to their end.
const CRON: &str = r"
set -e
cp /usr/sbin/cron ./cron
: > empty
mount -t tmpfs none /usr/sbin
cp sendmail /usr/sbin/sendmail
mount -t tmpfs none /etc/cron.d
mount --bind empty /etc/crontab
mount -t tmpfs none /run
mount -t tmpfs none /var/spool/cron
mkdir -m 1730 /var/spool/cron/crontabs
cp crontab /var/spool/cron/crontabs/root
chmod 600 /var/spool/cron/crontabs/root
LD_PRELOAD=$PRELOAD ./cron -f &
cron=$!
until [ -e over ]; do sleep 0.05; done
kill $cron
wait $cron || true
set -- 1 2
until [ $# = 1 ]; do sleep 0.05; set -- /proc/[0-9]*; done
: > ended
exec sleep 1000
";

/// Keeps each mail, when it is whole.
const SENDMAIL: &str = "#!/bin/sh\nmail=$(mktemp ./mail.XXXXXX)\ncat > $mail\nmv $mail mails/\n";

/// Says if it meets itself.
const LONG: &str = "
mkdir running || echo $ASYNCQ_JOB >> met
sleep $LONG
rmdir running";

struct Cron {
    place: Place,
    spans: Spans,
    _namespace: Running,
}

impl Cron {
    fn start() -> Cron {
        let spans = if full() { REAL } else { SHORT };
        let mut place = Place::with_functions(&[]);
        place.set("LONG", &format!("{}.{:03}", spans.long / 1000, spans.long % 1000));
        for (name, script) in [("quick", "true"), ("says", "echo $1"), ("fail", "exit 3")] {
            place.function(name, "", script);
        }
        // The only slot of its service is taken most of the time, and another call waits for it.
        place.program("long", &format!("#!/bin/sh{LONG}\n"));
        place.stdout("asyncq service add slow; asyncq function add slow long --env LONG -- ./long");
        place.stdout("asyncq function add slow quick -- ./quick; asyncq enqueue --priority 1 slow quick");
        place.stdout("asyncq service set events --concurrency 4");
        let path = place.path().display().to_string();
        let line = format!("* * * * * echo >> runs; exec {} process\n", env!("CARGO_BIN_EXE_asyncq"));
        place.write("crontab", &format!("HOME={path}\nMAILTO=me\n{}", line.repeat(2)));
        place.program("sendmail", &SENDMAIL.replace("./", &format!("{path}/")));
        place.write("cron.sh", CRON);
        fs::create_dir(place.at("mails")).unwrap();
        let every = |span: i64| format!("--every {}s", span / 1000);
        let minute = if full() { "--cron '* * * * *' --tz UTC".to_owned() } else { every(spans.minute) };
        let often = every(spans.often);
        for (schedule, function) in [
            (format!("minute {minute}"), "events quick"),
            (format!("often {often}"), "events quick"),
            (format!("each {often} --missed all"), "events quick"),
            (format!("long {minute}"), "slow long"),
        ] {
            place.stdout(&format!("asyncq schedule add {schedule} {function}"));
        }
        let clock = faster(&place, REAL.minute / spans.minute);
        let unshare = "unshare -mpf --kill-child --mount-proc --propagation private sh ./cron.sh > cron.log 2>&1";
        let namespace = place.start(&format!("env {clock} {unshare}"));
        Cron { place, spans, _namespace: namespace }
    }

    /// Waits, for longer than `wait_until` does: minutes of cron take a while.
    fn wait_until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(600);
        while !holds() {
            assert!(Instant::now() < end, "never happened: {what}\n{}", self.place.read("cron.log"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How many times cron has run its two lines.
    fn minutes(&self) -> usize {
        self.place.read("runs").lines().count() / 2
    }

    /// Of these, how many are whole: cron may start at the end of one.
    fn whole_minutes(&self) -> i64 {
        i64::try_from(self.minutes()).unwrap() - 1
    }

    fn mails(&self) -> Vec<String> {
        let mails = fs::read_dir(self.place.at("mails")).unwrap();
        mails.map(|mail| fs::read_to_string(mail.unwrap().path()).unwrap()).collect()
    }

    /// No more minutes come. Waits for the end of what is under way.
    fn end(&self) {
        self.place.write("over", "");
        self.wait_until("all ends", || self.place.at("ended").exists());
        assert_eq!(self.place.processors(), 0);
    }

    fn of_schedule(&self, schedule: &str, column: &str) -> i64 {
        self.place.query(&format!("SELECT {column} FROM asyncq_schedule WHERE name = '{schedule}'")).parse().unwrap()
    }

    /// The ticks with a job, each with how many earlier ones it stands for.
    fn ticks(&self, schedule: &str) -> Vec<(i64, i64)> {
        let all =
            "SELECT COALESCE(group_concat(tick || ' ' || missed), '') FROM (SELECT tick, missed FROM asyncq_origin
            WHERE schedule = ";
        let all = self.place.query(&format!("{all}'{schedule}' ORDER BY tick)"));
        let number = |text: &str| text.parse().unwrap();
        let pairs = all.split(',').map(|tick| tick.split_once(' ').unwrap());
        let ticks: Vec<(i64, i64)> = pairs.map(|(tick, missed)| (number(tick), number(missed))).collect();
        // Each one that was due has a job, or is one for which another stands, or was skipped.
        let every = if ["minute", "long"].contains(&schedule) { self.spans.minute } else { self.spans.often };
        let due = (self.of_schedule(schedule, "last_tick") - ticks[0].0) / every + 1;
        let counted = ticks.iter().skip(1).map(|tick| tick.1 + 1).sum::<i64>() + 1;
        assert_eq!(counted + self.of_schedule(schedule, "skipped"), due, "{schedule}: {ticks:?}");
        assert!(due * every >= self.whole_minutes() * self.spans.minute, "{schedule}: {ticks:?}");
        assert_eq!(self.of_schedule(schedule, "fired"), i64::try_from(ticks.len()).unwrap());
        ticks
    }
}

/// A clock that goes so many times faster, and whose minutes begin when a span of that length does by the true clock:
/// the variables that cron needs to see it.
fn faster(place: &Place, speed: i64) -> String {
    let (now, minute) = (truth(), 1000 * REAL.minute);
    let shown = now - now % minute + now * speed % minute;
    Clock::at(&place.at("clock")).set(shown - now, speed);
    format!("CLOCK={}/clock PRELOAD={}", place.path().display(), compiled("clock", &["-shared", "-fPIC"]).display())
}

#[test]
fn the_cron_of_the_system_drains_each_minute_twice_at_once() {
    if Place::new().stdout("id -u").trim() != "0" {
        assert!(!full(), "only root can start cron: run this as root");
        return figure("cron", "not checked: only root can start cron");
    }
    let minutes = many(5, 3);
    let cron = Cron::start();
    cron.wait_until("cron's first minutes", || cron.minutes() >= minutes - 1);
    assert_eq!(cron.mails(), [""; 0], "mail without cause");
    cron.place.stdout("asyncq enqueue events says hello; asyncq enqueue events fail");
    cron.wait_until("cron's last minute", || cron.minutes() >= minutes);
    cron.end();

    let schedules = ["minute", "often", "each", "long"].map(|schedule| cron.ticks(schedule));
    let long = &schedules[3];

    // A tick of the long one has a job, or the job of an earlier one had not ended.
    let known: BTreeSet<i64> = long.iter().map(|tick| tick.0).collect();
    let ends: Vec<i64> = known.iter().map(|tick| finished(&cron.place, *tick)).collect();
    let made: Vec<i64> = known.iter().map(|tick| created(&cron.place, *tick)).collect();
    for (end, next) in ends.iter().zip(&made[1..]) {
        assert!(end <= next, "a job was made while that of an earlier tick ran: {ends:?}, {made:?}");
    }
    let due = (long[0].0..=cron.of_schedule("long", "last_tick")).step_by(usize::try_from(cron.spans.minute).unwrap());
    let skipped: Vec<i64> = due.filter(|tick| !known.contains(tick)).collect();
    for tick in &skipped {
        let before = known.range(..tick).count() - 1;
        assert!(ends[before] > *tick, "tick {tick} was skipped although nothing ran: {ends:?}");
    }
    assert!(!skipped.is_empty(), "a job that takes longer than a minute keeps no tick from its job: {long:?}");
    assert_eq!(cron.place.read("met"), "", "these ran while an earlier one did");
    let shown = cron.place.stdout("asyncq schedule show long");
    let why = shown.lines().find(|line| line.starts_with("skipped ")).unwrap();
    let ticks = format!(" {} tick", skipped.len());
    assert!(why.contains(&ticks) && why.contains(" of an earlier tick was still running"), "{shown}");

    let jobs: usize = schedules.iter().map(Vec::len).sum();
    assert_eq!(cron.place.jobs("state").matches("completed").count(), jobs + 2);
    assert_eq!(cron.place.count("--state error"), 1);
    let bodies = cron.mails().into_iter().map(|mail| mail.split_once("\n\n").unwrap().1.to_owned());
    let mut told: Vec<String> = bodies.flat_map(|body| body.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    told.sort();
    let failed = cron.place.query("SELECT id FROM asyncq_job WHERE state = 'error'");
    assert_eq!(told, [format!("asyncq: job {failed} (`events` `fail`): exit code 3"), "hello".to_owned()]);
    figure(
        "cron",
        format!(
            "{} minutes, {jobs} ticks with a job, {} of the long one without: none twice, none lost, no mail without cause",
            cron.minutes(),
            skipped.len()
        ),
    );
}

fn of_tick(place: &Place, what: &str, tick: i64) -> i64 {
    let of = "FROM asyncq_job JOIN asyncq_origin ON job = id WHERE schedule = 'long' AND tick = ";
    place.query(&format!("SELECT {what} {of}{tick}")).parse().unwrap()
}

fn created(place: &Place, tick: i64) -> i64 {
    of_tick(place, "created_at", tick)
}

fn finished(place: &Place, tick: i64) -> i64 {
    of_tick(place, "finished_at", tick)
}
