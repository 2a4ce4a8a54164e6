//! What a processor may not end, as it is another user's: setuid programs.
//!
//! Only root can make such a program, and become somebody else to run it; for others these tests say so and pass.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use crate::books::compiled;
use crate::place::{Place, Running, install, runs, wait_until};
use crate::scale::{figure, full};

const USER: u32 = 65021;

/// A user's store with the service `events`, in which function `direct` is a setuid program that ends when file `go` is there, and
/// `below` is a shell that leaves one behind.
struct Yard(Place);

impl Yard {
    fn new(test: &str) -> Option<Yard> {
        if fs::metadata("/proc/self").unwrap().uid() != 0 {
            assert!(!full(), "only root can make setuid programs: run this as root");
            figure(test, "not checked: only root can make setuid programs");
            return None;
        }
        let yard = Yard(Place::new());
        let Yard(place) = &yard;
        // Wherever the tests are built, that user can run this.
        fs::create_dir(place.at("bin")).unwrap();
        install(Path::new(env!("CARGO_BIN_EXE_asyncq")), &place.at("bin/asyncq"));
        install(&compiled("suid", &[]), &place.at("suid"));
        fs::set_permissions(place.at("suid"), Permissions::from_mode(0o4755)).unwrap();
        chown(place.path(), Some(USER), Some(USER)).unwrap();
        yard.does(
            "asyncq service add events && asyncq function add events direct --timeout 100ms -- ./suid go
            asyncq function add events below -- sh -c \"./suid go & until [ -s begun ]; do sleep 0.01; done\"",
        );
        Some(yard)
    }

    fn line(&self, line: &str) -> String {
        let bin = self.0.at("bin");
        format!("env PATH={}:/usr/bin:/bin setpriv --reuid {USER} --regid {USER} --clear-groups {line}", bin.display())
    }

    fn does(&self, line: &str) -> String {
        self.0.stdout(&self.line(&format!("sh -c '{line}'")))
    }

    fn process(&self) -> Running {
        self.0.start(&self.line("asyncq process"))
    }

    fn begun(&self) -> Vec<String> {
        self.0.read("begun").lines().map(str::to_owned).collect()
    }

    fn states(&self) -> String {
        self.0.query("SELECT group_concat(state, ' ' ORDER BY id) FROM asyncq_job")
    }

    /// What a processor that has ended said, with `PID` for the process that it could not end.
    fn said(&self, processor: Running) -> (Option<i32>, String) {
        let output = processor.wait();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said.replace(&self.begun()[0], "PID"))
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        for pid in self.begun() {
            self.0.run(&format!("kill -9 {pid}"));
        }
    }
}

#[test]
fn a_process_that_cannot_be_ended_is_named_and_keeps_its_slot() {
    let Some(yard) = Yard::new("immune") else { return };
    for (function, ends) in [("direct", "error completed"), ("below", "completed completed")] {
        let _ = fs::remove_file(yard.0.at("begun"));
        let _ = fs::remove_file(yard.0.at("go"));
        yard.does(&format!("asyncq enqueue events {function}; asyncq enqueue events {function}"));
        let processor = yard.process();
        let folders = || fs::read_dir(yard.0.at(".local/share/asyncq/queue.db-asyncq")).into_iter().flatten().flatten();
        wait_until("it is known", || folders().any(|folder| folder.path().join("immune").exists()));
        // It goes on, and nothing beside it, though its time is over, or it was to end.
        assert_eq!(yard.begun().len(), 1);
        assert!(yard.states().ends_with("processing queued"), "{}", yard.states());
        let cancelled = yard.0.run(&yard.line(
            "asyncq job cancel $(asyncq job list --state processing --json | grep -o 'id\":[0-9]*' | cut -d: -f2)",
        ));
        assert_eq!(cancelled.status.code(), Some(75), "{cancelled:?}");
        let said = String::from_utf8(cancelled.stderr).unwrap();
        let wanted =
            format!("its process {} belongs to user root and cannot be ended\nhint: root can", yard.begun()[0]);
        assert!(said.contains(&wanted), "{said}");
        yard.0.write("go", "");
        let (_, said) = yard.said(processor);
        let wanted = "runs process PID, which belongs to user root and cannot be ended; its slot stays taken until that process ends\nhint: root can end it with `kill PID`\n";
        assert!(said.contains(wanted), "{said}");
        // What came of it was decided before: its time was over, or its program had ended.
        assert!(yard.states().ends_with(ends), "{}", yard.states());
    }
}

#[test]
fn a_third_signal_ends_a_processor_whose_function_cannot_be_ended_and_nothing_runs_beside_that() {
    let Some(yard) = Yard::new("immune") else { return };
    yard.does("asyncq function set events direct --timeout 1h");
    yard.does("asyncq function add events work --worker -- ./suid go works");
    for function in ["direct", "work"] {
        leave_behind(&yard, function);
    }
}

fn leave_behind(yard: &Yard, function: &str) {
    let _ = fs::remove_file(yard.0.at("begun"));
    let _ = fs::remove_file(yard.0.at("go"));
    yard.does(&format!("asyncq job clean; asyncq enqueue events {function}"));
    let processor = yard.process();
    wait_until("the call begins", || yard.begun().len() == 1);
    let pid = processor.0.id().to_string();
    wait_until("it ends", || {
        processor.signal("TERM");
        !runs(&pid)
    });
    let (code, said) = yard.said(processor);
    let wanted = "error: process PID of user root is left running, as it cannot be ended\nhint: once it has ended, the next `asyncq process` puts its job back\n";
    assert!(code == Some(75) && said.ends_with(wanted), "{code:?} {said}");

    let (code, said) = yard.said(yard.process());
    let wanted =
        "cannot be ended\nhint: its jobs are put back once that process ends; root can end it with `kill PID`\n";
    assert!(code == Some(0) && said.contains(wanted), "{code:?} {said}");
    assert_eq!((yard.states().as_str(), yard.begun().len()), ("processing", 1));
    yard.0.write("go", "");
    wait_until("it has ended", || !runs(&yard.begun()[0]));
    yard.process().wait();
    // The worker ends without an answer, three times.
    let ends = if function == "direct" { "completed0" } else { "error3" };
    assert_eq!(yard.0.query("SELECT state || crashes FROM asyncq_job"), ends);
}

#[test]
fn a_processor_that_is_killed_is_not_taken_over_from_while_its_function_cannot_be_ended() {
    let Some(yard) = Yard::new("immune") else { return };
    yard.does("asyncq function set events direct --timeout 1h");
    yard.does("asyncq enqueue events direct");
    let processor = yard.process();
    wait_until("the call begins", || yard.begun().len() == 1);
    processor.signal("KILL");
    drop(processor);
    let (_, said) = yard.said(yard.process());
    assert!(said.contains("its process PID, which belongs to user root, cannot be ended\n"), "{said}");
    assert_eq!((yard.states().as_str(), yard.begun().len()), ("processing", 1));
    yard.0.write("go", "");
    wait_until("it has ended", || !runs(&yard.begun()[0]));
    assert!(yard.process().wait().status.success());
    assert_eq!(yard.states(), "completed");
}
