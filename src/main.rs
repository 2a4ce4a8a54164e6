//! The `asyncq` command.

fn main() -> std::process::ExitCode {
    asyncq::main()
}
