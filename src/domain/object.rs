//! Parsing JSON objects into structures, with errors in plain words.

use serde::Deserialize;

use super::json::{entries, explain, offset};
use super::{suggest::nearest, text::escape_control};

/// Parses an object. serde alone would also accept an array of the members in their order, which no document promises.
///
/// # Errors
/// What is wrong with it, as a part of a sentence.
pub fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    let is_object = text.trim_ascii_start().starts_with('{');
    match serde_json::from_str(text) {
        Ok(object) if is_object => Ok(object),
        Err(error) if !error.is_data() => Err(explain(text, &error)),
        Err(error) if is_object => Err(wrong_member(text, offset(text, &error), &error.to_string())),
        _ => Err("it has to be an object".to_owned()),
    }
}

/// The message about a member of an object that is missing, unknown, or of the wrong kind.
fn wrong_member(text: &str, at: usize, said: &str) -> String {
    let named = said.split('`').nth(1).map(escape_control).unwrap_or_default();
    let said = said.split(" at line ").next().unwrap_or_default();
    if said.starts_with("missing field") {
        return format!("`{named}` is missing");
    }
    if said.starts_with("duplicate field") {
        return format!("`{named}` is given twice");
    }
    if let Some(rest) = said.strip_prefix("unknown field") {
        // An object without members has none to expect.
        let known = rest.split_once("expected").map_or("", |(_, known)| known);
        let near = nearest(&named, known.split('`').skip(1).step_by(2));
        let near = near.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
        return format!("`{named}` is not known{near}");
    }
    let member = entries(text)
        .into_iter()
        .find(|(_, value)| {
            let from = value.as_ptr() as usize - text.as_ptr() as usize;
            // At an array or an object, serde stops at its first byte.
            (from - 1..=from + value.len()).contains(&at)
        })
        .map_or_else(|| "it".to_owned(), |(name, _)| format!("`{}`", escape_control(&name)));
    if let Some((_, known)) = said.strip_prefix("unknown variant").and_then(|rest| rest.split_once("expected")) {
        let known: Vec<String> = known.split('`').skip(1).step_by(2).map(|name| format!("\"{name}\"")).collect();
        return format!("{member} has to be {}", known.join(" or "));
    }
    let wanted = said.rsplit_once("expected ").map(|(_, wanted)| wanted).unwrap_or_default();
    let wanted = match wanted {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "an array of length 2" | "a tuple of size 2" => "an array of two numbers",
        "a string" | "a borrowed string" => "a string",
        other if other == "a map" || other.starts_with("struct ") => "an object",
        _ => return format!("{member} is of another kind than it has to be"),
    };
    format!("{member} has to be {wanted}")
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether it can be read matters")]
    struct Thing<'a> {
        #[serde(borrow)]
        name: Cow<'a, str>,
        count: Option<u64>,
        level: Option<i64>,
        share: Option<f64>,
        pair: Option<[u64; 2]>,
        list: Option<Vec<String>>,
        on: Option<bool>,
        kind: Option<ObjectKind>,
        inner: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum ObjectKind {
        Hot,
        VeryCold,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {}

    #[test]
    fn what_is_wrong_is_said_in_plain_words() {
        for (text, said) in [
            ("", "it is not complete"),
            ("{", "it is not complete"),
            (r#"{"name":"#, "it is not complete"),
            (r#"["x",1,null,null,null,null,null,null,null]"#, "it has to be an object"),
            ("3", "it has to be an object"),
            ("nonsense", "unexpected `o` at column 2"),
            ("[1,]", "it has to be an object"),
            (r#"{"name":"x",}"#, "unexpected `}` at column 13"),
            (r#"{"name" "x"}"#, "unexpected `\"` at column 9"),
            ("{\n \"name\": ä}", "unexpected `ä` at line 2, column 10"),
            ("{\"name\":\"a\nb\"}", "unexpected `\\n` at column 11"),
            (r#"{"name":"x"} {"#, "unexpected `{` at column 14"),
            (r#"{"name":01}"#, "unexpected `1` at column 10"),
            ("{}", "`name` is missing"),
            (r#"{"name":"x","name":"y"}"#, "`name` is given twice"),
            (r#"{"nmae":"x"}"#, "`nmae` is not known, did you mean `name`?"),
            (r#"{"\u001b[2J":"x"}"#, r"`\u{1b}[2J` is not known"),
            (r#"{"xyz":"x"}"#, "`xyz` is not known"),
            (r#"{"name":3}"#, "`name` has to be a string"),
            (r#"{"name":"x","count":-1}"#, "`count` has to be a whole number from 0"),
            (r#"{"name":"x","count":1.5}"#, "`count` has to be a whole number from 0"),
            (r#"{"name":"x","level":"high"}"#, "`level` has to be a whole number"),
            (r#"{"name":"x","share":"half","on":true}"#, "`share` has to be a number"),
            (r#"{"name":"x","pair":3}"#, "`pair` has to be an array of two numbers"),
            (r#"{"name":"x","pair":[3]}"#, "`pair` has to be an array of two numbers"),
            (r#"{"name":"x","list":{}}"#, "`list` has to be an array"),
            (r#"{"name":"x","on":"yes"}"#, "`on` has to be true or false"),
            (r#"{"name":"x","kind":"warm"}"#, r#"`kind` has to be "hot" or "very-cold""#),
            (r#"{"name":"x","inner":3}"#, "`inner` has to be an object"),
        ] {
            assert_eq!(read::<Thing<'_>>(text).unwrap_err(), said, "{text}");
        }
        assert!(read::<Thing<'_>>("\n {\"name\":\"x\",\"pair\":[1,2]} ").is_ok());
    }
}
