//! What CPUs do to each other's caches, counted: atomic read-modify-writes, and cache lines that others write too.
//!
//! ```sh
//! RUSTFLAGS="--cfg frame_counted" cargo run -p frame-benches --no-default-features --bin count-atomics
//! ```
//!
//! One thread stands for 1 to 64 CPUs in turns: it takes a CPU's identity, and its place on the stack (by which the
//! tree keeps CPUs apart), does one operation, and goes on to the next CPU. The libraries' atomics tell of every write.
//! A line counts as shared if more than one CPU wrote it during the work; what is counted is such lines written, for
//! each frame. Ends with status 1 if the hot path does a read-modify-write, or writes to a shared line more than once in
//! 128 pairs, or if bulk does either more than once for 16 frames.

#[cfg(not(frame_counted))]
fn main() -> std::process::ExitCode {
    eprintln!("error: nothing is counted in this build; build it with RUSTFLAGS=\"--cfg frame_counted\"");
    std::process::ExitCode::from(2)
}

#[cfg(frame_counted)]
fn main() -> std::process::ExitCode {
    counted::main()
}

#[cfg(frame_counted)]
mod counted {
    use std::{
        cell::{Cell, RefCell},
        collections::{HashMap, HashSet},
        hint::black_box,
        process::ExitCode,
    };

    use frame_allocator::{
        FrameAllocator, FrameRange, PerCpu, PhysAddr, Tree,
        percpu::{CpuIndex, CpuSlot, PinCpu},
    };
    use frame_benches::work::Random;
    use frame_core::counted::{Write, observe};

    const MOST_CPUS: usize = 64;
    const CPUS: [usize; 7] = [1, 2, 4, 8, 16, 32, MOST_CPUS];
    /// Operations of each CPU.
    const OPERATIONS: usize = 512;
    const FRAMES: usize = 1 << 17;
    const LINE: usize = 64;

    /// The most read-modify-writes, and shared lines written, of a pair on the hot path. An owner that finds all it wants
    /// in its slot asks for the watermark once in a few hundred operations; the tree then counts in a word that CPUs share
    /// when there are more of them than it has shards.
    const HOT: (f64, f64) = (0.0, 1.0 / 128.0);
    /// The most of either for a frame that is allocated or freed in bulk, on average.
    const BULK: f64 = 1.0 / 16.0;

    thread_local! {
        static CPU: Cell<usize> = const { Cell::new(0) };
        static COUNT: RefCell<Option<Count>> = const { RefCell::new(None) };
    }

    /// The CPU that the thread stands for.
    struct Turns;

    // SAFETY: there is one thread, and it changes its CPU between operations.
    unsafe impl PinCpu for Turns {
        type Guard = ();

        fn pin(&self) -> (CpuIndex, ()) {
            (CpuIndex(CPU.get()), ())
        }
    }

    #[derive(Default)]
    struct Count {
        read_modify_writes: usize,
        /// Of each line: the CPUs that wrote it, and the operations that did.
        lines: HashMap<usize, (u64, usize)>,
        /// Lines that this operation wrote.
        now: HashSet<usize>,
    }

    impl Count {
        fn end_operation(&mut self) {
            let cpu = CPU.get();
            for line in self.now.drain() {
                let entry = self.lines.entry(line).or_default();
                entry.0 |= 1 << cpu;
                entry.1 += 1;
            }
        }
    }

    fn note(address: usize, write: Write) {
        COUNT.with_borrow_mut(|count| {
            if let Some(count) = count {
                count.read_modify_writes += usize::from(write == Write::ReadModifyWrite);
                count.now.insert(address / LINE);
            }
        });
    }

    /// Runs as a CPU: with its identity, and as deep in the stack as its own stack would lie elsewhere.
    fn on_cpu(cpu: usize, operation: &mut dyn FnMut()) {
        CPU.set(cpu);
        deeper(cpu, operation);
        COUNT.with_borrow_mut(|count| {
            if let Some(count) = count {
                count.end_operation();
            }
        });
    }

    #[inline(never)]
    fn deeper(levels: usize, operation: &mut dyn FnMut()) {
        let room = [0u8; 8192];
        black_box(&room);
        if levels == 0 {
            operation()
        } else {
            deeper(levels - 1, operation)
        }
        black_box(&room);
    }

    /// What `work` writes, for each of `frames` frames: read-modify-writes, shared lines.
    fn count(frames: usize, work: impl FnOnce()) -> (f64, f64) {
        COUNT.set(Some(Count::default()));
        work();
        let count = COUNT.take().expect("set above");
        let shared = count.lines.values().filter(|(cpus, _)| cpus.count_ones() > 1);
        let written: usize = shared.map(|(_, operations)| operations).sum();
        (count.read_modify_writes as f64 / frames as f64, written as f64 / frames as f64)
    }

    /// Each CPU in turn, again and again.
    fn turns(cpus: usize, operations: usize, mut operation: impl FnMut(usize)) {
        for _ in 0..operations {
            for cpu in 0..cpus {
                on_cpu(cpu, &mut || operation(cpu));
            }
        }
    }

