//! Which modules of a crate use which, read from its source: a small scanner of words, paths and braces, no parser. Tests
//! and comments are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A module's path within its crate.
pub(crate) type Module = Vec<String>;

/// The modules of a crate with the words of their product code.
pub(crate) fn modules(src: &Path) -> BTreeMap<Module, Vec<String>> {
    let mut all = BTreeMap::new();
    read(src, &mut Vec::new(), &mut all);
    all
}

fn read(folder: &Path, within: &mut Module, all: &mut BTreeMap<Module, Vec<String>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name == "bin" || name == "tests" || name.ends_with("_tests") {
            continue;
        }
        if path.is_dir() {
            within.push(name);
            read(&path, within, all);
            within.pop();
        } else if path.extension().is_some_and(|end| end == "rs") {
            let mut module = within.clone();
            if !["mod", "lib", "main"].contains(&name.as_str()) {
                module.push(name);
            }
            all.insert(module, without_tests(words(&std::fs::read_to_string(&path).unwrap())));
        }
    }
}

/// Names, `::` and single signs; no comments, and no text in quotes.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = |end: usize| &rest[end.min(rest.len())..];
        if rest.starts_with("//") {
            rest = end(rest.find('\n').unwrap_or(rest.len()));
        } else if first == '"' {
            rest = end(quoted(rest));
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            rest = raw.split_once("\"#").map_or("", |(_, after)| after);
        } else if first == '_' || first.is_alphanumeric() {
            let length = rest.find(|sign: char| sign != '_' && !sign.is_alphanumeric());
            let (word, after) = rest.split_at(length.unwrap_or(rest.len()));
            words.push(word.to_owned());
            rest = after;
        } else if let Some(after) = rest.strip_prefix("::") {
            words.push("::".to_owned());
            rest = after;
        } else if let Some(after) = ["'\"'", "'\\''", "'\\\"'"].iter().find_map(|one| rest.strip_prefix(one))
        {
            rest = after;
        } else {
            if !first.is_whitespace() {
                words.push(first.to_string());
            }
            rest = end(first.len_utf8());
        }
    }
    words
}

/// The length of the text in quotes that this begins with.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, sign) in text.char_indices().skip(1) {
        match sign {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// Leaves out each item below `#[cfg(test)]`.
fn without_tests(words: Vec<String>) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < words.len() {
        if words[at..].iter().zip(MARK).filter(|(word, mark)| *word == mark).count() < MARK.len() {
            kept.push(words[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0;
        for word in &words[at + MARK.len()..] {
            at += 1;
            match word.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                ";" => {}
                _ => continue,
            }
            if depth == 0 {
                break;
            }
        }
        at += MARK.len();
    }
    kept
}

/// What a module uses of its own crate: full paths, of modules or of things in them.
fn used(module: &Module, words: &[String]) -> Vec<Module> {
    let mut paths = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let starts = matches!(words[at].as_str(), "crate" | "super" | "self");
        let is_path = starts && words.get(at + 1).is_some_and(|word| word == "::");
        let is_start = at == 0 || !["::", "$"].contains(&words[at - 1].as_str());
        if is_path && is_start {
            let base = if words[at] == "crate" { Vec::new() } else { module.clone() };
            at = tree(base, &words[at..], &mut paths) + at;
        } else {
            at += 1;
        }
    }
    paths
}

/// Follows a path that may branch in braces; gives how many words it takes.
fn tree(mut path: Module, words: &[String], paths: &mut Vec<Module>) -> usize {
    let mut at = 0;
    while at < words.len() {
        match words[at].as_str() {
            "{" => {
                at += 1;
                while at < words.len() && words[at] != "}" {
                    at += if words[at] == "," { 1 } else { tree(path.clone(), &words[at..], paths) };
                }
                return at + 1;
            }
            "crate" | "self" => {}
            "super" => {
                path.pop();
            }
            word => path.push(word.to_owned()),
        }
        at += 1;
        if words.get(at).is_none_or(|word| word != "::") {
            break;
        }
        at += 1;
    }
    paths.push(path);
    // `as NAME`
    if words.get(at).is_some_and(|word| word == "as") { at + 2 } else { at.max(1) }
}

/// Modules that use each other in a circle, each with the module that they stand in. A module and those within it may.
pub(crate) fn circles(modules: &BTreeMap<Module, Vec<String>>) -> Vec<(Module, Vec<String>)> {
    let mut arrows: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (module, words) in modules {
        for path in used(module, words) {
            let known = |length: &usize| modules.contains_key(&path[..*length]);
            let target = &path[..(0..=path.len()).rev().find(known).unwrap_or(0)];
            let same = module.iter().zip(target).take_while(|(one, other)| one == other).count();
            if let (Some(from), Some(to)) = (module.get(same), target.get(same)) {
                let siblings = arrows.entry(module[..same].to_vec()).or_default();
                siblings.entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }
    let circles = arrows.into_iter().filter_map(|(parent, arrows)| {
        let on_circle = |start: &&String| reachable(&arrows, start).contains(*start);
        let names: Vec<String> = arrows.keys().filter(on_circle).cloned().collect();
        (!names.is_empty()).then_some((parent, names))
    });
    circles.collect()
}

fn reachable(arrows: &BTreeMap<String, BTreeSet<String>>, start: &String) -> BTreeSet<String> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![start]);
    while let Some(from) = next.pop() {
        for to in arrows.get(from).into_iter().flatten() {
            if reached.insert(to.clone()) {
                next.push(to);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles_of(files: &[(&str, &str)]) -> Vec<(Module, Vec<String>)> {
        let path = |name: &str| name.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let read = |(name, text): &(&str, &str)| (path(name), without_tests(words(text)));
        circles(&files.iter().map(read).collect())
    }

    #[test]
    fn siblings_that_use_each_other_are_found_and_parents_are_not() {
        let circle =
            [("", vec!["a", "b"])].map(|(_, names)| (vec![], names.into_iter().map(str::to_owned).collect()));
        assert_eq!(circles_of(&[("a", "use crate::b::B;"), ("b", "use super::a::A;")]), circle);
        assert_eq!(
            circles_of(&[("a", "use crate::{c, b::{self, B as D}};"), ("b", "x(crate::a::A)")]),
            circle
        );
        for b in [
            "#[cfg(test)] mod tests { use crate::a::A; }",
            "#[cfg(test)] use crate::a::A; fn b() {}",
            "// crate::a::A\nfn b() { let text = \"crate::a \\\" crate::a\"; }",
            "use super::A; use crate::Other;",
        ] {
            assert_eq!(circles_of(&[("", "use a::A;"), ("a", "use crate::b::B;"), ("b", b)]), [], "{b}");
        }
        let within = [("a", "use self::x::X;"), ("a/x", "use super::y::Y;"), ("a/y", "use crate::a::x::X;")];
        assert_eq!(circles_of(&within), [(vec!["a".to_owned()], vec!["x".to_owned(), "y".to_owned()])]);
    }
}
