//! Counting comparisons: what the software said beside what the processor said.
//!
//! Each group of comparisons prints one line for each CPU that made it, with the number of checks; each difference is
//! printed in full, with both verdicts. Whoever reads the serial line demands the numbers exactly.

use core::{
    fmt::{Debug, Display},
    sync::atomic::{AtomicUsize, Ordering},
};

use alloc::boxed::Box;
use core::error::Error;

use machine::{exit, println};

static CHECKS: AtomicUsize = AtomicUsize::new(0);
static DIFFERENCES: AtomicUsize = AtomicUsize::new(0);

/// What a group returns: an error is one difference more.
pub type Outcome = Result<(), Box<dyn Error>>;

/// The comparisons of one group on one CPU.
pub struct Report {
    cpu: usize,
    name: &'static str,
    checks: usize,
    differences: usize,
}

/// Runs a group on the CPU that calls this, and prints its line.
pub fn group(cpu: usize, name: &'static str, run: impl FnOnce(&mut Report) -> Outcome) {
    let mut report = Report { cpu, name, checks: 0, differences: 0 };
    if let Err(error) = run(&mut report) {
        report.differences += 1;
        println!("DIFFERENCE [CPU {cpu}] {name}: could not go on: {error}");
    }
    let Report { checks, differences, .. } = report;
    println!("group {name} [CPU {cpu}]: {checks} checks, {differences} differences");
    CHECKS.fetch_add(checks, Ordering::Relaxed);
    DIFFERENCES.fetch_add(differences, Ordering::Relaxed);
}

impl Report {
    /// Compares the two verdicts on `case`.
    pub fn compare<T: PartialEq + Debug + ?Sized>(
        &mut self,
        case: impl Display,
        software: &T,
        processor: &T,
    ) {
        self.checks += 1;
        if software != processor {
            self.differences += 1;
            let Self { cpu, name, .. } = self;
            println!("DIFFERENCE [CPU {cpu}] {name}: {case}");
            println!("    software:  {software:x?}");
            println!("    processor: {processor:x?}");
        }
    }

    /// Says something that belongs to this group: one CPU is enough for that.
    pub fn note(&self, what: impl Display) {
        if self.cpu == 0 {
            println!("    {}: {what}", self.name);
        }
    }

    /// Says what this processor does not have, so that it is not tried.
    pub fn absent(&self, what: impl Display) {
        self.note(format_args!("not on this model: {what}"));
    }

    /// Says what this emulator does otherwise than the SDM, and where that is checked instead.
    pub fn blind(&self, what: impl Display) {
        self.note(format_args!("blind spot: {what}"));
    }
}

/// The last line, and the end.
pub fn finish() -> ! {
    let (checks, differences) = (CHECKS.load(Ordering::Relaxed), DIFFERENCES.load(Ordering::Relaxed));
    println!("vmx-proof: {checks} checks passed, {differences} failed");
    if differences == 0 { exit::success() } else { exit::failure() }
}
