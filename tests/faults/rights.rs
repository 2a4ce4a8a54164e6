//! Users and rights: who may do what with whose store, under every umask, and what their deaths leave to others.
//!
//! Only root can become somebody else; for others these tests say so and pass, but not at full size.

use std::collections::BTreeMap;
use std::fs::{self, Metadata, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdout, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::place::{Running, install, runs, wait_until};
use crate::scale::{figure, full, many, random};

/// Who shares stores.
const GROUP: u32 = 65010;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Owner,
    Member,
    Stranger,
    Root,
}

use Who::{Member, Owner, Root, Stranger};

impl Who {
    const ALL: [Who; 4] = [Owner, Member, Stranger, Root];

    fn number(self) -> u32 {
        match self {
            Owner => 65001,
            Member => 65002,
            Stranger => 65003,
            Root => 0,
        }
    }

    /// Becomes that user, each with a primary group of his own.
    fn becomes(self) -> String {
        let number = self.number();
        match self {
            Owner | Member => format!("setpriv --reuid {number} --regid {number} --groups {GROUP}"),
            Stranger => format!("setpriv --reuid {number} --regid {number} --clear-groups"),
            Root => String::new(),
        }
    }
}

/// A folder that all may enter, with `asyncq`, a function `work`, and below `here` what is tested.
struct Yard(TempDir);

