//! How many 2 MiB frames are left after single frames came and went: 1 GiB, half of it in use.
//!
//! `cargo bench -p frame-benches --bench fragmentation`. A count, not a time, so this prints a table.

use frame_benches::{Kind, arena::arena, roster, work};

const FRAMES: usize = 1 << 18;

fn main() {
    println!("free 2 MiB frames of 512, half of memory held, after random churn of single frames");
    println!("{:<32}{:>10}{:>10}", "", "4 x", "16 x");
    for entry in roster().into_iter().filter(|entry| entry.kind != Kind::Yardstick && entry.bulk) {
        let counts = [4, 16].map(|times| {
            let contender = (entry.build)(arena(1 << 30).expect("address space"));
            contender.free_huge_after(&work::Churn {
                frames: FRAMES,
                percent: 50,
                steps: times * FRAMES,
                seed: 1,
            })
        });
        println!("{:<32}{:>10}{:>10}", entry.name, counts[0], counts[1]);
    }
}
