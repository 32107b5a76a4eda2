//! What the kernel does once it runs: chooses an allocator, gives it the memory, starts the CPUs, and checks.

use core::{alloc::Layout, marker::PhantomData};

use frame_allocator::FrameAllocator;
use machine::{multiboot::BootInfo, println, smp};

use crate::{
    backends::{self, Backend, Subject},
    checks::{self, Bench},
    irq_lock, ledger, look_like,
    memory::{self, Kernel, Map},
    report,
};

/// Everything, for the allocator that the command line names.
pub fn run(boot: &'static BootInfo) {
    match boot.argument("backend").unwrap_or(Kernel::NAME) {
        Kernel::NAME => checked::<Kernel>(boot),
        backends::PlainTree::NAME => checked::<backends::PlainTree>(boot),
        backends::CheckedTree::NAME => checked::<backends::CheckedTree>(boot),
        backends::PlainBitmap::NAME => checked::<backends::PlainBitmap>(boot),
        backends::CachedBitmap::NAME => checked::<backends::CachedBitmap>(boot),
        backends::CheckedBitmap::NAME => checked::<backends::CheckedBitmap>(boot),
        backends::PlainBuddy::NAME => checked::<backends::PlainBuddy>(boot),
        backends::CachedBuddy::NAME => checked::<backends::CachedBuddy>(boot),
        backends::CheckedBuddy::NAME => checked::<backends::CheckedBuddy>(boot),
        other => panic!("no backend is called {other}"),
    }
}

fn checked<S: Subject>(boot: &'static BootInfo) {
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
