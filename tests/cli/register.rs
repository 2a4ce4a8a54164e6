//! Services and functions that an application adds by INSERT, in its own transactions, and the store that it makes itself.

use crate::application::application;
use crate::place::Place;

/// The longest name, and one that is too long.
const LONG: &str = "replace(printf('%255c', 'x'), ' ', 'x')";
const TOO_LONG: &str = "replace(printf('%256c', 'x'), ' ', 'x')";

const NAME_OF_SERVICE: &str = "name must be 1 to 255 of a-z, 0-9, ., _ and -, the first a letter or digit";
const NAME: &str = "name must be 1 to 255 of A-Z, a-z, 0-9, _, ., : and -, the first a letter or _";
const KEPT: &str = "leave out the columns that asyncq keeps itself";
const COMMAND: &str = "command must be a JSON array of texts, the first a path with a slash";
const SITE: &str = "site must be an absolute path";
const ENV: &str = "env must be a JSON object of texts";
const ENV_NAME: &str = "a name in env must not be empty, begin with ASYNCQ_, or hold = or control characters";
const NUL: &str = "command, site and env must not hold NUL characters";
const SIZE: &str = "command, site and env must be at most 1 MiB together";
const UTF_8: &str = "command, site and env must be UTF-8 without half surrogate pairs";
const TIMEOUT: &str = "timeout must be 1 to 3162240000000 milliseconds";
const WORKER: &str = "worker must be a JSON object of calls, idle and growth";
const MERGE: &str = "merge must be 0 or 1";
const FORMAT: &str = "args and stdin must be words and call, words and none, or stdin and call";

/// Columns of a service, their values, and the message that refuses them.
const SERVICES: &[(&str, &str, &str)] = &[
    ("name", "''", NAME_OF_SERVICE),
    ("name", "NULL", NAME_OF_SERVICE),
    ("name", "'Shop'", NAME_OF_SERVICE),
    ("name", "'.shop'", NAME_OF_SERVICE),
    ("name", "'my shop'", NAME_OF_SERVICE),
    ("name", "'käse'", NAME_OF_SERVICE),
    ("name", "'a' || char(0) || ' '", NAME_OF_SERVICE),
    ("name", "CAST(x'61c1a1' AS TEXT)", NAME_OF_SERVICE),
    ("name", TOO_LONG, NAME_OF_SERVICE),
    ("name, concurrency", "'other', 0", "concurrency must be 1 to 4294967295"),
    ("name, concurrency", "'other', 4294967296", "concurrency must be 1 to 4294967295"),
    ("name, concurrency", "'other', NULL", "concurrency must be 1 to 4294967295"),
    ("name, paused", "'other', 2", "paused must be 0 or 1"),
    ("name, created_at", "'other', 7", KEPT),
    ("name, created_at", "'other', NULL", KEPT),
];

