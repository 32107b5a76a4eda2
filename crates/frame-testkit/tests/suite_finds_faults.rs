//! The suite goes red: for each fault that an allocator can have, and for several that published ones had, a case
//! fails. The faults are laid over the oracle, one at a time.
#![allow(clippy::undocumented_unsafe_blocks)] // the oracle keeps books and touches no memory; the faults are the point

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex, Once,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use frame_core::{
    AllocError, DeallocError, DeallocErrorKind, FRAME_SIZE, FrameAllocator, FrameLayout, FrameRange,
    FrameStats, PhysAddr, RegionError,
};
use frame_testkit::{Backend, Oracle, OracleBackend, conformance};

/// What is wrong with the allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    GivesTwice,
    GivesTwiceInBulk,
    GivesForeign,
    IgnoresAlignment,
    IgnoresLargeAlignment,
    KeepsTail,
    LosesAFrame,
    GivesUpEarly,
    NoLongRuns,
    SingleFromRunsOnly,
    FreesTooMuch,
    FreesNothing,
    FreesInPart,
    TakesDoubleFrees,
    TakesForeignFrees,
    RoundsMisalignedFrees,
    NamesTheStart,
    NamesTheLast,
    SwapsKinds,
    NoUnionAcrossRegions,
    StaleStats,
    CountsMetadata,
    HidesARun,
    UnsortedRuns,
    IgnoresWindow,
    WindowByStartOnly,
    PlacesInPart,
    PlacesOverHoles,
    PlacesElsewhere,
    BulkStopsShort,
    BulkWritesBehind,
    BulkFreeStops,
    BulkFreeNamesTheLast,
    TakesFrameZero,
    TakesOverlaps,
    NamesNoOverlap,
    ForgetsNewRegions,
    Races,
    RacesOnFree,
    Panics,
}

/// As a const parameter: the number of the fault.
const fn number(fault: Fault) -> u8 {
    fault as u8
}

struct Faulty<const FAULT: u8> {
    oracle: Oracle,
    calls: AtomicUsize,
    last: Mutex<Option<PhysAddr>>,
    regions: Mutex<Vec<FrameRange>>,
}

impl<const FAULT: u8> Faulty<FAULT> {
    fn has(&self, fault: Fault) -> bool {
        number(fault) == FAULT
    }

    fn free_frames(&self) -> usize {
        let mut frames = 0;
        self.oracle.visit_free(&mut |run| frames += run.count());
        frames
    }

    fn frames(start: PhysAddr, layout: FrameLayout) -> impl Iterator<Item = PhysAddr> {
        (0..layout.count()).map(move |i| PhysAddr::from(start.as_usize().wrapping_add(i * FRAME_SIZE)))
    }
}

unsafe impl<const FAULT: u8> FrameAllocator for Faulty<FAULT> {
    fn alloc(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        let call = self.calls.fetch_add(1, Relaxed);
        let plain = FrameLayout::contiguous(layout.count()).unwrap();
        if self.has(Fault::GivesTwice) && call % 50 == 49 {
            if let Some(last) = *self.last.lock().unwrap() {
                return Ok(last);
            }
        }
        if self.has(Fault::GivesForeign) && call == 70 {
            return Ok(PhysAddr::from(0x9999_9000_0000));
        }
        if self.has(Fault::IgnoresAlignment) {
            return self.oracle.alloc(plain);
        }
        if self.has(Fault::IgnoresLargeAlignment) && layout.align() > 1 << 30 {
            return self.oracle.alloc(plain);
        }
        if self.has(Fault::KeepsTail) {
            let count = layout.count().checked_next_power_of_two().ok_or(AllocError::NoMemory)?;
            let layout = FrameLayout::new(count, layout.align()).map_err(|_| AllocError::NoMemory)?;
            return self.oracle.alloc(layout);
        }
        if self.has(Fault::GivesUpEarly) && self.free_frames() < 5 {
            return Err(AllocError::NoMemory);
        }
        if self.has(Fault::NoLongRuns) && layout.count() > 512 {
            return Err(AllocError::NoMemory);
        }
        if self.has(Fault::SingleFromRunsOnly) && layout.is_single() {
            // Refill by a run of 4, and no memory when there is none: single frames are lost to fragmentation.
            let four = self.oracle.alloc(FrameLayout::contiguous(4).unwrap())?;
            unsafe { self.oracle.dealloc(four + FRAME_SIZE, FrameLayout::contiguous(3).unwrap()) }.unwrap();
            return Ok(four);
        }
        if self.has(Fault::Races) && layout.is_single() {
            // Looks, lets others run, takes whatever it saw.
            let mut seen = None;
            self.oracle.visit_free(&mut |run| seen = seen.or(Some(run.start())));
            thread::yield_now();
            let seen = seen.ok_or(AllocError::NoMemory)?;
            let _ = self.oracle.alloc_at(FrameRange::new(seen, 1).unwrap());
            return Ok(seen);
        }
        assert!(!self.has(Fault::Panics) || layout.count() < 1 << 40, "an overflow");
        let start = self.oracle.alloc(layout)?;
        *self.last.lock().unwrap() = Some(start);
        Ok(start)
    }

