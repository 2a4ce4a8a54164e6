//! How large a test is, with which seed, and what it found.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

/// How a run was told its size: `full`, or `full/4` for a quarter of that; nothing for a small run.
fn size() -> Option<String> {
    std::env::var("ASYNCQ_FAULTS").ok().filter(|size| size.starts_with("full"))
}

/// Whether the tests run at full size, or at a part of it.
pub fn full() -> bool {
    size().is_some()
}

/// How many, at full size or otherwise. A part of the full size is no smaller than the small one.
pub fn many(full_size: usize, small: usize) -> usize {
    let Some(size) = size() else { return small };
    let part = size.split_once('/').map_or(1, |(_, part)| part.parse().expect("ASYNCQ_FAULTS is full or full/NUMBER"));
    (full_size / part).max(small.min(full_size))
}

/// What decides every random choice of the tests: `ASYNCQ_SEED`, else always the same for small runs and a new one for
/// full ones.
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let given = std::env::var("ASYNCQ_SEED").ok().map(|text| text.parse().expect("ASYNCQ_SEED is a number"));
        let seed = given.unwrap_or_else(|| if full() { fastrand::u64(..1_000_000_000) } else { 1 });
        eprintln!("seed: {seed}");
        seed
    })
}

/// A source of random choices of its own for each test, so that they can run in any order.
pub fn random(test: &str) -> fastrand::Rng {
    let name = test.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    fastrand::Rng::with_seed(seed() ^ name)
}

/// Tells a figure: printed, and kept in `target/faults.txt`, from where `docs/reliability.md` has its numbers.
pub fn figure(test: &str, text: impl Display) {
    let line = format!("{test} (seed {}): {text}", seed());
    eprintln!("{line}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/faults.txt");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    writeln!(file, "{}{line}", size().map(|size| format!("{size}: ")).unwrap_or_default()).unwrap();
}
