//! The rules of the project that no compiler checks: layers, documents that tell the truth, nothing forgotten.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod code;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use asyncq::domain::job::State;
use code::Code;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Every page that people read.
fn documents() -> Vec<PathBuf> {
    let mut found = files("docs", ".md");
    found.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name)));
    found
}

/// What each layer may import; `docs/architecture.md` draws the same.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("failpoint", &[]),
    ("domain", &["error"]),
    ("store", &["domain", "error", "failpoint"]),
    ("system", &["error"]),
    ("runner", &["domain", "error", "failpoint", "system"]),
    ("processor", &["domain", "error", "failpoint", "runner", "store", "system"]),
    ("commands", &["domain", "error", "failpoint", "processor", "store", "system"]),
    ("cli", &["commands", "domain", "error", "system"]),
];

/// The layer of a source file: the first part of its path below `src`.
fn layer(path: &Path) -> String {
    let first = path.strip_prefix(root().join("src")).unwrap().iter().next().unwrap();
    first.to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The source code, as [`Code`] reads it.
fn code() -> Code {
    let source = root().join("src");
    let files = files("src", ".rs").into_iter().map(|path| {
        let name = path.strip_prefix(&source).unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(path).unwrap())
    });
    let files: Vec<(String, String)> = files.collect();
    Code::new(files.iter().map(|(name, source)| (name.as_str(), source.as_str())))
}

/// What files import that their layers may not, also where another layer hands it on.
fn forbidden_imports(code: &Code) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let mut found = Vec::new();
    for (from, to) in code.imports().into_iter().filter(|(from, _)| !from.is_empty()) {
        let may = allowed.get(from[0].as_str()).unwrap_or_else(|| panic!("`{}` is in no layer", from.join("::")));
        let forbidden = |to: &str| to != from[0] && !may.contains(&to);
        let to = to.iter().filter_map(|to| to.first()).filter(|to| forbidden(to));
        found.extend(to.map(|to| format!("`{}` imports `{to}`", from.join("::"))));
    }
    found
}

/// What a layer hands on of another one, or shows of one that those who import it may not import.
fn leaks(code: &Code) -> Vec<String> {
    let may_see =
        |from: &str, to: &str| LAYERS.iter().filter(|(_, may)| may.contains(&from)).all(|(_, may)| may.contains(&to));
    let leaks = code.leaks().into_iter().filter(|leak| leak.is_import || !may_see(&leak.of[0], &leak.layer));
    leaks.map(|leak| format!("`{}` hands on `{}` of `{}`", leak.of.join("::"), leak.name, leak.layer)).collect()
}

#[test]
fn layers_import_only_what_they_may() {
    let code = code();
    assert_eq!(forbidden_imports(&code), [""; 0]);
    let layers: BTreeSet<&str> = code.imports().keys().filter_map(|from| from.first()).map(String::as_str).collect();
    assert_eq!(layers, LAYERS.iter().map(|(layer, _)| *layer).collect(), "the table has other layers than the code");
}

#[test]
fn no_layer_hands_on_what_another_one_defines() {
    assert_eq!(leaks(&code()), [""; 0]);
}

#[test]
fn files_do_not_import_each_other_in_circles() {
    let code = code();
    let circles = code.circles();
    assert!(circles.is_empty(), "{circles:?}");
}

#[test]
fn outside_of_the_command_line_a_name_means_one_type() {
    let code = code();
    for (name, files) in code.types() {
        let files: Vec<String> = files.iter().filter(|file| file[0] != "cli").map(|file| file.join("::")).collect();
        assert!(files.len() < 2, "`{name}` is defined in {files:?}");
    }
    assert!(code.types().len() > 200, "only {} types found: this test is broken", code.types().len());
}

