//! A small kernel that embeds the frame allocator as a stranger would, and then tries to break it.
//!
//! `machine` boots it; `lib.rs` is the kernel ([`memory`] is the embedding, [`heap`] puts `Box` and `Vec` on frames);
//! [`run`] and [`checks`] are what it does for a living. The command line chooses: `cpus=4` (default 1), `backend=tree` (see [`backends`];
//! default `percpu-tree`), `ops=20000` for each CPU in a stress. A module beside the kernel is another machine's
//! firmware map, to look like that machine.
#![no_std]
#![no_main]

extern crate alloc;

mod backends;
mod checks;
mod ledger;
mod look_like;
mod run;

use kernel_example::{check, check_eq, heap, irq_lock, memory, report};

machine::entry!(run::run);
