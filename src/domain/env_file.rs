//! Files of environment variables, with one `NAME=VALUE` on each line.

use crate::domain::text::escape_control;

/// The largest of these files, in bytes.
pub const LARGEST_ENV_FILE: u64 = 1024 * 1024;

/// Variables and their values.
pub type Variables = Vec<(String, Vec<u8>)>;

/// Parses the content of a file. It ignores empty lines, and lines that begin with `#`. It also ignores space around a line, and
/// quotes around a whole value, between which nothing is special.
///
/// # Errors
/// What is wrong with which line, without its value.
pub fn parse_env_file(bytes: &[u8]) -> Result<Variables, String> {
    let mut variables = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let wrong = |what: &str| format!("line {}: {what}", index + 1);
        let Some(equals) = line.iter().position(|byte| *byte == b'=') else {
            return Err(wrong("it is not NAME=VALUE"));
        };
        let (name, value) = (&line[..equals], unquote(&line[equals + 1..]).map_err(wrong)?);
        let is_name = |name: &&str| !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control());
        let Some(name) = std::str::from_utf8(name).ok().filter(is_name) else {
            return Err(wrong("what stands before `=` is not the name of a variable"));
        };
        if name.starts_with("ASYNCQ_") {
            return Err(wrong(&format!("asyncq itself sets `{}`", escape_control(name))));
        }
        if value.contains(&0) {
            return Err(wrong("it has a NUL character"));
        }
        variables.push((name.to_owned(), value.to_vec()));
    }
    Ok(variables)
}

/// A value without the quotes around it.
fn unquote(value: &[u8]) -> Result<&[u8], &'static str> {
    match value {
        [quote @ (b'"' | b'\''), inner @ .., last] if quote == last => Ok(inner),
        [b'"' | b'\'', ..] => Err("its value begins with a quote that does not end it"),
        _ => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_variables() {
        let text = b"# secrets\n\n A=1\r\nB=\nC=\" x = 'y' \"\nD='#'\nE=a#b \"c\"\n\tF=\xff\nA=2";
        let found = parse_env_file(text).unwrap();
        let expected: [(&str, &[u8]); 7] = [
            ("A", b"1"),
            ("B", b""),
            ("C", b" x = 'y' "),
            ("D", b"#"),
            ("E", b"a#b \"c\""),
            ("F", b"\xff"),
            ("A", b"2"),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_vec())));
        assert_eq!(parse_env_file(b""), Ok(Vec::new()));
    }

    #[test]
    fn a_line_that_is_no_assignment_is_refused_and_not_shown() {
        for (text, said) in [
            (&b"A=1\nhunter2"[..], "line 2: it is not NAME=VALUE"),
            (b"export A=1", "line 1: what stands before `=` is not the name of a variable"),
            (b"=1", "line 1: what stands before `=` is not the name of a variable"),
            (b"A =1", "line 1: what stands before `=` is not the name of a variable"),
            (b"\xff=1", "line 1: what stands before `=` is not the name of a variable"),
            (b"ASYNCQ_DB=x", "line 1: asyncq itself sets `ASYNCQ_DB`"),
            (b"A=\0", "line 1: it has a NUL character"),
            (b"A=\"x", "line 1: its value begins with a quote that does not end it"),
            (b"A='", "line 1: its value begins with a quote that does not end it"),
        ] {
            assert_eq!(parse_env_file(text), Err(said.to_owned()), "{}", text.escape_ascii());
        }
    }
}
