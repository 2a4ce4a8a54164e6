//! Signatures: which arguments a function takes. `docs/functions.md` describes how to write them.

use std::borrow::Cow;
use std::fmt;

use super::arg_type::{ArgType, value_in_words};
use super::call::Call;
use super::json::{Json, quote};
use super::suggest::nearest;
use super::text::escape_control;
use crate::error::{Error, Kind, Result};

/// The longest signature, in bytes.
pub const LONGEST_SIGNATURE: usize = 4096;

/// The longest name of an argument, in bytes.
const LONGEST_NAME: usize = 255;

/// One argument, or all further ones.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parameter {
    name: String,
    kind: Option<ArgType>,
    is_required: bool,
}

impl Parameter {
    /// A value as the function gets it: the same, or what a typed word stands for. `None` if it has another type. For an optional
    /// argument, null counts as missing.
    fn accept<'a>(&self, value: &'a str, typed: bool) -> Option<Cow<'a, str>> {
        let Some(kind) = self.kind else { return Some(value.into()) };
        if kind.has(value) {
            return Some(value.into());
        }
        let word = if typed { kind.of_word(value).map(Cow::from) } else { None };
        word.or_else(|| (value == "null" && !self.is_required).then(|| value.into()))
    }

    /// As it is written, with these words before and after its name and type.
    fn write(&self, before: &str, dots: &str) -> String {
        let kind = self.kind.map(|kind| format!(":{}", kind.as_str())).unwrap_or_default();
        let text = format!("{before}{}{kind}{dots}", self.name);
        if self.is_required { text } else { format!("[{text}]") }
    }

    /// As it is typed on a command line.
    fn keyword(&self) -> String {
        let value = self.kind.map_or("VALUE", ArgType::as_str);
        let text = format!("-k {}={value}", self.name);
        if self.is_required { text } else { format!("[{text}]") }
    }
}

/// Which arguments a function takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signature {
    /// The positional ones, required ones first.
    positional: Vec<Parameter>,
    /// All further positional ones; at least one if it is required.
    rest: Option<Parameter>,
    /// Those that are given by name.
    keywords: Vec<Parameter>,
    /// All others that are given by name.
    other_keywords: Option<Parameter>,
}

/// As [`Signature::parse`] reads it.
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = self.rest.iter().map(|it| it.write("", "..."));
        let others = self.other_keywords.iter().map(|it| it.write("--", "..."));
        let keywords = self.keywords.iter().map(|it| it.write("--", ""));
        let all: Vec<String> =
            self.positional.iter().map(|it| it.write("", "")).chain(rest).chain(keywords).chain(others).collect();
        f.write_str(&all.join(" "))
    }
}

impl Signature {
    /// Parses a signature: `to subject:text [body] files... --unit:int [--html] [--other...]`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when it is none.
    pub fn parse(text: &str) -> Result<Signature> {
        if text.len() > LONGEST_SIGNATURE {
            let message = format!("a signature has at most {LONGEST_SIGNATURE} bytes, and this one has {}", text.len());
            return Err(usage(message, "let the function take a list or an object instead"));
        }
        let mut signature = Signature::default();
        for word in text.split_ascii_whitespace() {
            signature.add(word)?;
        }
        Ok(signature)
    }

    /// Adds the argument that this word describes.
    fn add(&mut self, word: &str) -> Result<()> {
        let shown = escape_control(word);
        let (inner, is_required) = match (word.strip_prefix('['), word.strip_suffix(']')) {
            (None, None) => (word, true),
            (Some(inner), Some(_)) => (inner.strip_suffix(']').unwrap_or(inner), false),
            _ => {
                let message = format!("`{shown}` has only one bracket");
                return Err(usage(message, "write `[NAME]`, without a space, for an argument that may be left out"));
            }
        };
        let (inner, is_keyword) = inner.strip_prefix("--").map_or((inner, false), |inner| (inner, true));
        let (inner, dots_at_end) = inner.strip_suffix("...").map_or((inner, false), |inner| (inner, true));
        let (name, kind) = inner.split_once(':').map_or((inner, None), |(name, kind)| (name, Some(kind)));
        let (name, dots_after_name) = name.strip_suffix("...").map_or((name, false), |name| (name, true));
        check_name(name)?;
        let kind = kind.map(ArgType::parse).transpose()?;
        if self.names().any(|other| other == name) {
            let message = format!("the signature names `{name}` twice");
            return Err(usage(message, "give each argument a name of its own"));
        }
        let (parameter, is_rest) =
            (Parameter { name: name.to_owned(), kind, is_required }, dots_at_end || dots_after_name);
        match (is_keyword, is_rest) {
            (true, true) if is_required => {
                let message = format!("`{shown}` stands for any other keyword argument, so it cannot be required");
                Err(usage(message, format!("write `[--{name}...]`")))
            }
            (true, true) if self.other_keywords.is_some() => {
                let message = format!("`{shown}` is the second that stands for any other keyword argument");
                Err(usage(message, "leave one of them out"))
            }
            (true, true) => {
                self.other_keywords = Some(parameter);
                Ok(())
            }
            (true, false) => {
                self.keywords.push(parameter);
                Ok(())
            }
            (false, _) => self.add_positional(parameter, is_rest),
        }
    }

