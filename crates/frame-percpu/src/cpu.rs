//! Which CPU is this, and may it stay so for a moment?
//!
//! A slot of the cache belongs to one CPU, and that CPU works on it with plain loads and stores. So the cache must
//! know on which CPU it runs and that it stays there for the length of one operation: it is *pinned*. A kernel
//! switches preemption off; a kernel that is never preempted, and a host where each thread counts as a CPU, need
//! nothing but the index.
//!
//! Interrupts may stay on. What interrupts a pinned execution on its CPU runs to its end before the pinned execution
//! goes on: interruptions nest, last in, first out. [`CpuSlot`](crate::CpuSlot) builds on that and on nothing more.

/// The index of a CPU, from 0. The cache has a slot for each index below the number of slots attached; a CPU with a
/// higher index goes straight to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuIndex(pub usize);

/// Names the current CPU and keeps the caller on it.
///
/// For a kernel that counts its preempt-offs:
/// ```
/// # mod arch { pub fn preempt_disable() {} pub fn preempt_enable() {} pub fn cpu_id() -> usize { 0 } }
/// use frame_percpu::{CpuIndex, PinCpu};
///
/// struct Kernel;
/// struct NoPreempt;
/// impl Drop for NoPreempt {
///     fn drop(&mut self) {
///         arch::preempt_enable();
///     }
/// }
/// // SAFETY: without preemption, only interrupts run on this CPU until the guard is dropped, and each ends before the
/// // code that it interrupted goes on. CPU ids are distinct.
/// unsafe impl PinCpu for Kernel {
///     type Guard = NoPreempt;
///     #[inline]
///     fn pin(&self) -> (CpuIndex, NoPreempt) {
///         arch::preempt_disable();
///         (CpuIndex(arch::cpu_id()), NoPreempt)
///     }
/// }
/// ```
/// A kernel that does not preempt kernel code has `type Guard = ();` and pays for reading the index alone.
///
/// # A wrong implementation
/// One that reads the index first and switches preemption off after that: moved to another CPU in between, it works
/// on the slot of the CPU that it left, at the same time as that CPU's new thread.
///
/// # Implementation safety
/// From a [`pin`](Self::pin) until its guard is dropped, no other execution is pinned under the same index, except
/// one that interrupts the pinned execution and ends, guard dropped, before that goes on (an interrupt, an NMI, a
/// signal handler of the same thread). Executions that are pinned under the same index one after another are ordered:
/// the later one sees what the earlier one wrote (a context switch and the start of a CPU see to that).
///
/// In interrupt context, dropping the guard must not switch to another thread.
pub unsafe trait PinCpu: Send + Sync {
    /// Unpins when it is dropped; `()` where nothing has to be undone.
    type Guard;

    /// Pins the caller to its CPU and names it.
    fn pin(&self) -> (CpuIndex, Self::Guard);

    /// Called while pinned under an index that has no slot: an implementor that gives indices out late gives one now, and
    /// the caller is pinned under it from here on. Provided: the index stays.
    fn enlist(&self, cpu: CpuIndex) -> CpuIndex {
        cpu
    }

    /// Takes the place of a CPU that runs nothing, so that its slot can be emptied: true if from now on, until
    /// [`release`](Self::release), no execution is pinned under this index, and all that was is ordered before. Called
    /// when memory runs out, for CPUs whose slots hold frames. Provided: nobody's place can be taken.
    fn claim(&self, cpu: CpuIndex) -> bool {
        let _ = cpu;
        false
    }

    /// Ends a [`claim`](Self::claim).
    ///
    /// # Safety
    /// The caller's claim of this CPU succeeded, has not been released since, and is used no more.
    unsafe fn release(&self, cpu: CpuIndex) {
        let _ = cpu;
    }

    /// Called when `cpu` was asked to give its cached frames back. It does so at its next operation; if it may be
    /// idle, an interrupt sent from here whose handler calls [`drain_local`](crate::PerCpu::drain_local) makes it do
    /// so soon. Must not wait for the other CPU.
    ///
    /// It is called wherever an allocation runs out of memory: in an interrupt or NMI too, if handlers allocate. Where
    /// sending takes several steps that such a handler may come between, do nothing there: the next allocation that
    /// runs out elsewhere kicks again once the CPU has answered. Provided: does nothing.
    fn kick(&self, cpu: CpuIndex) {
        let _ = cpu;
    }
}

// SAFETY: every call is passed on to an implementor.
unsafe impl<C: PinCpu + ?Sized> PinCpu for &C {
    type Guard = C::Guard;
    #[inline]
    fn pin(&self) -> (CpuIndex, C::Guard) {
        (**self).pin()
    }
    fn enlist(&self, cpu: CpuIndex) -> CpuIndex {
        (**self).enlist(cpu)
    }
    fn claim(&self, cpu: CpuIndex) -> bool {
        (**self).claim(cpu)
    }
    unsafe fn release(&self, cpu: CpuIndex) {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).release(cpu) }
    }
    fn kick(&self, cpu: CpuIndex) {
        (**self).kick(cpu);
    }
}

/// A [`PinCpu`] made from two functions of a kernel: one that pins (its result unpins when dropped) and one that reads
/// the index of the current CPU.
///
/// ```
/// # struct NoPreempt; impl NoPreempt { fn new() -> Self { Self } } fn cpu_id() -> usize { 0 }
/// use frame_percpu::FnCpus;
///
/// // SAFETY: `NoPreempt` switches preemption off until it is dropped; `cpu_id` is distinct for each CPU.
/// static CPUS: FnCpus<fn() -> NoPreempt> = unsafe { FnCpus::new(NoPreempt::new, cpu_id) };
/// ```
///
/// With function pointers, as in a `static`, each operation makes two indirect calls; implementing [`PinCpu`] avoids
/// them.
#[derive(Clone, Copy, Debug)]
pub struct FnCpus<G = fn(), I = fn() -> usize> {
    guard: G,
    index: I,
}

impl<G, I> FnCpus<G, I> {
    /// Pins with `guard`, then reads the index with `index`.
    ///
    /// # Safety
    /// Together they keep the promise of [`PinCpu`]; `guard` may do nothing (`|| ()`) where code is never moved from
    /// its CPU and never preempted by other code that uses the cache.
    pub const unsafe fn new(guard: G, index: I) -> Self {
        Self { guard, index }
    }
}

// SAFETY: promised by the caller of `new`; the guard is taken before the index is read.
unsafe impl<G, I, T> PinCpu for FnCpus<G, I>
where
    G: Fn() -> T + Send + Sync,
    I: Fn() -> usize + Send + Sync,
{
    type Guard = T;
    #[inline]
    fn pin(&self) -> (CpuIndex, T) {
        let guard = (self.guard)();
        (CpuIndex((self.index)()), guard)
    }
}
