//! What the source code says about itself: which file refers to which, what each defines, what it hands on.
//!
//! It reads tokens, not types: a name stands for what an import of the same file, or the module that it names, says.

use std::collections::{BTreeMap, BTreeSet};

/// A path of names, from the crate on.
pub type Names = Vec<String>;

/// The source code of a crate, a file a module.
pub struct Code {
    files: BTreeMap<Names, File>,
}

/// What one file says, without its unit tests.
struct File {
    tokens: Vec<String>,
    /// What its imports, and its modules in files of their own, are called in it.
    names: BTreeMap<String, Names>,
    uses: Vec<Use>,
}

/// What a file gives away of another layer.
pub struct Leak<'a> {
    /// The file.
    pub of: &'a Names,
    /// What it gives away.
    pub name: String,
    /// The layer that defines it.
    pub layer: String,
    /// Whether it hands on the thing itself, and does not only show it.
    pub is_import: bool,
}

/// One thing that is imported.
struct Use {
    is_public: bool,
    /// What it is, and under which name; `*` for everything.
    path: Names,
    name: String,
}

/// What is written in code, without comments and texts. Unit tests come last in a file, and are left out.
fn tokens(source: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = text(rest) {
            length
        } else if first.is_alphanumeric() || first == '_' {
            let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            tokens.push(rest[..word].to_owned());
            word
        } else {
            let length = if rest.starts_with("::") { 2 } else { first.len_utf8() };
            if !first.is_whitespace() {
                tokens.push(rest[..length].to_owned());
            }
            length
        };
        rest = &rest[length..];
    }
    let tests = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    let end = tokens.windows(tests.len()).position(|window| window == tests);
    tokens.truncate(end.unwrap_or(tokens.len()));
    tokens
}

/// How long a text or a character is, if there is one here.
fn text(rest: &str) -> Option<usize> {
    let raw = rest.trim_start_matches(['b', 'c', 'r']);
    let prefix = rest.len() - raw.len();
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    if prefix <= 2 && raw[hashes..].starts_with('"') && (hashes == 0 || prefix > 0) {
        if rest[..prefix].contains('r') {
            let close = format!("\"{}", "#".repeat(hashes));
            let end = raw[hashes + 1..].find(&close)?;
            return Some(prefix + hashes + 1 + end + close.len());
        }
        return Some(prefix + 1 + escaped(&raw[1..], '"')?);
    }
    let inner = raw.strip_prefix('\'').filter(|_| prefix == 0)?;
    // A lifetime has no second quote.
    let is_character = inner.starts_with('\\') || inner.chars().nth(1) == Some('\'');
    if is_character { Some(1 + escaped(inner, '\'')?) } else { None }
}

/// How long a text is up to and with its closing quote.
fn escaped(text: &str, quote: char) -> Option<usize> {
    let mut skip = false;
    text.char_indices().find_map(|(at, c)| {
        let ends = c == quote && !skip;
        skip = c == '\\' && !skip;
        ends.then_some(at + c.len_utf8())
    })
}

/// The paths that begin at a token, each with the name that it gets; and where the next token is.
fn paths(tokens: &[String], mut at: usize, before: &Names) -> (Vec<(Names, String)>, usize) {
    let mut path = before.clone();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                let mut all = Vec::new();
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    let (found, next) = paths(tokens, at, &path);
                    all.extend(found);
                    at = next + usize::from(tokens.get(next).is_some_and(|token| token == ","));
                }
                return (all, at + 1);
            }
            Some("self") if !path.is_empty() => at += 1,
            Some(word) => {
                path.push(word.to_owned());
                at += 1;
            }
            None => return (Vec::new(), at),
        }
        if tokens.get(at).is_none_or(|token| token != "::") {
            break;
        }
        at += 1;
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if tokens.get(at).is_some_and(|token| token == "as") {
        name.clone_from(&tokens[at + 1]);
        at += 2;
    }
    (vec![(path, name)], at)
}