    fn add_positional(&mut self, parameter: Parameter, is_rest: bool) -> Result<()> {
        let name = &parameter.name;
        if let Some(rest) = &self.rest {
            let message = format!("`{name}` stands after `{}...`, which takes all further arguments", rest.name);
            return Err(usage(message, format!("write `{}...` last", rest.name)));
        }
        if let Some(last) = self.positional.last().filter(|last| parameter.is_required && !last.is_required) {
            let message = format!("`{name}` is required, and stands after `[{}]`, which may be left out", last.name);
            return Err(usage(message, format!("write `{name}` before `[{}]`, or `[{name}]`", last.name)));
        }
        if is_rest {
            self.rest = Some(parameter);
        } else {
            self.positional.push(parameter);
        }
        Ok(())
    }

    /// How many positional arguments there are at least.
    #[must_use]
    pub fn least(&self) -> usize {
        let required = self.positional.iter().filter(|it| it.is_required).count();
        required + usize::from(self.rest.as_ref().is_some_and(|rest| rest.is_required))
    }

    /// How many positional arguments there are at most; `None` for any number.
    #[must_use]
    pub fn most(&self) -> Option<usize> {
        self.rest.is_none().then_some(self.positional.len())
    }

    /// The names of all arguments.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let positional = self.positional.iter().chain(&self.rest);
        positional.chain(&self.keywords).chain(&self.other_keywords).map(|it| it.name.as_str())
    }

    /// The name of the argument at this place, counted from 0.
    #[must_use]
    pub fn name_at(&self, place: usize) -> Option<&str> {
        self.positional.get(place).or(self.rest.as_ref()).map(|it| it.name.as_str())
    }

    /// Whether an argument with this name can be given by name.
    #[must_use]
    pub fn has_keyword(&self, name: &str) -> bool {
        let named = self.positional.iter().chain(&self.keywords).any(|it| it.name == name);
        named || self.other_keywords.is_some()
    }

    /// How to type a call, after the names of its service and function.
    #[must_use]
    pub fn usage(&self) -> String {
        let rest = self.rest.iter().map(|it| it.write("", "..."));
        let others = self.other_keywords.iter().map(|_| "[-k NAME=VALUE]...".to_owned());
        let keywords = self.keywords.iter().map(Parameter::keyword);
        let all: Vec<String> =
            self.positional.iter().map(|it| it.write("", "")).chain(rest).chain(keywords).chain(others).collect();
        all.join(" ")
    }

    /// Checks a call of the function. Returns positional and keyword arguments if the function gets others than those in the call:
    /// a named argument that has a place moves to that place, and typed words become what their types make of them. No message
    /// shows the value of an argument, because it may be secret.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the function does not take these arguments.
    pub fn fit(&self, call: &Call) -> Result<Option<(Json, Json)>> {
        let (mut args, mut named) = (call.args.elements(), call.kwargs.entries());
        let given = (args.len(), named.len());
        while let Some(next) = self.positional.get(args.len()) {
            let Some(at) = named.iter().position(|(name, _)| *name == next.name) else { break };
            args.push(named.remove(at).1);
        }
        let named_count = named.len();
        if args.len() < self.least() || self.most().is_some_and(|most| args.len() > most) {
            return Err(self.misfit(call, &format!("takes {}, you gave {}", self.counts(), args.len())));
        }
        let mut fits = Fitting { signature: self, call, changed: (args.len(), named_count) != given };
        let args = args.into_iter().enumerate().map(|(place, value)| {
            let parameter = self.positional.get(place).or(self.rest.as_ref());
            parameter.map_or_else(|| Ok(value.into()), |parameter| fits.accept(parameter, &parameter.name, value))
        });
        let args = args.collect::<Result<Vec<Cow<'_, str>>>>()?;
        let kwargs = named.iter().map(|(name, value)| {
            let parameter = self.keyword(call, name, args.len())?;
            Ok((name, fits.accept(parameter, name, value)?))
        });
        let kwargs = kwargs.collect::<Result<Vec<_>>>()?;
        let is_missing = |it: &&Parameter| it.is_required && !named.iter().any(|(name, _)| *name == it.name);
        if let Some(missing) = self.keywords.iter().find(is_missing) {
            return Err(self.misfit(call, &format!("needs the keyword argument `{}`", missing.name)));
        }
        if !fits.changed {
            return Ok(None);
        }
        let entries: Vec<String> = kwargs.iter().map(|(name, value)| format!("{}:{value}", quote(name))).collect();
        // Its text is as long as those of the arguments together, or longer by the quotes of words.
        let parse = |text: String| {
            Json::take(text).map_err(|fault| Error::new(Kind::Invalid, format!("the arguments together: {fault}")))
        };
        Ok(Some((parse(format!("[{}]", args.join(",")))?, parse(format!("{{{}}}", entries.join(",")))?)))
    }

    /// The argument with this name, in a call with `given` positional ones.
    fn keyword(&self, call: &Call, name: &str, given: usize) -> Result<&Parameter> {
        let place = self.positional.iter().position(|it| it.name == name);
        if place.is_some_and(|place| place < given) {
            return Err(self.misfit(call, &format!("was given its argument `{name}` twice")));
        }
        let own =
            place.map(|place| &self.positional[place]).or_else(|| self.keywords.iter().find(|it| it.name == name));
        own.or(self.other_keywords.as_ref()).ok_or_else(|| {
            let error = self.misfit(call, &format!("takes no argument `{}`", escape_control(name)));
            let all = self.positional.iter().chain(&self.keywords).map(|it| it.name.as_str());
            match nearest(name, all) {
                Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                None => error,
            }
        })
    }

    /// How many arguments it takes, in words.
    fn counts(&self) -> String {
        let arguments = |count| if count == 1 { "argument" } else { "arguments" };
        match (self.least(), self.most()) {
            (least, None) => format!("at least {least} {}", arguments(least)),
            (0, Some(0)) => "no arguments".to_owned(),
            (least, Some(most)) if least == most => format!("{most} {}", arguments(most)),
            (0, Some(most)) => format!("at most {most} {}", arguments(most)),
            (least, Some(most)) => format!("{least} to {most} arguments"),
        }
    }

    fn misfit(&self, call: &Call, what: &str) -> Error {
        let Call { service, function, .. } = call;
        let usage_of = format!("usage: asyncq enqueue {service} {function} {}", self.usage());
        usage(format!("`{service} {function}` {what}"), usage_of.trim_end())
    }
}

