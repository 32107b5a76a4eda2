//! The tree against an oracle, its invariants after every operation, its edges, and several threads.

mod edges;
mod homes;
mod invariants;
mod model;
mod support;
mod threads;
