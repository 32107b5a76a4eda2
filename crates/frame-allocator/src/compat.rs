//! The names of x86_vcpu, for code that was written for its frames.
//!
//! Code that is generic over the HAL (`H: AxVCpuHal`) moves over by changing its imports:
//!
//! ```
//! use frame_allocator::compat::{AxResult, AxVCpuHal, HostPhysAddr, PhysFrame};
//!
//! struct Stack<H: AxVCpuHal> {
//!     frame: PhysFrame<H>,
//! }
//!
//! impl<H: AxVCpuHal> Stack<H> {
//!     fn new() -> AxResult<Self> {
//!         Ok(Self { frame: PhysFrame::alloc_zero()? })
//!     }
//!     fn top(&self) -> HostPhysAddr {
//!         self.frame.start_paddr() + frame_allocator::FRAME_SIZE
//!     }
//! }
//! ```
//!
//! The one implementation of the HAL gains a word in two places: `unsafe impl AxVCpuHal for MyHal`, and
//! `unsafe fn dealloc_frame`. The frames write to the memory that the HAL names and free what they own, so both are
//! promises that the compiler cannot check; [`FrameHal`] says which. Code that calls `H::dealloc_frame` itself, past
//! the RAII types, says `unsafe` too.
//!
//! [`FrameHal`]: crate::FrameHal

pub use frame_core::{AxError, AxResult, FRAME_SIZE as PAGE_SIZE, FrameHal as AxVCpuHal, PhysFrame};
pub use frame_core::{PhysAddr as HostPhysAddr, VirtAddr as HostVirtAddr};
