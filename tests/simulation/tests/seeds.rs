//! Some seeds in every test run; `geoworker-simulation --seeds N` plays more.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

use clap::ValueEnum;
use geoworker_simulation::{Mutation, Simulation};

/// Seeds of a test run.
const SEEDS: u64 = 2000;
/// Seeds that a long run found: an attempt of a job that was given up slept until the next run had published.
const FOUND: [u64; 2] = [30_577, 31_270];
/// Seeds within which each broken rule must be noticed.
const MUTATION_SEEDS: u64 = 400;

fn simulation() -> Simulation {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/dist-simulation");
    Simulation::load(&plugins).expect("the guests are built by tools/build-plugins")
}

/// R8, R10, R11, R15 to R18, B1, B2.
#[test]
fn every_seed_keeps_the_invariants() {
    let simulation = simulation();
    let (mut claims, mut deaths) = (0, 0);
    for seed in (1..=SEEDS).chain(FOUND) {
        let outcome = simulation.play(seed, None, false).expect("plays");
        assert!(outcome.broken.is_empty(), "seed {seed}: {:#?}", outcome.broken);
        claims += outcome.claims;
        deaths += outcome.deaths;
    }
    assert!(
        claims > 5000 && deaths > 1000,
        "{claims} attempts and {deaths} deaths: that is no simulation of faults"
    );
}

/// A seed that fails can be looked at again.
#[test]
fn a_seed_repeats_itself() {
    let simulation = simulation();
    for seed in [3, 17, 40] {
        let [one, two] = [0, 1].map(|_| simulation.play(seed, None, true).expect("plays").trace);
        assert!(one.len() > 20, "seed {seed} has no story");
        assert_eq!(one, two, "seed {seed}");
    }
}

/// A simulation that notices nothing proves nothing.
#[test]
fn every_broken_rule_is_noticed() {
    let simulation = simulation();
    for mutation in Mutation::value_variants() {
        let noticed = (1..=MUTATION_SEEDS)
            .any(|seed| !simulation.play(seed, Some(*mutation), false).expect("plays").broken.is_empty());
        assert!(noticed, "{mutation:?} was not noticed in {MUTATION_SEEDS} seeds");
    }
}
