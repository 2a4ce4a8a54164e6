//! Servers that are down, or ask to be left alone for a while.

use asyncq::domain::time::Timestamp;

use crate::place::{Place, wait_until};
use crate::scale::{figure, many};

/// A server that answers 421 until there is a file `up`, and then takes mails: it appends their subjects to the file `box`.
const MAIL_SERVER: &str = r#"#!/usr/bin/env python3
import os, socketserver

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        if not os.path.exists("up"):
            self.wfile.write(b"421 down for a while\r\n")
            return
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            command = line.split()[0].upper()
            if command == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = []
                while (line := self.rfile.readline()) != b".\r\n":
                    lines.append(line)
                with open("box", "ab") as box:
                    box.write(b"".join(line for line in lines if line.startswith(b"Subject: ")))
            self.wfile.write(b"221 bye\r\n" if command == b"QUIT" else b"250 fine\r\n")
            if command == b"QUIT":
                return

socketserver.ThreadingTCPServer.daemon_threads = True
socketserver.ThreadingTCPServer.request_queue_size = 100
with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
    with open("port.new", "w") as port:
        port.write(str(server.server_address[1]))
    os.rename("port.new", "port")
    server.serve_forever()
"#;

/// Sends a mail with its argument as the subject. Exits with 69 (`EX_UNAVAILABLE`) if the server is down.
const SEND: &str = r#"#!/usr/bin/env python3
import smtplib, sys

try:
    with smtplib.SMTP("127.0.0.1", int(open("port").read()), local_hostname="here") as server:
        server.sendmail("asyncq@example.org", "ann@example.org", "Subject: " + sys.argv[1] + "\n\nHello.\n")
except smtplib.SMTPConnectError:
    sys.exit(69)
"#;

/// A server that answers 429 with `Retry-After: 60` to each path once, and then 200.
const WEB_SERVER: &str = r#"#!/usr/bin/env python3
import http.server, os

seen = set()

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        is_new = self.path not in seen
        seen.add(self.path)
        self.send_response(429 if is_new else 200)
        if is_new:
            self.send_header("Retry-After", "60")
        self.end_headers()

    def log_message(self, *args):
        pass

with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    with open("port.new", "w") as port:
        port.write(str(server.server_address[1]))
    os.rename("port.new", "port")
    server.serve_forever()
"#;

/// Fetches a path. It asks to run later when the server says so.
const FETCH: &str = r#"#!/usr/bin/env python3
import http.client, os, sys

client = http.client.HTTPConnection("127.0.0.1", int(open("port").read()))
client.request("GET", sys.argv[1])
answer = client.getresponse()
if answer.status == 429:
    with open(os.environ["ASYNCQ_LATER"], "w") as later:
        later.write(answer.headers["Retry-After"] + "s")
    sys.exit(75)
"#;

/// The milliseconds from the end of the latest attempt of each job until it is due again.
fn pauses(place: &Place, jobs: usize) -> Vec<i64> {
    let time = |value: &serde_json::Value| Timestamp::parse(value.as_str().unwrap()).unwrap().0;
    let pause = |job| {
        let job = place.job(job);
        let last = job["attempts"].as_array().unwrap().last().unwrap();
        time(&job["run_at"]) - time(&last["finished_at"])
    };
    (1..=jobs).map(pause).collect()
}

/// Lets all pauses be over, as if time had passed.
fn make_due(place: &Place) {
    place.execute(
        "BEGIN IMMEDIATE;
        UPDATE asyncq_schema SET version = -version;
        UPDATE asyncq_job SET run_at = started_at WHERE state = 'delayed';
        UPDATE asyncq_schema SET version = -version;
        COMMIT",
    );
}

#[test]
fn a_mail_server_that_is_down_for_a_while_loses_no_mail() {
    let mails = many(60, 6);
    let place = Place::new();
    place.program("serve", MAIL_SERVER);
    place.program("send", SEND);
    let _server = place.start("./serve");
    place.stdout(
        "asyncq service add mails --concurrency 4 2>/dev/null
        asyncq function add mails send --retries 3 --retry-on 69 -- ./send",
    );
    wait_until("the server is there", || place.at("port").exists());
    for mail in 1..=mails {
        place.stdout(&format!("asyncq enqueue mails send mail-{mail}"));
    }
    let mut drawn = Vec::new();
    for longest in [15_000, 30_000] {
        let drained = place.run("asyncq process");
        assert_eq!((drained.status.code(), drained.stderr), (Some(0), Vec::new()));
        assert_eq!(place.count("--state delayed"), mails);
        drawn = pauses(&place, mails);
        assert!(drawn.iter().all(|pause| (longest / 2..=longest).contains(pause)), "{drawn:?}");
        make_due(&place);
    }
    drawn.sort_unstable();
    drawn.dedup();
    assert!(drawn.len() > mails / 2, "each has its own pause: {drawn:?}");
    place.write("up", "");
    let drained = place.run("asyncq process");
    assert_eq!((drained.status.code(), drained.stderr), (Some(0), Vec::new()));
    assert_eq!(place.count("--state completed"), mails);
    let mut received: Vec<String> = place.read("box").lines().map(str::to_owned).collect();
    let mut sent: Vec<String> = (1..=mails).map(|mail| format!("Subject: mail-{mail}")).collect();
    received.sort();
    sent.sort();
    assert_eq!(received, sent, "each once");
    assert!(place.jobs("attempt failures").split(", ").all(|counts| counts == "3 2"));
    figure("a_mail_server_that_is_down", format!("{mails} mails, each at the third attempt, none lost"));
}

#[test]
fn a_server_that_asks_to_be_left_alone_costs_no_attempt() {
    let calls = many(20, 3);
    let place = Place::new();
    place.program("serve", WEB_SERVER);
    place.program("fetch", FETCH);
    let _server = place.start("./serve");
    place.stdout(
        "asyncq service add web --concurrency 4 2>/dev/null
        asyncq function add web fetch --conflicts 1 -- ./fetch",
    );
    wait_until("the server is there", || place.at("port").exists());
    for call in 1..=calls {
        place.stdout(&format!("asyncq enqueue web fetch /{call}"));
    }
    place.stdout("asyncq process");
    assert_eq!(pauses(&place, calls), vec![60_000; calls]);
    make_due(&place);
    place.stdout("asyncq process");
    assert_eq!(place.count("--state completed"), calls);
    assert!(place.jobs("attempt failures conflicts crashes").split(", ").all(|counts| counts == "2 0 0 0"));
    assert!((1..=calls).all(|job| place.attempts(job, "ending") == "snoozed, completed"));
}