/// A call as a function with this signature gets it. Without a signature, it stays unchanged.
///
/// # Errors
/// As [`Signature::fit`].
pub fn fitted(call: Call, takes: Option<&Signature>) -> Result<Call> {
    let fitted = takes.map(|takes| takes.fit(&call)).transpose()?.flatten();
    let is_typed = false;
    Ok(match fitted {
        Some((args, kwargs)) => Call { args, kwargs, is_typed, ..call },
        None => Call { is_typed, ..call },
    })
}

/// A call whose arguments are checked one after the other.
struct Fitting<'a> {
    signature: &'a Signature,
    call: &'a Call,
    changed: bool,
}

impl Fitting<'_> {
    fn accept<'v>(&mut self, parameter: &Parameter, name: &str, value: &'v str) -> Result<Cow<'v, str>> {
        let Some(taken) = parameter.accept(value, self.call.is_typed) else {
            let wanted = parameter.kind.map_or("another value", ArgType::words);
            let what = format!("takes {wanted} as `{}`, you gave {}", escape_control(name), value_in_words(value));
            return Err(self.signature.misfit(self.call, &what));
        };
        self.changed |= matches!(taken, Cow::Owned(_));
        Ok(taken)
    }
}

fn check_name(name: &str) -> Result<()> {
    let mut letters = name.chars();
    let begins = letters.next().is_some_and(|first| first.is_alphabetic() || first == '_');
    if begins && letters.all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.')) && name.len() <= LONGEST_NAME {
        return Ok(());
    }
    let message = format!("`{}` cannot be the name of an argument", escape_control(name));
    let hint = if name.contains('=') {
        "a signature has no default values: write `[NAME]` for an argument that may be left out".to_owned()
    } else {
        format!(
            "a name begins with a letter or `_`, goes on with letters, digits, `_`, `-` and `.`, and has at most {LONGEST_NAME} bytes"
        )
    };
    Err(usage(message, hint))
}

