//! The fuzz targets over what is kept of fuzzing: where it begins, and what it found. And over a little more.
//!
//! How the fuzzer itself is run: `docs/TESTING.md`.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use targets::TARGETS;

fn inputs(kind: &str, target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(target);
    let Ok(entries) = fs::read_dir(&folder) else { return Vec::new() };
    let mut found: Vec<_> =
        entries.map(|e| e.unwrap().path()).map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    found.sort();
    found
}

/// None where the folder is missing: git keeps no empty one.
fn folders(kind: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind);
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

/// Says which input it was: a target panics without knowing.
fn run(target: fn(&[u8]), name: &str, bytes: &[u8]) {
    if std::panic::catch_unwind(|| target(bytes)).is_err() {
        panic!("{name}: {bytes:02x?}");
    }
}

#[test]
fn every_target_has_seeds_and_passes_them_and_what_was_once_found() {
    for (name, target) in TARGETS {
        let seeds = inputs("seeds", name);
        assert!(!seeds.is_empty(), "fuzz/seeds/{name} is empty");
        for (path, bytes) in seeds.into_iter().chain(inputs("regressions", name)) {
            run(*target, &path.display().to_string(), &bytes);
        }
    }
}

#[test]
fn every_folder_and_every_program_of_the_fuzzer_is_a_targets() {
    let mut names: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.sort();
    let mut programs: Vec<_> =
        folders("fuzz_targets").iter().map(|f| f.trim_end_matches(".rs").to_owned()).collect();
    programs.sort();
    assert_eq!(programs, names);
    for kind in ["seeds", "regressions"] {
        let unknown: Vec<_> =
            folders(kind).into_iter().filter(|f| !names.contains(f) && f != "README.md").collect();
        assert_eq!(unknown, [""; 0], "in fuzz/{kind}");
    }
}

#[test]
fn seeds_bent_at_random_do_no_harm() {
    let mut rng = StdRng::seed_from_u64(1);
    for (name, target) in TARGETS {
        let seeds = inputs("seeds", name);
        for _ in 0..3000 {
            let (_, seed) = &seeds[rng.random_range(0..seeds.len())];
            let mut bytes = seed.clone();
            for _ in 0..rng.random_range(1..4) {
                bend(&mut rng, &mut bytes);
            }
            run(*target, name, &bytes);
        }
    }
}

fn bend(rng: &mut StdRng, bytes: &mut Vec<u8>) {
    let at = rng.random_range(0..=bytes.len());
    match rng.random_range(0..4) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, rng.random()),
        2 if at < bytes.len() => bytes[at] = rng.random(),
        _ if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
        _ => bytes.push(rng.random()),
    }
}
