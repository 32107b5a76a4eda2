//! The state behind a test HAL: scopes, and what is checked at every call.
//!
//! A scope installs an allocator and memory; calls find them under a read lock, so that the end of the scope, which
//! takes the write lock, comes after all of them. A check that fails panics; while the thread is unwinding already
//! (frames are dropped then) it is noted instead, and told at the end.

use std::{
    backtrace::Backtrace,
    collections::BTreeMap,
    env, eprintln, format,
    marker::PhantomData,
    mem,
    string::String,
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, ThreadId},
    vec::Vec,
};

use frame_core::{
    AllocError, FRAME_SIZE, FrameAllocator, FrameHal, FrameLayout, FrameRange, PhysAddr, VirtAddr,
};

use super::{
    HalTag,
    ledger::{Frame, Ledger},
};
use crate::{Backend, Faults, SimMemory};

/// What a frame holds when it is handed out.
const NEW: u8 = 0xa5;
/// What a frame holds after it was freed.
const DEAD: u8 = 0xde;
/// Longer runs are not poisoned: that would touch each frame of a simulated gibibyte.
const POISON_LIMIT: usize = 4096;
/// Scopes of up to so many frames are searched in the end for writes to frames that were never handed out.
const SEARCH_LIMIT: usize = 1 << 14;

/// The state of a test HAL.
///
/// Faults that end the test: a frame is handed out twice (the allocator's fault), freed twice, freed though it was
/// never handed out, refused by the allocator though it was owned, reached through `phys_to_virt` though nobody owns
/// it, written to after it was freed or though it was never handed out, or still owned in the end of the scope; the
/// HAL is used outside a scope.
#[derive(Debug)]
pub struct HalState {
    name: &'static str,
    faults: Faults,
    /// Held by the scope that runs, on that thread.
    turn: Mutex<()>,
    holder: Mutex<Option<ThreadId>>,
    scope: RwLock<Option<Scope>>,
    noted: Mutex<Vec<String>>,
}

struct Scope {
    memory: SimMemory,
    /// Lives as long as the scope is installed: see `HalState::scope`.
    allocator: &'static dyn FrameAllocator,
    ledger: Ledger,
    owned: AtomicUsize,
    serial: AtomicU32,
    /// With `FRAME_TRACE`: where each allocation was.
    traces: Option<Mutex<BTreeMap<u32, Backtrace>>>,
}

