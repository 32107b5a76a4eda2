//! The tree against an oracle, its invariants after every operation, its edges, and several threads.

mod edges;
mod hints;
mod homes;
mod invariants;
mod model;
pub(crate) mod steps;
mod support;
mod threads;
