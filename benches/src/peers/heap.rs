//! Heaps as yardsticks: they return virtual memory, aligned, and manage memory of their own.

use std::alloc::{GlobalAlloc, Layout};

use mimalloc::MiMalloc;

use crate::contender::Contender;

fn layout(order: u32) -> Layout {
    Layout::from_size_align(4096 << order, 4096 << order).expect("small orders")
}

fn alloc(heap: &impl GlobalAlloc, order: u32) -> Option<usize> {
    // SAFETY: the layout has a size.
    let start = unsafe { heap.alloc(layout(order)) };
    (!start.is_null()).then(|| start.expose_provenance())
}

fn free(heap: &impl GlobalAlloc, address: usize, order: u32) {
    // SAFETY: the memory came from `alloc` with the same layout and is given back once.
    unsafe { heap.dealloc(std::ptr::with_exposed_provenance_mut(address), layout(order)) };
}

/// mimalloc.
#[derive(Debug)]
pub struct Mimalloc;

impl Contender for Mimalloc {
    #[inline]
    fn alloc(&self, order: u32) -> Option<usize> {
        alloc(&MiMalloc, order)
    }

    #[inline]
    fn free(&self, address: usize, order: u32) {
        free(&MiMalloc, address, order);
    }

    fn is_real(&self) -> bool {
        false
    }
}

/// The heap of the operating system (`posix_memalign` of the C library).
#[derive(Debug)]
pub struct System;

impl Contender for System {
    #[inline]
    fn alloc(&self, order: u32) -> Option<usize> {
        alloc(&std::alloc::System, order)
    }

    #[inline]
    fn free(&self, address: usize, order: u32) {
        free(&std::alloc::System, address, order);
    }

    fn is_real(&self) -> bool {
        false
    }
}
