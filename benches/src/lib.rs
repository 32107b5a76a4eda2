//! Every backend and every peer, by their own interfaces at their best, under the same work in one process.
//!
//! - [`Contender`]: what is measured. [`ours`] are this project's, `peers` (a feature, on unless it is switched off) are
//!   other people's, [`yardstick`] are the limits: the floor that nothing can beat, and the cost of the harness itself.
//! - [`work`]: what they are put to. Before anything is timed, [`verify`] checks that what a contender hands out is
//!   distinct, aligned and in range.
//! - [`mod@roster`]: who takes part.
//! - [`disciplines`] and [`mod@race`]: the timed comparison; [`mod@start`], [`fragmentation`]: what is not a time of an
//!   operation; [`results`]: all of it; [`targets`]: where this project wants to stand, and whether it does.
//!
//! Times on a shared machine mean little alone: run contenders interleaved, take medians, compare ratios to the floor.

pub mod arena;
pub mod contender;
pub mod disciplines;
pub mod fragmentation;
pub mod ours;
#[cfg(feature = "peers")]
pub mod peers;
pub mod race;
pub mod results;
pub mod roster;
pub mod start;
pub mod targets;
pub mod verify;
pub mod versions;
pub mod work;
pub mod yardstick;

pub use contender::{Contender, Race};
pub use disciplines::{DISCIPLINES, Discipline, Scale};
pub use roster::{Books, Entry, Kind, Start, roster};

/// A contender that has shown that it does its work, over 1 GiB; `None`, and a line on standard error, if it does not.
///
/// # Panics
/// There is no address space.
pub fn verified(entry: &Entry) -> Option<Box<dyn Race>> {
    match race::verified(entry, 1 << 30).expect("address space") {
        Ok(contender) => Some(contender),
        Err(fault) => {
            eprintln!("{} is left out: {fault}", entry.name);
            None
        }
    }
}

/// The package's README, whose program is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub mod readme {}
