//! What a change of EPT tables leaves to be done: an INVEPT.
//!
//! Processors cache what they read from EPT tables, and go on using it until INVEPT (SDM 28.4). So after an unmap the
//! guest may still reach the page, and a processor may still walk a table that is no longer linked. Until every
//! processor that used the EPT pointer has executed INVEPT, neither the unmapped memory nor the table may be used for
//! anything else.
//!
//! Each change therefore gives an [`Invalidation`], which owns the tables that became free. It must be completed, by
//! the INVEPT that it asks for, or waived, where no processor can have cached anything. Dropped without either, it
//! leaks the tables and logs an error: they are never reused too early.

use core::{fmt, mem};

use frame_core::{FrameHal, FrameStack};
use log::error;

use super::{EptConfig, EptPointer};
use crate::{InveptDescriptor, InveptType};

/// An INVEPT that is owed, or the knowledge that none is.
#[must_use = "processors may go on using the old translations: complete it by INVEPT, or waive it"]
pub struct Invalidation<H: FrameHal> {
    pointer: EptPointer,
    /// The type of the INVEPT, and [`NEEDED`]: one word, for this is made by every change.
    state: u64,
    retired: FrameStack<H>,
}

/// Whether an INVEPT is owed.
const NEEDED: u64 = 1 << 8;

impl<H: FrameHal> Invalidation<H> {
    #[inline]
    pub(super) fn new(pointer: EptPointer, config: &EptConfig, needed: bool, retired: FrameStack<H>) -> Self {
        let owed = if needed || !retired.is_empty() { NEEDED } else { 0 };
        Self { pointer, state: config.invept_type() as u64 | owed, retired }
    }

    /// Whether an INVEPT is owed: not after a change that only allowed more, or that changed nothing.
    #[inline]
    pub const fn is_needed(&self) -> bool {
        self.state & NEEDED != 0
    }

    /// The INVEPT to execute.
    pub const fn kind(&self) -> InveptType {
        if self.state & !NEEDED == InveptType::SingleContext as u64 {
            InveptType::SingleContext
        } else {
            InveptType::AllContexts
        }
    }

    /// Its operand.
    pub const fn descriptor(&self) -> InveptDescriptor {
        InveptDescriptor::new(self.pointer)
    }

    /// Tables that are freed when this is completed or waived.
    pub const fn retired_tables(&self) -> usize {
        self.retired.len()
    }

    /// Takes another change of the same tables in, so that one INVEPT serves both.
    ///
    /// # Errors
    /// `other`, when it is of other tables.
    pub fn merge(&mut self, mut other: Self) -> Result<(), Self> {
        if other.pointer != self.pointer {
            return Err(other);
        }
        self.state |= other.state & NEEDED;
        other.state &= !NEEDED;
        self.retired.append(mem::take(&mut other.retired));
        Ok(())
    }

    /// Calls `invept`, if one is owed, and then frees the tables. `invept` executes INVEPT on every processor that
    /// used the EPT pointer since the change, and returns when all have done so.
    ///
    /// # Errors
    /// What `invept` gave; the INVEPT is still owed then.
    pub fn complete<E>(
        self,
        invept: impl FnOnce(InveptType, &InveptDescriptor) -> Result<(), E>,
    ) -> Result<(), (Self, E)> {
        if self.is_needed() {
            if let Err(error) = invept(self.kind(), &self.descriptor()) {
                return Err((self, error));
            }
        }
        self.waive();
        Ok(())
    }

    /// Frees the tables without INVEPT. Right only where no processor can have cached anything of these tables: their
    /// EPT pointer was in no VMCS that was entered, or every processor has executed INVEPT since for another reason.
    #[inline]
    pub fn waive(mut self) {
        let retired = mem::take(&mut self.retired);
        mem::forget(self); // it owns nothing else
        drop(retired);
    }

    /// Whether an INVEPT is owed, and the tables that are free after it: for who takes care of both.
    pub(super) fn into_parts(mut self) -> (bool, FrameStack<H>) {
        let parts = (self.is_needed(), mem::take(&mut self.retired));
        mem::forget(self); // it owns nothing else
        parts
    }

    #[cold]
    fn leak(&mut self) {
        error!("{self:?} was dropped without INVEPT: its tables leak");
        mem::forget(mem::take(&mut self.retired));
    }
}

impl<H: FrameHal> Drop for Invalidation<H> {
    #[inline]
    fn drop(&mut self) {
        if self.is_needed() {
            self.leak();
        }
    }
}

impl<H: FrameHal> fmt::Debug for Invalidation<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invalidation")
            .field("needed", &self.is_needed())
            .field("kind", &self.kind())
            .field("pointer", &self.pointer)
            .field("retired_tables", &self.retired.len())
            .finish()
    }
}
