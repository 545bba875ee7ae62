//! Sources that can be asked, and are slow, busy, lying, or lack what is missing.

use shoal_tests::{Client, Manners, World, download, free_port, until};

use super::{KIB, MIB, Seen, explained};

pub(crate) const CAUSES: &[&str] = &[
    "download_limit",
    "downloading",
    "mirror_fails",
    "mirror_refused",
    "missing_pieces",
    "one_slow_source",
    "paused",
    "pieces_unheld",
    "slow_sources",
    "sources_banned",
    "sources_busy",
    "sources_stalled",
];

const PIECE: usize = 64 * KIB;

#[test]
fn why_a_download_is_slow_or_stands_still() {
    let mut seen = Seen::new(CAUSES);
    let mut world = World::new();
    let (mut bob, mut carol) = (world.member("bob"), world.member("carol"));
    let to = world.path("to");
    for folder in ["to", "carols"] {
        std::fs::create_dir(world.path(folder)).unwrap();
    }

    // Seeders by hand, alone with a file each.
    let mut seeders = Vec::new();
    let hands = [
        ("busy", Manners::Patience),
        ("liar", Manners::Lies),
        ("halfway", Manners::StopsHalfway),
        ("crawler", Manners::Crawls(20 << 10)),
    ];
    for (name, manners) in hands {
        let file = format!("{name}.bin");
        let (path, _) = world.ann.share("g", &file, 16 * PIECE);
        seeders.push(world.seeder(name, &file, &path, manners, usize::MAX));
        world.ann.ok(&format!("stop_share g {file}"));
        download(&mut bob, &file, &to);
    }
    let (path, _) = world.ann.share("g", "two.bin", 16 * PIECE);
    for name in ["slow", "slower"] {
        seeders.push(world.seeder(name, "two.bin", &path, Manners::Crawls(20 << 10), usize::MAX));
    }
    world.ann.ok("stop_share g two.bin");
    download(&mut bob, "two.bin", &to);
    // Halves of files, which carol has of seeders that are gone then.
    for (file, pieces) in [("half.bin", 32), ("part.bin", 384)] {
        let (path, _) = world.ann.share("g", file, pieces * PIECE);
        let half = world.seeder(&file[..4], file, &path, Manners::Honest, pieces / 2);
        world.ann.ok(&format!("stop_share g {file}"));
        download(&mut carol, file, &world.path("carols").join(file));
        carol.until_percent(file, 50.0);
        drop(half);
    }
    carol.ok("limit up 1200K");
    mirrors(&mut world, &mut bob, &mut seen);

    bob.ok("limit down 40K");
    download(&mut bob, "half.bin", &to);
    world.ann.share("g", "big.bin", 64 * MIB);
    world.ann.ok("limit up 4M");
    seen.download(&mut bob, "half.bin", "download_limit");
    bob.ok("limit down 0");
    let missing = seen.download(&mut bob, "half.bin", "missing_pieces");
    assert!(missing["text"].as_str().unwrap().contains("16 pieces"), "{missing}");
    let busy = seen.download(&mut bob, "busy.bin", "sources_busy");
    assert!(busy["text"].as_str().unwrap().starts_with("busy asks for patience"), "{busy}");
    let banned = seen.download(&mut bob, "liar.bin", "sources_banned");
    assert!(banned["text"].as_str().unwrap().contains("liar"), "{banned}");
    let slow_one = seen.download(&mut bob, "crawler.bin", "one_slow_source");
    assert!(slow_one["text"].as_str().unwrap().contains("crawler alone"), "{slow_one}");
    seen.download(&mut bob, "halfway.bin", "sources_stalled");

    // All is not well, and each line of that says what is the matter.
    let all = explained(&mut bob, "explain");
    assert!(all.iter().all(|one| one["level"] != "well") && all.len() >= 5, "{all:?}");

    // Carol delivers well what she has, which is not all.
    download(&mut bob, "part.bin", &to);
    seen.download(&mut bob, "part.bin", "pieces_unheld");
    seen.download(&mut bob, "two.bin", "slow_sources");
    download(&mut bob, "big.bin", &to);
    seen.download(&mut bob, "big.bin", "downloading");
    world.ann.ok("limit up 100K");
    seen.download(&mut bob, "big.bin", "one_slow_source");
    bob.ok("pause_download g big.bin");
    let paused = seen.download(&mut bob, "big.bin", "paused");
    assert_eq!(paused["next"], "to go on, type: resume_download g big.bin");
}

/// A file whose sharer is away, with a mirror on this machine that does not run: bob does not go there, dora may.
fn mirrors(world: &mut World, bob: &mut Client, seen: &mut Seen) {
    let mut eve = world.member("eve");
    let mut dora =
        Client::start_with(&world.path("."), "dora", &world.trackers.info(), &["--private-mirrors"])
            .entered();
    world.ann.let_in("g", &mut [&mut dora]);
    let path = world.path("mirrored.bin");
    shoal_tests::random_file(&path, MIB, 3);
    let mirror = format!("http://127.0.0.1:{}/mirrored.bin", free_port());
    eve.ok(&format!("upload_file '{}' g --mirror {mirror}", path.display()));
    eve.ok("logout");
    until("nobody shares it", || bob.sharers("g", "mirrored.bin") == 0);
    for client in [&mut *bob, &mut dora] {
        let name = client.name().to_owned();
        download(client, "mirrored.bin", &world.path(&format!("{name}.copy")));
    }
    let refused = seen.download(bob, "mirrored.bin", "mirror_refused");
    assert!(refused["next"].as_str().unwrap().contains("--private-mirrors"), "{refused}");
    seen.download(&mut dora, "mirrored.bin", "mirror_fails");
}
