//! Writes the man pages of asyncq into a folder: `cargo run --example man_pages FOLDER`. Packages hold them; the program does not.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap_mangen::Man;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("name the folder for the man pages")?);
    fs::create_dir_all(&folder)?;
    let date = date()?;
    for command in asyncq::pages() {
        let (name, page) = page(command, &date)?;
        fs::write(folder.join(name), page)?;
    }
    Ok(())
}

/// The page of a command, in the language of `man`, and the name of its file.
fn page(mut command: clap::Command, date: &str) -> Result<(String, String), Box<dyn Error>> {
    let is_first = command.get_bin_name().is_none_or(|name| name == "asyncq");
    if command.find_subcommand("help").is_some() {
        command = command.mut_subcommand("help", |help| help.hide(true));
    }
    let source = format!("asyncq {}", env!("CARGO_PKG_VERSION"));
    let title = command.get_display_name().unwrap_or("asyncq").to_uppercase();
    let man = Man::new(command).title(title).date(date).source(source).manual("asyncq");
    let mut page = Vec::new();
    man.render(&mut page)?;
    let mut page = tidy(&String::from_utf8(page)?);
    if !is_first {
        page += ".SH SEE ALSO\nThe options that every command takes are in\n.BR asyncq (1).\n";
    }
    Ok((man.get_filename(), page))
}

/// The same page, with lines that people can read, and without breaks where a line ends anyway.
fn tidy(page: &str) -> String {
    const WIDTH: usize = 80;
    let mut lines: Vec<String> = Vec::new();
    let is_macro = |line: &str| line.starts_with(['.', '\'']);
    for line in page.lines() {
        let follows_break = lines.last().is_some_and(|last| [".br", ".sp"].contains(&last.as_str()));
        match line.trim_end() {
            "" => {}
            // A blank line is what two breaks are to become.
            ".br" if follows_break => {
                lines.pop();
                lines.push(".sp".to_owned());
            }
            line if is_macro(line) => lines.push(line.to_owned()),
            line => {
                let mut wrapped = String::new();
                for word in line.split(' ') {
                    if !wrapped.is_empty() && wrapped.chars().count() + 1 + word.chars().count() > WIDTH {
                        lines.push(std::mem::take(&mut wrapped));
                    }
                    if !wrapped.is_empty() {
                        wrapped.push(' ');
                    } else if is_macro(word) {
                        wrapped.push_str("\\&");
                    }
                    wrapped += word;
                }
                lines.push(wrapped);
            }
        }
    }
    lines.join("\n") + "\n"
}

/// The day on which the source last changed, if the build says so, else today.
fn date() -> Result<String, Box<dyn Error>> {
    let now = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => jiff::Timestamp::from_second(seconds.parse()?)?,
        Err(_) => jiff::Timestamp::now(),
    };
    Ok(now.strftime("%Y-%m-%d").to_string())
}
