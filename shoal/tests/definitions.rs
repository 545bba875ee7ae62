//! Completions and man pages come from the definitions by which commands are read.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::process::Command;

fn shoal(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_shoal")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_shell_and_every_page_knows_the_commands() {
    let dir = tempfile::tempdir().unwrap();
    shoal(&["man", dir.path().to_str().unwrap()]);
    let pages: Vec<String> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for command in ["up", "watch", "upload_file", "download_file", "list_files", "login"] {
        assert!(pages.iter().any(|page| page.contains(command)), "{command}: {pages:?}");
        for shell in ["bash", "zsh", "fish"] {
            assert!(shoal(&["completions", shell]).contains(command), "{shell}: {command}");
        }
    }
}
