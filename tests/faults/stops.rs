//! Deployments: a service manager or a container stops a processor whose call takes longer than `--grace`.

use std::time::{Duration, Instant};

use crate::place::{Place, Running, wait_until};
use crate::scale::{figure, full};

/// How long a function that ignores SIGTERM goes on after `--grace`.
const KILL_AFTER: Duration = Duration::from_secs(10);

/// Who starts a processor, and stops it.
#[derive(Debug, Clone, Copy)]
enum Manager {
    /// Signals the processor, and then kills it and all that it has started, as systemd does with `KillMode=mixed`.
    Service,
    /// Signals the first process of a PID namespace, and then kills that.
    Container,
}

const MANAGERS: [Manager; 2] = [Manager::Service, Manager::Container];

/// A processor that a manager has started.
struct Started {
    manager: Manager,
    process: Running,
    /// The process that gets its signals.
    main: String,
}

impl Manager {
    fn start(self, place: &Place, options: &str) -> Started {
        // In a user namespace of his own, the folders above belong to nobody.
        let command = format!("asyncq process --trust-store-writers {options}");
        let unshare = if place.stdout("id -u").trim() == "0" { "unshare" } else { "unshare -r" };
        let process = match self {
            Manager::Service => place.start(&command),
            Manager::Container => place.start(&format!("{unshare} -pf --mount-proc {command}")),
        };
        let mut main = process.0.id().to_string();
        if matches!(self, Manager::Container) {
            wait_until("the container begins", || !process.engine().is_empty());
            main = process.engine();
        }
        Started { manager: self, process, main }
    }
}

impl Started {
    fn signal(&self, place: &Place, signal: &str) {
        place.stdout(&format!("kill -{signal} {}", self.main));
    }

    /// Kills all of it at once.
    fn kill(self, place: &Place) {
        match self.manager {
            Manager::Service => {
                let functions = place.read("functions").replace('\n', " ");
                let both = format!("{} {}", self.main, self.process.engine());
                // Some functions have ended long ago.
                place.run(&format!("kill -STOP {both}; kill -9 {both} {functions}"));
            }
            Manager::Container => self.signal(place, "KILL"),
        }
        self.process.wait();
    }
}

#[test]
fn a_call_that_takes_a_minute_outlives_five_stops() {
    let (takes, grace) = if full() { ("60", "2s") } else { ("1", "50ms") };
    for manager in MANAGERS {
        let place = Place::with_functions(&[(
            "long",
            &format!("echo $ASYNCQ_ATTEMPT >> begun; sleep {takes}; echo $ASYNCQ_ATTEMPT >> ended"),
        )]);
        place.stdout("asyncq enqueue events long");
        let mut longest = Duration::ZERO;
        for stop in 1..=5 {
            let started = manager.start(&place, &format!("--grace {grace}"));
            wait_until("the call begins", || place.read("begun").lines().count() == stop);
            let since = Instant::now();
            started.signal(&place, "TERM");
            assert!(started.process.wait().status.success());
            longest = longest.max(since.elapsed());
            assert_eq!(place.jobs("state attempt failures crashes"), format!("queued {stop} 0 0"), "{manager:?}");
            assert_eq!((place.processors(), place.read("ended").as_str()), (0, ""));
        }
        // Nobody had to be killed.
        assert!(!full() || longest < Duration::from_secs(2) + KILL_AFTER, "{manager:?}: {longest:?}");
        let last = manager.start(&place, &format!("--grace {grace}"));
        assert!(last.process.wait().status.success());
        assert_eq!(place.read("ended"), "6\n", "{manager:?}");
        assert_eq!(place.jobs("state failures conflicts crashes"), "completed 0 0 0", "{manager:?}");
        figure(
            "stops",
            format!(
                "{manager:?}: a call of {takes} s, 5 stops with --grace {grace}: each took at most {longest:.1?}, 0 crashes"
            ),
        );
    }
}

/// Its manager may kill a processor before it has killed a function that goes on after `--grace`.
#[test]
fn a_kill_after_the_grace_is_charged_as_a_crash() {
    for manager in MANAGERS {
        let place = Place::with_functions(&[(
            "stays",
            "echo $$ >> functions; trap 'echo >> told' TERM; echo >> begun; until [ -e go ]; do sleep 0.02; done",
        )]);
        place.stdout("asyncq enqueue events stays; asyncq enqueue --hold events stays");
        for (stop, then) in [(1, "processing 1 0"), (2, "processing 2 1"), (3, "processing 3 2")] {
            let started = manager.start(&place, "--grace 20ms");
            wait_until("the call begins", || place.read("begun").lines().count() == stop);
            started.signal(&place, "TERM");
            wait_until("it is asked to end", || place.read("told").lines().count() == stop);
            started.kill(&place);
            assert!(place.jobs("state attempt crashes").starts_with(then), "{manager:?}");
        }
        manager.start(&place, "").process.wait();
        assert!(place.jobs("state attempt crashes error.kind").starts_with("error 3 3 crash"), "{manager:?}");
        // One kill costs nothing but the time.
        place.stdout("asyncq job start 2");
        let started = manager.start(&place, "--grace 20ms");
        wait_until("the call begins", || place.read("begun").lines().count() == 4);
        started.signal(&place, "TERM");
        wait_until("it is asked to end", || place.read("told").lines().count() == 4);
        started.kill(&place);
        place.write("go", "");
        assert!(manager.start(&place, "").process.wait().status.success());
        assert!(place.jobs("state attempt crashes").ends_with("completed 2 1"), "{manager:?}");
    }
}
