//! Functions that print without end: how much memory and disk that takes, and how long.

use std::fs;
use std::time::{Duration, Instant};

use crate::hostile::place;
use crate::place::{Place, Running};
use crate::process::{self, enqueue, only_waits};
use crate::scale;

/// How much more memory a processor may take at its peak, in KiB.
const MORE_MEMORY: i64 = 16 * 1024;

/// How much is kept of one attempt's output (docs/functions.md).
const LOG: u64 = 1024 * 1024;

/// How much larger the store may become: by the log, of which pieces tell the streams, and once more in the WAL.
const MORE_STORE: u64 = 4 * LOG;

/// How long a small flood may take, whatever else the machine does.
const LONG: Duration = Duration::from_secs(60);

/// The peak of memory of both processes of a processor, in KiB.
fn peaks(processor: &Running) -> [i64; 2] {
    [processor.0.id().to_string(), processor.engine()].map(|pid| process::memory(&pid, "VmHWM"))
}

/// A processor drains something within a time, then waits: its peaks of memory, and how much a file without a name ever
/// took.
fn drain(place: &Place, function: &str, word: &str, limit: Duration) -> ([i64; 2], u64) {
    let _ = fs::remove_file(place.at("go-end"));
    enqueue(place, function, word, 1);
    enqueue(place, "waits", "end", 1);
    let processor = process::start(place, "asyncq -q process --trust-store-writers");
    let mut spill = 0;
    let left = format!("SELECT count(*) FROM asyncq_job WHERE function = '{function}' AND finished_at IS NULL");
    let began = Instant::now();
    while place.query(&left) != "0" {
        assert!(began.elapsed() < limit, "`{function} {word}` is not over after {limit:?}");
        spill = spill.max(unnamed(&processor.engine()));
        std::thread::sleep(Duration::from_millis(20));
    }
    only_waits(place);
    let peaks = peaks(&processor);
    place.write("go-end", "");
    assert!(processor.wait().status.success());
    (peaks, spill)
}

/// The size of all files that a process has open and that have no name.
fn unnamed(pid: &str) -> u64 {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let open =
        descriptors.filter_map(|entry| Some((fs::read_link(entry.path()).ok()?, fs::metadata(entry.path()).ok()?)));
    open.filter(|(name, file)| file.is_file() && name.to_string_lossy().ends_with(" (deleted)"))
        .map(|(_, file)| file.len())
        .sum()
}

fn store_size(place: &Place) -> u64 {
    ["", "-wal"]
        .iter()
        .filter_map(|end| fs::metadata(format!("{}{end}", place.store().display())).ok())
        .map(|file| file.len())
        .sum()
}

/// Lets a function print so many bytes, half to each stream, and compares with a processor that has nothing to pass on.
/// At full size, as many MB a second must come through.
fn flood(mode: &str, bytes: usize, least: u64) {
    let place = place(1);
    place.session(&format!("$ asyncq function add events {mode} -- ./hostile {mode}"));
    place.session("$ asyncq function add events quick -- ./hostile quick");
    let limit = if scale::full() { LONG + Duration::from_micros(bytes as u64 / least) } else { LONG };
    let (idle, _) = drain(&place, "quick", "", limit);
    let (size, began) = (store_size(&place), Instant::now());
    place.stdout(&format!("./hostile {mode} {bytes} 2>&1 | cat > /dev/null"));
    let pipe = began.elapsed();
    let (peaks, spill) = drain(&place, mode, &bytes.to_string(), limit);
    let grown = store_size(&place).saturating_sub(size);
    let job = format!("FROM asyncq_job JOIN asyncq_attempt ON job = id WHERE function = '{mode}'");
    let number = |what: &str| place.query(&format!("SELECT {what} {job}")).parse::<u64>().unwrap();
    let took = Duration::from_millis(number("asyncq_attempt.finished_at - asyncq_attempt.started_at").max(1));
    let (kept, dropped) = (number("length(log)"), number("dropped"));
    let speed = bytes as u64 / u64::try_from(took.as_micros()).unwrap();
    scale::figure(
        mode,
        format!(
            "{bytes} bytes at {speed} MB/s, {:.2} times as long as `| cat > /dev/null`; peaks of memory {peaks:?} KiB, idle {idle:?}; \
             {kept} bytes kept, {spill} on disk meanwhile; store grown by {grown}",
            took.as_secs_f64() / pipe.as_secs_f64()
        ),
    );
    assert_eq!(place.query(&format!("SELECT state {job}")), "completed");
    assert_eq!(kept + dropped, bytes as u64);
    assert!(kept <= LOG && spill <= LOG && grown <= MORE_STORE);
    assert!(!scale::full() || speed >= least, "{speed} MB/s");
    for (peak, idle) in peaks.into_iter().zip(idle) {
        assert!(peak - idle <= MORE_MEMORY, "{peaks:?} KiB, {idle:?} when idle");
    }
}

#[test]
fn a_flood_of_output_takes_little_memory_and_little_disk() {
    flood("flood", scale::many(10_000_000_000, 200_000_000), 50);
}

#[test]
fn a_flood_of_drops_on_both_streams_takes_little_memory_and_little_disk() {
    flood("drip", scale::many(500_000_000, 4_000_000), 10);
}
