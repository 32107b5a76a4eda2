//! Controls: VM execution (SDM 26.2.1.1), VM exit (26.2.1.2), VM entry (26.2.1.3; the event is in `event`).

use super::{Rule, engine::Checker};
use crate::vmcs::{
    ControlWord, EntryControls, ExitControls, Field, FieldGroup, FieldWidth, PinControls, PrimaryControls,
    SecondaryControls, TertiaryControls, control,
};

impl Checker<'_> {
    pub(super) fn controls(&mut self) {
        self.execution_control_words();
        self.bitmaps();
        self.nmis();
        self.apic();
        self.posted_interrupts();
        if self.secondary.contains(SecondaryControls::ENABLE_VPID) {
            self.require(self.get(control::VPID) != 0, Rule::VpidNotZero, control::VPID);
        }
        self.ept();
        self.what_needs_ept();
        self.vm_functions();
        self.other_execution_controls();
        self.exit_controls();
        self.entry_controls();
        self.event();
    }

    fn word<W: ControlWord, F: FieldWidth, G: FieldGroup>(
        &mut self,
        word: W,
        rule: Rule,
        field: Field<F, G>,
    ) {
        let (must, may) = W::allowed(self.caps);
        self.require(word.contains(must) && may.contains(word), rule, field);
    }

    fn execution_control_words(&mut self) {
        self.word(self.pin, Rule::PinControls, control::PIN_CONTROLS);
        self.word(self.primary, Rule::PrimaryControls, control::PRIMARY_CONTROLS);
        // Words that are not activated count as 0, and are not checked.
        if self.primary.contains(PrimaryControls::ACTIVATE_SECONDARY_CONTROLS) {
            self.word(self.secondary, Rule::SecondaryControls, control::SECONDARY_CONTROLS);
        }
        if self.primary.contains(PrimaryControls::ACTIVATE_TERTIARY_CONTROLS) {
            self.word(self.tertiary, Rule::TertiaryControls, control::TERTIARY_CONTROLS);
        }
        let targets = self.get(control::CR3_TARGET_COUNT);
        let limit = u64::from(self.caps.misc.cr3_target_count());
        self.require(targets <= limit, Rule::Cr3TargetCount, control::CR3_TARGET_COUNT);
    }

    fn bitmaps(&mut self) {
        if self.primary.contains(PrimaryControls::USE_IO_BITMAPS) {
            self.require_address(12, Rule::IoBitmapAddress, control::IO_BITMAP_A);
            self.require_address(12, Rule::IoBitmapAddress, control::IO_BITMAP_B);
        }
        if self.primary.contains(PrimaryControls::USE_MSR_BITMAPS) {
            self.require_address(12, Rule::MsrBitmapAddress, control::MSR_BITMAPS);
        }
        if self.secondary.contains(SecondaryControls::VMCS_SHADOWING) {
            self.require_address(12, Rule::VmreadBitmapAddress, control::VMREAD_BITMAP_ADDRESS);
            self.require_address(12, Rule::VmwriteBitmapAddress, control::VMWRITE_BITMAP_ADDRESS);
        }
    }

    fn nmis(&mut self) {
        let virtual_nmis = self.pin.contains(PinControls::VIRTUAL_NMIS);
        self.require(
            !virtual_nmis || self.pin.contains(PinControls::NMI_EXITING),
            Rule::VirtualNmisNeedNmiExiting,
            control::PIN_CONTROLS,
        );
        self.require(
            virtual_nmis || !self.primary.contains(PrimaryControls::NMI_WINDOW_EXITING),
            Rule::NmiWindowNeedsVirtualNmis,
            control::PRIMARY_CONTROLS,
        );
    }

    fn apic(&mut self) {
        let virtual_interrupts = self.secondary.contains(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY);
        let apic_accesses = self.secondary.contains(SecondaryControls::VIRTUALIZE_APIC_ACCESSES);
        if self.primary.contains(PrimaryControls::USE_TPR_SHADOW) {
            self.require_address(12, Rule::VirtualApicAddress, control::VIRTUAL_APIC_ADDRESS);
            if !virtual_interrupts {
                self.tpr_threshold(apic_accesses);
            }
        } else {
            let needy = SecondaryControls::VIRTUALIZE_X2APIC_MODE
                | SecondaryControls::APIC_REGISTER_VIRTUALIZATION
                | SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY;
            let rule = Rule::ApicVirtualizationNeedsTprShadow;
            self.require(!self.secondary.intersects(needy), rule, control::SECONDARY_CONTROLS);
            let ipis = self.tertiary.contains(TertiaryControls::IPI_VIRTUALIZATION);
            self.require(!ipis, rule, control::TERTIARY_CONTROLS);
        }
        if apic_accesses {
            self.require_address(12, Rule::ApicAccessAddress, control::APIC_ACCESS_ADDRESS);
        }
        self.require(
            !apic_accesses || !self.secondary.contains(SecondaryControls::VIRTUALIZE_X2APIC_MODE),
            Rule::X2ApicExcludesApicAccesses,
            control::SECONDARY_CONTROLS,
        );
        self.require(
            !virtual_interrupts || self.pin.contains(PinControls::EXTERNAL_INTERRUPT_EXITING),
            Rule::VirtualInterruptsNeedExternalInterruptExiting,
            control::PIN_CONTROLS,
        );
    }

    fn tpr_threshold(&mut self, apic_accesses: bool) {
        let threshold = self.get(control::TPR_THRESHOLD);
        self.require(threshold >> 4 == 0, Rule::TprThresholdReserved, control::TPR_THRESHOLD);
        let page = self.get(control::VIRTUAL_APIC_ADDRESS);
        if apic_accesses || threshold >> 4 != 0 || page % 4096 != 0 || !self.is_physical(page) {
            return;
        }
        // VTPR is the byte at offset 80H of the virtual-APIC page.
        if let Some(vtpr) = self.context.memory(page + 0x80) {
            self.require(threshold <= vtpr >> 4 & 0xf, Rule::TprThresholdAboveVtpr, control::TPR_THRESHOLD);
        }
    }

    fn posted_interrupts(&mut self) {
        if !self.pin.contains(PinControls::PROCESS_POSTED_INTERRUPTS) {
            return;
        }
        self.require(
            self.secondary.contains(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY),
            Rule::PostedInterruptsNeedVirtualInterrupts,
            control::PIN_CONTROLS,
        );
        self.require(
            self.exit.contains(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT),
            Rule::PostedInterruptsNeedAcknowledge,
            control::EXIT_CONTROLS,
        );
        let vector = control::POSTED_INTERRUPT_NOTIFICATION_VECTOR;
        self.require(self.get(vector) <= 0xff, Rule::PostedInterruptVector, vector);
        let descriptor = control::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS;
        self.require_address(6, Rule::PostedInterruptDescriptorAddress, descriptor);
    }

    fn ept(&mut self) {
        if !self.secondary.contains(SecondaryControls::ENABLE_EPT) {
            return;
        }
        let (pointer, caps) = (self.get(control::EPT_POINTER), self.caps.ept_vpid);
        let field = control::EPT_POINTER;
        self.require(caps.allows_memory_type(pointer as u8 & 7), Rule::EptpMemoryType, field);
        self.require(caps.allows_walk((pointer as u32 >> 3 & 7) + 1), Rule::EptpWalkLength, field);
        let accessed_dirty = caps.contains(crate::EptVpidCap::ACCESSED_DIRTY);
        self.require(pointer & 1 << 6 == 0 || accessed_dirty, Rule::EptpAccessedDirty, field);
        let shadow_stack = caps.contains(crate::EptVpidCap::SUPERVISOR_SHADOW_STACK);
        self.require(pointer & 1 << 7 == 0 || shadow_stack, Rule::EptpShadowStack, field);
        self.require(pointer & 0xf00 == 0 && self.is_physical(pointer), Rule::EptpReserved, field);
    }

    fn what_needs_ept(&mut self) {
        let ept = self.secondary.contains(SecondaryControls::ENABLE_EPT);
        for (bit, rule) in [
            (SecondaryControls::ENABLE_PML, Rule::PmlNeedsEpt),
            (SecondaryControls::UNRESTRICTED_GUEST, Rule::UnrestrictedGuestNeedsEpt),
            (SecondaryControls::MODE_BASED_EXECUTE_CONTROL, Rule::ModeBasedExecuteNeedsEpt),
            (SecondaryControls::SUB_PAGE_WRITE_PERMISSIONS, Rule::SubPageNeedsEpt),
            (SecondaryControls::PT_USES_GUEST_PHYSICAL_ADDRESSES, Rule::GuestPhysicalTraceNeedsEpt),
        ] {
            self.require(ept || !self.secondary.contains(bit), rule, control::SECONDARY_CONTROLS);
        }
        let hlat = TertiaryControls::ENABLE_HLAT
            | TertiaryControls::EPT_PAGING_WRITE_CONTROL
            | TertiaryControls::GUEST_PAGING_VERIFICATION;
        let holds = ept || !self.tertiary.intersects(hlat);
        self.require(holds, Rule::HlatNeedsEpt, control::TERTIARY_CONTROLS);
        if self.secondary.contains(SecondaryControls::ENABLE_PML) {
            self.require_address(12, Rule::PmlAddress, control::PML_ADDRESS);
        }
        if self.secondary.contains(SecondaryControls::SUB_PAGE_WRITE_PERMISSIONS) {
            self.require_address(12, Rule::SubPageTableAddress, control::SPP_TABLE_POINTER);
        }
        if self.tertiary.contains(TertiaryControls::ENABLE_HLAT) {
            let pointer = self.get(control::HLAT_POINTER);
            let holds = pointer & 0xfe7 == 0 && self.is_physical(pointer);
            self.require(holds, Rule::HlatPointer, control::HLAT_POINTER);
            let limit = u64::from(self.caps.ept_vpid.max_hlat_prefix());
            let prefix = self.get(control::HLAT_PREFIX_SIZE);
            self.require(prefix <= limit, Rule::HlatPrefixSize, control::HLAT_PREFIX_SIZE);
        }
    }

    fn vm_functions(&mut self) {
        if !self.secondary.contains(SecondaryControls::ENABLE_VM_FUNCTIONS) {
            return;
        }
        let functions = self.get(control::VM_FUNCTION_CONTROLS);
        let unsupported = functions & !self.caps.vmfunc;
        self.require(unsupported == 0, Rule::VmFunctionControls, control::VM_FUNCTION_CONTROLS);
        if functions & 1 == 1 {
            let ept = self.secondary.contains(SecondaryControls::ENABLE_EPT);
            self.require(ept, Rule::EptpSwitchingNeedsEpt, control::VM_FUNCTION_CONTROLS);
            self.require_address(12, Rule::EptpListAddress, control::EPTP_LIST_ADDRESS);
        }
    }

    fn other_execution_controls(&mut self) {
        if self.secondary.contains(SecondaryControls::EPT_VIOLATION_VE) {
            self.require_address(12, Rule::VeInformationAddress, control::VE_INFORMATION_ADDRESS);
        }
        let loads_rtit = self.entry.contains(EntryControls::LOAD_IA32_RTIT_CTL);
        let holds = !(self.context.tracing && loads_rtit);
        self.require(holds, Rule::TracingExcludesLoadRtitCtl, control::ENTRY_CONTROLS);
        if self.secondary.contains(SecondaryControls::PT_USES_GUEST_PHYSICAL_ADDRESSES) {
            self.require(loads_rtit, Rule::GuestPhysicalTraceNeedsLoad, control::ENTRY_CONTROLS);
            let clears = self.exit.contains(ExitControls::CLEAR_IA32_RTIT_CTL);
            self.require(clears, Rule::GuestPhysicalTraceNeedsClear, control::EXIT_CONTROLS);
        }
        if self.secondary.contains(SecondaryControls::USE_TSC_SCALING) {
            let holds = self.get(control::TSC_MULTIPLIER) != 0;
            self.require(holds, Rule::TscMultiplierNotZero, control::TSC_MULTIPLIER);
        }
        if self.tertiary.contains(TertiaryControls::IPI_VIRTUALIZATION) {
            let start = self.get(control::PID_POINTER_TABLE_ADDRESS);
            let last = start.checked_add(8 * self.get(control::LAST_PID_POINTER_INDEX) + 7);
            let fits = last.is_some_and(|last| self.is_physical(start) && self.is_physical(last));
            self.require(
                start % 8 == 0 && fits,
                Rule::PidPointerTableAddress,
                control::PID_POINTER_TABLE_ADDRESS,
            );
        }
        if self.secondary.contains(SecondaryControls::PASID_TRANSLATION) {
            self.require_address(12, Rule::PasidDirectoryAddress, control::LOW_PASID_DIRECTORY_ADDRESS);
            self.require_address(12, Rule::PasidDirectoryAddress, control::HIGH_PASID_DIRECTORY_ADDRESS);
        }
    }

    fn exit_controls(&mut self) {
        self.word(self.exit, Rule::ExitControls, control::EXIT_CONTROLS);
        if self.exit.contains(ExitControls::ACTIVATE_SECONDARY_CONTROLS) {
            self.word(self.secondary_exit, Rule::SecondaryExitControls, control::SECONDARY_EXIT_CONTROLS);
        }
        self.require(
            self.pin.contains(PinControls::ACTIVATE_VMX_PREEMPTION_TIMER)
                || !self.exit.contains(ExitControls::SAVE_VMX_PREEMPTION_TIMER),
            Rule::SaveTimerNeedsTimer,
            control::EXIT_CONTROLS,
        );
        let (count, area) = (control::EXIT_MSR_STORE_COUNT, control::EXIT_MSR_STORE_ADDRESS);
        self.require_msr_area(Rule::ExitMsrStoreArea, count, area);
        let (count, area) = (control::EXIT_MSR_LOAD_COUNT, control::EXIT_MSR_LOAD_ADDRESS);
        self.require_msr_area(Rule::ExitMsrLoadArea, count, area);
    }

    fn entry_controls(&mut self) {
        self.word(self.entry, Rule::EntryControls, control::ENTRY_CONTROLS);
        let (count, area) = (control::ENTRY_MSR_LOAD_COUNT, control::ENTRY_MSR_LOAD_ADDRESS);
        self.require_msr_area(Rule::EntryMsrLoadArea, count, area);
        let smm = EntryControls::ENTRY_TO_SMM | EntryControls::DEACTIVATE_DUAL_MONITOR;
        if self.context.in_smm {
            let holds = !self.entry.contains(smm);
            self.require(holds, Rule::SmmControlsExclusive, control::ENTRY_CONTROLS);
        } else {
            let holds = !self.entry.intersects(smm);
            self.require(holds, Rule::SmmControlsOutsideSmm, control::ENTRY_CONTROLS);
        }
    }
}
