//! Fields that software writes to control VM entries, VM exits and what happens between them (SDM 24.6-24.8).

use super::*;

fields! { Control:
    Bits16 {
        0x0000 VPID "Virtual-processor identifier (VPID)" Secondary(SecondaryControls::ENABLE_VPID);
        0x0002 POSTED_INTERRUPT_NOTIFICATION_VECTOR "Posted-interrupt notification vector" Pin(PinControls::PROCESS_POSTED_INTERRUPTS);
        0x0004 EPTP_INDEX "EPTP index" Secondary(SecondaryControls::EPT_VIOLATION_VE);
        0x0006 HLAT_PREFIX_SIZE "HLAT prefix size" Tertiary(TertiaryControls::ENABLE_HLAT);
        0x0008 LAST_PID_POINTER_INDEX "Last PID-pointer index" Tertiary(TertiaryControls::IPI_VIRTUALIZATION);
        0x000a VIRTUAL_TIMER_VECTOR "Virtual timer vector" Tertiary(TertiaryControls::GUEST_APIC_TIMER);
    }
    Bits64 {
        0x2000 IO_BITMAP_A "Address of I/O bitmap A" Always;
        0x2002 IO_BITMAP_B "Address of I/O bitmap B" Always;
        0x2004 MSR_BITMAPS "Address of MSR bitmaps" Primary(PrimaryControls::USE_MSR_BITMAPS);
        0x2006 EXIT_MSR_STORE_ADDRESS "VM-exit MSR-store address" Always;
        0x2008 EXIT_MSR_LOAD_ADDRESS "VM-exit MSR-load address" Always;
        0x200a ENTRY_MSR_LOAD_ADDRESS "VM-entry MSR-load address" Always;
        0x200c EXECUTIVE_VMCS_POINTER "Executive-VMCS pointer" Always;
        0x200e PML_ADDRESS "PML address" Secondary(SecondaryControls::ENABLE_PML);
        0x2010 TSC_OFFSET "TSC offset" Always;
        0x2012 VIRTUAL_APIC_ADDRESS "Virtual-APIC address" Primary(PrimaryControls::USE_TPR_SHADOW);
        0x2014 APIC_ACCESS_ADDRESS "APIC-access address" Secondary(SecondaryControls::VIRTUALIZE_APIC_ACCESSES);
        0x2016 POSTED_INTERRUPT_DESCRIPTOR_ADDRESS "Posted-interrupt descriptor address" Pin(PinControls::PROCESS_POSTED_INTERRUPTS);
        0x2018 VM_FUNCTION_CONTROLS "VM-function controls" Secondary(SecondaryControls::ENABLE_VM_FUNCTIONS);
        0x201a EPT_POINTER "EPT pointer (EPTP)" Secondary(SecondaryControls::ENABLE_EPT);
        0x201c EOI_EXIT_BITMAP_0 "EOI-exit bitmap 0" Secondary(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY);
        0x201e EOI_EXIT_BITMAP_1 "EOI-exit bitmap 1" Secondary(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY);
        0x2020 EOI_EXIT_BITMAP_2 "EOI-exit bitmap 2" Secondary(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY);
        0x2022 EOI_EXIT_BITMAP_3 "EOI-exit bitmap 3" Secondary(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY);
        0x2024 EPTP_LIST_ADDRESS "EPTP-list address" VmFunction(0);
        0x2026 VMREAD_BITMAP_ADDRESS "VMREAD-bitmap address" Secondary(SecondaryControls::VMCS_SHADOWING);
        0x2028 VMWRITE_BITMAP_ADDRESS "VMWRITE-bitmap address" Secondary(SecondaryControls::VMCS_SHADOWING);
        0x202a VE_INFORMATION_ADDRESS "Virtualization-exception information address" Secondary(SecondaryControls::EPT_VIOLATION_VE);
        0x202c XSS_EXITING_BITMAP "XSS-exiting bitmap" Secondary(SecondaryControls::ENABLE_XSAVES);
        0x202e ENCLS_EXITING_BITMAP "ENCLS-exiting bitmap" Secondary(SecondaryControls::ENABLE_ENCLS_EXITING);
        0x2030 SPP_TABLE_POINTER "Sub-page-permission-table pointer (SPPTP)" Secondary(SecondaryControls::SUB_PAGE_WRITE_PERMISSIONS);
        0x2032 TSC_MULTIPLIER "TSC multiplier" Secondary(SecondaryControls::USE_TSC_SCALING);
        0x2034 TERTIARY_CONTROLS "Tertiary processor-based VM-execution controls" Primary(PrimaryControls::ACTIVATE_TERTIARY_CONTROLS);
        0x2036 ENCLV_EXITING_BITMAP "ENCLV-exiting bitmap" Secondary(SecondaryControls::ENABLE_ENCLV_EXITING);
        0x2038 LOW_PASID_DIRECTORY_ADDRESS "Low PASID directory address" Secondary(SecondaryControls::PASID_TRANSLATION);
        0x203a HIGH_PASID_DIRECTORY_ADDRESS "High PASID directory address" Secondary(SecondaryControls::PASID_TRANSLATION);
        0x203c SHARED_EPT_POINTER "Shared EPT pointer (of trust domains)" Unknown;
        0x203e PCONFIG_EXITING_BITMAP "PCONFIG-exiting bitmap" Secondary(SecondaryControls::ENABLE_PCONFIG);
        0x2040 HLAT_POINTER "HLAT pointer (HLATP)" Tertiary(TertiaryControls::ENABLE_HLAT);
        0x2042 PID_POINTER_TABLE_ADDRESS "PID-pointer table address" Tertiary(TertiaryControls::IPI_VIRTUALIZATION);
        0x2044 SECONDARY_EXIT_CONTROLS "Secondary VM-exit controls" Exit(ExitControls::ACTIVATE_SECONDARY_CONTROLS);
        0x204a IA32_SPEC_CTRL_MASK "IA32_SPEC_CTRL mask" Tertiary(TertiaryControls::VIRTUALIZE_IA32_SPEC_CTRL);
        0x204c IA32_SPEC_CTRL_SHADOW "IA32_SPEC_CTRL shadow" Tertiary(TertiaryControls::VIRTUALIZE_IA32_SPEC_CTRL);
        0x204e GUEST_DEADLINE_SHADOW "Guest deadline shadow" Tertiary(TertiaryControls::GUEST_APIC_TIMER);
        0x2052 INJECTED_EVENT_DATA "Injected-event data" NestedExceptions;
    }
    Bits32 {
        0x4000 PIN_CONTROLS "Pin-based VM-execution controls" Always;
        0x4002 PRIMARY_CONTROLS "Primary processor-based VM-execution controls" Always;
        0x4004 EXCEPTION_BITMAP "Exception bitmap" Always;
        0x4006 PAGE_FAULT_ERROR_CODE_MASK "Page-fault error-code mask" Always;
        0x4008 PAGE_FAULT_ERROR_CODE_MATCH "Page-fault error-code match" Always;
        0x400a CR3_TARGET_COUNT "CR3-target count" Always;
        0x400c EXIT_CONTROLS "Primary VM-exit controls" Always;
        0x400e EXIT_MSR_STORE_COUNT "VM-exit MSR-store count" Always;
        0x4010 EXIT_MSR_LOAD_COUNT "VM-exit MSR-load count" Always;
        0x4012 ENTRY_CONTROLS "VM-entry controls" Always;
        0x4014 ENTRY_MSR_LOAD_COUNT "VM-entry MSR-load count" Always;
        0x4016 ENTRY_INTERRUPTION_INFO "VM-entry interruption-information field" Always;
        0x4018 ENTRY_EXCEPTION_ERROR_CODE "VM-entry exception error code" Always;
        0x401a ENTRY_INSTRUCTION_LENGTH "VM-entry instruction length" Always;
        0x401c TPR_THRESHOLD "TPR threshold" Primary(PrimaryControls::USE_TPR_SHADOW);
        0x401e SECONDARY_CONTROLS "Secondary processor-based VM-execution controls" Primary(PrimaryControls::ACTIVATE_SECONDARY_CONTROLS);
        0x4020 PLE_GAP "PLE gap" Secondary(SecondaryControls::PAUSE_LOOP_EXITING);
        0x4022 PLE_WINDOW "PLE window" Secondary(SecondaryControls::PAUSE_LOOP_EXITING);
        0x4024 INSTRUCTION_TIMEOUT_CONTROL "Instruction-timeout control" Secondary(SecondaryControls::INSTRUCTION_TIMEOUT);
        0x4026 TD_HKID "Host key identifier (of trust domains)" Unknown;
    }
    Natural {
        0x6000 CR0_GUEST_HOST_MASK "CR0 guest/host mask" Always;
        0x6002 CR4_GUEST_HOST_MASK "CR4 guest/host mask" Always;
        0x6004 CR0_READ_SHADOW "CR0 read shadow" Always;
        0x6006 CR4_READ_SHADOW "CR4 read shadow" Always;
        0x6008 CR3_TARGET_VALUE_0 "CR3-target value 0" Always;
        0x600a CR3_TARGET_VALUE_1 "CR3-target value 1" Always;
        0x600c CR3_TARGET_VALUE_2 "CR3-target value 2" Always;
        0x600e CR3_TARGET_VALUE_3 "CR3-target value 3" Always;
    }
}