impl File {
    fn new(module: &Names, source: &str) -> File {
        let tokens = tokens(source);
        let (mut names, mut uses) = (BTreeMap::new(), Vec::new());
        for at in 0..tokens.len() {
            if tokens[at] == "mod" && tokens.get(at + 2).is_some_and(|token| token == ";") {
                let name = tokens[at + 1].clone();
                names.insert(name.clone(), [&module[..], &[name]].concat());
            }
        }
        for at in (0..tokens.len()).filter(|at| tokens[*at] == "use") {
            let before = &tokens[..at];
            // `pub`, or `pub(in crate::layer)`.
            let visibility =
                before.iter().rposition(|token| token == "(").filter(|_| before.ends_with(&[")".to_owned()]));
            let is_public = before[..visibility.unwrap_or(at)].last().is_some_and(|token| token == "pub");
            for (path, name) in paths(&tokens, at + 1, &Names::new()).0 {
                uses.push(Use { is_public, path: absolute(module, &names, &path), name });
            }
        }
        names.extend(uses.iter().map(|it| (it.name.clone(), it.path.clone())));
        File { tokens, names, uses }
    }

    /// The paths that stand in its code outside of imports, and the imports that hand nothing on.
    fn references(&self, module: &Names) -> Vec<Names> {
        let mut found: Vec<Names> = self.uses.iter().filter(|it| !it.is_public).map(|it| it.path.clone()).collect();
        let mut at = 0;
        while at < self.tokens.len() {
            let begins = self.tokens.get(at + 1).is_some_and(|token| token == "::");
            if self.tokens[at] == "use" {
                at = paths(&self.tokens, at + 1, &Names::new()).1;
            } else if begins && (at == 0 || !["::", "in"].contains(&self.tokens[at - 1].as_str())) {
                let end = at
                    + self.tokens[at..]
                        .iter()
                        .step_by(2)
                        .zip(self.tokens[at + 1..].iter().step_by(2))
                        .take_while(|(_, between)| *between == "::")
                        .count()
                        * 2;
                let path: Names = self.tokens[at..=end.min(self.tokens.len() - 1)].iter().step_by(2).cloned().collect();
                found.push(absolute(module, &self.names, &path));
                at = end;
            }
            at += 1;
        }
        found
    }
}

/// A path from the crate on; as it is where it begins outside of it.
fn absolute(module: &Names, names: &BTreeMap<String, Names>, path: &[String]) -> Names {
    let mut base = module.clone();
    let mut rest = path;
    match path[0].as_str() {
        "crate" => base.clear(),
        "self" => {}
        "super" => {
            while rest.first().is_some_and(|first| first == "super") {
                base.pop();
                rest = &rest[1..];
            }
            return [&base[..], rest].concat();
        }
        first => {
            let known = names.get(first).filter(|known| known.as_slice() != path);
            return known.map_or_else(|| path.to_vec(), |known| [&known[..], &path[1..]].concat());
        }
    }
    rest = &rest[1..];
    [&base[..], rest].concat()
}

impl Code {
    /// The code in these files, each named by its path below `src`.
    pub fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Code {
        let module = |path: &str| -> Names {
            let mut names: Names = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
            names.pop_if(|last| ["mod", "lib", "main"].contains(&last.as_str()));
            names
        };
        let files = files.into_iter().filter(|(path, _)| *path != "main.rs").map(|(path, source)| {
            let module = module(path);
            let file = File::new(&module, source);
            (module, file)
        });
        Code { files: files.collect() }
    }

    /// The module in which a path is defined, whoever hands it on, and its name there; nothing outside of the crate.
    fn origin(&self, path: &Names) -> Option<(&Names, String)> {
        let mut path = path.clone();
        for _ in 0..10 {
            let (module, file) = (0..=path.len()).rev().find_map(|end| self.files.get_key_value(&path[..end]))?;
            if module.is_empty() && !file.names.contains_key(path.first()?) {
                return None;
            }
            let Some(name) = path.get(module.len()) else { return Some((module, String::new())) };
            match file.names.get(name).filter(|to| !to.starts_with(&path[..=module.len()])) {
                Some(to) => path = [&to[..], &path[module.len() + 1..]].concat(),
                None => return Some((module, name.clone())),
            }
        }
        None
    }

    /// What each file refers to, wherever a name has been handed on.
    fn references(&self) -> BTreeMap<&Names, BTreeSet<&Names>> {
        let origins = |(module, file): (_, &File)| {
            let to = file.references(module);
            let to = to.iter().filter_map(|path| self.origin(path)).map(|(to, _)| to).filter(|to| *to != module);
            to.collect()
        };
        self.files.iter().map(|(module, file)| (module, origins((module, file)))).collect()
    }