    /// The names of the work, in the order of [`measure`].
    const WORK: [&str; 5] = ["hot pair", "bulk alloc", "bulk free", "random free", "churn 50 %"];

    fn measure(allocator: &impl FrameAllocator, cpus: usize) -> [(f64, f64); WORK.len()] {
        let alloc = || allocator.alloc_frame().expect("memory is there");
        let free = |frame: PhysAddr| {
            // SAFETY: the frame was allocated below and is given back once.
            unsafe { allocator.dealloc_frame(frame) }.expect("it was allocated");
        };
        let frames = cpus * OPERATIONS;
        turns(cpus, 8, |_| free(alloc()));
        let pair = count(frames, || turns(cpus, OPERATIONS, |_| free(alloc())));

        let mut held = vec![Vec::new(); cpus];
        let bulk = count(frames, || turns(cpus, OPERATIONS, |cpu| held[cpu].push(alloc())));
        let mut rows: Vec<_> = held.iter().map(|frames| frames.iter().copied()).collect();
        let in_order = count(frames, || {
            turns(cpus, OPERATIONS, |cpu| free(rows[cpu].next().expect("as many as were allocated")));
        });

        let mut random = Random::new(1);
        turns(cpus, OPERATIONS, |cpu| held[cpu].push(alloc()));
        for list in &mut held {
            let fresh: Vec<_> = list.drain(..).skip(OPERATIONS).collect();
            list.extend(random.permutation(fresh.len()).iter().map(|&i| fresh[i as usize]));
        }
        let at_random =
            count(frames, || turns(cpus, OPERATIONS, |cpu| free(held[cpu].pop().expect("as many"))));

        // Half of memory, scattered, a list for each CPU.
        let all: Vec<_> = (0..FRAMES).map_while(|_| allocator.alloc_frame().ok()).collect();
        let order = random.permutation(all.len());
        let (kept, given) = order.split_at(all.len() / 2);
        given.iter().for_each(|&i| free(all[i as usize]));
        let kept: Vec<_> = kept.iter().map(|&i| all[i as usize]).collect();
        let mut lists: Vec<Vec<_>> = kept.chunks(kept.len().div_ceil(cpus)).map(<[_]>::to_vec).collect();
        let mut step = |cpu: usize| {
            let list = &mut lists[cpu];
            let victim = random.below(list.len());
            free(list[victim]);
            list[victim] = alloc();
        };
        turns(cpus, OPERATIONS, &mut step);
        let churn = count(frames, || turns(cpus, OPERATIONS, &mut step));
        [pair, bulk, in_order, at_random, churn]
    }

    pub(super) fn main() -> ExitCode {
        observe(note);
        let region = FrameRange::new(PhysAddr::from(1 << 30), FRAMES).expect("a range");
        let mut broken = false;
        for cached in [true, false] {
            let name = if cached { "percpu-tree" } else { "tree" };
            println!("{name}: read-modify-writes / shared lines written, for each frame");
            print!("{:>5}", "CPUs");
            WORK.iter().for_each(|work| print!("{work:>18}"));
            println!();
            for cpus in CPUS {
                let mut metadata = vec![0u128; <Tree>::metadata_layout(region).size().div_ceil(16) + 8];
                let start = metadata.as_mut_ptr().cast::<std::mem::MaybeUninit<u8>>();
                let skipped = start.align_offset(128);
                // SAFETY: the bytes lie in `metadata`, which outlives the tree.
                let books = unsafe {
                    std::slice::from_raw_parts_mut(start.add(skipped), <Tree>::metadata_layout(region).size())
                };
                let tree = <Tree>::new();
                // SAFETY: the frames are numbers only, and the metadata is zeroes.
                unsafe { tree.add_zeroed_region(region, books) }.expect("a region");
                let counts = if cached {
                    let mut slots: Vec<_> = (0..MOST_CPUS).map(|_| CpuSlot::new()).collect();
                    let cache = PerCpu::new(&tree, Turns);
                    cache.attach(&mut slots).expect("no slots yet");
                    measure(&cache, cpus)
                } else {
                    measure(&tree, cpus)
                };
                print!("{cpus:>5}");
                for (rmw, lines) in counts {
                    print!("{:>18}", format!("{rmw:.4} / {lines:.4}"));
                }
                println!();
                let [pair, alloc, free, ..] = counts;
                let bulk = ((alloc.0 + free.0) / 2.0, (alloc.1 + free.1) / 2.0);
                if cached && (pair.0 > HOT.0 || pair.1 > HOT.1) {
                    println!("error: the bound of a hot pair is {HOT:?}; this is {pair:?}");
                    broken = true;
                }
                if cached && bulk.0.max(bulk.1) > BULK {
                    println!("error: the bound of bulk, allocated or freed, is {BULK}; this is {bulk:?}");
                    broken = true;
                }
            }
        }
        ExitCode::from(u8::from(broken))
    }
}
