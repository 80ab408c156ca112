//! The one command that checks everything: `cargo xtask ci`, or a step of it by name.
//!
//! A step whose tools are absent (a container engine, a browser) says what it skips and passes,
//! unless `TANGELO_REQUIRE_ALL=1`, as in CI: then it fails.

mod step;
mod tidy;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use step::Step;

const USAGE: &str = "usage: cargo xtask ci [--keep-going] | STEP...";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let keep_going = arguments.iter().any(|argument| argument == "--keep-going");
    let names: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|name| *name != "--keep-going").collect();
    let steps = match names.as_slice() {
        ["ci"] => Step::ALL.to_vec(),
        names => names.iter().filter_map(|name| Step::from_name(name)).collect(),
    };
    if names.is_empty() || (names != ["ci"] && steps.len() != names.len()) {
        usage();
        return ExitCode::from(64);
    }
    run(&steps, keep_going)
}

fn usage() {
    eprintln!("{USAGE}\n\nsteps, in the order of `ci`:");
    for step in Step::ALL {
        eprintln!("  {:8} {}", step.name(), step.about());
    }
}

/// Runs the steps in order, up to the first that fails unless `keep_going`, and sums up.
fn run(steps: &[Step], keep_going: bool) -> ExitCode {
    let mut times: Vec<(Step, Duration, bool)> = Vec::new();
    for &step in steps {
        eprintln!("\n==== {}: {}", step.name(), step.about());
        let start = Instant::now();
        let outcome = step.run();
        let (time, passed) = (start.elapsed(), outcome.is_ok());
        match outcome {
            Ok(()) => eprintln!("==== {} took {:.1} s", step.name(), time.as_secs_f64()),
            Err(error) => eprintln!("==== {} FAILED: {error:#}", step.name()),
        }
        times.push((step, time, passed));
        if !passed && !keep_going {
            break;
        }
    }
    eprintln!("\nstep         time  result");
    for (step, time, passed) in &times {
        let result = if *passed { "ok" } else { "FAILED" };
        eprintln!("{:8} {:6.1} s  {result}", step.name(), time.as_secs_f64());
    }
    for step in &steps[times.len()..] {
        eprintln!("{:8}        -  not run", step.name());
    }
    if times.iter().all(|(_, _, passed)| *passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
