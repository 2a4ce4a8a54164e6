//! A worker for asyncq with functions that do nothing: reads all calls that have come, and answers them in one write.

use std::borrow::Cow;
use std::env;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Message<'a> {
    id: Option<u64>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<Call<'a>>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    function: Option<Cow<'a, str>>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
}

fn main() {
    let number = env::var("ASYNCQ_WORKER").expect("asyncq starts this").parse().expect("a descriptor");
    // SAFETY: the protocol says that this descriptor is the worker's own.
    let mut asyncq = UnixStream::from(unsafe { OwnedFd::from_raw_fd(number) });
    let hello =
        r#"{"jsonrpc":"2.0","id":0,"method":"hello","params":{"protocol":1,"worker":"peers","output":"counted"}}"#;
    writeln!(asyncq, "{hello}").unwrap();
    let (mut buffer, mut held, mut answers) = (vec![0; 256 * 1024], 0, Vec::new());
    loop {
        let read = asyncq.read(&mut buffer[held..]).unwrap();
        if read == 0 {
            return;
        }
        held += read;
        let whole = buffer[..held].iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        for line in buffer[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            answer(&serde_json::from_slice(line).unwrap(), &mut answers);
        }
        asyncq.write_all(&answers).unwrap();
        answers.clear();
        buffer.copy_within(whole..held, 0);
        held -= whole;
        if held == buffer.len() {
            buffer.resize(2 * held, 0);
        }
    }
}

fn answer(message: &Message<'_>, answers: &mut Vec<u8>) {
    let (Some(id), Some("call"), Some(call)) = (message.id, message.method.as_deref(), &message.params) else {
        return;
    };
    match call.function.as_deref() {
        Some("noop") => std::hint::black_box(call.args),
        // Writes down when it began.
        Some("now") => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
            let times = env::var_os("PEERS_TIMES").expect("$PEERS_TIMES names a file");
            writeln!(OpenOptions::new().append(true).create(true).open(times).unwrap(), "{now}").unwrap();
            None
        }
        _ => panic!("no such function"),
    };
    writeln!(answers, r#"{{"jsonrpc":"2.0","id":{id},"result":{{"output":[0,0]}}}}"#).unwrap();
}
