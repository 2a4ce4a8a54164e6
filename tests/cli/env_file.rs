//! Files of environment variables, which are read at each start of a program.

use crate::place::Place;

#[test]
fn a_file_of_variables_is_read_at_each_start() {
    let place = Place::with_functions(&[("show", r#"echo "$TOKEN $OWN""#)]);
    place.session(
        r#"
        $ mkdir app && cp show app/ && printf '# secrets\nTOKEN="one two"\nOWN=file\nPIN=hunter2\n' > app/secrets.env && chmod 600 app/secrets.env
        $ asyncq function add events app --site app --env-file secrets.env --env OWN=recorded -- ./show
        $ asyncq function show events app | grep env
        env       OWN=recorded
        env file  secrets.env
        $ asyncq function show events app --json | grep -o '"env_file":"[^"]*"'
        "env_file":"secrets.env"
        $ asyncq enqueue events app; asyncq process
        1
        one two recorded
        $ printf 'TOKEN=three\nPIN=hunter3\n' > app/secrets.env; asyncq enqueue events app; asyncq process
        2
        three recorded
        $ printf '{"jsonrpc":"2.0","id":1,"method":"enqueue","params":{"service":"events","function":"app","site":"%s/other"}}\n' "$PWD" > elsewhere; mkdir other; cp show other/; asyncq rpc < elsewhere; asyncq process
        {"jsonrpc":"2.0","id":1,"result":{"job":3[..]
        three recorded
        $ asyncq call --start events app | tail -1
        three recorded
        $ grep -c hunter .local/share/asyncq/queue.db; asyncq function set events app --no-env-file; asyncq enqueue events app; asyncq process
        0
        5
         recorded
        "#,
    );
}

/// What is wrong with a file, and what of that is said before the call runs.
#[test]
fn a_file_that_cannot_be_used_is_named_with_the_way_out() {
    let place = Place::with_functions(&[("show", "true")]);
    let at = |file: &str| place.at(file).display().to_string();
    let secrets = at("secrets.env");
    place.session(&format!(
        "
        $ asyncq function set events show --env-file secrets.env --conflicts 1
        ! asyncq: calls of `events` `show` cannot run yet: its environment file `{secrets}` is missing
        $ asyncq enqueue events show
        1
        $ asyncq explain 1 | tail -2
        [..]will-fail[..]its environment file `{secrets}` is missing[..]
        [..]
        $ asyncq function set events show --env-file ''
        ! error: `` cannot be the path of an environment file
        ! hint: name a file; a relative path counts from the site
        ? 2
        "
    ));
    let explain = |prepare: &str, flaw: &str| {
        place.stdout(prepare);
        let said = place.stdout("asyncq explain 1");
        assert!(said.contains(&format!("its environment file `{secrets}` {flaw}")), "{prepare}: {said}");
    };
    explain("echo hunter2 > secrets.env; chmod 640 secrets.env", "is open to other users; `chmod 600 ");
    explain("chmod 604 secrets.env", "is open to other users; `chmod 600 ");
    explain("chmod 600 secrets.env", "cannot be used: line 1: it is not NAME=VALUE");
    explain("echo ASYNCQ_DB=x > secrets.env", "cannot be used: line 1: asyncq itself sets `ASYNCQ_DB`");
    explain("head -c 1048577 /dev/zero > secrets.env", "has more than 1048576 bytes");
    explain("rm secrets.env; mkfifo -m 600 secrets.env", "is not a file");
    explain("rm secrets.env; mkdir -m 700 secrets.env", "is not a file");
    explain("rmdir secrets.env; ln -s gone secrets.env", "is missing");
    place.session(&format!(
        r#"
        $ asyncq process
        ! asyncq: job 1 (`events` `show`): its environment file `{secrets}` is missing
        ! hint: `asyncq function set events show` changes its program, site or environment file
        ? 1
        $ asyncq job show 1 --json | grep -o '"error":{{"kind":"[a-z-]*"' | head -1
        "error":{{"kind":"cannot-run"
        $ rm secrets.env; echo A=1 > secrets.env; chmod 600 secrets.env
        $ asyncq job retry 1; asyncq process
        "#
    ));
}