    /// The same, with what it only hands on.
    pub fn imports(&self) -> BTreeMap<&Names, BTreeSet<&Names>> {
        let mut all = self.references();
        for (module, file) in &self.files {
            let handed_on = file.uses.iter().filter(|it| it.is_public).filter_map(|it| self.origin(&it.path));
            all.entry(module).or_default().extend(handed_on.map(|(to, _)| to));
        }
        all
    }

    /// The files that refer to each other in circles.
    pub fn circles(&self) -> Vec<Vec<&Names>> {
        let references = self.references();
        let reach = |from: &Names| {
            let mut seen = BTreeSet::new();
            let mut next: Vec<&Names> = references[from].iter().copied().collect();
            while let Some(one) = next.pop() {
                if seen.insert(one) {
                    next.extend(&references[one]);
                }
            }
            seen
        };
        let reached: BTreeMap<&Names, BTreeSet<&Names>> = references.keys().map(|from| (*from, reach(from))).collect();
        let mut circles: Vec<Vec<&Names>> = Vec::new();
        for (from, to) in &reached {
            let circle: Vec<&Names> = to.iter().copied().filter(|one| reached[one].contains(*from)).collect();
            if circle.contains(from) && !circles.contains(&circle) {
                circles.push(circle);
            }
        }
        circles
    }

    /// What files hand on, or show in what is public of them, that another layer defines.
    pub fn leaks(&self) -> Vec<Leak<'_>> {
        let mut found = Vec::new();
        for (of, file) in self.files.iter().filter(|(module, _)| !module.is_empty()) {
            let mut leak = |path: &Names, name: &str, is_import| {
                let layer = self.origin(path).and_then(|(to, _)| to.first().cloned()).filter(|layer| *layer != of[0]);
                found.extend(layer.map(|layer| Leak { of, name: name.to_owned(), layer, is_import }));
            };
            for it in file.uses.iter().filter(|it| it.is_public) {
                leak(&it.path, &it.name, true);
            }
            for at in (0..file.tokens.len()).filter(|at| file.tokens[*at] == "pub") {
                for word in shown(&file.tokens[at + 1..]) {
                    if let Some(path) = file.names.get(word).filter(|path| path.len() > 1) {
                        leak(path, word, false);
                    }
                }
            }
        }
        found
    }

    /// The types that are defined: each name with the files that define it.
    pub fn types(&self) -> BTreeMap<&str, Vec<&Names>> {
        let mut found: BTreeMap<&str, Vec<&Names>> = BTreeMap::new();
        for (module, file) in &self.files {
            let mut depth = 0;
            for at in 0..file.tokens.len().saturating_sub(1) {
                match file.tokens[at].as_str() {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    // Deeper, a type belongs to a trait.
                    "type" if depth > 0 => {}
                    "struct" | "enum" | "union" | "trait" | "type" => {
                        let name = file.tokens[at + 1].as_str();
                        if name.starts_with(char::is_uppercase) {
                            found.entry(name).or_default().push(module);
                        }
                    }
                    _ => {}
                }
            }
        }
        found
    }
}

/// The words of what is public here: the head of a function, the type of a field or of a name.
fn shown(tokens: &[String]) -> impl Iterator<Item = &str> {
    let word = |at: usize| tokens.get(at).map_or("", String::as_str);
    let from = if word(0) == "(" && word(1) == "crate" { 3 } else { 0 };
    let ends: &[&str] = match word(from) {
        "(" | "use" | "mod" => &[],
        "struct" | "enum" | "trait" => &["{", ";", "("],
        "type" => &[";"],
        _ if word(from + 1) == ":" => &[",", "}"],
        _ => &["{", ";", "="],
    };
    let mut depth = 0_i32;
    tokens[from..].iter().map(String::as_str).take_while(move |token| {
        let ended = depth <= 0 && ends.contains(token);
        depth += i32::from(["<", "(", "["].contains(token)) - i32::from([">", ")", "]"].contains(token));
        !ended && !ends.is_empty()
    })
}
