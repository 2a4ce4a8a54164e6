//! Refuses systems other than Linux, and links the unwinder into the program where the compiler has it as an archive: a
//! process for each call is to start fast, and every library that is mapped costs such a start about 0.1 ms, this one most.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // Here and not by `compile_error!`, which the errors of all that is missing elsewhere would follow.
    if !is("CARGO_CFG_TARGET_OS", "linux") {
        println!("cargo::error=asyncq runs on Linux only: it needs `/proc`, pidfds and inotify");
        return;
    }
    // A linker that was chosen for this target has an unwinder of its own, and maybe an older C library than this machine.
    let has_linker = std::env::var_os("RUSTC_LINKER").is_some();
    if !is("CARGO_CFG_TARGET_ENV", "gnu") || !is("HOST", &target()) || has_linker {
        return;
    }
    let asked = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output();
    let Ok(path) = asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()) else { return };
    // A compiler that has none answers with the bare name.
    if let Some(folder) = Path::new(&path).parent().filter(|folder| folder.is_absolute()) {
        println!("cargo:rustc-link-search=native={}", folder.display());
        println!("cargo:rustc-link-lib=static:-bundle=gcc_eh");
    }
}

fn target() -> String {
    std::env::var("TARGET").unwrap_or_default()
}
