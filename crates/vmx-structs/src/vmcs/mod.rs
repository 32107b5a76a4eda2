//! The virtual-machine control structure: fields, controls, and ways to fill one in (SDM chapter 24).
//!
//! A VMCS lies in memory, but its layout is the processor's secret: software names *fields* by their encodings and
//! asks VMREAD and VMWRITE. Here
//! - every field is a typed constant of [`control`], [`guest`], [`host`] or [`exit`];
//! - [`VmcsAccess`] reads and writes fields, of the processor's current VMCS or of a [`SoftwareVmcs`];
//! - the control words have named bits, and are [adjusted](ControlWord::adjust) to what a processor allows;
//! - [`VmcsBuilder`] takes structures, a [`GuestState`] and a [`HostState`] and yields the VMWRITEs;
//! - [`ExitReason`] and the qualification types say why the guest stopped.

mod access;
mod builder;
mod controls;
mod encoding;
mod event;
mod exit_reason;
mod fields;
mod guest_state;
mod host_state;
mod image;
mod instruction_error;
mod qualification;
mod requires;
mod segment;
mod software;

pub use access::VmcsAccess;
pub use builder::{BuildError, VmcsBuilder};
pub use controls::{
    Adjusted, ControlBit, ControlWord, Controls, EntryControls, ExitControls, PinControls, PrimaryControls,
    SecondaryControls, SecondaryExitControls, TertiaryControls, Unavailable,
};
pub use encoding::{
    Bits16, Bits32, Bits64, Control, Field, FieldEncoding, FieldGroup, FieldWidth, Group, Guest, Host,
    Natural, ReadOnly, Width, WritableGroup,
};
pub use event::{EventInfo, EventKind};
pub use exit_reason::{ExitReason, ExitReasonField};
pub use fields::{FIELD_COUNT, FieldInfo, control, exit, guest, host};
pub use guest_state::{CetState, GuestState};
pub use host_state::HostState;
pub use image::{VmcsImage, VmcsWrite, WriteError};
pub use instruction_error::{VmFail, VmInstructionError};
pub use qualification::{CrAccess, Gpr, IoQualification};
pub use requires::Requires;
pub use segment::{AccessRights, DescriptorTable, Segment, SegmentFields};
pub use software::SoftwareVmcs;