impl Yard {
    /// `None` when this is not run as root.
    fn new(test: &str) -> Option<Yard> {
        if fs::metadata("/proc/self").unwrap().uid() != 0 {
            assert!(!full(), "only root can become other users: run this as root");
            figure(test, "not checked: only root can become other users");
            return None;
        }
        let yard = Yard(tempfile::tempdir().unwrap());
        rights(yard.0.path(), Root, 0, 0o755);
        install(Path::new(env!("CARGO_BIN_EXE_asyncq")), &yard.at("asyncq"));
        yard.folder("pids", Root, 0, 0o1777);
        let work = "#!/bin/sh\n[ \"$1\" != slow ] || [ $ASYNCQ_ATTEMPT != 1 ] || {\n    echo $$ > pids/$ASYNCQ_JOB.new\n    \
                    mv pids/$ASYNCQ_JOB.new pids/$ASYNCQ_JOB\n    exec sleep 1000\n}\n\
                    [ \"$1\" != print ] || {\n    echo first $ASYNCQ_ATTEMPT\n    : > pids/$ASYNCQ_JOB.$ASYNCQ_ATTEMPT\n    \
                    until [ -e pids/go.$ASYNCQ_JOB ]; do sleep 0.02; done\n    echo last $ASYNCQ_ATTEMPT\n}\n";
        fs::write(yard.at("work"), work).unwrap();
        rights(&yard.at("work"), Root, 0, 0o755);
        Some(yard)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn store(&self) -> PathBuf {
        self.at("here/q.db")
    }

    fn folder(&self, name: &str, who: Who, group: u32, mode: u32) {
        fs::create_dir(self.at(name)).unwrap();
        rights(&self.at(name), who, group, mode);
    }

    fn command(&self, who: Who, line: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        let line = line.replace("asyncq ", &format!("{}/asyncq ", self.0.path().display()));
        command.args(["-c", &format!("exec {} sh -c '{line}'", who.becomes())]).current_dir(self.0.path()).env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("ASYNCQ_DB", self.store());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, who: Who, line: &str) -> Output {
        self.command(who, line).output().unwrap()
    }

    #[track_caller]
    fn does(&self, who: Who, line: &str) -> String {
        let output = self.run(who, line);
        assert!(output.status.success(), "{who:?}: {line}\n{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The command is refused with exit code 77 and one error, which is returned.
    #[track_caller]
    fn may_not(&self, who: Who, line: &str) -> String {
        let output = self.run(who, line);
        assert_eq!(output.status.code(), Some(77), "{who:?}: {line}\n{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("error: ") && said.matches("error: ").count() == 1, "{who:?}: {line}\n{said}");
        assert!(said.contains("\nhint: "), "{who:?}: {line}\n{said}");
        said
    }

    /// The owner's store with the service `events` and its function `work`.
    fn make_store(&self, folder_group: u32, folder_mode: u32, mode: u32) {
        self.folder("here", Owner, folder_group, folder_mode);
        self.does(Owner, "asyncq service add events --concurrency 100");
        self.does(Owner, "asyncq function add events work -- ./work");
        for file in self.files() {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            chown(&file, None, Some(folder_group)).unwrap();
        }
    }

    /// The store, and what is beside it and below.
    fn files(&self) -> Vec<PathBuf> {
        let (mut found, mut folders) = (Vec::new(), vec![self.at("here")]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.symlink_metadata().unwrap().is_dir() {
                    folders.push(path.clone());
                }
                found.push(path);
            }
        }
        found
    }

    /// All jobs with their states.
    fn states(&self) -> BTreeMap<String, String> {
        let jobs = self.does(Root, "asyncq job list --json --limit 0");
        let jobs: Vec<Value> = serde_json::from_str(&jobs).unwrap();
        jobs.iter().map(|job| (job["id"].to_string(), job["state"].as_str().unwrap().to_owned())).collect()
    }

    fn state(&self, job: &str) -> String {
        self.states()[job].clone()
    }

    /// A processor of somebody that is killed while it runs a call. Returns the call's job.
    fn crash(&self, who: Who, flag: &str) -> String {
        let job = self.does(Owner, "asyncq enqueue events work slow").trim().to_owned();
        let process = self.command(who, &format!("exec asyncq process {flag}")).spawn().unwrap();
        let process = Running(process);
        let pid = self.at("pids").join(&job);
        wait_until("the function runs", || pid.exists());
        process.signal("KILL");
        process.wait();
        job
    }
}

fn rights(path: &Path, who: Who, group: u32, mode: u32) {
    chown(path, Some(who.number()), Some(group)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn stat(path: &Path) -> Metadata {
    fs::symlink_metadata(path).unwrap()
}

/// How the store of a matrix lies.
struct Layout {
    name: &'static str,
    folder_group: u32,
    folder: u32,
    file: u32,
    users: &'static [Who],
    /// Bits that no file beside the store may have; an application may have made the store itself readable by all.
    closed: u32,
}

const LAYOUTS: [Layout; 4] = [
    Layout { name: "private", folder_group: 65001, folder: 0o755, file: 0o600, users: &[Owner, Root], closed: 0o077 },
    Layout {
        name: "shared",
        folder_group: GROUP,
        folder: 0o2770,
        file: 0o660,
        users: &[Owner, Member, Root],
        closed: 0o007,
    },
    Layout {
        name: "shared, but without the group's bit on the folder",
        folder_group: GROUP,
        folder: 0o770,
        file: 0o660,
        users: &[Owner, Root],
        closed: 0o007,
    },
    Layout {
        name: "readable by all, in a folder that all can write",
        folder_group: 65001,
        folder: 0o777,
        file: 0o644,
        users: &[Owner, Root],
        closed: 0o022,
    },
];

const ACTS: [(&str, &str); 12] = [
    ("create", "asyncq service add more-$$"),
    ("read", "asyncq job list"),
    ("write", "asyncq enqueue events work"),
    ("process", "asyncq process"),
    ("crash: transaction begun", "asyncq enqueue events work"),
    ("crash: transaction done", "asyncq enqueue events work"),
    ("crash: transaction committed", "asyncq enqueue events work"),
    ("crash: run folder drafted", "asyncq process"),
    ("crash: folder locked", "asyncq process"),
    ("crash: claims made", "asyncq process"),
    ("crash: program started", "asyncq process"),
    ("crash: processor unregistered", "asyncq process"),
];

#[test]
fn no_user_locks_out_another_and_nothing_acknowledged_is_lost_under_any_umask() {
    let (mut cells, mut acknowledged) = (0, 0);
    let mut random = random("rights");
    for layout in LAYOUTS {
        let Some(yard) = Yard::new("rights") else { return };
        yard.make_store(layout.folder_group, layout.folder, layout.file);
        let mut kept = Vec::new();
        for who in Who::ALL {
            // Who may nothing gets nowhere near the steps at which others die.
            let acts = if layout.users.contains(&who) { &ACTS[..] } else { &ACTS[..many(ACTS.len(), 4)] };
            for &(act, line) in acts {
                let mut umasks = ["000", "022", "077"];
                random.shuffle(&mut umasks);
                for umask in &umasks[..many(3, 1)] {
                    // Sometimes its maker is the first to need the run folder.
                    if act.contains("folder") {
                        let _ = fs::remove_dir_all(yard.at("here/q.db-asyncq"));
                    }
                    if line.ends_with("process") {
                        kept.push(yard.does(Owner, "asyncq enqueue events work").trim().to_owned());
                    }
                    kept.extend(try_act(&yard, &layout, (who, act, line), umask));
                    check_owner(&yard, &layout, &mut kept);
                    cells += 1;
                }
            }
        }
        // Root may end what anybody's processor left, and each may be dead by now.
        yard.does(Root, "asyncq process --trust-store-writers");
        let states = yard.states();
        for job in &kept {
            let state = states.get(job).map(String::as_str);
            // Whoever is killed may have met the same job three times.
            let given_up = || {
                yard.does(Root, &format!("asyncq job show {job} --json")).matches("\"ending\":\"crash\"").count() >= 3
            };
            assert!(state == Some("completed") || state == Some("error") && given_up(), "job {job} of {}", layout.name);
        }
        acknowledged += kept.len();
    }
    figure(
        "rights",
        format!("{cells} cells of layout, user, act and umask; {acknowledged} acknowledged calls, 0 lost; 0 lock-outs"),
    );
}

/// Does it, and compares how that ends with what the user may. Gives the job that was acknowledged, if one was.
fn try_act(yard: &Yard, layout: &Layout, (who, act, line): (Who, &str, &str), umask: &str) -> Option<String> {
    let trust = if who == Root && line.ends_with("process") { " --trust-store-writers" } else { "" };
    let failpoint = act.strip_prefix("crash: ").map(|step| format!("ASYNCQ_FAILPOINT=\"{step}=kill\" "));
    let line = format!("umask {umask}; {}asyncq {}{trust}", failpoint.clone().unwrap_or_default(), &line[7..]);
    let output = yard.run(who, &line);
    let told = || format!("{}: {who:?}: {line}\n{output:?}", layout.name);
    if !layout.users.contains(&who) {
        assert_eq!(output.status.code(), Some(77), "{}", told());
    } else if failpoint.is_some() {
        assert!(!output.status.success() && output.status.code() != Some(77), "{}", told());
    } else {
        assert!(output.status.success(), "{}", told());
        return line.contains("enqueue").then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned());
    }
    None
}

/// The owner can still do everything, and nobody can read what he may not.
fn check_owner(yard: &Yard, layout: &Layout, kept: &mut Vec<String>) {
    kept.push(yard.does(Owner, "asyncq enqueue events work").trim().to_owned());
    yard.does(Owner, "asyncq process && asyncq job list");
    assert_eq!(yard.state(kept.last().unwrap()), "completed", "{}", layout.name);
    for file in yard.files() {
        let closed = if file.to_string_lossy().contains("-asyncq") { 0o007 } else { layout.closed };
        let mode = stat(&file).mode();
        assert_eq!(mode & closed, 0, "{}: {} has mode {mode:o}", layout.name, file.display());
    }
}

/// Who may make files in the folder of a layout.
fn makers(layout: &Layout) -> Vec<Who> {
    let may = |who: &Who| match who {
        Owner | Root => true,
        Member => layout.folder_group == GROUP || layout.folder & 0o002 != 0,
        Stranger => layout.folder & 0o002 != 0,
    };
    Who::ALL.into_iter().filter(may).collect()
}

#[test]
fn a_new_store_belongs_to_its_maker_and_a_refused_init_leaves_nothing() {
    let mut count = 0;
    for layout in LAYOUTS {
        for who in Who::ALL {
            let makes = makers(&layout).contains(&who);
            for umask in ["000", "022", "077"] {
                let Some(yard) = Yard::new("making a store") else { return };
                yard.folder("here", Owner, layout.folder_group, layout.folder);
                make_one(&yard, who, umask, makes);
                count += 1;
                if umask == "077" && makes {
                    die_making_one(&layout, who);
                }
            }
        }
    }
    figure("rights", format!("{count} stores made, or not, by user, folder and umask: each for its maker only"));
}

fn make_one(yard: &Yard, who: Who, umask: &str, makes: bool) {
    let make = format!("umask {umask}; asyncq --db here/q.db init");
    if !makes {
        yard.may_not(who, &make);
        assert_eq!(yard.files(), [] as [PathBuf; 0], "{who:?} left something");
        return;
    }
    yard.does(who, &make);
    let trust = if who == Root { "--trust-store-writers" } else { "" };
    yard.does(who, &format!("umask {umask}; asyncq service add events"));
    yard.does(who, "asyncq function add events work -- ./work");
    yard.does(who, &format!("umask {umask}; asyncq enqueue events work && asyncq process {trust}"));
    assert_eq!(yard.state("1"), "completed");
    let files = yard.files();
    assert!(files.len() > 3, "{files:?}");
    for file in files {
        let found = stat(&file);
        assert_eq!((found.uid(), found.mode() & 0o077), (who.number(), 0), "{}", file.display());
    }
    // The others are told whose it is, also the folder's owner, who can move it away.
    for other in Who::ALL.into_iter().filter(|other| ![who, Root].contains(other)) {
        yard.may_not(other, "asyncq job list");
        yard.may_not(other, "asyncq enqueue events work");
    }
    yard.does(Owner, "mv here/q.db-a* here/other && rm -rf here/q.db* && asyncq init && asyncq service add events");
    yard.does(Root, "rm -r here/other");
}

/// What is left of a store that was never finished is in nobody's way.
fn die_making_one(layout: &Layout, who: Who) {
    let Some(yard) = Yard::new("making a store") else { return };
    yard.folder("here", Owner, layout.folder_group, layout.folder);
    for step in ["transaction begun", "transaction done", "transaction committed"] {
        let output = yard.run(who, &format!("umask 000; ASYNCQ_FAILPOINT=\"{step}=kill\" asyncq init"));
        assert!(!output.status.success() && !yard.store().exists(), "{step}: {output:?}");
    }
    for left in yard.files() {
        assert_eq!(stat(&left).mode() & 0o077, 0, "{}", left.display());
    }
    yard.does(Owner, "asyncq init && asyncq service add events");
}

#[test]
fn the_first_user_of_the_run_folder_makes_it_for_all_who_may_use_the_store() {
    for (who, group, folder, file, mode) in [
        (Root, 65001, 0o755, 0o600, 0o700),
        (Root, GROUP, 0o2770, 0o660, 0o2770),
        (Member, GROUP, 0o2770, 0o660, 0o2770),
    ] {
        let Some(yard) = Yard::new("run folder") else { return };
        yard.make_store(group, folder, file);
        yard.does(Owner, "asyncq enqueue events work");
        let trust = if who == Root { "--trust-store-writers" } else { "" };
        yard.does(who, &format!("umask 077; asyncq process {trust}"));
        let made = stat(&yard.at("here/q.db-asyncq"));
        let owner = if who == Root { Owner } else { who };
        assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (owner.number(), group, mode), "made by {who:?}");
        yard.does(Owner, "asyncq enqueue events work");
        yard.does(Owner, "asyncq process");
        assert_eq!(yard.state("2"), "completed");
    }
}

#[test]
fn a_run_folder_follows_the_rights_of_its_store() {
    let Some(yard) = Yard::new("run folder follows") else { return };
    yard.make_store(GROUP, 0o2770, 0o600);
    let work = |who| {
        yard.does(Owner, "asyncq enqueue events work");
        yard.does(who, "asyncq process");
        stat(&yard.at("here/q.db-asyncq")).mode() & 0o7777
    };
    assert_eq!(work(Owner), 0o700);
    for file in ["q.db", "q.db-wal", "q.db-shm"] {
        fs::set_permissions(yard.at("here").join(file), Permissions::from_mode(0o660)).unwrap();
    }
    assert!(yard.may_not(Member, "asyncq enqueue events work; exec asyncq process").contains("q.db-asyncq"));
    assert_eq!(work(Owner), 0o2770);
    assert_eq!(work(Member), 0o2770);
}

#[test]
fn only_its_user_and_root_take_over_from_a_dead_processor_while_its_calls_may_still_run() {
    for rescuer in [Member, Root] {
        let Some(yard) = Yard::new("rescue") else { return };
        yard.make_store(GROUP, 0o2770, 0o660);
        let job = yard.crash(Member, "");
        let output = yard.run(Owner, "asyncq process");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("of user 65002 died; only that user or root can put its jobs back"), "{said}");
        assert_eq!(yard.state(&job), "processing");
        let trust = if rescuer == Root { "--trust-store-writers" } else { "" };
        yard.does(rescuer, &format!("asyncq process {trust}"));
        assert_eq!(yard.state(&job), "completed");
        assert!(!runs(&fs::read_to_string(yard.at("pids").join(&job)).unwrap()));
    }
}

#[test]
fn a_call_that_only_another_user_can_put_back_is_explained() {
    let Some(yard) = Yard::new("explanations") else { return };
    yard.make_store(GROUP, 0o2770, 0o660);
    let job = yard.crash(Member, "");
    let explain = |who: Who| -> Value {
        let shown: Value = serde_json::from_str(&yard.does(who, &format!("asyncq explain {job} --json"))).unwrap();
        shown[0]["reasons"][0].clone()
    };
    let reason = explain(Owner);
    assert_eq!(reason["code"], "out-of-reach", "{reason}");
    let told = reason["message"].as_str().unwrap();
    assert!(told.ends_with(" died, and only its user 65002, or root, can put its jobs back"), "{told}");
    // It is in the way of those that wait, too, and in nobody's who can put it back.
    assert_eq!(explain(Member)["code"], "dead-processor");
    let next = reason["next"].as_str().unwrap();
    let line = next.strip_prefix("sudo -u \\#65002 ").unwrap_or_else(|| panic!("{next}"));
    yard.does(Member, line);
    assert_eq!(explain(Owner)["code"], "completed");
}

/// What somebody follows in a shared store: a job whose function prints a line, waits to be told to, and prints another one.
struct Followed {
    yard: Yard,
    job: String,
    process: Running,
}

impl Followed {
    fn begin(yard: Yard, processor: Who) -> Followed {
        let job = yard.does(Owner, "asyncq enqueue events work print").trim().to_owned();
        let process = Running(yard.command(processor, "exec asyncq process").spawn().unwrap());
        wait_until("it has printed a line", || yard.at(&format!("pids/{job}.1")).exists());
        Followed { yard, job, process }
    }

    /// In a store that is shared with the group only now, so that its members may not enter the folder of the processor.
    fn shared_later() -> Option<Followed> {
        let yard = Yard::new("following")?;
        yard.make_store(GROUP, 0o700, 0o600);
        let followed = Followed::begin(yard, Owner);
        for file in followed.yard.files() {
            if !file.to_string_lossy().contains("-asyncq") {
                rights(&file, Owner, GROUP, 0o660);
            }
        }
        rights(&followed.yard.at("here"), Owner, GROUP, 0o2770);
        Some(followed)
    }

    /// Somebody follows it; gives what stands on the first line of a stream, too.
    fn by(&self, who: Who) -> (Running, BufReader<ChildStdout>, BufReader<ChildStderr>) {
        let mut command = self.yard.command(who, &format!("exec asyncq job log -f {}", self.job));
        let mut follower = Running(command.spawn().unwrap());
        let (out, err) = (follower.0.stdout.take().unwrap(), follower.0.stderr.take().unwrap());
        (follower, BufReader::new(out), BufReader::new(err))
    }

    fn go(&self) {
        fs::write(self.yard.at(&format!("pids/go.{}", self.job)), "").unwrap();
    }
}

fn line(mut from: impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line
}

fn rest(mut from: impl BufRead) -> String {
    let mut rest = String::new();
    from.read_to_string(&mut rest).unwrap();
    rest
}

/// What the follower of a call is told who may not enter the folder of its processor.
const BARRED: &str = "asyncq: job 1 cannot be followed while it runs: it runs in a processor of another user, and you may not read its output there\n";

#[test]
fn whoever_may_use_a_store_follows_the_calls_of_all_its_processors() {
    let Some(yard) = Yard::new("following") else { return };
    yard.make_store(GROUP, 0o2770, 0o660);
    let followed = Followed::begin(yard, Member);
    let mut followers = [Owner, Member, Root].map(|who| followed.by(who));
    for (_, output, _) in &mut followers {
        assert_eq!(line(output), "first 1\n");
    }
    let (stranger, output, refused) = followed.by(Stranger);
    assert!(rest(refused).starts_with("error: ") && rest(output).is_empty());
    assert_eq!(stranger.wait().status.code(), Some(77));
    // Whoever is stopped holds up nobody.
    followers[0].0.signal("STOP");
    followed.go();
    assert!(followed.process.wait().status.success());
    followers[0].0.signal("CONT");
    for (follower, output, _) in followers {
        assert_eq!((rest(output), follower.wait().status.code()), ("last 1\n".to_owned(), Some(0)));
    }
}

#[test]
fn who_may_not_follow_a_call_gets_its_output_when_an_attempt_has_ended() {
    let Some(followed) = Followed::shared_later() else { return };
    let (member, output, mut told) = followed.by(Member);
    assert_eq!(line(&mut told), BARRED);
    let (root, mut live, _) = followed.by(Root);
    assert_eq!(line(&mut live), "first 1\n");
    // Its processor is killed.
    let both = format!("{} {}", followed.process.engine(), followed.process.0.id());
    followed.yard.does(Root, &format!("kill -STOP {both}; kill -9 {both}"));
    followed.go();
    followed.yard.does(Owner, "asyncq process");
    assert_eq!([rest(output), rest(live)], ["first 2\nlast 2\n"; 2]);
    assert!(rest(told).contains("attempt 1 of job 1 has ended ("));
    assert_eq!([member, root].map(|follower| follower.wait().status.code()), [Some(0); 2]);
}

#[test]
fn who_may_not_follow_a_call_is_told_that_its_job_was_removed() {
    let Some(followed) = Followed::shared_later() else { return };
    let (member, output, mut told) = followed.by(Member);
    assert_eq!(line(&mut told), BARRED);
    member.signal("STOP");
    followed.go();
    assert!(followed.process.wait().status.success());
    followed.yard.does(Owner, "asyncq job clean");
    member.signal("CONT");
    let told = rest(told);
    assert!(told.contains("error: job 1 was removed"), "{told}");
    assert_eq!((rest(output), member.wait().status.code()), (String::new(), Some(66)));
}

#[test]
fn members_see_whether_each_others_processors_live_and_nothing_else_of_them() {
    let Some(yard) = Yard::new("liveness") else { return };
    yard.make_store(GROUP, 0o2770, 0o660);
    yard.does(Owner, "asyncq service set events --concurrency 1; asyncq enqueue events work slow");
    yard.does(Owner, "asyncq enqueue events work");
    let process = Running(yard.command(Member, "exec asyncq process").spawn().unwrap());
    wait_until("the function runs", || yard.at("pids/1").exists());
    let said = String::from_utf8(yard.run(Owner, "asyncq -v process").stderr).unwrap();
    assert!(said.contains("its one slot is taken by processor 1") && !said.contains("cannot find out"), "{said}");
    let mut folders = fs::read_dir(yard.at("here/q.db-asyncq")).unwrap().map(|entry| entry.unwrap().path());
    let folder = folders.find(|path| path.is_dir()).unwrap();
    // All of them wait in one line.
    let line = stat(&yard.at("here/q.db-asyncq/.line"));
    assert_eq!((line.gid(), line.mode() & 0o777), (GROUP, 0o660));
    assert!(!yard.run(Owner, &format!("ls {}", folder.display())).status.success());
    assert!(!yard.run(Owner, &format!("touch {}/lock", folder.display())).status.success());
    process.signal("KILL");
    process.wait();
    yard.does(Member, "asyncq process");
}

#[test]
fn a_folder_without_its_group_bit_gets_a_hint_how_to_share() {
    let Some(yard) = Yard::new("no setgid") else { return };
    yard.make_store(GROUP, 0o770, 0o660);
    let said = yard.may_not(Member, "asyncq enqueue events work");
    assert!(
        said.contains("would lock out its owner\nhint: new files next to it must get its group: `chmod g+s /"),
        "{said}"
    );
    fs::set_permissions(yard.at("here"), Permissions::from_mode(0o2770)).unwrap();
    yard.does(Member, "asyncq enqueue events work");
    yard.does(Owner, "asyncq process");
    // What a member's other programs have left.
    rights(&yard.at("here/q.db-wal"), Member, Member.number(), 0o660);
    assert!(
        yard.may_not(Owner, "asyncq job list")
            .contains("q.db-wal` belongs to user 65002, not to the store's owner or group")
    );
}

#[test]
fn files_of_strangers_next_to_a_store_are_refused_and_left_alone() {
    for name in ["q.db-wal", "q.db-shm", "q.db-journal"] {
        let Some(yard) = Yard::new("planted") else { return };
        yard.make_store(65001, 0o1777, 0o600);
        let planted = yard.at("here").join(name);
        let _ = fs::remove_file(&planted);
        fs::write(&planted, "a journal that would be played back").unwrap();
        rights(&planted, Stranger, Stranger.number(), 0o666);
        for who in [Owner, Root] {
            let said = yard.may_not(who, "asyncq job list");
            assert!(said.contains(&format!("{name}` belongs to user 65003")), "{said}");
        }
        assert_eq!(fs::read_to_string(&planted).unwrap(), "a journal that would be played back");
    }
    let Some(yard) = Yard::new("planted") else { return };
    yard.make_store(65001, 0o1777, 0o600);
    yard.does(Owner, "asyncq enqueue events work");
    let run_folder = yard.at("here/q.db-asyncq");
    let plants: [&dyn Fn(); 3] = [
        &|| {
            yard.folder("here/q.db-asyncq", Stranger, 65003, 0o777);
        },
        &|| symlink(yard.at("pids"), &run_folder).unwrap(),
        &|| fs::write(&run_folder, "").unwrap(),
    ];
    for plant in plants {
        plant();
        for (who, trust) in [(Owner, ""), (Root, "--trust-store-writers")] {
            let said = yard.may_not(who, &format!("asyncq process {trust}"));
            assert!(said.contains("cannot work in `/"), "{said}");
        }
        let _ = fs::remove_dir(&run_folder).or_else(|_| fs::remove_file(&run_folder));
    }
    assert_eq!(fs::read_dir(yard.at("pids")).unwrap().count(), 0);
    yard.does(Owner, "asyncq process");
}

#[test]
fn root_runs_no_functions_from_a_store_that_others_can_change_without_an_option() {
    let Some(yard) = Yard::new("root") else { return };
    yard.folder("here", Root, 0, 0o755);
    yard.does(Root, "asyncq service add events && asyncq function add events work -- ./work");
    yard.does(Root, "asyncq function add events nests -- sh -c \"asyncq enqueue events work\"");
    let make_sound = || {
        for file in yard.files() {
            rights(&file, Root, 0, if file.is_dir() { 0o700 } else { 0o600 });
        }
        rights(&yard.at("here"), Root, 0, 0o755);
        rights(yard.0.path(), Root, 0, 0o755);
    };
    yard.does(Root, "asyncq enqueue events nests; exec asyncq process");
    let mut weaknesses = 0;
    for (name, who, group, mode) in [
        ("here/q.db", Owner, 0, 0o600),
        ("here/q.db", Root, GROUP, 0o660),
        ("here/q.db", Root, 0, 0o602),
        ("here/q.db-wal", Root, GROUP, 0o660),
        ("here/q.db-shm", Root, 0, 0o606),
        ("here/q.db-asyncq", Root, 0, 0o702),
        ("here/q.db-asyncq", Root, GROUP, 0o770),
        ("here", Owner, 0, 0o755),
        ("here", Root, GROUP, 0o775),
        ("here", Root, 0, 0o1777),
        ("", Owner, 0, 0o755),
        ("", Root, 0, 0o777),
    ] {
        let path = yard.at(name);
        yard.does(Root, "asyncq enqueue events nests");
        rights(&path, who, group, mode);
        let before = stat(&yard.store()).mtime_nsec();
        let said = yard.may_not(Root, "asyncq process");
        assert!(said.contains("root runs no functions out of `/"), "{name}: {said}");
        assert!(said.contains("--trust-store-writers"), "{name}: {said}");
        assert_eq!(stat(&yard.store()).mtime_nsec(), before);
        // Its nested calls need not be told again.
        yard.does(Root, "asyncq process --trust-store-writers");
        make_sound();
        weaknesses += 1;
    }
    // Where nobody else can come, it does not matter what others might write.
    rights(&yard.at("here"), Root, 0, 0o1777);
    rights(yard.0.path(), Root, 0, 0o700);
    yard.does(Root, "asyncq enqueue events nests; exec asyncq process");
    figure(
        "root",
        format!("{weaknesses} weaknesses, each refused before the store is opened, and passed with the flag"),
    );
    let states = yard.states();
    assert_eq!(states.len(), 2 * (weaknesses + 2));
    assert!(states.values().all(|state| state == "completed"), "{states:?}");
}

/// A system call that makes a file or a folder, or changes who may use it, with the mode.
fn creation(call: &str) -> Option<(&str, u32)> {
    let makes =
        ["mkdir(", "mkdirat(", "O_CREAT", "O_TMPFILE", "chmod(", "chmodat("].iter().any(|part| call.contains(part));
    let (call, answer) = call.rsplit_once(" = ")?;
    if !makes || answer.starts_with('-') || call.contains("\"/proc/") {
        return None;
    }
    let mode = call.rsplit_once(", ")?.1.trim_end().trim_end_matches(')');
    Some((call, u32::from_str_radix(mode, 8).ok()?))
}

/// Checks and counts what one process made: nothing of it has any of the bits `closed`, at any time. What a function's own program makes is its own affair: only calls up to where
/// a child becomes another program are asyncq's.
fn check_creations(trace: &str, closed: u32) -> usize {
    let became_another =
        |call: &&str| call.contains("execve(") && call.ends_with(" = 0") && !call.contains("/asyncq\"");
    let made: Vec<_> = trace.lines().take_while(|call| !became_another(call)).filter_map(creation).collect();
    for (call, mode) in &made {
        assert_eq!(mode & closed, 0, "{call}");
    }
    made.len()
}

#[test]
fn no_file_or_folder_that_asyncq_makes_can_be_read_by_others_even_for_a_moment() {
    let Some(yard) = Yard::new("first byte") else { return };
    yard.folder("here", Root, 0, 0o755);
    let prints = "#!/bin/sh\nhead -c 300000 /dev/zero\necho 1 > $ASYNCQ_RESULT\n";
    fs::write(yard.at("prints"), prints).unwrap();
    rights(&yard.at("prints"), Root, 0, 0o755);
    let mut made = 0;
    for line in [
        "init",
        "service add events --concurrency 2",
        "function add events prints -- ./prints",
        "enqueue events prints",
        "enqueue events prints",
        "process",
        "job clean",
    ] {
        made += traced(&yard, Root, &format!("--db here/new/folder/q.db {line}"), 0o077);
    }
    assert!(made > 12, "only {made} files seen: this test is broken");
    figure(
        "first byte",
        format!("{made} files and folders made under umask 000, each closed to others from the start"),
    );
}

#[test]
fn no_file_or_folder_beside_a_shared_store_can_be_read_by_strangers_even_for_a_moment() {
    let mut made = 0;
    for who in [Owner, Member, Root] {
        let Some(yard) = Yard::new("first byte, shared") else { return };
        yard.make_store(GROUP, 0o2770, 0o660);
        let trust = if who == Root { "--trust-store-writers" } else { "" };
        for line in ["service add more", "enqueue events work", &format!("process {trust}"), "job clean"] {
            // The last to close it leaves nothing beside it.
            yard.does(Owner, "sqlite3 here/q.db \"SELECT 1 FROM asyncq_job\"");
            assert!(!yard.at("here/q.db-wal").exists());
            made += traced(&yard, who, line, 0o007);
        }
    }
    assert!(made > 18, "only {made} files seen: this test is broken");
    figure("first byte", format!("{made} files and folders made beside a shared store, each closed to strangers"));
}

/// Runs a command under umask 000, traced; gives how many files and folders it made, all without the bits `closed`.
fn traced(yard: &Yard, who: Who, line: &str, closed: u32) -> usize {
    let traces = yard.at("traces");
    yard.folder("traces", Root, 0, 0o1777);
    let calls = "trace=open,openat,creat,mkdir,mkdirat,mknod,mknodat,chmod,fchmod,fchmodat,execve";
    let out = traces.join("of").display().to_string();
    let output = yard.run(who, &format!("umask 000; strace -ff -qq -o {out} -e {calls} asyncq {line}"));
    assert!(output.status.success(), "{line}\n{output:?}");
    let files = fs::read_dir(&traces).unwrap().map(|trace| fs::read_to_string(trace.unwrap().path()).unwrap());
    let made = files.map(|trace| check_creations(&trace, closed)).sum();
    fs::remove_dir_all(&traces).unwrap();
    made
}
