#![doc = include_str!("../README.md")]
#![no_std]
#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "the allocator's trait and its entry are unsafe")]
mod bitmap;
mod books;
mod chunk;
#[allow(unsafe_code, reason = "chunks are built when they are first needed")]
mod chunks;
#[allow(unsafe_code, reason = "metadata comes as bytes")]
mod metadata;
mod region;
mod search;
mod summary;

pub use bitmap::Bitmap;
