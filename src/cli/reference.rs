//! The reference of the command line, `docs/cli.md`.

/// The help of a command and of all its subcommands, in Markdown. The options that every command takes are listed once.
pub fn reference(mut root: clap::Command) -> String {
    root.build();
    let mut out = String::from(
        "# The command line\n\nMade from the program by `cargo test`; do not edit.\n\n\
         Every command takes the options that are listed under `asyncq` as options for every command, and `--help`.\n",
    );
    add(&mut root, &mut out);
    out
}

fn add(command: &mut clap::Command, out: &mut String) {
    let name = command.get_bin_name().unwrap_or("asyncq").to_owned();
    let mut shown = command.clone().term_width(96);
    if name != "asyncq" {
        shown = shown.mut_args(|arg| {
            let is_common = arg.is_global_set() || arg.get_id() == "help";
            arg.hide(is_common)
        });
    }
    let help = shown.render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    *out += &format!("\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    for inner in command.get_subcommands_mut().filter(|inner| inner.get_name() != "help") {
        add(inner, out);
    }
}