    unsafe fn dealloc(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), DeallocError> {
        let free = |start, layout| unsafe { self.oracle.dealloc(start, layout) };
        let call = self.calls.fetch_add(1, Relaxed);
        if self.has(Fault::FreesNothing) && call % 20 == 19 {
            return Ok(());
        }
        if self.has(Fault::FreesTooMuch) {
            if let Ok(more) = FrameLayout::contiguous(layout.count() + 1) {
                if layout.count() % 2 == 1 && free(start, more).is_ok() {
                    return Ok(());
                }
            }
        }
        if self.has(Fault::RoundsMisalignedFrees) {
            let start = PhysAddr::from(start.as_usize() & !(FRAME_SIZE - 1));
            return free(start, FrameLayout::contiguous(layout.count()).unwrap());
        }
        if self.has(Fault::NoUnionAcrossRegions) {
            let regions = self.regions.lock().unwrap();
            let home = regions.iter().find(|region| region.contains(start));
            let foreign =
                |home: &FrameRange| Self::frames(start, layout).find(|frame| !home.contains(*frame));
            if let Some(frame) = home.and_then(foreign) {
                return Err(DeallocError::new(frame, DeallocErrorKind::NotManaged));
            }
        }
        if self.has(Fault::RacesOnFree) {
            // A lost update: what another thread frees meanwhile is taken again.
            let before = self.calls.load(Relaxed);
            thread::yield_now();
            if self.calls.load(Relaxed) != before {
                return Ok(());
            }
        }
        let result = free(start, layout);
        let Err(error) = result else { return Ok(()) };
        let last = Self::frames(start, layout).last().unwrap_or(start);
        match error.kind {
            DeallocErrorKind::NotAllocated if self.has(Fault::TakesDoubleFrees) => Ok(()),
            DeallocErrorKind::NotManaged if self.has(Fault::TakesForeignFrees) => Ok(()),
            DeallocErrorKind::Misaligned => Err(error),
            _ if self.has(Fault::FreesInPart) => {
                for frame in Self::frames(start, layout) {
                    free(frame, FrameLayout::SINGLE)?;
                }
                Err(error)
            }
            kind if self.has(Fault::NamesTheStart) => Err(DeallocError::new(start, kind)),
            kind if self.has(Fault::NamesTheLast) => Err(DeallocError::new(last, kind)),
            DeallocErrorKind::NotManaged if self.has(Fault::SwapsKinds) => {
                Err(DeallocError::new(error.frame, DeallocErrorKind::NotAllocated))
            }
            _ => Err(error),
        }
    }

    fn stats(&self) -> FrameStats {
        let mut stats = self.oracle.stats();
        if self.has(Fault::StaleStats) && stats.free_frames == 0 {
            stats.free_frames = 1;
        }
        if self.has(Fault::CountsMetadata) {
            stats.total_frames -= 1;
            stats.free_frames = stats.free_frames.saturating_sub(1);
        }
        if self.has(Fault::LosesAFrame) {
            stats.free_frames = stats.free_frames.max(1);
        }
        stats
    }

    fn visit_free(&self, visit: &mut dyn FnMut(FrameRange)) {
        let mut runs = Vec::new();
        self.oracle.visit_free(&mut |run| runs.push(run));
        if self.has(Fault::HidesARun) && runs.len() > 3 {
            runs.remove(2);
        }
        if self.has(Fault::UnsortedRuns) {
            runs.reverse();
        }
        runs.into_iter().for_each(visit);
    }

    fn alloc_frame(&self) -> Result<PhysAddr, AllocError> {
        if self.has(Fault::LosesAFrame) && self.free_frames() == 1 {
            return Err(AllocError::NoMemory);
        }
        self.alloc(FrameLayout::SINGLE)
    }

