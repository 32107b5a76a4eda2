//! Taking memory over: 1 GiB, 64 GiB, 1 TiB of addresses.
//!
//! `cargo bench -p frame-benches --bench start`. A start is too short and too rare for a loop of criterion's: this
//! prints medians and quartiles of single starts.

use frame_benches::{
    roster,
    start::{SIZES, start},
};

fn main() -> std::io::Result<()> {
    println!("microseconds to take memory over: median (quartiles)");
    print!("{:<32}", "");
    for size in SIZES {
        print!("{:>30}", format!("{} GiB", size >> 30));
    }
    println!();
    for entry in roster() {
        let row = start(&entry, 7)?;
        if row.iter().all(Option::is_none) {
            continue;
        }
        print!("{:<32}", entry.name);
        for time in row {
            let shown = time.map(|t| format!("{:.1} ({:.1}-{:.1})", t.median, t.low, t.high));
            print!("{:>30}", shown.unwrap_or_else(|| "-".into()));
        }
        println!();
    }
    Ok(())
}