#[test]
fn the_tests_of_layers_can_fail() {
    let code = Code::new([
        ("lib.rs", "mod store; mod commands; mod cli; mod domain; pub use store::Store as Top;"),
        (
            "store/mod.rs",
            "mod one; pub use one::One; pub struct Store; impl Store { fn f() { one::g() } type X = u8; }",
        ),
        (
            "store/one.rs",
            "use super::Store; /* use crate::cli::x; */ pub struct One; pub fn g() { \"use crate::cli::x\" }",
        ),
        ("domain/mod.rs", "pub enum Store { A }"),
        (
            "commands/mod.rs",
            "use crate::store::{self, One as Other}; pub use crate::store::Store; pub fn f(a: u8) -> Option<Other> {}",
        ),
        ("commands/fine.rs", "use crate::{domain, store::Store}; pub struct Queue { pub(super) store: Store }"),
        (
            "cli.rs",
            "use crate::commands::{Store, f}; fn x() { crate::Top::y() } #[cfg(test)] mod tests { use crate::store::One; }",
        ),
    ]);
    assert_eq!(forbidden_imports(&code), ["`cli` imports `store`"]);
    assert_eq!(leaks(&code), ["`commands` hands on `Store` of `store`", "`commands` hands on `Other` of `store`"]);
    let circles: Vec<Vec<String>> =
        code.circles().iter().map(|circle| circle.iter().map(|file| file.join("::")).collect()).collect();
    assert_eq!(circles, [["store", "store::one"]]);
    let twice: Vec<&str> =
        code.types().into_iter().filter(|(_, files)| files.len() > 1).map(|(name, _)| name).collect();
    assert_eq!(twice, ["Store"]);
}

/// What the library shows to other programs, and so may be taken for a promise.
fn public(library: &str) -> Vec<&str> {
    let code: Vec<&str> = library.lines().filter(|line| !line.starts_with("//")).collect();
    let is_hidden = |at: usize| at > 0 && code[at - 1] == "#[doc(hidden)]";
    (0..code.len()).filter(|at| code[*at].starts_with("pub ") && !is_hidden(*at)).map(|at| code[at]).collect()
}

#[test]
fn the_library_shows_only_what_is_listed() {
    let listed = read("tests/public.txt");
    assert_eq!(public(&read("src/lib.rs")), listed.lines().collect::<Vec<_>>(), "tests/public.txt is not current");
    let library = "mod a;\n#[doc(hidden)]\npub mod b;\n/// c\npub mod c;\n#[doc(hidden)]\n/// d\npub use d::e;\n";
    assert_eq!(public(library), ["pub mod c;"]);
}

#[test]
fn each_layer_keeps_its_secrets() {
    for path in files("src", ".rs") {
        let (layer, source) = (layer(&path), fs::read_to_string(&path).unwrap());
        let code = source.split("#[cfg(test)]").next().unwrap();
        let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let secrets: &[(&str, &[&str])] = &[
            ("rusqlite", &["store"]),
            ("clap", &["cli"]),
            ("tabled", &["cli"]),
            ("println!", &["cli"]),
            ("stdout()", &["cli"]),
            ("stderr()", &["cli"]),
            ("std::process::Command", &["runner"]),
            ("signal_hook", &["runner", "system"]),
            ("SystemTime::now", &["store", "runner", "cli"]),
            ("env::var", &["cli", "failpoint"]),
        ];
        for (secret, owners) in secrets {
            let fine = owners.contains(&layer.as_str()) || !code.contains(secret);
            assert!(fine, "{} uses `{secret}`, which belongs to {owners:?}", path.display());
        }
        if layer == "domain" {
            for impure in ["std::fs", "std::process", "Instant", "std::env", "std::thread"] {
                assert!(!code.contains(impure), "{} uses `{impure}`", path.display());
            }
        }
    }
}

/// What only tests are to have is made in one place, which a release build leaves out.
#[test]
fn only_debug_builds_know_the_failpoints() {
    for path in files("src", ".rs") {
        let source = fs::read_to_string(&path).unwrap();
        let code: Vec<&str> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let reads = |line: &str| line.contains("ASYNCQ_FAILPOINT") || line.contains("ASYNCQ_FUTURE_SCHEMA");
        for (number, line) in code.iter().enumerate().filter(|(_, line)| reads(line)) {
            let item = code[..number].iter().rposition(|line| line.starts_with("pub fn ")).unwrap();
            let fine = layer(&path) == "failpoint" && code[item - 1] == "#[cfg(debug_assertions)]";
            assert!(fine, "{}: a release build knows `{}`", path.display(), line.trim());
        }
    }
}

