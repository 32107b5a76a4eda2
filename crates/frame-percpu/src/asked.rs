//! What those who ask an owner for its frames remember: whether it was kicked, and whether somebody has waited for it to no
//! avail, so that it is idle and nobody waits for it again.
//!
//! Both hold until it answers. They name the answer that they are about by its number, so nobody has to undo them, and
//! whoever writes late writes about an answer that is past. Apart from `request`, for owners in their stride never look here.

use core::sync::atomic::Ordering;

use crate::sync::AtomicUsize;

/// What was done about the next answer of one owner.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Answers given so far. The owner's.
    answers: AtomicUsize,
    /// The owner was kicked when it had given so many.
    kicked_at: AtomicUsize,
    /// Somebody waited in vain when it had given so many.
    idle_at: AtomicUsize,
}

impl Asked {
    pub(crate) const fn new() -> Self {
        const NEVER: usize = usize::MAX;
        Self {
            answers: AtomicUsize::new(0),
            kicked_at: AtomicUsize::new(NEVER),
            idle_at: AtomicUsize::new(NEVER),
        }
    }

    /// For the owner, before it answers.
    pub(crate) fn count_answer(&self) {
        let answers = self.answers.load(Ordering::Relaxed);
        self.answers.store(answers.wrapping_add(1), Ordering::Relaxed);
    }

    /// Whether the caller is the one who kicks the owner. Called after it was asked, whoever asked.
    pub(crate) fn is_to_be_kicked(&self) -> bool {
        let answers = self.answers.load(Ordering::Acquire);
        self.kicked_at.swap(answers, Ordering::AcqRel) != answers
    }

    /// The number of the answer that is awaited; `None` if somebody has waited for it in vain.
    pub(crate) fn awaited(&self) -> Option<usize> {
        let answers = self.answers.load(Ordering::Acquire);
        (self.idle_at.load(Ordering::Relaxed) != answers).then_some(answers)
    }

    /// The caller has waited in vain for this answer.
    pub(crate) fn give_up(&self, awaited: usize) {
        self.idle_at.store(awaited, Ordering::Relaxed);
    }
}
