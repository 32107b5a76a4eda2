//! Several CPUs: start them, and run work on all of them at once. CPU numbers are the machine's.

use core::{
    ptr,
    sync::atomic::{AtomicPtr, AtomicUsize, Ordering},
};

use crate::{apic, board, cpu, interrupts};

/// Where other CPUs start on a PC. Nothing lies there.
pub const START_PAGE: usize = 0x8000;

/// CPUs that run, the first included.
static RUNNING: AtomicUsize = AtomicUsize::new(1);

/// How many CPUs run.
pub fn cpus() -> usize {
    RUNNING.load(Ordering::Acquire)
}

/// The name of a CPU for [`apic::send`].
pub fn apic_id(cpu: usize) -> u8 {
    cpu as u8
}

/// Starts CPUs until `wanted` run.
pub fn start(wanted: usize) {
    assert!((1..=cpu::MAX_CPUS).contains(&wanted), "cpus={wanted}: from 1 to {} work", cpu::MAX_CPUS);
    for index in 1..wanted {
        board::start(index);
        while cpus() == index {
            core::hint::spin_loop();
        }
    }
}

type Job<'a> = &'a (dyn Fn(usize) + Sync);

/// Counts the jobs; a change is the call to work.
static ROUND: AtomicUsize = AtomicUsize::new(0);
static JOB: AtomicPtr<Job<'static>> = AtomicPtr::new(ptr::null_mut());
static FINISHED: AtomicUsize = AtomicUsize::new(0);

/// A CPU that was started, on its stack.
pub extern "C" fn other_cpu() -> ! {
    let index = cpu::index();
    RUNNING.store(index + 1, Ordering::Release);
    let mut done = 0;
    loop {
        if let Some(vector) = apic::received(index) {
            interrupts::handle(vector);
        }
        let round = ROUND.load(Ordering::Acquire);
        if round == done {
            core::hint::spin_loop();
            continue;
        }
        done = round;
        // SAFETY: `on_all_cpus` published the job before the round, and keeps it alive until every CPU has finished.
        let job = unsafe { *JOB.load(Ordering::Acquire) };
        job(index);
        FINISHED.fetch_add(1, Ordering::AcqRel);
    }
}

/// Runs `job` on every CPU at once, and returns when all have finished. It gets the CPU's number. To be called by CPU 0
/// only, and not by a job.
pub fn on_all_cpus(job: &(dyn Fn(usize) + Sync)) {
    let others = cpus() - 1;
    let mut job_ref: Job<'_> = job;
    FINISHED.store(0, Ordering::Relaxed);
    JOB.store((&raw mut job_ref).cast(), Ordering::Release);
    ROUND.fetch_add(1, Ordering::AcqRel);
    job(0);
    while FINISHED.load(Ordering::Acquire) < others {
        core::hint::spin_loop();
    }
}
