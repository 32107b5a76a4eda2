//! What another CPU does between two steps of an operation: set by a test, done once, in the same thread.

use std::{boxed::Box, cell::RefCell, thread_local};

/// A place in an operation where another CPU may come between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// `refresh` has cleared hints, and looks at the rows again next.
    HintsCleared,
    /// `raise_to` is about to set a hint.
    HintRaised,
}

type Between = (Step, usize, Box<dyn FnOnce()>);

thread_local! {
    static BETWEEN: RefCell<Option<Between>> = const { RefCell::new(None) };
}

/// Has `other` done when `step` is reached for the time `turn`, counted from 1.
///
/// # Safety
/// What `other` refers to lives until it was done.
pub(super) unsafe fn between<'o>(step: Step, turn: usize, other: impl FnOnce() + 'o) {
    let other: Box<dyn FnOnce() + 'o> = Box::new(other);
    // SAFETY: promised by the caller; it is done at most once.
    let other = unsafe { core::mem::transmute::<Box<dyn FnOnce() + 'o>, Box<dyn FnOnce()>>(other) };
    BETWEEN.set(Some((step, turn, other)));
}

/// Whether all that was set has been done.
pub(super) fn is_done() -> bool {
    BETWEEN.with_borrow(Option::is_none)
}

/// An operation is at a step.
pub(crate) fn reached(step: Step) {
    let due = BETWEEN.with_borrow_mut(|between| match between {
        Some((wanted, turn, _)) if *wanted == step => {
            *turn -= 1;
            if *turn == 0 { between.take() } else { None }
        }
        _ => None,
    });
    if let Some((_, _, other)) = due {
        other();
    }
}
