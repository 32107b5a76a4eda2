//! Every backend and every peer, by their own interfaces at their best, under the same work in one process.
//!
//! - [`Contender`]: what is measured. [`ours`] are this project's, [`peers`] are other people's, [`yardstick`] are the
//!   limits: the floor that nothing can beat, and the cost of the harness itself.
//! - [`work`]: what they are put to. Before anything is timed, [`verify`] checks that what a contender hands out is
//!   distinct, aligned and in range.
//! - [`mod@roster`]: who takes part.
//!
//! Times on a shared machine mean little alone: run contenders interleaved, take medians, compare ratios to the floor.

pub mod arena;
pub mod contender;
pub mod ours;
pub mod peers;
pub mod race;
pub mod roster;
pub mod verify;
pub mod work;
pub mod yardstick;

pub use contender::{Contender, Race};
pub use roster::{Entry, Kind, roster};
