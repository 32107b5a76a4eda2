//! The rules, one for each bullet of SDM 26.2 and 26.3 (bullets that say the same of several fields share a rule: the
//! violation names the field).

use core::fmt;

/// Which group of checks a rule belongs to. The processor makes them in this order, and stops after a group with a
/// failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// VM-execution, VM-exit and VM-entry controls (SDM 26.2.1): VM-instruction error 7.
    Controls,
    /// Host state (SDM 26.2.2-26.2.4): VM-instruction error 8.
    HostState,
    /// Guest state (SDM 26.3.1): a VM exit with reason 33 and bit 31.
    GuestState,
}

macro_rules! rules {
    ($($stage:ident { $($section:literal { $($name:ident $text:literal;)* })* })*) => {
        /// A rule that VM entry checks.
        // Bits in brackets are no links.
        #[allow(rustdoc::broken_intra_doc_links)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Rule {
            $($($(#[doc = concat!("SDM ", $section, ": ", $text, ".")] $name,)*)*)*
        }

        impl Rule {
            /// Every rule, in the order of the SDM.
            pub const ALL: &'static [Self] = &[$($($(Self::$name,)*)*)*];

            /// The section of the SDM, Vol. 3, that states the rule.
            pub const fn section(self) -> &'static str {
                match self { $($($(Self::$name => $section,)*)*)* }
            }

            /// The group of checks it belongs to.
            pub const fn stage(self) -> Stage {
                match self { $($($(Self::$name => Stage::$stage,)*)*)* }
            }

            /// What must hold.
            pub const fn text(self) -> &'static str {
                match self { $($($(Self::$name => $text,)*)*)* }
            }
        }
    };
}

/// "SDM 26.2.1.1: what must hold".
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SDM {}: {}", self.section(), self.text())
    }
}

