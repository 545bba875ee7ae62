//! Metalinks as others write them: every digest that they give, and the folders that they put files into.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use shoal_common::{Digests, DigestsHasher, Md5, Sha1, Sha224, Sha256, Sha384, Sha512};

use crate::support::{Lab, Manners, Server, assert_content, fetch, names_in, random};

/// The digests of some bytes, of every kind.
fn digests(bytes: &[u8]) -> Digests {
    let all = Digests {
        sha256: Some(Sha256([0; 32])),
        sha512: Some(Sha512([0; 64])),
        sha384: Some(Sha384([0; 48])),
        sha224: Some(Sha224([0; 28])),
        md5: Some(Md5([0; 16])),
        ..Digests::default()
    };
    let mut hasher = DigestsHasher::confirming(&all).with_sha1();
    hasher.update(bytes);
    hasher.finish()
}

/// Writes a Metalink of one file.
fn write(path: &Path, name: &str, hashes: &[(&str, String)], url: &str) {
    let hashes: String =
        hashes.iter().map(|(kind, digest)| format!("<hash type=\"{kind}\">{digest}</hash>")).collect();
    let text = format!(
        "<?xml version=\"1.0\"?><metalink xmlns=\"urn:ietf:params:xml:ns:metalink\"><file name=\"{name}\">{hashes}\
         <url>{url}</url></file></metalink>"
    );
    std::fs::write(path, text).unwrap();
}

/// The digest with its first digit changed.
fn wrong(digest: &str) -> String {
    let first = if digest.starts_with('0') { "1" } else { "0" };
    format!("{first}{}", &digest[1..])
}

#[test]
fn every_digest_that_a_metalink_gives_is_compared() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(300_000, 101));
    let lab = Lab::start(&bytes, Manners { untagged: true, ..Manners::default() });
    let (metalink, out) = (folder.path().join("a.meta4"), folder.path().join("out"));
    let get = || fetch(&[metalink.to_str().unwrap(), "-o", out.to_str().unwrap(), "--json"]);
    let of = digests(&bytes);
    let kinds = [
        ("sha-512", of.sha512.unwrap().to_string()),
        ("sha-384", of.sha384.unwrap().to_string()),
        ("sha-256", of.sha256.unwrap().to_string()),
        ("sha-224", of.sha224.unwrap().to_string()),
        ("sha-1", of.sha1.unwrap().to_string()),
        ("md5", of.md5.unwrap().to_string()),
    ];
    for (kind, digest) in &kinds {
        write(&metalink, "f", &[(kind, digest.clone())], &lab.url("f"));
        let end = get().succeeded().json();
        assert!(end["verified"] == true, "{kind}: {end}");
        assert_content(&out, &bytes);
        std::fs::remove_file(&out).unwrap();
        // The others being right changes nothing.
        let mut all = kinds.to_vec();
        all.iter_mut().filter(|(other, _)| other == kind).for_each(|(_, digest)| *digest = wrong(digest));
        for hashes in [&[(*kind, wrong(digest))][..], &all] {
            write(&metalink, "f", hashes, &lab.url("f"));
            let ended = get();
            assert!(ended.code == Some(1) && !out.exists(), "{kind}: {ended:?}");
        }
    }
    write(&metalink, "f", &kinds, &lab.url("f"));
    assert_eq!(get().succeeded().json()["verified"], true);
    std::fs::remove_file(&out).unwrap();
    write(&metalink, "f", &[("whirlpool", "ab".repeat(64))], &lab.url("f"));
    let ended = get();
    assert!(ended.succeeded().stderr.contains("not computed (whirlpool)"), "{ended:?}");
    assert_eq!(ended.json()["verified"], false);
}

