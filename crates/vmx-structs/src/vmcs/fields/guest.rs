//! The guest's state: loaded by VM entries, saved by VM exits (SDM 24.4).

use super::*;

fields! { Guest:
    Bits16 {
        0x0800 ES_SELECTOR "Guest ES selector" Always;
        0x0802 CS_SELECTOR "Guest CS selector" Always;
        0x0804 SS_SELECTOR "Guest SS selector" Always;
        0x0806 DS_SELECTOR "Guest DS selector" Always;
        0x0808 FS_SELECTOR "Guest FS selector" Always;
        0x080a GS_SELECTOR "Guest GS selector" Always;
        0x080c LDTR_SELECTOR "Guest LDTR selector" Always;
        0x080e TR_SELECTOR "Guest TR selector" Always;
        0x0810 INTERRUPT_STATUS "Guest interrupt status" Secondary(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY);
        0x0812 PML_INDEX "PML index" Secondary(SecondaryControls::ENABLE_PML);
        0x0814 UINV "Guest UINV" EntryOrExit(EntryControls::LOAD_UINV, ExitControls::CLEAR_UINV);
    }
    Bits64 {
        0x2800 VMCS_LINK_POINTER "VMCS link pointer" Always;
        0x2802 IA32_DEBUGCTL "Guest IA32_DEBUGCTL" Always;
        0x2804 IA32_PAT "Guest IA32_PAT" EntryOrExit(EntryControls::LOAD_IA32_PAT, ExitControls::SAVE_IA32_PAT);
        0x2806 IA32_EFER "Guest IA32_EFER" EntryOrExit(EntryControls::LOAD_IA32_EFER, ExitControls::SAVE_IA32_EFER);
        0x2808 IA32_PERF_GLOBAL_CTRL "Guest IA32_PERF_GLOBAL_CTRL" EntryOrExit(EntryControls::LOAD_IA32_PERF_GLOBAL_CTRL, ExitControls::SAVE_IA32_PERF_GLOBAL_CTRL);
        0x280a PDPTE0 "Guest PDPTE0" Secondary(SecondaryControls::ENABLE_EPT);
        0x280c PDPTE1 "Guest PDPTE1" Secondary(SecondaryControls::ENABLE_EPT);
        0x280e PDPTE2 "Guest PDPTE2" Secondary(SecondaryControls::ENABLE_EPT);
        0x2810 PDPTE3 "Guest PDPTE3" Secondary(SecondaryControls::ENABLE_EPT);
        0x2812 IA32_BNDCFGS "Guest IA32_BNDCFGS" EntryOrExit(EntryControls::LOAD_IA32_BNDCFGS, ExitControls::CLEAR_IA32_BNDCFGS);
        0x2814 IA32_RTIT_CTL "Guest IA32_RTIT_CTL" EntryOrExit(EntryControls::LOAD_IA32_RTIT_CTL, ExitControls::CLEAR_IA32_RTIT_CTL);
        0x2816 IA32_LBR_CTL "Guest IA32_LBR_CTL" EntryOrExit(EntryControls::LOAD_IA32_LBR_CTL, ExitControls::CLEAR_IA32_LBR_CTL);
        0x2818 IA32_PKRS "Guest IA32_PKRS" Entry(EntryControls::LOAD_PKRS);
        0x281a IA32_FRED_CONFIG "Guest IA32_FRED_CONFIG" Entry(EntryControls::LOAD_FRED);
        0x281c IA32_FRED_RSP1 "Guest IA32_FRED_RSP1" Entry(EntryControls::LOAD_FRED);
        0x281e IA32_FRED_RSP2 "Guest IA32_FRED_RSP2" Entry(EntryControls::LOAD_FRED);
        0x2820 IA32_FRED_RSP3 "Guest IA32_FRED_RSP3" Entry(EntryControls::LOAD_FRED);
        0x2822 IA32_FRED_STKLVLS "Guest IA32_FRED_STKLVLS" Entry(EntryControls::LOAD_FRED);
        0x2824 IA32_FRED_SSP1 "Guest IA32_FRED_SSP1" Entry(EntryControls::LOAD_FRED);
        0x2826 IA32_FRED_SSP2 "Guest IA32_FRED_SSP2" Entry(EntryControls::LOAD_FRED);
        0x2828 IA32_FRED_SSP3 "Guest IA32_FRED_SSP3" Entry(EntryControls::LOAD_FRED);
        0x282a UNNAMED_282A "Guest-state field with encoding 282AH (no public name)" Unknown;
        0x282c UNNAMED_282C "Guest-state field with encoding 282CH (no public name)" Unknown;
        0x282e IA32_SPEC_CTRL "Guest IA32_SPEC_CTRL" Entry(EntryControls::LOAD_IA32_SPEC_CTRL);
        0x2830 DEADLINE "Guest deadline" Tertiary(TertiaryControls::GUEST_APIC_TIMER);
    }
    Bits32 {
        0x4800 ES_LIMIT "Guest ES limit" Always;
        0x4802 CS_LIMIT "Guest CS limit" Always;
        0x4804 SS_LIMIT "Guest SS limit" Always;
        0x4806 DS_LIMIT "Guest DS limit" Always;
        0x4808 FS_LIMIT "Guest FS limit" Always;
        0x480a GS_LIMIT "Guest GS limit" Always;
        0x480c LDTR_LIMIT "Guest LDTR limit" Always;
        0x480e TR_LIMIT "Guest TR limit" Always;
        0x4810 GDTR_LIMIT "Guest GDTR limit" Always;
        0x4812 IDTR_LIMIT "Guest IDTR limit" Always;
        0x4814 ES_ACCESS_RIGHTS "Guest ES access rights" Always;
        0x4816 CS_ACCESS_RIGHTS "Guest CS access rights" Always;
        0x4818 SS_ACCESS_RIGHTS "Guest SS access rights" Always;
        0x481a DS_ACCESS_RIGHTS "Guest DS access rights" Always;
        0x481c FS_ACCESS_RIGHTS "Guest FS access rights" Always;
        0x481e GS_ACCESS_RIGHTS "Guest GS access rights" Always;
        0x4820 LDTR_ACCESS_RIGHTS "Guest LDTR access rights" Always;
        0x4822 TR_ACCESS_RIGHTS "Guest TR access rights" Always;
        0x4824 INTERRUPTIBILITY_STATE "Guest interruptibility state" Always;
        0x4826 ACTIVITY_STATE "Guest activity state" Always;
        0x4828 SMBASE "Guest SMBASE" Always;
        0x482a IA32_SYSENTER_CS "Guest IA32_SYSENTER_CS" Always;
        0x482e VMX_PREEMPTION_TIMER_VALUE "VMX-preemption timer value" Pin(PinControls::ACTIVATE_VMX_PREEMPTION_TIMER);
    }
    Natural {
        0x6800 CR0 "Guest CR0" Always;
        0x6802 CR3 "Guest CR3" Always;
        0x6804 CR4 "Guest CR4" Always;
        0x6806 ES_BASE "Guest ES base" Always;
        0x6808 CS_BASE "Guest CS base" Always;
        0x680a SS_BASE "Guest SS base" Always;
        0x680c DS_BASE "Guest DS base" Always;
        0x680e FS_BASE "Guest FS base" Always;
        0x6810 GS_BASE "Guest GS base" Always;
        0x6812 LDTR_BASE "Guest LDTR base" Always;
        0x6814 TR_BASE "Guest TR base" Always;
        0x6816 GDTR_BASE "Guest GDTR base" Always;
        0x6818 IDTR_BASE "Guest IDTR base" Always;
        0x681a DR7 "Guest DR7" Always;
        0x681c RSP "Guest RSP" Always;
        0x681e RIP "Guest RIP" Always;
        0x6820 RFLAGS "Guest RFLAGS" Always;
        0x6822 PENDING_DEBUG_EXCEPTIONS "Guest pending debug exceptions" Always;
        0x6824 IA32_SYSENTER_ESP "Guest IA32_SYSENTER_ESP" Always;
        0x6826 IA32_SYSENTER_EIP "Guest IA32_SYSENTER_EIP" Always;
        0x6828 IA32_S_CET "Guest IA32_S_CET" Entry(EntryControls::LOAD_CET_STATE);
        0x682a SSP "Guest SSP" Entry(EntryControls::LOAD_CET_STATE);
        0x682c IA32_INTERRUPT_SSP_TABLE_ADDR "Guest IA32_INTERRUPT_SSP_TABLE_ADDR" Entry(EntryControls::LOAD_CET_STATE);
    }
}
