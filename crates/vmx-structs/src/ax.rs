//! The errors of this crate as those of `AxResult`, where their own modules do not say it.

use axerrno::AxErrorKind;

use crate::{GuestRangeError, vmcs::BuildError};

impl From<GuestRangeError> for AxErrorKind {
    fn from(_: GuestRangeError) -> Self {
        Self::InvalidInput
    }
}

impl From<BuildError> for AxErrorKind {
    fn from(_: BuildError) -> Self {
        Self::Unsupported
    }
}
