//! The `asyncq` command.

fn main() -> std::process::ExitCode {
    asyncq::cli::main()
}