    fn alloc_bulk(&self, frames: &mut [PhysAddr]) -> usize {
        if self.has(Fault::BulkStopsShort) && frames.len() > 64 {
            return self.oracle.alloc_bulk(&mut frames[..64]);
        }
        let given = self.oracle.alloc_bulk(frames);
        if self.has(Fault::BulkWritesBehind) && given < frames.len() {
            frames[given] = PhysAddr::from(0);
        }
        if self.has(Fault::GivesTwiceInBulk) && given > 60 {
            frames[60] = frames[0];
        }
        given
    }

    unsafe fn dealloc_bulk(&self, frames: &[PhysAddr]) -> Result<(), DeallocError> {
        let mut result = Ok(());
        for &frame in frames {
            if self.has(Fault::BulkFreeStops) {
                unsafe { self.dealloc_frame(frame) }?;
            } else {
                result = result.and(unsafe { self.dealloc_frame(frame) });
            }
        }
        match result {
            Err(error) if self.has(Fault::BulkFreeNamesTheLast) => {
                Err(DeallocError::new(*frames.last().unwrap(), error.kind))
            }
            result => result,
        }
    }

    fn alloc_at(&self, range: FrameRange) -> Result<(), AllocError> {
        if self.has(Fault::PlacesElsewhere) && range.count() == 1 {
            return self.oracle.alloc(FrameLayout::SINGLE).map(|_| ());
        }
        let result = self.oracle.alloc_at(range);
        match result {
            Err(AllocError::InUse) if self.has(Fault::PlacesInPart) => {
                for frame in range.frames() {
                    self.oracle.alloc_at(FrameRange::new(frame, 1).unwrap())?;
                }
                result
            }
            Err(AllocError::NotManaged) if self.has(Fault::PlacesOverHoles) => Err(AllocError::InUse),
            result => result,
        }
    }

    fn alloc_in(&self, layout: FrameLayout, window: FrameRange) -> Result<PhysAddr, AllocError> {
        if self.has(Fault::IgnoresWindow) {
            return self.oracle.alloc(layout);
        }
        if self.has(Fault::WindowByStartOnly) {
            let longer = FrameRange::new(window.start(), window.count() + 1).unwrap();
            return self.oracle.alloc_in(layout, longer);
        }
        self.oracle.alloc_in(layout, window)
    }
}

struct FaultyBackend<const FAULT: u8>;

impl<const FAULT: u8> Backend for FaultyBackend<FAULT> {
    const NAME: &'static str = "faulty";
    type Allocator<'m> = Faulty<FAULT>;

    fn with<R>(regions: &[FrameRange], test: impl FnOnce(&Faulty<FAULT>) -> R) -> R {
        let oracle = Oracle::new();
        for &region in regions {
            oracle.add_region(region).unwrap();
        }
        let regions = Mutex::new(regions.to_vec());
        test(&Faulty { oracle, calls: AtomicUsize::new(0), last: Mutex::new(None), regions })
    }

    fn offer(faulty: &Faulty<FAULT>, region: FrameRange) -> Option<Result<(), RegionError>> {
        let answer = OracleBackend::offer(&faulty.oracle, region).unwrap();
        Some(match answer {
            Err(RegionError::FrameZero) if faulty.has(Fault::TakesFrameZero) => Ok(()),
            Err(RegionError::Overlap { .. }) if faulty.has(Fault::TakesOverlaps) => Ok(()),
            Err(RegionError::Overlap { region, .. }) if faulty.has(Fault::NamesNoOverlap) => {
                let managed = FrameRange::new(PhysAddr::from(0x7000_0000_0000), 1).unwrap();
                Err(RegionError::Overlap { region, managed })
            }
            Ok(()) if faulty.has(Fault::ForgetsNewRegions) => {
                faulty.oracle.alloc_at(region).unwrap();
                Ok(())
            }
            answer => answer,
        })
    }
}

/// The panics are wanted; resolving a backtrace for each would take most of the time.
fn no_backtraces() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| panic::set_hook(Box::new(|panic| eprintln!("{panic}"))));
}

/// That each of the cases fails for an allocator with that fault.
macro_rules! found {
    ($($test:ident: $fault:ident by $($case:ident),+;)*) => {$(
        #[test]
        fn $test() {
            $(
                no_backtraces();
                let case = conformance::$case::<FaultyBackend<{ number(Fault::$fault) }>>;
                let result = panic::catch_unwind(AssertUnwindSafe(case));
                assert!(result.is_err(), "{} passes with {:?}", stringify!($case), Fault::$fault);
            )+
        }
    )*};
}

