//! For tests of the adapters: what is logged, and an allocator that takes nothing back.

use std::{
    cell::RefCell,
    string::{String, ToString},
    sync::Once,
    vec::Vec,
};

use frame_core::{
    AllocError, DeallocError, DeallocErrorKind, FrameAllocator, FrameLayout, FrameRange, FrameStats,
    GlobalFrames, PhysAddr, VirtAddr,
};
use log::{Level, LevelFilter, Log, Metadata, Record};

std::thread_local! {
    static LOGGED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Keep;

impl Log for Keep {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() == Level::Error
    }
    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            LOGGED.with_borrow_mut(|logged| logged.push(record.args().to_string()));
        }
    }
    fn flush(&self) {}
}

/// The errors that this thread logs meanwhile.
pub(crate) fn errors_of(code: impl FnOnce()) -> Vec<String> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Keep).expect("the only logger of these tests");
        log::set_max_level(LevelFilter::Error);
    });
    LOGGED.take();
    code();
    LOGGED.take()
}

/// Gives nothing and takes nothing back.
#[derive(Debug)]
pub(crate) struct Refusing;

// SAFETY: it hands no frame out.
unsafe impl FrameAllocator for Refusing {
    fn alloc(&self, _: FrameLayout) -> Result<PhysAddr, AllocError> {
        Err(AllocError::NoMemory)
    }
    unsafe fn dealloc(&self, start: PhysAddr, _: FrameLayout) -> Result<(), DeallocError> {
        Err(DeallocError::new(start, DeallocErrorKind::NotAllocated))
    }
    fn stats(&self) -> FrameStats {
        FrameStats::default()
    }
    fn visit_free(&self, _: &mut dyn FnMut(FrameRange)) {}
}

// SAFETY: as for the allocator: there is no frame to be reached.
unsafe impl GlobalFrames for Refusing {
    type Allocator = Self;
    fn allocator() -> &'static Self {
        &Self
    }
    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        VirtAddr::from(paddr.as_usize())
    }
}
