//! The command on allocators that fail, and on allocators that lie. What it says is tested from the outside, in
//! `tests/vmx.rs`.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use clap::Parser;
use frame_core::{AllocError, DeallocError, DeallocErrorKind, FrameLayout, FrameStats};
use frame_testkit::{FaultInjecting, Oracle};

use super::*;
use crate::cli::{Cli, Command};

/// A VM of 2 MiB and some, small enough to fail in every place.
fn planned(cpu: &str) -> Plan {
    let command = Cli::parse_from(["frame-lab", "vmx", "--cpu", cpu, "--memory", "4M"]).command;
    let Command::Vmx(args) = command else { panic!("another command") };
    plan(&args).unwrap().0
}

/// Memory in two ranges; a run of 2 MiB fits into the second only.
fn regions() -> [FrameRange; 2] {
    [(0x10_0000, 256), (0x40_0000, 2048)]
        .map(|(start, count)| FrameRange::new(PhysAddr::from(start), count).unwrap())
}

fn build<A: FrameAllocator>(cpu: &str, allocator: &A) -> Result<(Report, FrameFacts), VmError> {
    let plan = planned(cpu);
    let host = HostFacts { map: "test".into(), frames: 2304 };
    let regions = regions();
    Build { plan: &plan, assignments: &[], regions: &regions, host: &host }.run(allocator, &|| ())
}

fn oracle() -> Oracle {
    let oracle = Oracle::new();
    regions().into_iter().for_each(|region| oracle.add_region(region).unwrap());
    oracle
}

#[test]
fn whatever_allocation_fails_nothing_is_lost() {
    for cpu in ["first_generation", "core2_penryn", "lynnfield", "skylake_x", "everything"] {
        let faulty = FaultInjecting::new(oracle());
        let free = faulty.stats().free_frames;
        build(cpu, &faulty).unwrap();
        let calls = faulty.faults().calls();
        assert!(calls > 15, "{cpu}: {calls} allocations");
        // The guest's memory is hundreds of frames of the same kind: of those every 7th will do.
        let (mut failed, few) = (BTreeSet::new(), 40);
        for nth in (1..=few.min(calls)).chain((few..=calls).step_by(7)).chain([calls]) {
            faulty.faults().fail_nth(nth);
            match build(cpu, &faulty) {
                Ok((_, frames)) => assert!(frames.is_sound(), "{cpu}, {nth}: {frames:?}"),
                Err(VmError::Build { error, .. }) => {
                    failed.insert(error.what);
                }
                Err(error) => panic!("{cpu}, {nth}: {error}"),
            }
            assert_eq!(faulty.stats().free_frames, free, "{cpu}, {nth}");
        }
        for name in ["VMXON region", "I/O bitmaps", "MSR bitmap", "host MSR area", GUEST_MEMORY] {
            assert!(failed.contains(name), "{cpu}: {name}, {failed:?}");
        }
        assert!(failed.contains(EPT) || failed.contains(SHADOW_TABLES), "{cpu}: {failed:?}");
    }
}

#[test]
fn the_structures_have_all_the_frames_and_the_vm_enters() {
    for model in CpuModel::ALL {
        let oracle = oracle();
        let (report, frames) = build(model.id(), &oracle).unwrap();
        assert!(report.verdict.enters, "{}: {:?}", model.id(), report.verdict);
        let told: usize = report.structures.iter().map(|structure| structure.frames).sum();
        assert_eq!((told, frames.given_back), (frames.taken, frames.taken), "{}", model.id());
    }
}

/// How an allocator lies at its third free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// Says that it took the frame back, and did not.
    Keeps,
    /// Refuses a good free.
    Refuses,
    /// Tells the truth.
    None,
}

struct Liar {
    oracle: Oracle,
    lie: Lie,
    frees: AtomicUsize,
}

// SAFETY: it never gives frames out that are in use; what it takes back, it may lose.
unsafe impl FrameAllocator for Liar {
    fn alloc(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        self.oracle.alloc(layout)
    }

    unsafe fn dealloc(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
        let now = self.frees.fetch_add(1, Relaxed) == 2;
        match self.lie {
            Lie::Keeps if now => Ok(()),
            Lie::Refuses if now => Err(DeallocError::new(start, DeallocErrorKind::NotAllocated)),
            // SAFETY: the caller's promise is passed on.
            _ => unsafe { self.oracle.dealloc(start, layout) },
        }
    }

    fn stats(&self) -> FrameStats {
        self.oracle.stats()
    }

    fn visit_free(&self, visit: &mut dyn FnMut(FrameRange)) {
        self.oracle.visit_free(visit);
    }
}

#[test]
fn a_frame_that_does_not_come_back_is_a_complaint() {
    for (lie, part) in [
        (Lie::Keeps, Some("1 free frames missing")),
        (Lie::Refuses, Some("1 frees refused")),
        (Lie::None, None),
    ] {
        let liar = Liar { oracle: oracle(), lie, frees: AtomicUsize::new(0) };
        let (mut report, frames) = build("haswell", &liar).unwrap();
        report.frames = frames;
        let complaints = complaints(&report);
        assert_eq!(complaints.len(), usize::from(part.is_some()), "{complaints:?}");
        if let Some(part) = part {
            assert!(complaints[0].contains(part), "{complaints:?}");
            assert!(text::draw(&report).contains("are missing"));
        }
    }
}

#[test]
fn a_vm_that_nobody_broke_and_that_is_refused_is_a_complaint() {
    let (mut report, frames) = build("haswell", &oracle()).unwrap();
    report.frames = frames;
    assert!(complaints(&report).is_empty());
    report.verdict.enters = false;
    assert!(complaints(&report)[0].contains("nobody broke"));
    report.structures.pop();
    assert_eq!(complaints(&report).len(), 2);
}