/// Nothing in the process may open the files of a database but SQLite.
#[test]
fn nobody_but_sqlite_opens_the_database() {
    for path in files("src/store", ".rs") {
        let source = fs::read_to_string(&path).unwrap();
        let code = source.split("#[cfg(test)]").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            let opens = line.contains("File::open") || line.contains("fs::read(") || line.contains("fs::copy");
            let fine = !opens || line.contains("File::open(folder)");
            assert!(fine, "{}:{} opens a file: {line}", path.display(), number + 1);
        }
    }
}

#[test]
fn every_verb_of_the_store_is_tested() {
    let mut tests = read("tests/support/src/fixture.rs");
    tests.extend(files("tests/store", ".rs").into_iter().map(|path| fs::read_to_string(path).unwrap()));
    let mut verbs = Vec::new();
    for path in files("src/store", ".rs") {
        let source = fs::read_to_string(&path).unwrap();
        for part in source.split("\nimpl Store {\n").skip(1) {
            let body = part.split("\n}\n").next().unwrap();
            let public = body.split("    pub fn ").skip(1);
            verbs.extend(public.map(|it| it.split(['(', '<']).next().unwrap().to_owned()));
        }
    }
    assert!(verbs.len() > 30, "only {} verbs found: this test is broken", verbs.len());
    for verb in verbs {
        assert!(
            tests.contains(&format!(".{verb}(")) || tests.contains(&format!("::{verb}(")),
            "`Store::{verb}` has no test"
        );
    }
}

#[test]
fn no_test_file_is_forgotten() {
    let mains = ["tests/cli", "tests/store", "tests/faults"].map(|folder| (folder, "main.rs"));
    for (folder, top) in mains.into_iter().chain([("tests/support/src", "lib.rs")]) {
        for path in files(folder, ".rs").iter().filter(|path| !path.ends_with(top)) {
            // A folder's `mod.rs` stands for the folder.
            let module = if path.ends_with("mod.rs") { path.parent().unwrap() } else { path };
            let above = module.parent().unwrap();
            let root = if above == root().join(folder) { top } else { "mod.rs" };
            let named = format!("mod {};", module.file_stem().unwrap().to_string_lossy());
            assert!(read(above.join(root)).contains(&named), "{} is never compiled", path.display());
        }
    }
}

/// The command line is what a store of any kind has; the tables are asked in the files that are about the database.
#[test]
fn the_suite_of_the_command_line_asks_no_tables() {
    const ABOUT_THE_DATABASE: [&str; 8] =
        ["application.rs", "copy.rs", "damage.rs", "register.rs", "remove.rs", "sqlite.rs", "store.rs", "tables.rs"];
    let mut asking = BTreeSet::new();
    for path in files("tests/cli", ".rs") {
        let source = fs::read_to_string(&path).unwrap();
        if ["rusqlite", "sqlite3", ".query(", ".execute("].iter().any(|sql| source.contains(sql)) {
            asking.insert(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    assert!(asking.iter().eq(ABOUT_THE_DATABASE), "{asking:?}");
}

#[test]
fn files_stay_readable() {
    for path in files("src", ".rs") {
        let source = fs::read_to_string(&path).unwrap();
        let code = source.split("#[cfg(test)]").next().unwrap().lines().count();
        assert!(code <= 400, "{} has {code} lines without its tests: split it by noun", path.display());
        assert!(source.starts_with("//! "), "{} does not say what it is", path.display());
    }
    assert!(read("src/main.rs").lines().count() < 10);
    assert!(read("README.md").lines().count() <= 150, "the README is longer than three screens");
    assert!(read("CONTRIBUTING.md").lines().count() <= 50, "CONTRIBUTING.md is longer than one screen");
}

#[test]
fn the_changelog_knows_this_version() {
    let changelog = read("CHANGELOG.md");
    let version = env!("CARGO_PKG_VERSION");
    let heading = changelog.lines().find(|line| line.starts_with("## ")).unwrap();
    assert!(heading.starts_with("## Unreleased") || heading.starts_with(&format!("## {version}")), "{heading}");
    assert!(changelog.lines().any(|line| line.starts_with("- ")));
}

/// The packages that a build for Linux takes, those of the tests too, and that ask for a newer Rust than this one. Some ask
/// for none; only a build with the older compiler shows what those need.
fn packages_beyond(rust: &str) -> Vec<String> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &platform]);
    let output = metadata.current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let taken = metadata["resolve"]["nodes"].as_array().unwrap();
    let taken: BTreeSet<&str> = taken.iter().filter_map(|node| node["id"].as_str()).collect();
    let number = |version: &str| -> Vec<u32> { version.split('.').map(|part| part.parse().unwrap()).collect() };
    let packages = metadata["packages"].as_array().unwrap().iter();
    let packages = packages.filter(|package| taken.contains(package["id"].as_str().unwrap()));
    let newer = packages.filter(|package| package["rust_version"].as_str().is_some_and(|it| number(it) > number(rust)));
    newer.map(|package| format!("{} {}", package["name"], package["rust_version"])).collect()
}

