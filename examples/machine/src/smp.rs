//! Several CPUs: start them, and run work on all of them at once.
//!
//! CPU numbers count from 0, the one that booted. The number of CPUs comes from the command line (`cpus=4`), and
//! APIC numbers are taken to be 0, 1, 2 …, as emulators give them: a kernel for real machines reads ACPI's MADT
//! instead.

use core::{
    ptr, slice,
    sync::atomic::{AtomicPtr, AtomicUsize, Ordering},
};

use crate::{apic, boot, cpu, interrupts, port};

/// The page below 1 MiB where other CPUs start. It is written by [`start`]; after that it is free.
pub const START_PAGE: usize = 0x8000;

/// CPUs that run, the first included.
static RUNNING: AtomicUsize = AtomicUsize::new(1);
static APIC_IDS: [AtomicUsize; cpu::MAX_CPUS] = [const { AtomicUsize::new(0) }; cpu::MAX_CPUS];

/// How many CPUs run.
pub fn cpus() -> usize {
    RUNNING.load(Ordering::Acquire)
}

/// The APIC number of a running CPU.
pub fn apic_id(cpu: usize) -> u8 {
    APIC_IDS[cpu].load(Ordering::Relaxed) as u8
}

/// Starts CPUs until `wanted` run (SDM Vol. 3, 9.4.4: INIT, then a start-up message, then a second one).
///
/// # Panics
/// A CPU does not answer, or there is no room for so many.
pub fn start(wanted: usize) {
    assert!((1..=cpu::MAX_CPUS).contains(&wanted), "cpus={wanted}: from 1 to {} work", cpu::MAX_CPUS);
    apic::init();
    APIC_IDS[0].store(usize::from(apic::id()), Ordering::Relaxed);
    // SAFETY: `boot.s` lays the code between these two symbols.
    let code = unsafe {
        let start = &raw const boot::ap16;
        slice::from_raw_parts(start, (&raw const boot::ap16_end).addr() - start.addr())
    };
    // SAFETY: the page is mapped RAM, and the caller keeps it free (documented at `START_PAGE`).
    unsafe { ptr::with_exposed_provenance_mut::<u8>(START_PAGE).copy_from(code.as_ptr(), code.len()) };

    let other_ids = (0..=u8::MAX).filter(|&id| id != apic::id());
    for (index, id) in (1..wanted).zip(other_ids) {
        APIC_IDS[index].store(usize::from(id), Ordering::Relaxed);
        boot::AP_STACK.store(cpu::stack_top(index), Ordering::Release);
        apic::send_init(id);
        port::pause_us(1_000);
        // The second message only if the first was not heard: a CPU that runs ignores it anyway. The second wait is long:
        // on a host with much else to do, the thread that is this CPU may not run for seconds.
        let started = [100_000, 20_000_000].into_iter().any(|patience| {
            apic::send_startup(id, (START_PAGE >> 12) as u8);
            (0..patience).any(|_| {
                port::pause_us(1);
                cpus() > index
            })
        });
        assert!(started, "CPU {index} (APIC {id}) does not start: does the machine have {wanted} CPUs?");
    }
}

/// Where `boot.s` brings a CPU that was started. They come one by one, so the count of running CPUs is its number.
pub(crate) extern "C" fn other_cpu() -> ! {
    let index = RUNNING.load(Ordering::Acquire);
    cpu::init(index);
    apic::init();
    RUNNING.store(index + 1, Ordering::Release);
    let mut done = 0;
    loop {
        interrupts::disable();
        let round = ROUND.load(Ordering::Acquire);
        if round == done {
            interrupts::wait();
            continue;
        }
        done = round;
        // SAFETY: `on_all_cpus` published the job before the round, and keeps it alive until every CPU has finished.
        let job = unsafe { *JOB.load(Ordering::Acquire) };
        job(index);
        FINISHED.fetch_add(1, Ordering::AcqRel);
    }
}

type Job<'a> = &'a (dyn Fn(usize) + Sync);

/// Counts the jobs; a change is the call to work.
static ROUND: AtomicUsize = AtomicUsize::new(0);
static JOB: AtomicPtr<Job<'static>> = AtomicPtr::new(ptr::null_mut());
static FINISHED: AtomicUsize = AtomicUsize::new(0);

/// Runs `job` on every CPU at once, with interrupts off, and returns when all have finished. It gets the CPU's number.
/// To be called by CPU 0 only, and not by a job.
pub fn on_all_cpus(job: &(dyn Fn(usize) + Sync)) {
    assert_eq!(cpu::index(), 0, "only CPU 0 gives out work");
    let others = cpus() - 1;
    let mut job_ref: Job<'_> = job;
    FINISHED.store(0, Ordering::Relaxed);
    JOB.store((&raw mut job_ref).cast(), Ordering::Release);
    ROUND.fetch_add(1, Ordering::AcqRel);
    for cpu in 1..=others {
        apic::send(apic_id(cpu), interrupts::WAKE);
    }
    interrupts::without(|| job(0));
    while FINISHED.load(Ordering::Acquire) < others {
        core::hint::spin_loop();
    }
}