impl HalState {
    /// The state of a HAL of that name, outside of any scope.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            faults: Faults::new(),
            turn: Mutex::new(()),
            holder: Mutex::new(None),
            scope: RwLock::new(None),
            noted: Mutex::new(Vec::new()),
        }
    }

    /// Which allocations are made to fail.
    pub const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Frames owned now; 0 outside a scope.
    pub fn owned(&self) -> usize {
        self.current().as_ref().map_or(0, |scope| scope.owned.load(SeqCst))
    }

    /// See [`TestHal::scope_in`](crate::TestHal::scope_in).
    #[track_caller]
    pub fn scope<B: Backend, R>(&self, ranges: &[FrameRange], test: impl FnOnce() -> R) -> R {
        let me = thread::current().id();
        let nested = *ignore_poison(self.holder.lock()) == Some(me);
        assert!(!nested, "{}: a scope inside a scope: declare a second HAL", self.name);
        let _turn = ignore_poison(self.turn.lock());
        *ignore_poison(self.holder.lock()) = Some(me);
        let memory = SimMemory::new(ranges).expect("address space for the simulated memory");
        self.faults.reset();
        ignore_poison(self.noted.lock()).clear();
        let result = B::with(ranges, |allocator| {
            let allocator: &dyn FrameAllocator = allocator;
            // SAFETY: only the lifetime changes. The reference is used under the read lock of `self.scope` alone, and
            // `Installed` takes it out under the write lock before this closure returns, by a panic too.
            let allocator: &'static dyn FrameAllocator = unsafe { mem::transmute(allocator) };
            let installed = Installed::new(self, Scope::new(memory, allocator, ranges));
            let result = test();
            installed.end();
            result
        });
        self.tell();
        result
    }

    /// Allocates frames, full of 0xa5.
    ///
    /// # Errors
    /// Memory is exhausted, or the failure was asked for.
    #[track_caller]
    pub fn alloc(&self, layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        let current = self.current();
        let Some(scope) = current.as_ref() else {
            drop(current);
            self.fault(format!("{}: an allocation outside of a scope", self.name));
            return Err(AllocError::NoMemory);
        };
        self.faults.next_call()?;
        let start =
            if layout.is_single() { scope.allocator.alloc_frame() } else { scope.allocator.alloc(layout) }?;
        let checked = scope.given(start, layout);
        drop(current);
        if let Err(fault) = checked {
            self.fault(format!("{}: {fault}", self.name));
            return Err(AllocError::NoMemory);
        }
        Ok(start)
    }

    /// Takes frames back.
    #[track_caller]
    pub fn dealloc(&self, start: PhysAddr, layout: FrameLayout) {
        let current = self.current();
        let freed = match current.as_ref() {
            Some(scope) => scope.taken_back(start, layout),
            None => Err(format!("frame {start:#x} is freed outside of a scope")),
        };
        drop(current);
        if let Err(fault) = freed {
            self.fault(format!("{}: {fault}", self.name));
        }
    }

    /// Where an owned frame lies on the host.
    ///
    /// # Panics
    /// Nobody owns it.
    #[track_caller]
    pub fn phys_to_virt(&self, paddr: PhysAddr) -> VirtAddr {
        let current = self.current();
        let name = self.name;
        let Some(scope) = current.as_ref() else {
            drop(current);
            panic!("{name}: {paddr:#x} is reached outside of a scope");
        };
        let frame = scope.ledger.get(paddr);
        if let Some(Frame::Owned { .. }) = frame {
            return VirtAddr::from(scope.memory.ptr(paddr) as usize);
        }
        drop(current);
        panic!("{name}: {paddr:#x} is reached, but nobody owns the frame ({})", described(frame));
    }

    fn current(&self) -> RwLockReadGuard<'_, Option<Scope>> {
        self.scope.read().unwrap_or_else(PoisonError::into_inner)
    }

    #[track_caller]
    fn fault(&self, fault: String) {
        // Told again in the end: the panic may be another thread's, which nobody joins.
        ignore_poison(self.noted.lock()).push(fault.clone());
        if thread::panicking() {
            eprintln!("{fault}");
        } else {
            panic!("{fault}");
        }
    }

    /// Panics with what was noted in the scope.
    #[track_caller]
    fn tell(&self) {
        let noted = mem::take(&mut *ignore_poison(self.noted.lock()));
        assert!(noted.is_empty(), "{}", noted.join("\n"));
    }
}

impl Scope {
    fn new(memory: SimMemory, allocator: &'static dyn FrameAllocator, ranges: &[FrameRange]) -> Self {
        Self {
            memory,
            allocator,
            ledger: Ledger::new(ranges),
            owned: AtomicUsize::new(0),
            serial: AtomicU32::new(0),
            traces: env::var_os("FRAME_TRACE").map(|_| Mutex::new(BTreeMap::new())),
        }
    }

