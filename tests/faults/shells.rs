//! Completions as a person types them, in real shells on a real terminal.

use std::process::Output;

use crate::place::{Place, wait_until};

/// How often to look at the terminal before the key is pressed again: a shell that got no answer in time shows nothing.
const LOOKS: u32 = 100;

/// A shell in a terminal.
struct Terminal<'a> {
    place: &'a Place,
    name: &'static str,
}

impl<'a> Terminal<'a> {
    /// Starts a shell without the settings of anybody, and has it ask asyncq.
    fn start(place: &'a Place, (name, ask): (&'static str, &str)) -> Terminal<'a> {
        let terminal = Terminal { place, name };
        let shell = match name {
            "bash" => "bash --norc --noprofile",
            "zsh" => "zsh -f",
            _ => "fish --no-config",
        };
        terminal.tmux(&format!("new-session -d -x 150 -y 50 '{shell}'"));
        terminal.typed(&format!("{ask}; echo re''ady"));
        terminal.key("Enter");
        wait_until("the shell is ready", || terminal.shows("\nready\n"));
        terminal
    }

    fn tmux(&self, arguments: &str) -> Output {
        let output = self.place.run(&format!("tmux -S {0}.tmux -f /dev/null {arguments}", self.name));
        assert!(output.status.success(), "{arguments}: {output:?}");
        output
    }

    fn typed(&self, text: &str) {
        self.tmux(&format!("send-keys -l -- '{}'", text.replace('\'', r"'\''")));
    }

    fn key(&self, key: &str) {
        self.tmux(&format!("send-keys {key}"));
    }

    fn shows(&self, text: &str) -> bool {
        format!("\n{}", String::from_utf8(self.tmux("capture-pane -p").stdout).unwrap()).contains(text)
    }

    /// Types the beginning of a word, and has the shell complete it, until the command line is as expected.
    fn completes(&self, text: &str, expected: &str) {
        self.typed(text);
        let mut looks = 0;
        wait_until(&format!("{} makes `{expected}` of `{text}`", self.name), || {
            if looks % LOOKS == 0 {
                self.key("Tab");
            }
            looks += 1;
            self.shows(expected)
        });
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let _ = self.place.run(&format!("tmux -S {}.tmux kill-server", self.name));
    }
}

#[test]
fn names_are_completed_in_bash_zsh_and_fish() {
    let place = Place::with_functions(&[("fail", "exit 3"), ("pkg.mod:Class.work", "true")]);
    place.session(
        "
        $ asyncq enqueue events fail; asyncq -q process
        1
        ? 1
        $ asyncq enqueue events pkg.mod:Class.work --lane 'a lane'
        2
        ",
    );
    for shell in [
        ("bash", "source <(COMPLETE=bash asyncq)"),
        ("zsh", "autoload -Uz compinit; compinit -u -D; source <(COMPLETE=zsh asyncq)"),
        ("fish", "COMPLETE=fish asyncq | source"),
    ] {
        let terminal = Terminal::start(&place, shell);
        terminal.completes("asyncq job ret", "asyncq job retry");
        terminal.key("C-u");
        terminal.completes("asyncq job retry ", "asyncq job retry 1");
        terminal.key("C-u");
        terminal.completes("asyncq enqueue e", "asyncq enqueue events");
        terminal.key("C-u");
        terminal.completes("asyncq enqueue events pkg.mod:Cl", "asyncq enqueue events pkg.mod:Class.work");
        terminal.key("C-u");
        terminal.completes("asyncq job set 2 --lane a", r"asyncq job set 2 --lane a\ lane");
        terminal.key("C-u");
        terminal.completes("asyncq enqueue events fail --after=", "asyncq enqueue events fail --after=2");
    }
    // As a package installs it: a function that zsh loads when it is used first.
    place.stdout("mkdir functions; COMPLETE=zsh asyncq > functions/_asyncq");
    let load = "fpath=($PWD/functions $fpath); autoload -Uz compinit; compinit -u -D";
    let terminal = Terminal::start(&place, ("zsh", load));
    terminal.completes("asyncq job retry ", "asyncq job retry 1");
}
