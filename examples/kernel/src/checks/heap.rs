//! The heap that stands on frames.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};
use core::sync::atomic::{AtomicUsize, Ordering};

use machine::smp;

use super::random::Random;
use crate::{check, check_eq, heap as kernel_heap};

pub fn heap(cpus: usize) {
    let before = kernel_heap::frames();
    let mut numbers = Vec::new();
    for i in 0..100_000_u64 {
        numbers.push(i);
    }
    check_eq!(numbers.iter().sum::<u64>(), 4_999_950_000, "a vector that grew run by run");
    check!(kernel_heap::frames() > before + 195, "100,000 words take 196 frames");
    drop(numbers);

    let map: BTreeMap<usize, Box<[usize; 9]>> =
        (0..1000).map(|i| (i * 7919 % 1000, Box::new([i; 9]))).collect();
    check!(map.iter().all(|(&key, value)| value[8] * 7919 % 1000 == key), "a tree of boxes");
    drop(map);

    #[repr(align(65536))]
    struct Aligned([u8; 100]);
    let aligned = Box::new(Aligned([1; 100]));
    check_eq!((&raw const *aligned).addr() % 65536, 0, "an alignment of 64 KiB");
    check_eq!(aligned.0.iter().map(|&byte| usize::from(byte)).sum::<usize>(), 100, "and its contents");
    drop(aligned);

    // Every CPU at once, objects of all sizes.
    let wrong = AtomicUsize::new(0);
    smp::on_all_cpus(&|cpu| {
        let mut random = Random::new(cpu as u64 + 1);
        let mut held: [Vec<u16>; 16] = [const { Vec::new() }; 16];
        for round in 0..1000 {
            let slot = &mut held[random.below(16)];
            let sum: usize = slot.iter().map(|&tag| usize::from(tag)).sum();
            if sum != slot.len() * slot.first().map_or(0, |&tag| usize::from(tag)) {
                wrong.fetch_add(1, Ordering::Relaxed);
            }
            let tag = (cpu * 1000 + round) as u16;
            *slot = core::iter::repeat_n(tag, random.below(3000)).collect();
        }
    });
    check_eq!(wrong.load(Ordering::Relaxed), 0, "objects that changed under their owners, on {cpus} CPUs");
    // Lists of small blocks keep their frames; runs went back: in use were a few hundred frames.
    check!(kernel_heap::frames() < before + 100, "{} frames, {before} before", kernel_heap::frames());
}
