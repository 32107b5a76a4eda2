//! Counting checks. The number is the same in each run with the same arguments, so that whoever reads the serial line
//! can demand it exactly: a kernel that skips half of its checks does not pass.

use core::sync::atomic::{AtomicUsize, Ordering};

use machine::{exit, println};

static PASSED: AtomicUsize = AtomicUsize::new(0);
static FAILED: AtomicUsize = AtomicUsize::new(0);

/// Counts a check, and says where it fails.
#[macro_export]
macro_rules! check {
    ($holds:expr, $($what:tt)*) => {
        $crate::report::count($holds, format_args!($($what)*), concat!(file!(), ":", line!()))
    };
}

/// Counts a check that two values are equal.
#[macro_export]
macro_rules! check_eq {
    ($left:expr, $right:expr, $($what:tt)*) => {{
        let (left, right) = (&$left, &$right);
        $crate::check!(left == right, "{}: {left:?} is not {right:?}", format_args!($($what)*))
    }};
}

/// What [`check!`](crate::check) calls. Returns whether it holds.
pub fn count(holds: bool, what: core::fmt::Arguments<'_>, place: &str) -> bool {
    let counter = if holds { &PASSED } else { &FAILED };
    counter.fetch_add(1, Ordering::Relaxed);
    if !holds {
        println!("FAILED at {place}: {what}");
    }
    holds
}

/// Counts checks that were made elsewhere.
pub fn passed(checks: usize) {
    PASSED.fetch_add(checks, Ordering::Relaxed);
}

/// Runs a case and prints how many checks it made.
pub fn case(name: &str, run: impl FnOnce()) {
    let before = (PASSED.load(Ordering::Relaxed), FAILED.load(Ordering::Relaxed));
    run();
    let passed = PASSED.load(Ordering::Relaxed) - before.0;
    let failed = FAILED.load(Ordering::Relaxed) - before.1;
    println!("case {name}: {passed} passed, {failed} failed");
}

/// The last line, which names the program, and the end.
pub fn finish(program: &str) -> ! {
    let (passed, failed) = (PASSED.load(Ordering::Relaxed), FAILED.load(Ordering::Relaxed));
    println!("{program}: {passed} checks passed, {failed} failed");
    if failed == 0 { exit::success() } else { exit::failure() }
}
