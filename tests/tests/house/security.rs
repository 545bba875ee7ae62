//! SECURITY.md names tests that exist: `FILE::NAME`, where a file without a folder is in `tests/tests/`.

use std::path::Path;

/// What is wrong with the tests that a table of SECURITY.md names.
fn wrong(text: &str, root: &Path) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let named = quoted.filter(|words| words.contains(".rs") && !words.contains(' '));
    let check = |words: &str| {
        let (file, test) = words.split_once("::").unwrap_or((words, ""));
        let folder = if file.contains('/') { root.to_owned() } else { root.join("tests/tests") };
        let Ok(source) = std::fs::read_to_string(folder.join(file)) else {
            return Some(format!("{words}: there is no such file"));
        };
        let found = test.is_empty() || source.contains(&format!("fn {test}("));
        (!found).then(|| format!("{words}: the file has no such test"))
    };
    named.filter_map(check).collect()
}

#[test]
fn every_test_that_security_md_names_exists() {
    let root = super::root();
    let text = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    assert!(text.matches(".rs::").count() > 100, "the tables are there");
    assert_eq!(wrong(&text, &root), Vec::<String>::new());
}

/// A row outside its table is shown as text.
#[test]
fn every_row_of_security_md_is_in_a_table() {
    let text = std::fs::read_to_string(super::root().join("SECURITY.md")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.windows(2).filter(|pair| !pair[0].starts_with('|') && pair[1].starts_with('|')) {
        let head = ["| attempt |", "| role |"].iter().any(|head| pair[1].starts_with(head));
        assert!(head, "a table begins without its head: {}", pair[1]);
    }
}

#[test]
fn a_test_or_file_that_is_gone_is_found() {
    let text = "`house/security.rs::a_test_or_file_that_is_gone_is_found`, `house/none.rs`, `a.rs::b`, `cargo run x.rs`";
    // Looked for below this crate, a path with a folder is.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    assert_eq!(
        wrong(text, &root),
        ["house/none.rs: there is no such file", "a.rs::b: there is no such file"]
    );
}