fn usage(message: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::new(Kind::Usage, message).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::name::{FunctionName, ServiceName};

    fn call(args: &str, kwargs: &str, is_typed: bool) -> Call {
        let (service, function) = (ServiceName::parse("s").unwrap(), FunctionName::parse("f").unwrap());
        let new = Call::new(service, function, Json::parse(args).unwrap(), Json::parse(kwargs).unwrap());
        Call { is_typed, ..new }
    }

    fn fit(signature: &str, args: &str, kwargs: &str) -> Result<Option<(Json, Json)>> {
        Signature::parse(signature).unwrap().fit(&call(args, kwargs, false))
    }

    fn said(error: &Error) -> (String, &str) {
        (error.to_string(), error.hint().unwrap_or_default())
    }

    #[test]
    fn a_signature_is_read_back_and_counts_its_arguments() {
        for (text, written, usage, least, most) in [
            ("", "", "", 0, Some(0)),
            ("a:int  b:int", "a:int b:int", "a:int b:int", 2, Some(2)),
            ("--html to [body:text]", "to [body:text] --html", "to [body:text] -k html=VALUE", 1, Some(2)),
            ("a rest...", "a rest...", "a rest...", 2, None),
            ("[rest...:int]", "[rest:int...]", "[rest:int...]", 0, None),
            ("[--x:bool] [--more...]", "[--x:bool] [--more...]", "[-k x=bool] [-k NAME=VALUE]...", 0, Some(0)),
            ("größe a-b.c", "größe a-b.c", "größe a-b.c", 2, Some(2)),
        ] {
            let signature = Signature::parse(text).unwrap();
            assert_eq!(signature.to_string(), written, "{text}");
            assert_eq!(signature.usage(), usage, "{text}");
            assert_eq!((signature.least(), signature.most()), (least, most), "{text}");
            assert_eq!(Signature::parse(written).unwrap(), signature, "{text}");
        }
    }

    #[test]
    fn a_bad_signature_says_what_is_wrong_and_what_helps() {
        let types = "the types are text, int, number, bool, list and object";
        let names = "a name begins with a letter or `_`, goes on with letters, digits, `_`, `-` and `.`, and has at most 255 bytes";
        for (text, message, hint) in [
            (
                "[a] b",
                "`b` is required, and stands after `[a]`, which may be left out",
                "write `b` before `[a]`, or `[b]`",
            ),
            (
                "[a] b...",
                "`b` is required, and stands after `[a]`, which may be left out",
                "write `b` before `[a]`, or `[b]`",
            ),
            ("a... b", "`b` stands after `a...`, which takes all further arguments", "write `a...` last"),
            ("a --a", "the signature names `a` twice", "give each argument a name of its own"),
            ("a:str", "there is no type `str`", &format!("did you mean `text`? {types}")),
            ("a:nubmer", "there is no type `nubmer`", &format!("did you mean `number`? {types}")),
            ("a:x", "there is no type `x`", types),
            ("a:", "there is no type ``", types),
            (
                "[ a ]",
                "`[` has only one bracket",
                "write `[NAME]`, without a space, for an argument that may be left out",
            ),
            ("3x", "`3x` cannot be the name of an argument", names),
            ("[]", "`` cannot be the name of an argument", names),
            (
                "a=3",
                "`a=3` cannot be the name of an argument",
                "a signature has no default values: write `[NAME]` for an argument that may be left out",
            ),
            ("--a...", "`--a...` stands for any other keyword argument, so it cannot be required", "write `[--a...]`"),
            (
                "[--a...] [--b...]",
                "`[--b...]` is the second that stands for any other keyword argument",
                "leave one of them out",
            ),
        ] {
            let error = Signature::parse(text).expect_err(text);
            assert_eq!((said(&error), error.kind()), ((message.to_owned(), hint), Kind::Usage), "{text}");
        }
        let error = Signature::parse(&"a ".repeat(50 * 1024)).unwrap_err();
        let message = "a signature has at most 4096 bytes, and this one has 102400";
        assert_eq!(said(&error), (message.to_owned(), "let the function take a list or an object instead"));
    }

    #[test]
    fn calls_are_checked() {
        let usage = |rest: &str| format!("usage: asyncq enqueue s f {rest}").trim_end().to_owned();
        let mails = "to subject:text [body] [--html:bool] --from";
        let typed = "to subject:text [body] [-k html=bool] -k from=VALUE";
        for (signature, args, kwargs, message, hint) in [
            ("a:int b:int", "[1]", "{}", "`s f` takes 2 arguments, you gave 1", usage("a:int b:int")),
            ("a [b]", "[1,2,3]", "{}", "`s f` takes 1 to 2 arguments, you gave 3", usage("a [b]")),
            ("", "[1]", "{}", "`s f` takes no arguments, you gave 1", usage("")),
            ("a...", "[]", "{}", "`s f` takes at least 1 argument, you gave 0", usage("a...")),
            ("[a]", "[1,2]", "{}", "`s f` takes at most 1 argument, you gave 2", usage("[a]")),
            ("a:int", "[1.5]", "{}", "`s f` takes a whole number as `a`, you gave a number", usage("a:int")),
            ("a:int", "[1e3]", "{}", "`s f` takes a whole number as `a`, you gave a number", usage("a:int")),
            ("a:int", "[null]", "{}", "`s f` takes a whole number as `a`, you gave null", usage("a:int")),
            ("a:text", "[7]", "{}", "`s f` takes text as `a`, you gave a whole number", usage("a:text")),
            ("a:bool...", "[true,[]]", "{}", "`s f` takes true or false as `a`, you gave a list", usage("a:bool...")),
            ("a:list", "[{}]", "{}", "`s f` takes a list as `a`, you gave an object", usage("a:list")),
            ("a:object", "[\"\"]", "{}", "`s f` takes an object as `a`, you gave text", usage("a:object")),
            ("a:number", "[true]", "{}", "`s f` takes a number as `a`, you gave true or false", usage("a:number")),
            (mails, "[1,\"\"]", "{}", "`s f` needs the keyword argument `from`", usage(typed)),
            (
                mails,
                "[1,\"\"]",
                r#"{"htlm":true}"#,
                "`s f` takes no argument `htlm`",
                "did you mean `html`?".to_owned(),
            ),
            (mails, "[1,\"\"]", r#"{"zzzz":true}"#, "`s f` takes no argument `zzzz`", usage(typed)),
            (mails, "[1,\"\"]", r#"{"to":2}"#, "`s f` was given its argument `to` twice", usage(typed)),
        ] {
            let error = fit(signature, args, kwargs).expect_err(args);
            assert_eq!((said(&error), error.kind()), ((message.to_owned(), hint.as_str()), Kind::Usage), "{args}");
        }
        for (signature, args, kwargs) in [
            ("a:int b:number", "[-0,1.5e400]", "{}"),
            ("[a:int]", "[null]", "{}"),
            ("[a:int]", "[]", "{}"),
            ("a", "[null]", "{}"),
            ("a [rest:text...]", r#"[1,"x","y"]"#, "{}"),
            ("[--x:int] [--more:text...]", "[]", r#"{"y":"z"}"#),
            ("[a] [b] [c]", "[1]", r#"{"c":3}"#),
        ] {
            assert_eq!(fit(signature, args, kwargs).unwrap(), None, "{signature} {args} {kwargs}");
        }
    }

    #[test]
    fn an_argument_that_is_named_gets_its_place() {
        let fitted = |signature, args, kwargs| {
            let (args, kwargs) = fit(signature, args, kwargs).unwrap().unwrap();
            (args.to_string(), kwargs.to_string())
        };
        assert_eq!(fitted("a b [c]", "[1]", r#"{"c":3, "b":2}"#), ("[1,2,3]".to_owned(), "{}".to_owned()));
        assert_eq!(
            fitted("a [b] [c] [--d]", "[]", r#"{"d":4,"c":3,"a": 1.0}"#),
            ("[1.0]".to_owned(), r#"{"d":4,"c":3}"#.to_owned())
        );
    }

    #[test]
    fn the_type_says_how_a_word_is_read() {
        let signature = Signature::parse("zip:text n:int [any] [rest...] [--t:text] [--l:list]").unwrap();
        let typed = call(r#"[1234,"7",1.0,"8"]"#, r#"{"t":true,"l":"[ 1 ]"}"#, true);
        let (args, kwargs) = signature.fit(&typed).unwrap().unwrap();
        assert_eq!(args.as_str(), r#"["1234",7,1.0,"8"]"#);
        assert_eq!(kwargs.as_str(), r#"{"t":"true","l":[ 1 ]}"#);
        assert!(signature.fit(&call(r#"["","07"]"#, "{}", true)).is_err());
        assert_eq!(signature.fit(&call(r#"["2",7]"#, "{}", true)).unwrap(), None);
        assert!(signature.fit(&call("[1234,7]", "{}", false)).is_err());
    }

    /// One argument: its name, its type, and whether it is required.
    fn parameter() -> impl Strategy<Value = Parameter> {
        let kind = proptest::option::of(proptest::sample::select(&ArgType::ALL));
        ("[a-z_][a-z0-9_.-]{0,6}", kind, any::<bool>()).prop_map(|(name, kind, is_required)| Parameter {
            name,
            kind,
            is_required,
        })
    }

    prop_compose! {
        fn signature()(
            mut positional in proptest::collection::vec(parameter(), 0..4),
            rest in proptest::option::of(parameter()),
            keywords in proptest::collection::vec(parameter(), 0..4),
            other in proptest::option::of(parameter()),
        ) -> Signature {
            positional.sort_by_key(|it| !it.is_required);
            let all_required = positional.iter().all(|it| it.is_required);
            let rest = rest.map(|it| Parameter { is_required: it.is_required && all_required, ..it });
            let other_keywords = other.map(|it| Parameter { is_required: false, ..it });
            let mut signature = Signature { positional, rest, keywords, other_keywords };
            let mut number = 0;
            let all = signature.positional.iter_mut().chain(&mut signature.rest);
            for it in all.chain(&mut signature.keywords).chain(&mut signature.other_keywords) {
                number += 1;
                it.name += &number.to_string();
            }
            signature
        }
    }

    /// A value of this type, or any.
    fn value(kind: Option<ArgType>) -> &'static str {
        match kind {
            Some(ArgType::Text) => r#""1""#,
            Some(ArgType::Int) => "-12",
            Some(ArgType::Number) => "1.5",
            Some(ArgType::Bool) => "false",
            Some(ArgType::List) => "[null]",
            Some(ArgType::Object) => r#"{"a":1}"#,
            None => "null",
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            if let Ok(signature) = Signature::parse(&text) {
                let written = signature.to_string();
                prop_assert_eq!(Signature::parse(&written).unwrap(), signature);
            }
        }

        #[test]
        fn what_is_written_is_read_back(signature in signature()) {
            prop_assert_eq!(Signature::parse(&signature.to_string()).unwrap(), signature);
        }

        /// A call with these arguments is taken, one argument less or more is refused, and what was rearranged is taken as it is.
        #[test]
        fn a_call_is_taken_if_it_has_what_is_required(signature in signature(), named in 0usize..4) {
            let mut values: Vec<(&str, &str)> = signature.positional.iter().map(|it| (&*it.name, value(it.kind))).collect();
            let by_name = values.split_off(values.len().saturating_sub(named));
            let keyword = |(name, value): &(&str, &str)| format!("{}:{value}", quote(name));
            let mut kwargs: Vec<String> = by_name.iter().map(keyword).collect();
            kwargs.extend(signature.keywords.iter().map(|it| keyword(&(&it.name, value(it.kind)))));
            let mut args: Vec<&str> = values.iter().map(|(_, value)| *value).collect();
            if let (Some(rest), true) = (&signature.rest, by_name.is_empty()) {
                args.push(value(rest.kind));
            }
            prop_assume!(signature.rest.is_none() || by_name.is_empty());
            let whole = call(&format!("[{}]", args.join(",")), &format!("{{{}}}", kwargs.join(",")), false);
            let fitted = signature.fit(&whole);
            prop_assert!(fitted.is_ok(), "{}: {:?}", signature, fitted);
            if let Ok(Some((args, kwargs))) = fitted {
                prop_assert_eq!(args.elements().len(), signature.positional.len());
                prop_assert_eq!(signature.fit(&Call { args, kwargs, ..whole.clone() }).unwrap(), None);
            }
            if signature.rest.is_none() && by_name.is_empty() {
                let more = format!("[{}]", [&args[..], &["0"]].concat().join(","));
                let more = Call { args: Json::parse(&more).unwrap(), ..whole.clone() };
                prop_assert!(signature.fit(&more).is_err());
            }
            if signature.least() > 0 {
                let none = Call { args: Json::parse("[]").unwrap(), kwargs: Json::parse("{}").unwrap(), ..whole };
                prop_assert!(signature.fit(&none).is_err());
            }
        }
    }
}