/// The same of a function. A column of service, name, command and site that is not named gets a good value.
const FUNCTIONS: &[(&str, &str, &str)] = &[
    ("service", "'shpo'", "no such service"),
    ("service", "NULL", "no such service"),
    ("name", "''", NAME),
    ("name", "NULL", NAME),
    ("name", "'1st'", NAME),
    ("name", "'a b'", NAME),
    ("name", "'a/b'", NAME),
    ("name", "'ä'", NAME),
    ("name", "'a' || char(0)", NAME),
    ("name", TOO_LONG, NAME),
    ("created_at", "7", KEPT),
    ("generation", "7", KEPT),
    ("command", "NULL", COMMAND),
    ("command", "'/bin/echo'", COMMAND),
    ("command", "'\"/bin/echo\"'", COMMAND),
    ("command", "'{}'", COMMAND),
    ("command", "'[]'", COMMAND),
    ("command", "'[\"\"]'", COMMAND),
    ("command", "'[\"echo\"]'", COMMAND),
    ("command", "'[\"/bin/echo\", 7]'", COMMAND),
    ("command", "'[\"/bin/echo\", null]'", COMMAND),
    ("command", "'[\"/bin/echo\", [\"a\"]]'", COMMAND),
    ("command", "'[\"/bin/echo\"'", COMMAND),
    ("command", "'[\"/bin/echo\",]'", COMMAND),
    ("command", "'[\"/bin/echo\n\"]'", COMMAND),
    ("command", "'[\"/bin/echo\"]' || char(0)", NUL),
    ("command", r#"'["/bin/echo", "\u0000"]'"#, NUL),
    ("command", r#"'["/bin/echo", "\\\u0000"]'"#, NUL),
    ("command", r#"'["/bin/echo", "\ud83d"]'"#, UTF_8),
    ("command", r#"'["/bin/echo", "\udd00\ud83d"]'"#, UTF_8),
    ("command", "CAST(x'5b222f62696e2f80225d' AS TEXT)", UTF_8),
    ("command", "'[\"/bin/echo\", \"' || printf('%1048576c', 'x') || '\"]'", SIZE),
    ("site", "NULL", SITE),
    ("site", "''", SITE),
    ("site", "'tmp'", SITE),
    ("site", "'/tmp' || char(0)", NUL),
    ("site", "CAST(x'2fe282' AS TEXT)", UTF_8),
    ("site", "CAST(x'2feda080' AS TEXT)", UTF_8),
    ("site", "CAST(x'2fbf' AS TEXT)", UTF_8),
    ("site", "CAST(x'2fc3a9a9' AS TEXT)", UTF_8),
    ("site", "CAST(x'2ff5808080' AS TEXT)", UTF_8),
    ("env", "NULL", ENV),
    ("env", "'[]'", ENV),
    ("env", "'no json'", ENV),
    ("env", "'{\"A\": 1}'", ENV),
    ("env", "'{\"A\": null}'", ENV),
    ("env", "'{\"\": \"x\"}'", ENV_NAME),
    ("env", "'{\"A=B\": \"x\"}'", ENV_NAME),
    ("env", r#"'{"A\u003dB": "x"}'"#, ENV_NAME),
    ("env", r#"'{"A\nB": "x"}'"#, ENV_NAME),
    ("env", "'{\"ASYNCQ_DB\": \"x\"}'", ENV_NAME),
    ("env", r#"'{"A": "a\u0000b"}'"#, NUL),
    ("env", r#"'{"A": "\udd00"}'"#, UTF_8),
    ("env", r#"'{"\udd00": "A"}'"#, UTF_8),
    ("timeout", "0", TIMEOUT),
    ("timeout", "-1", TIMEOUT),
    ("timeout", "3162240000001", TIMEOUT),
    ("worker", "''", WORKER),
    ("worker", "'1'", WORKER),
    ("worker", "'[]'", WORKER),
    ("worker", "'true'", WORKER),
    ("worker", "'{\"call\": 7}'", WORKER),
    ("worker", "'{\"calls\": 0}'", WORKER),
    ("worker", "'{\"calls\": -1}'", WORKER),
    ("worker", "'{\"calls\": -0}'", WORKER),
    ("worker", "'{\"calls\": 1.5}'", WORKER),
    ("worker", "'{\"calls\": true}'", WORKER),
    ("worker", "'{\"calls\": \"7\"}'", WORKER),
    ("worker", "'{\"calls\": 9223372036854775808}'", WORKER),
    ("worker", "'{\"calls\": 7, \"calls\": 8}'", WORKER),
    ("worker", "'{\"growth\": {}}'", WORKER),
    ("worker", "'{\"idle\": 60}'", WORKER),
    ("worker", "'{\"idle\": {\"secs\": 60}}'", WORKER),
    ("worker", "'{\"idle\": {\"secs\": 60, \"secs\": 60}}'", WORKER),
    ("worker", "'{\"idle\": {\"secs\": 60, \"nanos\": 1000000000}}'", WORKER),
    ("worker", "'{\"idle\": {\"secs\": 3162240001, \"nanos\": 0}}'", WORKER),
    ("worker", "'{\"idle\": {\"secs\": 0, \"nanos\": 0}}'", WORKER),
    ("worker", "'{\"idle\": {\"secs\": 60, \"nanos\": 0, \"more\": 0}}'", WORKER),
    ("args", "'none'", FORMAT),
    ("args", "NULL", FORMAT),
    ("stdin", "'words'", FORMAT),
    ("args, stdin", "'stdin', 'none'", FORMAT),
    ("worker, args", "'{}', 'stdin'", FORMAT),
    ("worker, stdin", "'{}', 'none'", FORMAT),
    ("merge", "2", MERGE),
    ("merge", "NULL", MERGE),
];

/// Rows that look like one of those, and are accepted.
const GOOD: &[(&str, &str)] = &[
    ("command", "'[\"/bin/echo\"]'"),
    ("command", "' [ \"/bin/echo\" , \"a\" ] '"),
    ("command", "'[\"./echo\", \"\", \"käse 🧀\"]'"),
    ("command", r#"'["./echo", "\\u0000", "\ud83e\uddc0", "' || char(65533, 65534, 65535) || '"]'"#),
    ("command", "'[\"/bin/echo\", \"' || printf('%1048000c', 'x') || '\"]'"),
    ("command", "'[\"/bin/echo\", \"' || replace(hex(zeroblob(100000)), '0', 'ä') || '\"]'"),
    ("name", LONG),
    ("name", "'pkg.module:Class.method'"),
    ("site", "'/käse'"),
    ("env", "'{\"LANG\": \"de_DE.UTF-8\", \"Ä\": \"\", \"asyncq_\": \"\\n\"}'"),
    ("timeout", "NULL"),
    ("timeout", "1"),
    ("timeout", "3162240000000"),
    ("worker", "NULL"),
    ("worker", "' {} '"),
    ("worker", "'{\"calls\": 9223372036854775807, \"idle\": {\"nanos\": 1000000, \"secs\": 0}, \"growth\": 1}'"),
    ("args, stdin", "'words', 'none'"),
    ("args, stdin", "'stdin', 'call'"),
    ("worker, args, stdin", "'{}', 'words', 'call'"),
    ("service", "'shop'"),
];

/// The statement that adds a function, with good values for the columns that it needs and that are not named.
fn function(how: &str, columns: &str, values: &str) -> String {
    let defaults =
        [("service", "'shop'"), ("name", "'some'"), ("command", "'[\"/bin/echo\"]'"), ("site", "'/'")].into_iter();
    let more: Vec<_> = defaults.filter(|(column, _)| !columns.split(", ").any(|named| named == *column)).collect();
    let [names, others] =
        [more.iter().map(|it| it.0).collect::<Vec<_>>(), more.iter().map(|it| it.1).collect()].map(|it| it.join(", "));
    format!("INSERT{how} INTO asyncq_function ({columns}, {names}) VALUES ({values}, {others})")
}

/// The answer to each statement: by the SQLite in this program, which is a new one, and by the system's.
fn answers(place: &Place, statements: &[String]) -> [Vec<String>; 2] {
    let client = rusqlite::Connection::open(place.at("app.db")).unwrap();
    let answer = |sql: &String| {
        client.execute_batch("BEGIN").unwrap();
        let said = client.execute_batch(sql).map_or_else(|error| error.to_string(), |()| "done".to_owned());
        client.execute_batch("ROLLBACK").unwrap();
        said
    };
    let ours = statements.iter().map(answer).collect();
    place.write("statements", &statements.join("\0"));
    let python = "import sqlite3
db = sqlite3.connect('app.db', isolation_level=None)
for sql in open('statements').read().split('\\0'):
    db.execute('BEGIN')
    try:
        db.execute(sql)
        print('done')
    except sqlite3.Error as error:
        print(error)
    db.execute('ROLLBACK')
";
    place.write("run.py", python);
    [ours, place.stdout("python3 run.py").lines().map(str::to_owned).collect()]
}

/// Statements that add what nobody could read, as `INSERT` or with what follows that, each with the message that refuses it.
pub fn refused(how: &str) -> impl Iterator<Item = (String, &'static str)> {
    let services = SERVICES.iter().map(move |(columns, values, message)| {
        (format!("INSERT{how} INTO asyncq_service ({columns}) VALUES ({values})"), *message)
    });
    let functions = FUNCTIONS.iter().map(move |(columns, values, message)| (function(how, columns, values), *message));
    services.chain(functions)
}

#[test]
fn unreadable_definitions_are_refused() {
    let place = application("WAL");
    let mut statements = Vec::new();
    let mut expected = Vec::new();
    for how in ["", " OR IGNORE", " OR REPLACE"] {
        for (statement, message) in refused(how) {
            statements.push(statement);
            expected.push(format!("asyncq: {message}"));
        }
    }
    for (columns, values, message) in FUNCTIONS {
        statements.push(format!("{} ON CONFLICT DO NOTHING", function("", columns, values)));
        expected.push(format!("asyncq: {message}"));
    }
    for said in answers(&place, &statements) {
        for ((said, expected), statement) in said.iter().zip(&expected).zip(&statements) {
            assert_eq!(said, expected, "{}", &statement[..statement.len().min(300)]);
        }
    }
    place.session("$ asyncq function list --json | grep -c name\n1");
}

#[test]
fn readable_definitions_are_accepted_and_listed() {
    let place = application("WAL");
    let statements: Vec<_> = GOOD.iter().map(|(columns, values)| function("", columns, values)).collect();
    for said in answers(&place, &statements) {
        assert!(said.iter().all(|said| said == "done"), "{said:?}");
    }
    for (number, (columns, values)) in GOOD.iter().enumerate() {
        let name = format!("'f{number}'");
        let sql = if columns.contains("name") {
            function("", columns, values)
        } else {
            function("", &format!("{columns}, name"), &format!("{values}, {name}"))
        };
        rusqlite::Connection::open(place.at("app.db")).unwrap().execute_batch(&sql).unwrap();
    }
    let listed = place.stdout("asyncq function list --json");
    assert_eq!(listed.matches("\"name\":").count(), GOOD.len() + 1, "{listed}");
    place.session("$ asyncq init\n! asyncq: `[..]app.db` is up to date");
}

/// Nobody else can register while the application holds the write lock.
#[test]
fn an_application_registers_and_enqueues_in_one_transaction() {
    for journal_mode in ["DELETE", "WAL"] {
        let place = application(journal_mode);
        place.write(
            "register.py",
            "import json, os, sqlite3, sys
db = sqlite3.connect('app.db', isolation_level=None)
db.execute('BEGIN IMMEDIATE')
for _ in range(2):
    db.execute(\"INSERT INTO asyncq_service (name, concurrency) VALUES ('news', 2) ON CONFLICT DO NOTHING\")
    db.execute(\"INSERT OR IGNORE INTO asyncq_service (name, concurrency) VALUES ('news', 3)\")
    for name, how, rest in (('echo', '', ' ON CONFLICT DO NOTHING'), ('echo', ' OR IGNORE', ''), ('quiet', '', ' ON CONFLICT (service, name) DO NOTHING')):
        db.execute(f'INSERT{how} INTO asyncq_function (service, name, command, site) VALUES (?, ?, ?, ?){rest}',
                   ('news', name, json.dumps(['/bin/echo', name + str(_)]), os.getcwd()))
    db.execute(\"INSERT INTO asyncq_job (service, function, args) VALUES ('news', 'echo', json_array(?))\", (_,))
db.execute(sys.argv[1])
",
        );
        place.session(
            r#"
            $ python3 register.py ROLLBACK; asyncq service list; asyncq process
            SERVICE  CONCURRENCY  STATE
            shop     1            active
            $ python3 register.py COMMIT; asyncq process | sort
            echo0 0
            echo0 1
            $ asyncq service list; asyncq function list news --output csv | cut -d, -f -2
            SERVICE  CONCURRENCY  STATE
            news     2            active
            shop     1            active
            service,name
            news,echo
            news,quiet
            $ sqlite3 app.db "SELECT count(*) FROM asyncq_function f, asyncq_service s WHERE abs(f.created_at - s.created_at) < 60000"
            6
            $ sqlite3 app.db "SELECT count(*) FROM asyncq_function WHERE abs(created_at - 1000 * strftime('%s')) < 60000"
            3
            "#,
        );
    }
}

#[test]
fn a_client_changes_and_removes_nothing() {
    let place = application("WAL");
    let client = rusqlite::Connection::open(place.at("app.db")).unwrap();
    client.execute_batch("ALTER TABLE asyncq_function ADD COLUMN note TEXT").unwrap();
    let refused = |sql: &str| client.execute_batch(sql).expect_err(sql).to_string();
    for what in ["name = 'other'", "concurrency = 2", "paused = 1", "created_at = 7"] {
        let said = refused(&format!("UPDATE asyncq_service SET {what}"));
        assert_eq!(said, "asyncq: a client may add a service, and not change or remove it", "{what}");
    }
    for what in [
        "service = 'other'",
        "name = 'other'",
        "command = '[\"/bin/true\"]'",
        "site = '/'",
        "env = '{\"A\":\"b\"}'",
        "timeout = 7",
        "worker = '{}'",
        "created_at = 7",
        "args = 'stdin'",
        "stdin = 'none'",
        "generation = 7",
    ] {
        let said = refused(&format!("UPDATE asyncq_function SET {what}"));
        assert_eq!(said, "asyncq: a client may add a function, and not change or remove it", "{what}");
    }
    let [service, function] =
        ["service", "function"].map(|what| format!("asyncq: a client may add a {what}, and not change or remove it"));
    assert_eq!(refused("DELETE FROM asyncq_service"), service);
    assert_eq!(refused("DELETE FROM asyncq_function"), function);
    assert_eq!(
        refused("INSERT INTO asyncq_service (name) VALUES ('shop') ON CONFLICT DO UPDATE SET paused = 1"),
        service
    );
    // Nothing is changed, or only what is the application's.
    let again =
        "INSERT INTO asyncq_service (name) VALUES ('shop') ON CONFLICT (name) DO UPDATE SET name = excluded.name
        RETURNING concurrency";
    assert_eq!(client.query_row(again, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    client.execute_batch("UPDATE asyncq_function SET note = 'mine', name = name").unwrap();
    // asyncq itself does all of it.
    place.session(
        "
        $ asyncq service set shop --concurrency 2; asyncq service pause shop; asyncq service resume shop
        $ asyncq function set shop mail --timeout 7s; asyncq function reload; asyncq function remove shop mail
        $ asyncq service remove shop; asyncq service list
        ",
    );
}

/// A store that an older asyncq has made may hold one.
#[test]
fn a_function_that_cannot_be_read_can_be_removed() {
    let place = application("WAL");
    place.stdout("sqlite3 -cmd '.dbconfig enable_trigger off' app.db \"UPDATE asyncq_function SET command = '{}'\"");
    place.session(
        "
        $ asyncq function list
        ! error: the store is damaged: function `mail` of service `shop`: its command is not an array of strings
        ...
        ? 65
        $ asyncq function remove shop mail; asyncq function list
        ",
    );
}

#[test]
fn an_application_makes_the_store_by_the_script() {
    for how in [
        "sqlite3 app.db < schema.sql",
        "python3 -c \"import sqlite3; sqlite3.connect('app.db').executescript(open('schema.sql').read())\"",
        "python3 -c \"import sqlite3; sqlite3.connect('app.db').executescript('BEGIN; CREATE TABLE mine (id);' + open('schema.sql').read() + 'COMMIT')\"",
    ] {
        let mut place = Place::new();
        place.set("ASYNCQ_DB", "app.db");
        place.write("schema.sql", include_str!("../../schema.sql"));
        place.write(
            "call.sql",
            "BEGIN IMMEDIATE;
            INSERT INTO asyncq_service (name) VALUES ('shop');
            INSERT INTO asyncq_function (service, name, command, site) VALUES ('shop', 'mail', '[\"/bin/echo\"]', '/');
            INSERT INTO asyncq_job (service, function, args) VALUES ('shop', 'mail', '[7]');
            COMMIT;",
        );
        place.stdout(how);
        place.session(
            "
            $ sqlite3 app.db < call.sql
            $ asyncq init
            ! asyncq: `[..]app.db` is up to date
            $ asyncq enqueue shop mail 8; asyncq process
            2
            7
            8
            ",
        );
    }
}
