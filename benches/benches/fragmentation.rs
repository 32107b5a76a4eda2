//! How many 2 MiB frames are left after single frames came and went: 1 GiB, half of it in use.
//!
//! `cargo bench -p frame-benches --bench fragmentation`. A count, not a time, so this prints a table.

use frame_benches::{
    Kind,
    fragmentation::{MOST, POINTS, free_huge},
    roster,
};

fn main() -> std::io::Result<()> {
    println!(
        "free 2 MiB frames, of {MOST} at most, half of memory held, after random churn of single frames"
    );
    println!("(x: times the memory; *: in bursts of 64)");
    print!("{:<32}", "");
    for point in POINTS {
        print!("{:>7} x{}", point.times, if point.burst > 1 { "*" } else { " " });
    }
    println!();
    for entry in roster().into_iter().filter(|e| e.kind != Kind::Yardstick && e.bulk && e.two_mib) {
        print!("{:<32}", entry.name);
        for point in POINTS {
            print!("{:>9} ", free_huge(&entry, point)?);
        }
        println!();
    }
    Ok(())
}
