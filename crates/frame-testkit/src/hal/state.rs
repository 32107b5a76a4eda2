//! The state behind a test HAL: scopes, and what is checked at every call.
//!
//! A scope installs an allocator and memory; calls find them under a read lock, so that the end of the scope, which
//! takes the write lock, comes after all of them. A check that fails panics; while the thread is unwinding already
//! (frames are dropped then) it is noted instead, and told at the end.

use std::{
    eprintln, format,
    marker::PhantomData,
    mem,
    string::String,
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, atomic::Ordering::SeqCst},
    thread::{self, ThreadId},
    vec::Vec,
};

use frame_core::{AllocError, FrameAllocator, FrameHal, FrameLayout, FrameRange, PhysAddr, VirtAddr};

use super::{HalTag, scope::Scope};
use crate::{Backend, Faults, SimMemory};

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
        let start = scope.ask(layout)?;
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
        let why = match scope.reach(paddr) {
            Ok(pointer) => return VirtAddr::from(pointer as usize),
            Err(why) => why,
        };
        drop(current);
        panic!("{name}: {paddr:#x} is reached, but nobody owns the frame ({why})");
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

/// A panic elsewhere does not matter: what the mutexes guard is whole after each step.
pub(super) fn ignore_poison<'a, T>(
    locked: Result<MutexGuard<'a, T>, PoisonError<MutexGuard<'a, T>>>,
) -> MutexGuard<'a, T> {
    locked.unwrap_or_else(PoisonError::into_inner)
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