#[test]
fn no_dependency_needs_a_newer_rust_than_we_promise() {
    let ours = format!("{}.0", env!("CARGO_PKG_RUST_VERSION"));
    assert_eq!(packages_beyond(&ours), Vec::<String>::new(), "need a newer Rust than {ours}");
    assert!(!packages_beyond("1.60.0").is_empty(), "this test is broken");
}

#[test]
fn a_build_for_another_system_ends_with_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("build");
    let mut compile = Command::new(Path::new(env!("CARGO")).with_file_name("rustc"));
    compile.args(["--edition", "2024", "-o"]).arg(&script).arg(root().join("build.rs"));
    assert!(compile.status().unwrap().success());
    let refusals = |system: &str| {
        let output = Command::new(&script).env("CARGO_CFG_TARGET_OS", system).output().unwrap();
        String::from_utf8(output.stdout).unwrap().matches("cargo::error=asyncq runs on Linux only: ").count()
    };
    assert_eq!([refusals("macos"), refusals("windows"), refusals("linux")], [1, 1, 0]);
}

#[test]
fn the_drawing_of_the_states_is_the_table_of_transitions() {
    let drawn: BTreeSet<(String, String)> = read("docs/states.md")
        .lines()
        .filter_map(|line| line.trim().split_once(" --> "))
        .map(|(from, to)| (from.to_owned(), to.split(':').next().unwrap().trim().to_owned()))
        .filter(|(from, to)| from != "[*]" && to != "[*]")
        .collect();
    let mut table = BTreeSet::new();
    for from in State::ALL {
        for to in State::ALL.into_iter().filter(|to| from.may_become(*to)) {
            table.insert((from.to_string(), to.to_string()));
        }
    }
    assert_eq!(drawn, table);
}

#[test]
fn the_command_line_reference_is_current() {
    let path = root().join("docs/cli.md");
    let current = asyncq::reference();
    let kept = fs::read_to_string(&path).unwrap_or_default();
    if kept != current {
        fs::write(&path, &current).unwrap();
        panic!("docs/cli.md was not current; it is now: look at it and commit it");
    }
}

#[test]
fn the_documented_refusals_are_those_of_the_schema() {
    let quoted = |text: &str, open: &str, close: char| -> BTreeSet<String> {
        text.split(open).skip(1).map(|part| part.split(close).next().unwrap().to_owned()).collect()
    };
    let schema = quoted(&read("schema.sql"), "RAISE(ABORT, 'asyncq: ", '\'');
    let documented = quoted(&read("docs/sql.md"), "`asyncq: ", '`');
    assert_eq!(schema, documented);
    let tests = ["application", "register"].map(|name| read(format!("tests/cli/{name}.rs"))).concat();
    for message in schema {
        assert!(tests.contains(&message), "`{message}` has no test");
    }
}

#[test]
fn documents_name_only_files_that_exist() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).map(|part| part.split([')', '#']).next().unwrap()) {
            if link.is_empty() || link.contains("://") {
                continue;
            }
            let target = document.parent().unwrap().join(link);
            assert!(target.exists(), "{} links to `{link}`, which is not there", document.display());
        }
    }
}

