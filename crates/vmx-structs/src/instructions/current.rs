//! The VMCS that is current on this CPU, as a value.

use core::marker::PhantomData;

use frame_core::PhysAddr;

use super::{GuestRegisters, Launch, enter_guest, vmclear, vmptrld, vmread, vmwrite};
use crate::vmcs::{ExitReasonField, FieldEncoding, VmFail, VmcsAccess, exit};

/// The current VMCS of the CPU that this value lives on.
///
/// Invariant: the CPU is in VMX root operation, and the VMCS at `region` is current on it and used through this value
/// alone. (It keeps the promises that [`load`](Self::load) was given.)
#[derive(Debug)]
pub struct CurrentVmcs {
    region: PhysAddr,
    launch: Launch,
    /// What is current is the CPU's matter: neither `Send` nor `Sync`.
    _cpu: PhantomData<*mut ()>,
}

impl CurrentVmcs {
    /// Clears the VMCS in `region` and makes it current. Its fields hold anything until they are written.
    ///
    /// # Errors
    /// As [`vmclear`] and [`vmptrld`].
    ///
    /// # Safety
    /// As [`vmptrld`], for as long as this value lives: VMX root operation is not left, no other VMCS is made current on this
    /// CPU, and the value does not go on being used on another CPU (by a scheduler that migrates threads).
    pub unsafe fn load(region: PhysAddr) -> Result<Self, VmFail> {
        // SAFETY: the caller's promise; no other value of this VMCS is in use.
        unsafe {
            vmclear(region)?;
            vmptrld(region)?;
        }
        Ok(Self { region, launch: Launch::Launch, _cpu: PhantomData })
    }

    /// The physical address of its region.
    pub const fn region(&self) -> PhysAddr {
        self.region
    }

    /// Whether the next entry is VMLAUNCH or VMRESUME.
    pub const fn next_launch(&self) -> Launch {
        self.launch
    }

    /// Enters the guest, by VMLAUNCH the first time and by VMRESUME then, and returns when it has exited: with its
    /// registers in `registers`, and the exit reason.
    ///
    /// # Errors
    /// As [`enter_guest`]: the guest did not run.
    ///
    /// # Safety
    /// As [`enter_guest`].
    pub unsafe fn run(&mut self, registers: &mut GuestRegisters) -> Result<ExitReasonField, VmFail> {
        // SAFETY: the caller's promise, and the invariant of this value.
        unsafe { enter_guest(registers, self.launch)? };
        let reason = ExitReasonField::from_raw(self.read(exit::EXIT_REASON)?);
        // An entry that failed leaves the launch state as it was (SDM 26.8).
        if !reason.is_entry_failure() {
            self.launch = Launch::Resume;
        }
        Ok(reason)
    }

    /// Clears the VMCS, so that its region holds all of it and can go to another CPU or be freed.
    ///
    /// # Errors
    /// As [`vmclear`].
    pub fn unload(self) -> Result<(), VmFail> {
        // SAFETY: VMX root operation is this value's invariant; the VMCS is used through it alone, and it is gone.
        unsafe { vmclear(self.region) }
    }
}

impl VmcsAccess for CurrentVmcs {
    #[inline]
    fn read_raw(&self, field: FieldEncoding) -> Result<u64, VmFail> {
        // SAFETY: VMX root operation is this value's invariant.
        unsafe { vmread(field) }
    }

    #[inline]
    fn write_raw(&mut self, field: FieldEncoding, value: u64) -> Result<(), VmFail> {
        // SAFETY: as in `read_raw`; what the field means takes effect in `run`, which is unsafe.
        unsafe { vmwrite(field, value) }
    }
}