    /// Checks what the allocator gave, notes it and poisons it.
    fn given(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("the allocator gave {start:#x} for {layout:?}: {what}"));
        if start.as_usize() % layout.align() != 0 {
            return wrong("misaligned");
        }
        let Ok(run) = FrameRange::new(start, layout.count()) else { return wrong("no such frames") };
        let serial = self.serial.fetch_add(1, SeqCst) + 1;
        for frame in run.frames() {
            match self.ledger.get(frame) {
                None => return wrong("outside of its regions"),
                Some(Frame::Owned { serial }) => {
                    return Err(format!(
                        "the allocator gave frame {frame:#x}, which allocation {serial} owns"
                    ));
                }
                Some(state) if run.count() <= POISON_LIMIT => self.untouched(frame, state)?,
                Some(_) => {}
            }
        }
        for frame in run.frames() {
            if let Frame::Owned { serial } = self.ledger.set(frame, Frame::Owned { serial }) {
                return Err(format!("the allocator gave frame {frame:#x} twice, to allocation {serial} too"));
            }
        }
        self.fill(run, NEW);
        self.owned.fetch_add(run.count(), SeqCst);
        if let Some(traces) = &self.traces {
            ignore_poison(traces.lock()).insert(serial, Backtrace::force_capture());
        }
        Ok(())
    }

    /// Checks a free, notes it, poisons the frames and gives them to the allocator.
    fn taken_back(&self, start: PhysAddr, layout: FrameLayout) -> Result<(), String> {
        let run = FrameRange::new(start, layout.count()).map_err(|error| format!("a bad free: {error}"))?;
        for frame in run.frames() {
            match self.ledger.get(frame) {
                Some(Frame::Owned { .. }) => {}
                Some(Frame::Freed { serial, .. }) => {
                    return Err(format!("frame {frame:#x} is freed twice (allocation {serial} gave it)"));
                }
                Some(Frame::Fresh) => {
                    return Err(format!("frame {frame:#x} is freed, but was never allocated"));
                }
                None => return Err(format!("frame {frame:#x} is freed, which is no memory of this HAL")),
            }
        }
        let poisoned = run.count() <= POISON_LIMIT;
        self.fill(run, DEAD);
        for frame in run.frames() {
            let serial = match self.ledger.get(frame) {
                Some(Frame::Owned { serial } | Frame::Freed { serial, .. }) => serial,
                _ => 0,
            };
            if let Frame::Freed { .. } = self.ledger.set(frame, Frame::Freed { serial, poisoned }) {
                return Err(format!(
                    "frame {frame:#x} is freed by two threads at once (allocation {serial} gave it)"
                ));
            }
        }
        self.owned.fetch_sub(run.count(), SeqCst);
        // SAFETY: the ledger says that the frames were owned, and the caller gives them up.
        let answer = unsafe {
            if layout.is_single() {
                self.allocator.dealloc_frame(start)
            } else {
                self.allocator.dealloc(start, layout)
            }
        };
        answer.map_err(|refused| format!("the allocator refuses frames that are owned: {refused}"))
    }

    /// That a frame which nobody owned holds what it must.
    fn untouched(&self, frame: PhysAddr, state: Frame) -> Result<(), String> {
        let (byte, what) = match state {
            Frame::Freed { poisoned: true, .. } => (DEAD, "after it was freed"),
            Frame::Fresh => (0, "though it was never allocated"),
            _ => return Ok(()),
        };
        let start = self.memory.ptr(frame);
        // SAFETY: the frame is mapped memory of this scope, initialised, and owned by nobody. A writer that breaks
        // the rules is what this looks for; the test is lost then.
        let bytes = unsafe { &*start.cast::<[u8; FRAME_SIZE]>() };
        match bytes.iter().position(|&b| b != byte) {
            Some(offset) => Err(format!(
                "frame {frame:#x} was written to {what}, at offset {offset:#x} ({})",
                described(Some(state))
            )),
            None => Ok(()),
        }
    }

    fn fill(&self, run: FrameRange, byte: u8) {
        if run.count() <= POISON_LIMIT {
            // SAFETY: the run is mapped, adjacent on the host (it lies in one range of the memory, or in ranges that
            // adjoin), and in the hands of this call.
            unsafe { self.memory.ptr(run.start()).write_bytes(byte, run.size()) };
        }
    }

    /// What is wrong in the end.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut leaks = BTreeMap::<u32, Vec<PhysAddr>>::new();
        let search = self.memory.ranges().map(FrameRange::count).sum::<usize>() <= SEARCH_LIMIT;
        for (frame, state) in self.ledger.frames() {
            match state {
                Frame::Owned { serial } => leaks.entry(serial).or_default().push(frame),
                Frame::Fresh if !search => {}
                _ => faults.extend(self.untouched(frame, state).err()),
            }
        }
        let frames: usize = leaks.values().map(Vec::len).sum();
        if frames > 0 {
            const SHOWN: usize = 20;
            let mut message = format!("{frames} frames leaked:");
            for (serial, frames) in leaks.iter().take(SHOWN) {
                let (first, more) = (frames[0], frames.len() - 1);
                message += &format!("\n  {first:#x}");
                if more > 0 {
                    message += &format!(" and {more} more");
                }
                message += &format!(", from allocation {serial}");
                if let Some(traces) = &self.traces {
                    if let Some(trace) = ignore_poison(traces.lock()).get(serial) {
                        message += &format!(":\n{trace}");
                    }
                }
            }
            if leaks.len() > SHOWN {
                message += &format!("\n  ... and of {} more allocations", leaks.len() - SHOWN);
            }
            if self.traces.is_none() {
                message += "\n  (FRAME_TRACE=1 in the environment shows where)";
            }
            faults.push(message);
        }
        faults
    }
}