/// The files of the project that a text names, in links or in words: all that begins with one of its folders.
fn named_files(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "_./-".contains(c)));
    let words = words.map(|word| word.trim_end_matches(['.', '/']));
    let folders = ["benches/", "docs/", "examples/", "src/", "tests/"];
    words.filter(|word| folders.iter().any(|folder| word.starts_with(folder))).map(str::to_owned).collect()
}

#[test]
fn texts_name_only_files_that_exist() {
    let mut texts = documents();
    texts.extend(["schema.sql", "tests/all.sh"].map(|name| root().join(name)));
    for (folder, ending) in [("src", ".rs"), ("benches", ".md"), ("benches", ".rs"), ("examples", "")] {
        texts.extend(files(folder, ending));
    }
    let mut named = 0;
    for path in texts {
        for file in named_files(&fs::read_to_string(&path).unwrap()) {
            named += 1;
            assert!(root().join(&file).exists(), "{} names `{file}`, which is not there", path.display());
        }
    }
    assert!(named > 30, "only {named} files are named: this test is broken");
}

#[test]
fn the_test_of_named_files_can_fail() {
    let text =
        "`benches/speed.rs` measures, `sh tests/faults.sh NAME`; see [x](../src/cli/mod.rs), docs/sql.md. target/x";
    let found: Vec<_> = named_files(text).into_iter().collect();
    assert_eq!(found, ["benches/speed.rs", "docs/sql.md", "tests/faults.sh"]);
}

#[test]
fn variables_stand_in_ticks_with_their_dollar() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        assert!(!text.contains("$`"), "{} has a dollar before a tick", document.display());
    }
}

/// Each part of the tests for faults stands behind a promise, and each promise names tests that are there.
#[test]
fn every_promise_has_its_tests() {
    let document = read("docs/reliability.md");
    let rows = document.lines().filter(|line| line.starts_with("| ")).skip(1);
    let named: Vec<&str> = rows.map(|row| row.split('|').nth(2).unwrap().trim().trim_matches('`')).collect();
    for name in &named {
        let (module, test) = name.split_once("::").unwrap();
        let file = match module {
            "python" => "tests/python/main.rs".to_owned(),
            _ if root().join(format!("tests/faults/{module}.rs")).exists() => format!("tests/faults/{module}.rs"),
            _ => format!("tests/faults/{module}/mod.rs"),
        };
        assert!(read(file).contains(&format!("fn {test}")), "no test has `{name}` in its name");
    }
    for path in files("tests/faults", ".rs") {
        let source = fs::read_to_string(&path).unwrap();
        // What counts the others is tested by tests of its own.
        if source.contains("\n#[test]\n") {
            let stem = if path.ends_with("mod.rs") { path.parent().unwrap() } else { &path }.file_stem().unwrap();
            let prefix = format!("{}::", stem.to_string_lossy());
            assert!(named.iter().any(|name| name.starts_with(&prefix)), "docs/reliability.md does not name `{prefix}`");
        }
    }
}

/// The executable comments of a text, as they stand there.
fn locks(text: &str) -> BTreeSet<String> {
    let comments = text.split("/*! ").skip(1).map(|rest| rest.split("*/").next().unwrap());
    comments.map(|words| format!("/*! {words}*/")).collect()
}

#[test]
fn row_locks_are_those_of_the_page_on_engines() {
    let listed = locks(&read("docs/engines.md"));
    let used: BTreeSet<String> =
        files("src/store", ".rs").iter().flat_map(|path| locks(&fs::read_to_string(path).unwrap())).collect();
    let unknown: Vec<_> = used.difference(&listed).collect();
    assert!(!used.is_empty() && unknown.is_empty(), "docs/engines.md does not list {unknown:?}");
}

#[test]
fn engines_differ_within_the_budget() {
    let page = read("docs/engines.md");
    let budget: usize =
        page.split("The budget of differences is ").nth(1).unwrap().split('.').next().unwrap().parse().unwrap();
    let marks: usize = files("src", ".rs")
        .iter()
        .map(|path| fs::read_to_string(path).unwrap().matches("Differs by necessity").count())
        .sum();
    assert_eq!(marks, budget, "`Differs by necessity` in src, and the budget in docs/engines.md");
}