found! {
    a_frame_given_twice: GivesTwice by exhaustion_frame_by_frame, random_operations_on_small_maps;
    a_frame_given_twice_in_bulk: GivesTwiceInBulk by bulk_until_empty, threads_share_single_frames;
    a_foreign_frame: GivesForeign by exhaustion_frame_by_frame;
    an_ignored_alignment: IgnoresAlignment by odd_counts_and_alignments, runs_of_every_order;
    an_ignored_alignment_above_1g: IgnoresLargeAlignment by odd_counts_and_alignments;
    a_lost_tail: KeepsTail by odd_counts_and_alignments, parts_are_freed_in_any_order;
    a_lost_frame: LosesAFrame by exhaustion_frame_by_frame, exhaustion_of_random_maps;
    the_last_frames_not_given: GivesUpEarly by exhaustion_frame_by_frame, exhaustion_of_random_maps;
    no_long_runs: NoLongRuns by runs_of_every_order, odd_counts_and_alignments;
    no_single_frame_without_a_run: SingleFromRunsOnly by exhaustion_frame_by_frame, fragmented_memory;
    a_neighbour_freed_too: FreesTooMuch by parts_are_freed_in_any_order, exhaustion_frame_by_frame;
    a_free_forgotten: FreesNothing by exhaustion_frame_by_frame, threads_share_single_frames;
    a_refused_free_that_frees_a_part: FreesInPart by frees_of_a_wrong_size_are_refused,
        neighbouring_regions_are_freed_together, random_operations_on_small_maps;
    a_double_free_taken: TakesDoubleFrees by double_frees_are_refused, frees_of_a_wrong_size_are_refused,
        bulk_frees_go_on_behind_a_bad_frame;
    a_foreign_free_taken: TakesForeignFrees by foreign_frees_are_refused, frees_of_a_wrong_size_are_refused;
    a_misaligned_free_rounded: RoundsMisalignedFrees by misaligned_frees_are_refused;
    the_start_named: NamesTheStart by double_frees_are_refused, frees_of_a_wrong_size_are_refused;
    the_last_frame_named: NamesTheLast by frees_of_a_wrong_size_are_refused, foreign_frees_are_refused;
    the_wrong_kind: SwapsKinds by foreign_frees_are_refused;
    a_union_across_regions_refused: NoUnionAcrossRegions by neighbouring_regions_are_freed_together;
    stale_statistics: StaleStats by exhaustion_frame_by_frame;
    metadata_taken_from_the_frames: CountsMetadata by firmware_frame_counts, random_map_frame_counts;
    a_free_run_not_shown: HidesARun by firmware_frame_counts, parts_are_freed_in_any_order;
    free_runs_unsorted: UnsortedRuns by firmware_frame_counts;
    an_ignored_window: IgnoresWindow by windows, exhausted_windows;
    a_run_that_leaves_its_window: WindowByStartOnly by windows;
    a_refused_place_that_takes_a_part: PlacesInPart by placed_frames;
    a_hole_said_to_be_in_use: PlacesOverHoles by placed_frames, placed_frames_across_regions;
    a_place_elsewhere: PlacesElsewhere by placed_frames;
    a_bulk_that_stops_short: BulkStopsShort by bulk_until_empty;
    a_bulk_that_writes_behind: BulkWritesBehind by bulk_until_empty;
    a_bulk_free_that_stops: BulkFreeStops by bulk_frees_go_on_behind_a_bad_frame;
    a_bulk_free_that_names_another: BulkFreeNamesTheLast by bulk_frees_go_on_behind_a_bad_frame;
    frame_zero_taken: TakesFrameZero by bad_regions_are_refused;
    an_overlap_taken: TakesOverlaps by bad_regions_are_refused;
    an_overlap_with_another_region_named: NamesNoOverlap by bad_regions_are_refused;
    a_new_region_not_used: ForgetsNewRegions by regions_are_added_in_use;
    a_race_of_allocations: Races by threads_exhaust_memory, threads_share_single_frames;
    a_race_of_frees: RacesOnFree by threads_share_single_frames, threads_free_for_each_other;
    a_panic: Panics by impossible_layouts_fail;
}

#[test]
fn without_a_fault_nothing_is_found() {
    type Sound = FaultyBackend<{ number(Fault::None) }>;
    conformance::exhaustion_frame_by_frame::<Sound>();
    conformance::odd_counts_and_alignments::<Sound>();
    conformance::double_frees_are_refused::<Sound>();
    conformance::frees_of_a_wrong_size_are_refused::<Sound>();
    conformance::bulk_frees_go_on_behind_a_bad_frame::<Sound>();
    conformance::bad_regions_are_refused::<Sound>();
    conformance::threads_share_single_frames::<Sound>();
}
