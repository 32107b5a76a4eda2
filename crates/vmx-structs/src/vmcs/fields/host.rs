//! The host's state: loaded by VM exits (SDM 24.5).

use super::*;

fields! { Host:
    Bits16 {
        0x0c00 ES_SELECTOR "Host ES selector" Always;
        0x0c02 CS_SELECTOR "Host CS selector" Always;
        0x0c04 SS_SELECTOR "Host SS selector" Always;
        0x0c06 DS_SELECTOR "Host DS selector" Always;
        0x0c08 FS_SELECTOR "Host FS selector" Always;
        0x0c0a GS_SELECTOR "Host GS selector" Always;
        0x0c0c TR_SELECTOR "Host TR selector" Always;
    }
    Bits64 {
        0x2c00 IA32_PAT "Host IA32_PAT" Exit(ExitControls::LOAD_IA32_PAT);
        0x2c02 IA32_EFER "Host IA32_EFER" Exit(ExitControls::LOAD_IA32_EFER);
        0x2c04 IA32_PERF_GLOBAL_CTRL "Host IA32_PERF_GLOBAL_CTRL" Exit(ExitControls::LOAD_IA32_PERF_GLOBAL_CTRL);
        0x2c06 IA32_PKRS "Host IA32_PKRS" Exit(ExitControls::LOAD_PKRS);
        0x2c08 IA32_FRED_CONFIG "Host IA32_FRED_CONFIG" SecondaryExit(SecondaryExitControls::LOAD_FRED);
        0x2c0a IA32_FRED_RSP1 "Host IA32_FRED_RSP1" SecondaryExit(SecondaryExitControls::LOAD_FRED);
        0x2c0c IA32_FRED_RSP2 "Host IA32_FRED_RSP2" SecondaryExit(SecondaryExitControls::LOAD_FRED);
        0x2c0e IA32_FRED_RSP3 "Host IA32_FRED_RSP3" SecondaryExit(SecondaryExitControls::LOAD_FRED);
        0x2c10 IA32_FRED_STKLVLS "Host IA32_FRED_STKLVLS" SecondaryExit(SecondaryExitControls::LOAD_FRED);
        0x2c12 IA32_FRED_SSP1 "Host IA32_FRED_SSP1" SecondaryExit(SecondaryExitControls::LOAD_FRED);
        0x2c14 IA32_FRED_SSP2 "Host IA32_FRED_SSP2" SecondaryExit(SecondaryExitControls::LOAD_FRED);
        0x2c16 IA32_FRED_SSP3 "Host IA32_FRED_SSP3" SecondaryExit(SecondaryExitControls::LOAD_FRED);
        0x2c18 UNNAMED_2C18 "Host-state field with encoding 2C18H (no public name)" Unknown;
        0x2c1a IA32_SPEC_CTRL "Host IA32_SPEC_CTRL" SecondaryExit(SecondaryExitControls::LOAD_IA32_SPEC_CTRL);
    }
    Bits32 {
        0x4c00 IA32_SYSENTER_CS "Host IA32_SYSENTER_CS" Always;
    }
    Natural {
        0x6c00 CR0 "Host CR0" Always;
        0x6c02 CR3 "Host CR3" Always;
        0x6c04 CR4 "Host CR4" Always;
        0x6c06 FS_BASE "Host FS base" Always;
        0x6c08 GS_BASE "Host GS base" Always;
        0x6c0a TR_BASE "Host TR base" Always;
        0x6c0c GDTR_BASE "Host GDTR base" Always;
        0x6c0e IDTR_BASE "Host IDTR base" Always;
        0x6c10 IA32_SYSENTER_ESP "Host IA32_SYSENTER_ESP" Always;
        0x6c12 IA32_SYSENTER_EIP "Host IA32_SYSENTER_EIP" Always;
        0x6c14 RSP "Host RSP" Always;
        0x6c16 RIP "Host RIP" Always;
        0x6c18 IA32_S_CET "Host IA32_S_CET" Exit(ExitControls::LOAD_CET_STATE);
        0x6c1a SSP "Host SSP" Exit(ExitControls::LOAD_CET_STATE);
        0x6c1c IA32_INTERRUPT_SSP_TABLE_ADDR "Host IA32_INTERRUPT_SSP_TABLE_ADDR" Exit(ExitControls::LOAD_CET_STATE);
    }
}