/// The scope that runs. Takes it away when it ends, however it ends.
struct Installed<'a> {
    state: &'a HalState,
}

impl<'a> Installed<'a> {
    fn new(state: &'a HalState, scope: Scope) -> Self {
        *state.scope.write().unwrap_or_else(PoisonError::into_inner) = Some(scope);
        Self { state }
    }

    /// The test returned: judge it.
    fn end(self) {
        let current = self.state.current();
        let scope = current.as_ref().expect("installed");
        let name = self.state.name;
        let faults = scope.faults().into_iter().map(|fault| format!("{name}: {fault}"));
        ignore_poison(self.state.noted.lock()).extend(faults);
    }
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        *ignore_poison(self.state.holder.lock()) = None;
        let scope = self.state.scope.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(scope) = scope {
            if scope.owned.load(SeqCst) > 0 {
                // Whoever owns the frames may still reach for them: leave the memory where it is.
                mem::forget(scope.memory);
            }
        }
    }
}

fn described(frame: Option<Frame>) -> String {
    match frame {
        None => "no memory of this HAL".into(),
        Some(Frame::Fresh) => "never allocated".into(),
        Some(Frame::Owned { serial }) => format!("owned by allocation {serial}"),
        Some(Frame::Freed { serial, .. }) => format!("freed; allocation {serial} gave it"),
    }
}

/// A panic elsewhere does not matter: what the mutexes guard is whole after each step.
fn ignore_poison<'a, T>(
    locked: Result<MutexGuard<'a, T>, PoisonError<MutexGuard<'a, T>>>,
) -> MutexGuard<'a, T> {
    locked.unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope")
            .field("memory", &self.memory)
            .field("owned", &self.owned)
            .finish_non_exhaustive()
    }
}

/// A test HAL whose state is that of a tag: what the `type` form of [`test_hal!`](crate::test_hal) gives.
#[derive(Debug)]
pub struct SimHal<T>(PhantomData<T>);

impl<T: HalTag> HalTag for SimHal<T> {
    fn state() -> &'static HalState {
        T::state()
    }
}

// SAFETY: frames are handed out by an allocator that keeps its promises, and that is checked: the ledger panics
// before a frame has two owners. Frames are aligned and not at 0. `phys_to_virt` gives the mapped, initialised memory
// of the scope, the same each time, adjacent for a run; the memory stays mapped while a frame is owned.
unsafe impl<T: HalTag> FrameHal for SimHal<T> {
    fn alloc_frame() -> Option<PhysAddr> {
        T::state().alloc(FrameLayout::SINGLE).ok()
    }

    unsafe fn dealloc_frame(paddr: PhysAddr) {
        T::state().dealloc(paddr, FrameLayout::SINGLE);
    }

    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        T::state().phys_to_virt(paddr)
    }

    fn alloc_frames(layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        T::state().alloc(layout)
    }

    unsafe fn dealloc_frames(start: PhysAddr, layout: FrameLayout) -> Result<(), frame_core::DeallocError> {
        T::state().dealloc(start, layout);
        Ok(())
    }
}
