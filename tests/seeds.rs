//! The fuzzing targets (docs/FUZZING.md) on their committed seeds and on mutations of these: quick, with the stable toolchain, and
//! the same each time. `./dev fuzz` goes on from there.

// The targets import their macro from it.
extern crate self as libfuzzer_sys;

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use std::{fs, path::Path};

/// Mutations of each seed.
const MUTATIONS: usize = 2_000;
/// Bytes that formats give a meaning.
const SPECIAL: &[u8] = b"\0\xff\x7f\"\\{}[]:,.&=%$+-09eE \n";

macro_rules! targets {
    ($($target:ident = $file:literal),+ $(,)?) => {
        $(#[path = $file] mod $target;)+

        const TARGETS: &[&str] = &[$(stringify!($target)),+];

        mod each_seed_and_its_mutations_keep_to_what_holds_for {
            $(#[test] fn $target() { super::run_all(stringify!($target), super::$target::run); })+
        }
    };
}

targets! {
    answer = "../fuzz/targets/answer.rs",
    frames = "../fuzz/targets/frames.rs",
    gjwt = "../fuzz/targets/gjwt.rs",
    gkey = "../fuzz/targets/gkey.rs",
    gssnid = "../fuzz/targets/gssnid.rs",
    headers = "../fuzz/targets/headers.rs",
    link = "../fuzz/targets/link.rs",
    phone = "../fuzz/targets/phone.rs",
    request = "../fuzz/targets/request.rs",
    webhook = "../fuzz/targets/webhook.rs",
}

/// Instead of libFuzzer's: the target is a function of its module. It stands below the modules, so that these need their import.
#[macro_export]
macro_rules! fuzz_target {
    (|$data:ident: &[u8]| $body:block) => {
        pub(crate) fn run($data: &[u8]) $body
    };
    (|$text:ident: &str| $body:block) => {
        pub(crate) fn run(data: &[u8]) {
            let Ok($text) = std::str::from_utf8(data) else { return };
            $body
        }
    };
}

fn run_all(target: &str, run: fn(&[u8])) {
    let seeds = seeds(target);
    assert!(!seeds.is_empty(), "fuzz/seeds/{target} has seeds");
    // A failure is the same in each run.
    let mut random = SmallRng::seed_from_u64(1);
    for (name, seed) in &seeds {
        run_one(name, seed, run);
        for _ in 0..MUTATIONS {
            run_one(name, &mutated(seed, &seeds, &mut random), run);
        }
    }
}

/// Its input is shown if it fails.
fn run_one(seed: &str, input: &[u8], run: fn(&[u8])) {
    if let Err(panic) = std::panic::catch_unwind(|| run(input)) {
        println!("from the seed {seed}: b\"{}\"", input.escape_ascii());
        std::panic::resume_unwind(panic);
    }
}

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new("fuzz/seeds").join(target);
    let files = fs::read_dir(folder).expect("the folder of a target").flatten();
    let mut seeds: Vec<_> = files
        .map(|file| (file.file_name().into_string().expect("UTF-8"), fs::read(file.path()).expect("a file")))
        .collect();
    seeds.sort_unstable();
    seeds
}

/// The seed after a few changes.
fn mutated(seed: &[u8], seeds: &[(String, Vec<u8>)], random: &mut SmallRng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..random.random_range(1..=4) {
        let from = random.random_range(0..=bytes.len());
        let to = random.random_range(from..=bytes.len().min(from + 16));
        match random.random_range(0..5) {
            0 if from < bytes.len() => bytes[from] ^= 1 << random.random_range(0..8),
            1 => bytes.insert(from, SPECIAL[random.random_range(0..SPECIAL.len())]),
            2 => drop(bytes.drain(from..to)),
            3 => bytes.splice(to..to, bytes[from..to].to_vec()).for_each(drop),
            _ => {
                let other = &seeds[random.random_range(0..seeds.len())].1;
                let at = random.random_range(0..=other.len());
                bytes.truncate(from);
                bytes.extend_from_slice(&other[at..]);
            }
        }
    }
    bytes
}

#[test]
fn each_target_is_run() {
    let files = fs::read_dir("fuzz/targets").expect("the targets").map(|file| file.expect("an entry").path());
    let mut names: Vec<_> =
        files.map(|file| file.file_stem().expect("a name").to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    assert_eq!(names, TARGETS);
    let manifest = fs::read_to_string("fuzz/Cargo.toml").expect("the manifest of the targets");
    for target in TARGETS {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "fuzz/Cargo.toml has {target}");
    }
}
