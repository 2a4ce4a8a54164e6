//! `asyncq schema`: JSON Schemas (draft 2020-12) of what programs may rely on.
//!
//! The schemas are written by hand. `tests/cli/schema.rs` checks that commands print what the schemas say, and that the schemas
//! still allow what they allowed before.

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value, json};

use super::{exit, stdio::print_line};

/// Types by their names, and for each command the type of its output or of a line of its input.
const SCHEMAS: &str = include_str!("schema.json");

/// The documents that [`SCHEMAS`] has, in the order in which the help lists them.
const NAMES: [&str; 15] = [
    "service-list",
    "service-show",
    "function-list",
    "function-show",
    "job-list",
    "job-show",
    "schedule-list",
    "schedule-show",
    "schedule-next",
    "due",
    "status",
    "explain",
    "doctor",
    "batch-line",
    "manifest",
];

/// Print JSON Schemas of what commands print with --json, of the lines of a batch, and of the manifest
///
/// From one version to the next, these change by additions only: a program may rely on all that a schema says, if it ignores
/// members that it does not know.
#[derive(Debug, Args)]
pub struct Schema {
    /// Only this one; without it, all of them, each under its name in `$defs`
    #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(NAMES))]
    name: Option<String>,
}

impl Schema {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<u8> {
        let mut all: Map<String, Value> = serde_json::from_str(SCHEMAS)?;
        let (types, documents) = (taken(&mut all, "types"), taken(&mut all, "documents"));
        let mut schema = json!({ "$schema": "https://json-schema.org/draft/2020-12/schema" });
        match self.name.and_then(|name| documents.get(&name).cloned()) {
            Some(document) => {
                merge(&mut schema, document);
                let mut used = Map::new();
                add_used(&mut used, &schema, &types);
                schema["$defs"] = used.into();
            }
            None => schema["$defs"] = types.into_iter().chain(documents).collect::<Map<_, _>>().into(),
        }
        print_line(serde_json::to_string_pretty(&schema)?)?;
        Ok(exit::DONE)
    }
}

fn taken(all: &mut Map<String, Value>, name: &str) -> Map<String, Value> {
    match all.remove(name) {
        Some(Value::Object(found)) => found,
        _ => Map::new(),
    }
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// Adds the types to which a schema refers, and those to which these do.
fn add_used(used: &mut Map<String, Value>, schema: &Value, types: &Map<String, Value>) {
    match schema {
        Value::Object(members) => {
            let name = members.get("$ref").and_then(Value::as_str).and_then(|it| it.strip_prefix("#/$defs/"));
            if let Some((name, found)) = name.and_then(|name| Some((name, types.get(name)?)))
                && !used.contains_key(name)
            {
                used.insert(name.to_owned(), found.clone());
                add_used(used, found, types);
            }
            members.values().for_each(|value| add_used(used, value, types));
        }
        Value::Array(items) => items.iter().for_each(|item| add_used(used, item, types)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;

    /// The names of the commands with `--json` below this one.
    fn with_json(command: &clap::Command, path: &str, found: &mut BTreeSet<String>) {
        if command.get_arguments().any(|arg| arg.get_long() == Some("json")) {
            found.insert(path.trim_start_matches('-').to_owned());
        }
        for inner in command.get_subcommands() {
            with_json(inner, &format!("{path}-{}", inner.get_name()), found);
        }
    }

    #[test]
    fn every_output_has_a_schema() {
        let mut all: Map<String, Value> = serde_json::from_str(SCHEMAS).unwrap();
        let (types, documents) = (taken(&mut all, "types"), taken(&mut all, "documents"));
        assert!(documents.keys().map(String::as_str).eq(BTreeSet::from(NAMES)));
        assert!(documents.keys().all(|name| !types.contains_key(name)), "one name, two schemas");
        let (mut command, mut found) =
            (crate::cli::Cli::command(), BTreeSet::from(["batch-line", "manifest"].map(str::to_owned)));
        command.build();
        with_json(&command, "", &mut found);
        assert!(found.iter().map(String::as_str).eq(BTreeSet::from(NAMES)), "{found:?}");
    }
}