rules! {
    Controls {
        "26.2.1.1" {
            PinControls "each pin-based control has an allowed setting";
            PrimaryControls "each primary processor-based control has an allowed setting";
            SecondaryControls "each secondary processor-based control has an allowed setting, if they are activated";
            TertiaryControls "each tertiary processor-based control has an allowed setting, if they are activated";
            Cr3TargetCount "the CR3-target count is at most what IA32_VMX_MISC says";
            IoBitmapAddress "with I/O bitmaps, their addresses are 4-KiB aligned and within the physical-address width";
            MsrBitmapAddress "with MSR bitmaps, their address is 4-KiB aligned and within the physical-address width";
            VirtualApicAddress "with a TPR shadow, the virtual-APIC address is 4-KiB aligned and within the physical-address width";
            TprThresholdReserved "with a TPR shadow and no virtual-interrupt delivery, bits 31:4 of the TPR threshold are 0";
            TprThresholdAboveVtpr "with a TPR shadow and neither virtual-interrupt delivery nor virtualized APIC accesses, the TPR threshold is at most VTPR[7:4]";
            VirtualNmisNeedNmiExiting "virtual NMIs need NMI exiting";
            NmiWindowNeedsVirtualNmis "NMI-window exiting needs virtual NMIs";
            ApicAccessAddress "with virtualized APIC accesses, the APIC-access address is 4-KiB aligned and within the physical-address width";
            ApicVirtualizationNeedsTprShadow "x2APIC-mode, APIC-register, virtual-interrupt and IPI virtualization need the TPR shadow";
            X2ApicExcludesApicAccesses "virtualized x2APIC mode and virtualized APIC accesses exclude each other";
            VirtualInterruptsNeedExternalInterruptExiting "virtual-interrupt delivery needs external-interrupt exiting";
            PostedInterruptsNeedVirtualInterrupts "posted interrupts need virtual-interrupt delivery";
            PostedInterruptsNeedAcknowledge "posted interrupts need acknowledge interrupt on exit";
            PostedInterruptVector "the posted-interrupt notification vector is at most 255";
            PostedInterruptDescriptorAddress "the posted-interrupt descriptor address is 64-byte aligned and within the physical-address width";
            VpidNotZero "with VPIDs, the VPID is not 0";
            EptpMemoryType "the EPT paging-structure memory type is supported";
            EptpWalkLength "the EPT page-walk length is supported";
            EptpAccessedDirty "accessed and dirty flags for EPT are enabled only if supported";
            EptpShadowStack "supervisor shadow-stack control is enabled in the EPTP only if supported";
            EptpReserved "reserved bits of the EPTP (11:8, and those beyond the physical-address width) are 0";
            PmlNeedsEpt "page-modification logging needs EPT";
            PmlAddress "the PML address is 4-KiB aligned and within the physical-address width";
            UnrestrictedGuestNeedsEpt "unrestricted guest needs EPT";
            ModeBasedExecuteNeedsEpt "mode-based execute control needs EPT";
            SubPageNeedsEpt "sub-page write permissions need EPT";
            SubPageTableAddress "the SPPTP is 4-KiB aligned and within the physical-address width";
            VmFunctionControls "only supported VM functions are enabled";
            EptpSwitchingNeedsEpt "EPTP switching needs EPT";
            EptpListAddress "the EPTP-list address is 4-KiB aligned and within the physical-address width";
            VmreadBitmapAddress "with VMCS shadowing, the VMREAD-bitmap address is 4-KiB aligned and within the physical-address width";
            VmwriteBitmapAddress "with VMCS shadowing, the VMWRITE-bitmap address is 4-KiB aligned and within the physical-address width";
            VeInformationAddress "with EPT-violation #VE, the information address is 4-KiB aligned and within the physical-address width";
            TracingExcludesLoadRtitCtl "IA32_RTIT_CTL is not loaded while Intel PT is on";
            GuestPhysicalTraceNeedsEpt "Intel PT with guest-physical addresses needs EPT";
            GuestPhysicalTraceNeedsLoad "Intel PT with guest-physical addresses needs load IA32_RTIT_CTL";
            GuestPhysicalTraceNeedsClear "Intel PT with guest-physical addresses needs clear IA32_RTIT_CTL";
            TscMultiplierNotZero "with TSC scaling, the TSC multiplier is not 0";
            HlatNeedsEpt "HLAT, EPT paging-write control and guest-paging verification need EPT";
            HlatPointer "reserved bits of the HLAT pointer (2:0, 11:5, and those beyond the physical-address width) are 0";
            HlatPrefixSize "the HLAT prefix size is supported";
            PidPointerTableAddress "with IPI virtualization, the PID-pointer table is 8-byte aligned and lies within the physical-address width";
            PasidDirectoryAddress "with PASID translation, the directory addresses are 4-KiB aligned and within the physical-address width";
        }
        "26.2.1.2" {
            ExitControls "each primary VM-exit control has an allowed setting";
            SecondaryExitControls "each secondary VM-exit control has an allowed setting, if they are activated";
            SaveTimerNeedsTimer "saving the VMX-preemption timer needs the timer";
            ExitMsrStoreArea "the VM-exit MSR-store area is 16-byte aligned and lies within the physical-address width";
            ExitMsrLoadArea "the VM-exit MSR-load area is 16-byte aligned and lies within the physical-address width";
        }
        "26.2.1.3" {
            EntryControls "each VM-entry control has an allowed setting";
            InjectionType "the event to inject has a type that is not reserved";
            InjectionVector "the event's vector fits its type: 2 for an NMI, at most 31 for a hardware exception, 0 for other events";
            InjectionDeliversErrorCode "the event delivers an error code exactly if it must";
            InjectionReserved "reserved bits of the interruption information are 0";
            InjectionErrorCode "bits 31:16 of the event's error code are 0";
            InjectionLength "the instruction length of a software interrupt or exception is at most 15, and 0 only if supported";
            EntryMsrLoadArea "the VM-entry MSR-load area is 16-byte aligned and lies within the physical-address width";
            SmmControlsOutsideSmm "outside SMM, entry to SMM and deactivate dual-monitor treatment are 0";
            SmmControlsExclusive "entry to SMM and deactivate dual-monitor treatment exclude each other";
        }
    }
    HostState {
        "26.2.2" {
            HostCr0 "each bit of the host's CR0 has a value that VMX operation supports";
            HostCr4 "each bit of the host's CR4 has a value that VMX operation supports";
            HostCetNeedsWriteProtect "the host's CR4.CET needs CR0.WP";
            HostCr3 "the host's CR3 is within the physical-address width";
            HostSysenterCanonical "the host's IA32_SYSENTER_ESP and IA32_SYSENTER_EIP are canonical";
            HostPerfGlobalCtrl "reserved bits of the host's IA32_PERF_GLOBAL_CTRL are 0, if it is loaded";
            HostPat "each byte of the host's IA32_PAT is a memory type (0, 1, 4, 5, 6, 7), if it is loaded";
            HostEferReserved "reserved bits of the host's IA32_EFER are 0, if it is loaded";
            HostEferMode "LMA and LME of the host's IA32_EFER equal host address-space size, if it is loaded";
            HostSCet "the host's IA32_S_CET is canonical, with reserved bits 0 and not both SUPPRESS and TRACKER, if it is loaded";
            HostSsp "bits 1:0 of the host's SSP are 0 and it is canonical, if it is loaded";
            HostSspTable "the host's IA32_INTERRUPT_SSP_TABLE_ADDR is canonical, if it is loaded";
            HostPkrs "bits 63:32 of the host's IA32_PKRS are 0, if it is loaded";
            HostFred "the host's FRED MSRs are canonical with reserved bits 0, if they are loaded";
        }
        "26.2.3" {
            HostSelectorRplTi "RPL and TI of each host selector are 0";
            HostSelectorNull "the host's CS and TR selectors are not null";
            HostSsNull "the host's SS selector is not null, unless the host runs in 64-bit mode";
            HostBaseCanonical "the host's FS, GS, TR, GDTR and IDTR bases are canonical";
        }
        "26.2.4" {
            LegacyModeEntersNo64Bit "outside IA-32e mode, host address-space size and IA-32e mode guest are 0";
            LongModeNeeds64BitHost "in IA-32e mode, host address-space size is 1";
            Host32ExcludesIa32eGuest "a host that is not in 64-bit mode has no IA-32e mode guest";
            Host32ExcludesPcid "a host that is not in 64-bit mode has CR4.PCIDE 0";
            Host32Rip "bits 63:32 of RIP are 0 for a host that is not in 64-bit mode";
            Host32Cet "bits 63:32 of IA32_S_CET and SSP are 0 for a host that is not in 64-bit mode, if they are loaded";
            Host64NeedsPae "a host in 64-bit mode has CR4.PAE 1";
            Host64Rip "the RIP of a host in 64-bit mode is canonical";
        }
    }
    GuestState {
        "26.3.1.1" {
            GuestCr0 "each bit of the guest's CR0 has a value that VMX operation supports (PE and PG are free for an unrestricted guest)";
            GuestPagingNeedsProtection "the guest's CR0.PG needs CR0.PE";
            GuestCr4 "each bit of the guest's CR4 has a value that VMX operation supports";
            GuestCetNeedsWriteProtect "the guest's CR4.CET needs CR0.WP";
            GuestDebugctl "reserved bits of the guest's IA32_DEBUGCTL are 0, if debug controls are loaded";
            Ia32eGuestNeedsPaging "an IA-32e mode guest has CR0.PG 1";
            Ia32eGuestNeedsPae "an IA-32e mode guest has CR4.PAE 1";
            LegacyGuestExcludesPcid "a guest that is not in IA-32e mode has CR4.PCIDE 0";
            GuestCr3 "the guest's CR3 is within the physical-address width";
            GuestDr7 "bits 63:32 of the guest's DR7 are 0, if debug controls are loaded";
            GuestSysenterCanonical "the guest's IA32_SYSENTER_ESP and IA32_SYSENTER_EIP are canonical";
            GuestSCet "the guest's IA32_S_CET is canonical, with reserved bits 0 and not both SUPPRESS and TRACKER, if it is loaded";
            GuestSspTable "the guest's IA32_INTERRUPT_SSP_TABLE_ADDR is canonical, if it is loaded";
            GuestPerfGlobalCtrl "reserved bits of the guest's IA32_PERF_GLOBAL_CTRL are 0, if it is loaded";
            GuestPat "each byte of the guest's IA32_PAT is a memory type (0, 1, 4, 5, 6, 7), if it is loaded";
            GuestEferReserved "reserved bits of the guest's IA32_EFER are 0, if it is loaded";
            GuestEferLma "LMA of the guest's IA32_EFER equals IA-32e mode guest, if it is loaded";
            GuestEferLme "LME of the guest's IA32_EFER equals LMA if paging is on, if it is loaded";
            GuestBndcfgs "bits 11:2 of the guest's IA32_BNDCFGS are 0 and its address is canonical, if it is loaded";
            GuestRtitCtl "reserved bits of the guest's IA32_RTIT_CTL are 0, if it is loaded";
            GuestPkrs "bits 63:32 of the guest's IA32_PKRS are 0, if it is loaded";
            GuestUinv "bits 15:8 of the guest's UINV are 0, if it is loaded";
            GuestLbrCtl "reserved bits of the guest's IA32_LBR_CTL are 0, if it is loaded";
            GuestFred "the guest's FRED MSRs are canonical with reserved bits 0, if they are loaded";
        }
        "26.3.1.2" {
            SelectorTi "TI of the guest's TR, and of a usable LDTR, is 0";
            SsRpl "the guest's SS and CS have the same RPL, unless virtual-8086 or unrestricted";
            Base8086 "a segment's base is 16 times its selector in virtual-8086 mode";
            BaseCanonical "the bases of the guest's TR, FS, GS and a usable LDTR are canonical";
            BaseUpperHalf "bits 63:32 of the bases of the guest's CS, and of usable SS, DS and ES, are 0";
            Limit8086 "a segment's limit is FFFFH in virtual-8086 mode";
            Access8086 "a segment's access rights are F3H in virtual-8086 mode";
            CsType "the guest's CS is accessed code (9, 11, 13, 15), or for an unrestricted guest 3";
            SsType "the guest's SS, if usable, is accessed writable data (3, 7)";
            DataSegmentAccessed "the guest's DS, ES, FS and GS, if usable, are accessed";
            DataSegmentReadable "the guest's DS, ES, FS and GS, if usable and code, are readable";
            NotSystem "S is 1 for the guest's CS and usable data segments";
            CsDplOfData "the DPL of a CS of type 3 is 0";
            CsDplOfCode "the DPL of a non-conforming CS equals that of SS";
            CsDplOfConforming "the DPL of a conforming CS is at most that of SS";
            SsDplEqualsRpl "the DPL of the guest's SS equals its RPL, unless unrestricted";
            SsDplZero "the DPL of the guest's SS is 0 in real mode, or with a CS of type 3";
            DataSegmentDpl "the DPL of the guest's usable data segments is at least their RPL, unless conforming or unrestricted";
            Present "the guest's CS, TR and usable other segments are present";
            AccessReserved "reserved bits of the access rights of the guest's CS, TR and usable other segments are 0";
            CsDefaultSize "D/B of the guest's CS is 0 in 64-bit mode";
            Granularity "G of the guest's CS, TR and usable other segments agrees with the limit";
            TrType "the guest's TR is a busy TSS (11; outside IA-32e mode also 3)";
            TrUsable "the guest's TR is usable";
            LdtrType "the guest's LDTR, if usable, is an LDT (2)";
            System "S is 0 for the guest's TR and a usable LDTR";
        }
        "26.3.1.3" {
            TableBaseCanonical "the bases of the guest's GDTR and IDTR are canonical";
            TableLimit "bits 31:16 of the limits of the guest's GDTR and IDTR are 0";
        }
        "26.3.1.4" {
            RipUpperHalf "bits 63:32 of the guest's RIP are 0, unless in 64-bit mode";
            RipLinearWidth "bits of the guest's RIP beyond the linear-address width are all the same in 64-bit mode";
            RflagsReserved "reserved bits of the guest's RFLAGS are 0, and bit 1 is 1";
            RflagsVirtual8086 "the guest's RFLAGS.VM is 0 in IA-32e mode and in real mode";
            RflagsInterruptInjection "the guest's RFLAGS.IF is 1 if an external interrupt is injected";
            GuestSsp "bits 1:0 of the guest's SSP are 0 and bits beyond the linear-address width (outside IA-32e mode: 63:32) are the same, if it is loaded";
        }
        "26.3.1.5" {
            LinkPointerAddress "the VMCS link pointer, if not all ones, is 4-KiB aligned and within the physical-address width";
            LinkPointerRevision "the linked VMCS has the processor's revision identifier";
            LinkPointerShadow "the linked VMCS is a shadow VMCS exactly if VMCS shadowing is on";
            LinkPointerCurrent "the VMCS link pointer is not the current VMCS (in SMM: not the VMXON region)";
            PendingDebugReserved "reserved bits of the pending debug exceptions are 0";
            PendingDebugSingleStep "with blocking by STI or MOV SS, or in HLT, pending BS is 1 exactly if RFLAGS.TF is 1 and IA32_DEBUGCTL.BTF is 0";
            PendingDebugRtm "a pending debug exception of RTM comes with bit 12 and no other, without blocking by MOV SS, and with RTM supported";
            ActivityState "the activity state is supported";
            HltNeedsDplZero "the activity state is HLT only with SS.DPL 0";
            BlockingNeedsActive "the activity state is active if STI or MOV SS blocks";
            ActivityInjection "the activity state lets the injected event in";
            SmmExcludesWaitForSipi "an entry to SMM does not enter wait-for-SIPI";
            InterruptibilityReserved "bits 31:5 of the interruptibility state are 0";
            BlockingExclusive "blocking by STI and by MOV SS exclude each other";
            StiBlockingNeedsIf "blocking by STI needs RFLAGS.IF";
            BlockingExcludesInterrupt "no external interrupt is injected while STI or MOV SS blocks";
            MovSsExcludesNmi "no NMI is injected while MOV SS blocks";
            StiExcludesNmi "no NMI is injected while STI blocks (on some processors)";
            SmiBlockingNeedsSmm "blocking by SMI is 0 outside SMM";
            SmmEntryNeedsSmiBlocking "blocking by SMI is 1 on an entry to SMM";
            NmiBlockingExcludesNmi "no NMI is injected while NMIs are blocked, with virtual NMIs";
            EnclaveInterruption "enclave interruption is 0 without SGX, or if MOV SS blocks";
        }
        "26.3.1.6" {
            Pdptes "reserved bits of the guest's present PDPTEs are 0, with PAE paging outside IA-32e mode";
        }
    }
}
