//! The reference of the command line, with a page for each command. `docs/cli.md` and the man pages are made from it.

use clap::Command;

/// The commands in their order, each before its subcommands. The first one shows the options that all commands take, and the others
/// hide them.
pub fn pages(mut root: Command) -> Vec<Command> {
    root.build();
    let mut pages = Vec::new();
    add(&root, &mut pages);
    pages
}

fn add(command: &Command, pages: &mut Vec<Command>) {
    let mut shown = command.clone();
    if !pages.is_empty() {
        shown = shown.mut_args(|arg| {
            let is_common = arg.is_global_set() || arg.get_id() == "help";
            arg.hide(is_common)
        });
    }
    pages.push(shown);
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        add(inner, pages);
    }
}

/// The help of all commands, in Markdown.
pub fn reference(root: Command) -> String {
    let mut out = String::from(
        "# The command line\n\nMade from the program by `cargo test`; do not edit.\n\n\
         Every command takes the options that are listed under `asyncq` as options for every command, and `--help`.\n",
    );
    for page in pages(root) {
        let name = page.get_bin_name().unwrap_or("asyncq").to_owned();
        let help = page.term_width(96).render_long_help().to_string();
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        out += &format!("\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    }
    out
}
