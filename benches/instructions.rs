//! How many instructions pack, seal, open and unpack take, held to a baseline: a slow path that creeps in is seen on
//! any machine, however busy.
//!
//! ```text
//! cargo bench --bench instructions               compares with benches/instructions.toml; fails beyond the tolerance
//! cargo bench --bench instructions -- --renew    writes that file; commit it with the change that moved the figures
//! ```
//! The program runs itself under `valgrind --tool=callgrind`, each piece of work twice, once with more rounds; the
//! difference is what the rounds took, start and end left out. Valgrind offers AVX2 and AES-NI, not AVX-512: the
//! cipher takes another path there than on newer processors, the same one everywhere.

#[path = "common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::{Command, ExitCode};

use serde::{Deserialize, Serialize};
use tap_rs::types::Suite;

use common::{Packer, SIZES, Size, Unpacker, direction, open_train, seal_train, sealed};

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.toml");

/// How far a figure may be from the baseline's.
const TOLERANCE: f64 = 0.03;

/// The same where another compiler made it.
const TOLERANCE_ELSEWHERE: f64 = 0.15;

/// Rounds of the two runs.
const ROUNDS: (u64, u64) = (20, 120);

const WORKS: [&str; 6] = ["pack", "seal", "seal_chacha", "open", "open_chacha", "unpack"];

/// Instructions of one round, by work and size of the frame in bytes.
type Figures = BTreeMap<String, BTreeMap<String, u64>>;

#[derive(Debug, Serialize, Deserialize)]
struct Baseline {
    /// `rustc --version`.
    compiler: String,
    instructions: Figures,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [word, work, size, rounds] = &args[..]
        && word == "work"
    {
        run(work, Size(size.parse().unwrap()), rounds.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    if !cfg!(target_arch = "x86_64") || Command::new("valgrind").arg("--version").output().is_err() {
        println!("SKIPPED (needs valgrind on x86-64): instructions");
        return ExitCode::SUCCESS;
    }
    let now = Baseline { compiler: compiler(), instructions: measure() };
    if args.iter().any(|a| a == "--renew") {
        std::fs::write(BASELINE, toml(&now)).unwrap();
        println!("{BASELINE} is new");
        return ExitCode::SUCCESS;
    }
    compare(&now)
}

/// One piece of work, so many rounds of it.
fn run(work: &str, size: Size, rounds: u64) {
    let suite = if work.ends_with("_chacha") { Suite::ChaCha } else { Suite::Aes };
    let (mut lane, opener) = direction(suite);
    match work.split('_').next().unwrap() {
        "pack" => {
            let mut packer = Packer::new(size);
            (0..rounds).for_each(|_| packer.pack());
            black_box(packer.batch.datagrams());
        }
        "seal" => {
            let (mut train, segment) = sealed(size, &mut lane);
            (0..rounds).for_each(|_| seal_train(&mut lane, black_box(&mut train), segment));
        }
        "open" => {
            // As many are sealed in each run: only the opening differs.
            let trains: Vec<_> = (0..ROUNDS.1).map(|_| sealed(size, &mut lane)).collect();
            for (mut train, segment) in trains.into_iter().take(rounds as usize) {
                black_box(open_train(&opener, &mut train, segment));
            }
        }
        "unpack" => {
            let mut unpacker = Unpacker::new(size);
            (0..rounds).for_each(|_| {
                black_box(unpacker.unpack());
            });
        }
        other => panic!("no work is called {other}"),
    }
}

fn measure() -> Figures {
    let one = |work: &str, size: Size| {
        let (few, many) = (count(work, size, ROUNDS.0), count(work, size, ROUNDS.1));
        (size.to_string(), many.saturating_sub(few) / (ROUNDS.1 - ROUNDS.0))
    };
    WORKS.iter().map(|work| (work.to_string(), SIZES.iter().map(|&size| one(work, size)).collect())).collect()
}

/// All instructions of a run of this program.
fn count(work: &str, size: Size, rounds: u64) -> u64 {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(std::env::current_exe().unwrap());
    command.args(["work", work, &size.to_string(), &rounds.to_string()]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // "==123== Collected : 4567890"
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    match (output.status.success(), collected.and_then(|(_, n)| n.trim().parse().ok())) {
        (true, Some(n)) => n,
        _ => panic!("{command:?}\n{said}"),
    }
}

fn compare(now: &Baseline) -> ExitCode {
    let then: Baseline = match std::fs::read_to_string(BASELINE).map(|text| toml::from_str(&text)) {
        Ok(Ok(baseline)) => baseline,
        error => {
            eprintln!("{BASELINE}: {error:?}\nMake it with: cargo bench --bench instructions -- --renew");
            return ExitCode::FAILURE;
        }
    };
    let tolerance = if then.compiler == now.compiler { TOLERANCE } else { TOLERANCE_ELSEWHERE };
    println!("{:<14}{:>8}{:>14}{:>14}{:>10}", "instructions", "bytes", "baseline", "now", "change");
    let mut moved = 0;
    for work in WORKS {
        for size in SIZES.map(|size| size.to_string()) {
            let known = then.instructions.get(work).and_then(|sizes| sizes.get(&size)).copied();
            let (before, after) = (known.unwrap_or(0), now.instructions[work][&size]);
            let change = after as f64 / before as f64 - 1.0;
            let is_wrong = known.is_none() || change.abs() > tolerance;
            moved += u32::from(is_wrong);
            let mark = if is_wrong { "  <--" } else { "" };
            println!("{work:<14}{size:>8}{before:>14}{after:>14}{:>9.2} %{mark}", change * 100.0);
        }
    }
    if moved == 0 {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "{moved} figures have moved by more than {:.0} %. Where that is meant, renew the baseline and commit it:\n  \
         cargo bench --bench instructions -- --renew",
        tolerance * 100.0
    );
    ExitCode::FAILURE
}

fn compiler() -> String {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into())).arg("--version").output();
    output.map_or(String::new(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}

fn toml(baseline: &Baseline) -> String {
    let mut text = format!(
        "# Instructions of one round, by the frame's bytes. Written by: cargo bench --bench instructions -- --renew\n\
         compiler = {:?}\n",
        baseline.compiler
    );
    for (work, sizes) in &baseline.instructions {
        text += &format!("\n[instructions.{work}]\n");
        let mut sizes: Vec<_> = sizes.iter().collect();
        sizes.sort_by_key(|(size, _)| size.parse::<u64>().unwrap_or(0));
        sizes.iter().for_each(|(size, n)| text += &format!("{size} = {n}\n"));
    }
    text
}
