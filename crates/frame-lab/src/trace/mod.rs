//! Allocation traces: what a Linux page allocator was asked for, and when.
//!
//! A trace is text, as `perf script` prints it: one line for each event, with the CPU, the time, the frame number
//! and the order. It goes through three stages, one module each:
//! - [`input`]: where the bytes come from (a file, standard input, the embedded cut), unpacked line by line;
//! - [`parse`]: one line to one [`Event`](parse::Event), or the reason why it is none;
//! - [`program`]: events to a [`Program`]: operations of 8 bytes that any allocator can replay, with no look-up and
//!   no text left in them, so that what is timed later is the allocator.
//!
//! A line that is not understood is never an end: it is counted, and the first few are shown with their numbers.

mod input;
mod parse;
mod program;
mod read;

pub(crate) use input::Source;
pub(crate) use program::{Action, Op, Program};
pub(crate) use read::{Trace, TraceError, read};

/// Orders that a trace may hold: 0 (one frame) to 18 (1 GiB).
pub(crate) const ORDERS: usize = 19;