#[test]
fn a_folder_in_a_metalinks_name_is_made_below_the_output_and_nowhere_else() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), random(100_000, 102));
    let lab = Lab::start(&bytes, Manners { untagged: true, ..Manners::default() });
    let (metalink, into) = (folder.path().join("a.meta4"), folder.path().join("into"));
    std::fs::create_dir(&into).unwrap();
    let get = |more: &[&str]| {
        let arguments = [metalink.to_str().unwrap(), "-o", into.to_str().unwrap()];
        fetch(&[&arguments[..], more].concat())
    };
    let sha1 = digests(&bytes).sha1.unwrap().to_string();
    let name = |name: &str| write(&metalink, name, &[("sha-1", sha1.clone())], &lab.url("f"));
    for (text, path) in [("iso/x86/a.iso", "iso/x86/a.iso"), (".ssh/.rc", "_ssh/_rc")] {
        name(text);
        get(&[]).succeeded();
        assert_content(&into.join(path), &bytes);
        // It is there now; that is as good.
        get(&[]).succeeded();
    }
    name("iso/x86/b.iso");
    get(&["--file", "iso/x86/b.iso"]).succeeded();
    assert_content(&into.join("iso/x86/b.iso"), &bytes);
    get(&["--file", "iso/other/b.iso"]).failed_saying("it has: iso/x86/b.iso");
    // Nothing leads out, neither by the name nor by what is there.
    std::os::unix::fs::symlink(folder.path(), into.join("link")).unwrap();
    for (text, said) in [
        ("../a", "not a safe file name"),
        ("iso/../../a", "not a safe file name"),
        ("/iso/a", "not a safe file name"),
        ("link/a", "in the way"),
        ("iso/x86/a.iso/a", "in the way"),
    ] {
        name(text);
        get(&[]).failed_saying(said);
    }
    assert_eq!(names_in(folder.path()), ["a.meta4", "into"]);
    assert_eq!(names_in(&into), ["_ssh", "iso", "link"]);
    // A name that the user types needs no folders.
    name("deep/c.iso");
    let typed = folder.path().join("typed");
    fetch(&[metalink.to_str().unwrap(), "-o", typed.to_str().unwrap()]).succeeded();
    assert_content(&typed, &bytes);
}

#[test]
fn head_says_what_get_would_and_no_length_of_what_has_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    std::fs::write(&path, &random(1_000, 103)[..]).unwrap();
    let server = Server::of_file(&path, 1);
    let ask = |method: &str, headers: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", server.ports[0])).unwrap();
        let request = format!("{method} /f HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).to_lowercase()
    };
    let whole = ask("HEAD", "");
    assert!(whole.starts_with("http/1.1 200") && whole.contains("\r\ncontent-length: 1000\r\n"), "{whole}");
    let etag = whole.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
    let date = whole.lines().find_map(|line| line.strip_prefix("last-modified: ")).unwrap();
    let date = format!("{}{}", date[..1].to_uppercase(), &date[1..]);
    let date = date.replace(" gmt", " GMT");
    let month = date.split(' ').nth(2).unwrap();
    let date = date.replace(month, &format!("{}{}", month[..1].to_uppercase(), &month[1..]));
    for method in ["HEAD", "GET"] {
        for condition in [format!("If-None-Match: {etag}\r\n"), format!("If-Modified-Since: {date}\r\n")] {
            let answer = ask(method, &condition);
            assert!(answer.starts_with("http/1.1 304") && answer.contains(&etag), "{answer}");
            assert!(!answer.contains("content-length"), "{method}: {answer}");
        }
    }
    // Only GET has parts.
    let part = ask("HEAD", "Range: bytes=0-9\r\n");
    assert!(part.starts_with("http/1.1 200") && part.contains("\r\ncontent-length: 1000\r\n"), "{part}");
    assert!(ask("GET", "Range: bytes=0-9\r\n").starts_with("http/1.1 206"));
}

#[test]
fn piece_digests_alone_verify_piece_by_piece_and_no_other_digest_is_computed() {
    const PIECE: usize = 256 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let bytes = random(3 << 20, 63);
    let pieces: String =
        bytes.chunks(PIECE).map(|piece| format!("<hash>{}</hash>", Sha1::of(piece))).collect();
    let (right, wrong) = (
        Lab::start(&bytes, Manners::default()),
        Lab::start(&bytes, Manners { wrong: Some(0..100), ..Manners::default() }),
    );
    let text = format!(
        "<?xml version=\"1.0\"?><metalink xmlns=\"urn:ietf:params:xml:ns:metalink\"><file name=\"f\"><size>{}</size>\
         <pieces length=\"{PIECE}\" type=\"sha-1\">{pieces}</pieces><url>{}</url><url>{}</url></file></metalink>",
        bytes.len(),
        wrong.url("f"),
        right.url("f")
    );
    let (metalink, out) = (folder.path().join("f.meta4"), folder.path().join("out"));
    std::fs::write(&metalink, text).unwrap();
    let ended = fetch(&[metalink.to_str().unwrap(), "-o", out.to_str().unwrap()]);
    assert!(ended.succeeded().stdout.contains("verified piece by piece"), "{ended:?}");
    assert_content(&out, &bytes);
}
