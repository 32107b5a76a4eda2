//! The clock of the timed passes: processor time of this thread.
//!
//! On a machine that does other things too, a pass of some hundred milliseconds is interrupted many times, and time on
//! the wall would measure the others. Where the system has no such clock, time on the wall serves.

use std::time::Duration;

/// Time that this thread has used since some fixed point.
#[cfg(target_os = "linux")]
pub(crate) fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec that the call may write to.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "Linux has a clock for each thread");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Time that this process has run.
#[cfg(not(target_os = "linux"))]
pub(crate) fn now() -> Duration {
    use std::{sync::OnceLock, time::Instant};
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// What [`now`] measures, for people.
pub(crate) const KIND: &str =
    if cfg!(target_os = "linux") { "processor time of the thread" } else { "time on the wall" };

#[cfg(test)]
mod tests {
    #[test]
    fn work_takes_time_and_sleep_does_not() {
        let start = super::now();
        let mut sum = 0u64;
        for i in 0..1_000_000u64 {
            sum = std::hint::black_box(sum ^ i);
        }
        let worked = super::now() - start;
        assert!(worked.as_nanos() > 0);
        if cfg!(target_os = "linux") {
            let start = super::now();
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!((super::now() - start).as_millis() < 40);
        }
    }
}
