//! A small kernel that embeds the frame allocator as a stranger would, and then tries to break it.
//!
//! `machine` boots it; `lib.rs` is the kernel ([`memory`] is the embedding, [`heap`] puts `Box` and `Vec` on frames);
//! [`checks`] is what it does for a living. The command line chooses: `cpus=4` (default 1), `backend=tree` (see [`backends`];
//! default `percpu-tree`), `ops=20000` for each CPU in a stress. A module beside the kernel is another machine's
//! firmware map, to look like that machine.
#![no_std]
#![no_main]

extern crate alloc;

mod backends;
mod checks;
mod ledger;
mod look_like;

use core::{alloc::Layout, marker::PhantomData};

use backends::{Backend, Subject};
use checks::Bench;
use frame_allocator::FrameAllocator;
use kernel_example::{check, check_eq, heap, irq_lock, memory, report};
use machine::{multiboot::BootInfo, println, smp};
use memory::{Kernel, Map};

machine::entry!(main);

fn main(boot: &'static BootInfo) {
    match boot.argument("backend").unwrap_or(Kernel::NAME) {
        Kernel::NAME => run::<Kernel>(boot),
        backends::PlainTree::NAME => run::<backends::PlainTree>(boot),
        backends::CheckedTree::NAME => run::<backends::CheckedTree>(boot),
        backends::PlainBitmap::NAME => run::<backends::PlainBitmap>(boot),
        backends::CachedBitmap::NAME => run::<backends::CachedBitmap>(boot),
        backends::CheckedBitmap::NAME => run::<backends::CheckedBitmap>(boot),
        backends::PlainBuddy::NAME => run::<backends::PlainBuddy>(boot),
        backends::CachedBuddy::NAME => run::<backends::CachedBuddy>(boot),
        backends::CheckedBuddy::NAME => run::<backends::CheckedBuddy>(boot),
        other => panic!("no backend is called {other}"),
    }
}

fn run<S: Subject>(boot: &'static BootInfo) {
    let number = |key, default| boot.argument(key).map_or(default, |text| text.parse().expect("a number"));
    let cpus = number("cpus", 1);
    log::set_logger(&Log).expect("the only logger");
    log::set_max_level(log::LevelFilter::Error);

    for entry in boot.memory_map() {
        let what = if entry.is_usable() { "usable" } else { "reserved" };
        println!("firmware: {:#x}-{:#x} {what}", entry.base, entry.base + entry.len);
    }
    for range in memory::in_use(boot) {
        println!("in use: {:#x}-{:#x}", range.start, range.end);
    }
    let mut map = memory::map(boot).expect("a firmware map with few enough holes");
    for module in boot.modules() {
        let text = core::str::from_utf8(module).expect("a firmware map is text");
        look_like::look_like(&mut map, text).expect("a firmware map with few enough holes");
    }
    let ranges = map.frames().count();
    println!("memory: {} frames in {ranges} ranges", map.frame_count());

    ledger::init(&mut map);
    let later = region_for_later::<S>(&mut map);
    memory::FRAMES.prepare(&mut map, cpus);
    if !S::IS_KERNELS_OWN {
        S::allocator().prepare(&mut map, cpus);
        // SAFETY: the share was taken out of the map.
        unsafe { memory::give_all_to_kernel(share(&mut map)) };
    }
    let map = memory::give_all(map, S::Allocator::metadata_layout, |region, metadata| {
        // SAFETY: what is used was taken out of the map, and all that is left goes here.
        unsafe { S::allocator().add_region(region, metadata) }
    });
    map.frames().for_each(ledger::add);
    println!("{}: {:?}", S::NAME, S::allocator().stats());

    smp::start(cpus);
    println!("{} CPUs run", smp::cpus());
    Bench::<S> {
        boot,
        map,
        cpus,
        operations: number("ops", 20_000),
        later: irq_lock::Mutex::new(Some(later)),
        subject: PhantomData,
    }
    .run();
    report::finish("kernel")
}

/// The kernel's own share of memory beside another allocator: a 32nd, and at least 16 MiB.
fn share(map: &mut Map) -> Map {
    let bytes = (map.frame_count() / 32 * frame_allocator::FRAME_SIZE).max(16 << 20);
    let range = memory::early_frames(map, Layout::from_size_align(bytes, 2 << 20).expect("a part of memory"));
    let mut share = Map::new();
    share.add_usable(range.start().as_usize() as u64, range.size() as u64).expect("one range");
    share
}

/// 1,000 frames that the allocator is given while it is in use.
fn region_for_later<S: Subject>(map: &mut Map) -> checks::Later {
    let bytes = 1000 * frame_allocator::FRAME_SIZE;
    let region = memory::early_frames(map, Layout::from_size_align(bytes, 1).expect("a part of memory"));
    (region, memory::early(map, S::Allocator::metadata_layout(region)))
}

/// Errors of the toolkit go to the serial line: a frame that could not be freed.
struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        println!("log: {}", record.args());
    }
    fn flush(&self) {}
}
