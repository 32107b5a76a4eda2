#![doc = include_str!("../README.md")]
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

mod blocks;
mod books;
#[allow(unsafe_code, reason = "the allocator's trait and its entry are unsafe")]
mod buddy;
mod free_bits;

pub use buddy::Buddy;
