//! `frame-lab map`: what a firmware map becomes.

use crate::{Outcome, cli::MapArgs};

pub(crate) fn run(_args: &MapArgs) -> Outcome {
    Err("not yet".into())
}
