//! A CPU index for hosts: each thread is a CPU.
//!
//! A thread takes the lowest index that is free when it first uses a cache, keeps it, and gives it back when it ends;
//! the thread that takes the index next takes over the slots with what lies in them. When memory runs out, slots whose
//! index no thread holds are emptied at once ([`PinCpu::claim`]).
//!
//! Indices are held in a bitmap, one for the process. Setting a bit acquires what its last holder wrote before
//! clearing it, so executions under the same index are ordered.

use core::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::{cell::Cell, thread_local};

use crate::{CpuIndex, PinCpu};

const WORDS: usize = 16;

/// A bit for each index that a thread, or a claim, holds.
static HELD: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

/// This thread has not asked for an index yet.
const UNKNOWN: usize = usize::MAX;
/// This thread works without a slot: no index is free, or it is about to end.
const NONE: usize = usize::MAX - 1;

thread_local! {
    // Without a destructor, so that reading it is one load.
    static INDEX: Cell<usize> = const { Cell::new(UNKNOWN) };
    static RELEASE_AT_END: ReleaseAtEnd = const { ReleaseAtEnd };
}

struct ReleaseAtEnd;

impl Drop for ReleaseAtEnd {
    fn drop(&mut self) {
        // Destructors that run later, and signal handlers, work without a slot.
        let index = INDEX.replace(NONE);
        if index < WORDS * 64 {
            HELD[index / 64].fetch_and(!(1 << (index % 64)), Release);
        }
    }
}

/// Binds each thread to an index of its own, below 1024; threads beyond that work without a slot.
///
/// Nothing has to be switched off to stay on a thread, so pinning costs one thread-local load. A signal handler counts
/// as an interrupt. In a thread whose signal handlers use a cache, use it once outside of them first: taking an index
/// registers a destructor, which may not be done in a signal handler.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadCpus;

// SAFETY: an index belongs to one thread from its bit's setting to its clearing, and on one thread only a signal
// handler can interrupt, which ends before the thread goes on. Setting acquires what clearing released.
unsafe impl PinCpu for ThreadCpus {
    type Guard = ();

    #[inline]
    fn pin(&self) -> (CpuIndex, ()) {
        (CpuIndex(INDEX.get()), ())
    }

    fn enlist(&self, cpu: CpuIndex) -> CpuIndex {
        if cpu.0 == UNKNOWN { CpuIndex(take_index()) } else { cpu }
    }

    fn claim(&self, cpu: CpuIndex) -> bool {
        cpu.0 < WORDS * 64 && take(cpu.0)
    }

    unsafe fn release(&self, cpu: CpuIndex) {
        HELD[cpu.0 / 64].fetch_and(!(1 << (cpu.0 % 64)), Release);
    }
}

/// Sets a bit; false if it is set already.
fn take(index: usize) -> bool {
    let bit = 1 << (index % 64);
    HELD[index / 64].load(Relaxed) & bit == 0 && HELD[index / 64].fetch_or(bit, Acquire) & bit == 0
}

#[cold]
#[inline(never)]
fn take_index() -> usize {
    // What interrupts from here on works without a slot, until the index is known.
    INDEX.set(NONE);
    // Fails when the thread's destructors have run: it stays without a slot.
    if RELEASE_AT_END.try_with(|_| ()).is_ok() {
        if let Some(index) = (0..WORDS * 64).find(|&index| take(index)) {
            INDEX.set(index);
        }
    }
    INDEX.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::mpsc, thread, vec::Vec};

    fn index() -> CpuIndex {
        ThreadCpus.enlist(ThreadCpus.pin().0)
    }

    #[test]
    fn threads_hold_distinct_indices_and_give_them_back() {
        let mine = index();
        assert_eq!(ThreadCpus.pin().0, mine);
        assert!(!ThreadCpus.claim(mine));

        let (report, indices) = mpsc::channel();
        let (end, wait) = mpsc::channel::<()>();
        let other = thread::spawn(move || {
            report.send(index()).unwrap();
            let _ = wait.recv();
        });
        let theirs = indices.recv().unwrap();
        assert_ne!(theirs, mine);
        assert!(!ThreadCpus.claim(theirs));
        drop(end);
        other.join().unwrap();

        // Other tests' threads may take it meanwhile: then it is merely held again.
        if ThreadCpus.claim(theirs) {
            // SAFETY: just claimed.
            unsafe { ThreadCpus.release(theirs) };
        }
    }

    #[test]
    fn a_destructor_that_runs_late_works_without_a_slot() {
        struct Late(mpsc::Sender<CpuIndex>);
        impl Drop for Late {
            fn drop(&mut self) {
                self.0.send(index()).unwrap();
            }
        }
        thread_local!(static LATE: Cell<Option<Late>> = const { Cell::new(None) });
        let (report, indices) = mpsc::channel();
        thread::spawn(move || {
            LATE.set(Some(Late(report.clone())));
            report.send(index()).unwrap();
        })
        .join()
        .unwrap();
        let indices: Vec<_> = indices.iter().collect();
        // Destructors run in an order that is not promised: the index is the thread's own or none.
        assert!(indices[0].0 < WORDS * 64);
        assert!(indices[1] == indices[0] || indices[1].0 == NONE);
    }
}
