//! Which structure took how many frames, and which could not be built.

use std::{error::Error, fmt};

use crate::hal::Tally;

/// Counts what each structure took.
pub(crate) struct Notes<'a> {
    tally: &'a dyn Fn() -> Tally,
    seen: usize,
    pub(crate) frames: Vec<(&'static str, usize)>,
}

impl<'a> Notes<'a> {
    pub(crate) fn new(tally: &'a dyn Fn() -> Tally) -> Self {
        Self { tally, seen: 0, frames: Vec::new() }
    }

    /// Builds a structure, and notes under this name what it took.
    pub(crate) fn take<T, E: fmt::Display>(
        &mut self,
        name: &'static str,
        build: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, BuildError> {
        let built = build();
        let taken = (self.tally)().taken;
        let frames = taken - self.seen;
        self.seen = taken;
        match built {
            Ok(built) => {
                self.frames.push((name, frames));
                Ok(built)
            }
            Err(why) => Err(BuildError { what: name, why: why.to_string(), taken }),
        }
    }

    /// The same where `has` it.
    pub(crate) fn take_if<T, E: fmt::Display>(
        &mut self,
        has: bool,
        name: &'static str,
        build: impl FnOnce() -> Result<T, E>,
    ) -> Result<Option<T>, BuildError> {
        if has { self.take(name, build).map(Some) } else { Ok(None) }
    }
}

/// A structure that could not be built.
#[derive(Clone, Debug)]
pub(crate) struct BuildError {
    /// Which.
    pub(crate) what: &'static str,
    pub(crate) why: String,
    /// Frames that had been taken by then. They went back.
    pub(crate) taken: usize,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot build the {}: {} ({} frames had been taken)", self.what, self.why, self.taken)
    }
}

impl Error for BuildError {}
