//! The Debian package: what is in it, and that it installs, runs and goes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use shoal_tests::{binary, long_or_skip, root_or_skip, skip};

const PROGRAMS: [&str; 6] = ["tracker", "client", "server", "fetch", "dfs", "dfs-server"];

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs a command that must succeed; gives what it said.
fn done(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    text(&output)
}

#[test]
fn a_link_is_the_program_after_which_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for program in PROGRAMS {
        let link = dir.path().join(format!("shoal-{program}"));
        symlink(binary("shoal"), &link).unwrap();
        let help = done(Command::new(&link).arg("--help"));
        assert!(help.contains(&format!("Usage: shoal-{program}")), "{program}: {help}");
        let wrong = Command::new(&link).arg("--no-such-option").output().unwrap();
        assert_eq!(wrong.status.code(), Some(2), "{program}");
    }
    // Any other name is shoal itself.
    for name in ["shoal-0.1", "anything"] {
        symlink(binary("shoal"), dir.path().join(name)).unwrap();
        assert!(done(Command::new(dir.path().join(name)).arg("--help")).contains("create_user"), "{name}");
    }
}

#[test]
fn the_package_holds_programs_units_man_pages_and_completions() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let mut package = Command::new("scripts/package");
    done(package.current_dir(project()).arg("--binary").arg(binary("shoal")).arg("--root").arg(&root));
    let usr = root.join("usr");
    for program in PROGRAMS {
        let help = done(Command::new(usr.join(format!("bin/shoal-{program}"))).arg("--help"));
        assert!(help.contains("Usage"), "{program}");
        assert!(usr.join(format!("share/man/man1/shoal-{program}.1")).is_file(), "{program}");
    }
    for page in ["shoal", "shoal-up", "shoal-export", "shoal-import", "shoal-upload_file"] {
        assert!(usr.join(format!("share/man/man1/{page}.1")).is_file(), "{page}");
    }
    done(Command::new("bash").arg("-n").arg(usr.join("share/bash-completion/completions/shoal")));
    for (file, begins) in
        [("zsh/vendor-completions/_shoal", "#compdef shoal"), ("fish/vendor_completions.d/shoal.fish", "#")]
    {
        let text = fs::read_to_string(usr.join("share").join(file)).unwrap();
        assert!(text.starts_with(begins) && text.contains("upload_file"), "{file}");
    }
    let units = ["user/shoal.service", "system/shoal-client.service", "system/shoal-tracker@.service"];
    for unit in units {
        let text = fs::read_to_string(usr.join("lib/systemd").join(unit)).unwrap();
        assert!(text.contains("ExecStart=/usr/bin/shoal") && !text.contains("/usr/local"), "{unit}: {text}");
        assert!(text.contains("[Install]") && !text.contains("install -m"), "{unit}: {text}");
    }
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        skip(
            "the_package_holds_programs_units_man_pages_and_completions",
            "needs systemd-analyze for the units",
        );
        return;
    }
    for unit in units {
        let name = Path::new(unit).file_name().unwrap().to_str().unwrap().replace("@.", "@1.");
        let path = dir.path().join(&name);
        let text = fs::read_to_string(usr.join("lib/systemd").join(unit)).unwrap();
        let there = format!("ExecStart={}", usr.join("bin/shoal").display());
        fs::write(&path, text.replace("ExecStart=/usr/bin/shoal", &there)).unwrap();
        let mut verify = Command::new("systemd-analyze");
        verify
            .args(["verify", "--man=no", if unit.starts_with("user") { "--user" } else { "--system" }])
            .arg(&path);
        let checked = verify.env("XDG_RUNTIME_DIR", dir.path()).output().unwrap();
        let said = text_of(&checked, &name);
        assert!(said.is_empty(), "{unit}: {said:?}");
    }
}

/// What was said of a unit.
fn text_of(checked: &Output, unit: &str) -> Vec<String> {
    text(checked).lines().filter(|line| line.contains(unit)).map(str::to_owned).collect()
}

#[test]
fn the_package_installs_runs_and_goes() {
    let name = "the_package_installs_runs_and_goes";
    if !long_or_skip(name) || !root_or_skip(name) {
        return;
    }
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let deb = Command::new("cargo").args(["deb", "--version"]).current_dir(project()).output().unwrap();
    if !text(&deb).trim_start_matches("cargo-deb ").starts_with("3.") || !has("debootstrap") {
        skip(name, "needs debootstrap and cargo-deb 3 (cargo install cargo-deb)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("debian");
    let made = Command::new("debootstrap").args(["--variant=minbase", &suite()]).arg(&root).output().unwrap();
    if !made.status.success() {
        skip(name, "needs a Debian mirror that debootstrap reaches");
        return;
    }
    let mut package = Command::new("scripts/package");
    let said = done(package.current_dir(project()).arg("--binary").arg(binary("shoal")));
    let built = project().join(said.lines().last().unwrap().trim());
    fs::copy(built, root.join("shoal.deb")).unwrap();
    let inside = |command: &str| {
        let mut chroot = Command::new("chroot");
        chroot.arg(&root).args(["sh", "-ec", command]).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        done(chroot.env_remove("XDG_RUNTIME_DIR").env("HOME", "/root"))
    };
    let before = inside("find / -xdev -path /proc -prune -o -print | sort");
    inside("dpkg -i /shoal.deb");
    assert!(inside("dpkg -s shoal").contains("Status: install ok installed"));
    assert!(inside("dpkg -V shoal").is_empty(), "every file is as packed");
    for program in PROGRAMS {
        assert!(inside(&format!("shoal-{program} --help")).contains("Usage: shoal-"), "{program}");
    }
    // It runs, takes commands, and ends.
    let said = inside(
        "shoal up --data /tmp/s --no-web --listen 127.0.0.1:20770 > /tmp/log 2>&1 & pid=$!
         until [ -S /tmp/s/client/shoal.sock ]; do kill -0 $pid; sleep 0.1; done
         s='shoal --socket /tmp/s/client/shoal.sock'
         echo 'a long enough secret' | $s create_user ann; $s whoami; $s quit; wait $pid; cat /tmp/log; rm -r /tmp/s /tmp/log",
    );
    assert!(said.contains("Shoal runs."), "{said}");
    inside("dpkg --purge shoal");
    let after = inside("find / -xdev -path /proc -prune -o -print | sort");
    let left = |line: &&str| line.contains("shoal") && *line != "/shoal.deb" && !before.contains(*line);
    assert_eq!(after.lines().filter(left).collect::<Vec<_>>(), [""; 0], "nothing is left");
}

/// The release of this machine: the programs were linked with its libraries.
fn suite() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.unwrap_or("stable").trim_matches('"').to_owned()
}
