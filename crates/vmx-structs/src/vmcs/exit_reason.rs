//! Why the guest stopped: the exit-reason field (SDM 24.9.1 and Appendix C).

use core::fmt;

/// The value of the exit-reason field.
///
/// ```
/// use vmx_structs::vmcs::{ExitReason, ExitReasonField};
///
/// let field = ExitReasonField::from_raw(0x8000_0021);
/// assert_eq!(field.reason(), ExitReason::EntryFailureGuestState);
/// assert!(field.is_entry_failure());
/// assert_eq!(field.to_string(), "exit reason 33 (VM-entry failure due to invalid guest state), VM-entry failure");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExitReasonField(u32);

impl ExitReasonField {
    /// From the field's value.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The field's value.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The basic exit reason (bits 15:0).
    pub const fn reason(self) -> ExitReason {
        ExitReason::from_number(self.0 as u16)
    }

    /// Whether the exit left a shadow stack prematurely busy (bit 25).
    pub const fn shadow_stack_prematurely_busy(self) -> bool {
        self.0 >> 25 & 1 == 1
    }

    /// Whether a bus lock was asserted (bit 26).
    pub const fn bus_lock(self) -> bool {
        self.0 >> 26 & 1 == 1
    }

    /// Whether the processor was in enclave mode (bit 27).
    pub const fn enclave(self) -> bool {
        self.0 >> 27 & 1 == 1
    }

    /// Whether an MTF VM exit is pending (bit 28).
    pub const fn pending_monitor_trap(self) -> bool {
        self.0 >> 28 & 1 == 1
    }

    /// Whether the exit is from VMX root operation (bit 29): only from SMM.
    pub const fn from_root(self) -> bool {
        self.0 >> 29 & 1 == 1
    }

    /// Whether the guest never ran (bit 31): VM entry failed.
    pub const fn is_entry_failure(self) -> bool {
        self.0 >> 31 == 1
    }
}

impl fmt::Debug for ExitReasonField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExitReasonField({:#x}: {:?})", self.0, self.reason())
    }
}

impl fmt::Display for ExitReasonField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason().fmt(f)?;
        f.write_str(if self.is_entry_failure() { ", VM-entry failure" } else { "" })
    }
}

macro_rules! reasons {
    ($($number:literal $name:ident $text:literal;)*) => {
        /// A basic exit reason (SDM Table C-1).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ExitReason {
            $(#[doc = concat!("Reason ", stringify!($number), ": ", $text, ".")] $name,)*
            /// A number that has no name here.
            Other(u16),
        }

        impl ExitReason {
            /// The reason with this number.
            pub const fn from_number(number: u16) -> Self {
                match number {
                    $($number => Self::$name,)*
                    other => Self::Other(other),
                }
            }

            /// Its number.
            pub const fn number(self) -> u16 {
                match self {
                    $(Self::$name => $number,)*
                    Self::Other(other) => other,
                }
            }

            /// The SDM's words, shortened; `None` for a number that has no name here.
            pub const fn description(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)*
                    Self::Other(_) => None,
                }
            }
        }
    };
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit reason {}", self.number())?;
        match self.description() {
            Some(text) => write!(f, " ({text})"),
            None => Ok(()),
        }
    }
}

reasons! {
    0 ExceptionOrNmi "exception or non-maskable interrupt";
    1 ExternalInterrupt "external interrupt";
    2 TripleFault "triple fault";
    3 InitSignal "INIT signal";
    4 StartupIpi "start-up IPI";
    5 IoSmi "I/O system-management interrupt";
    6 OtherSmi "other SMI";
    7 InterruptWindow "interrupt window";
    8 NmiWindow "NMI window";
    9 TaskSwitch "task switch";
    10 Cpuid "CPUID";
    11 Getsec "GETSEC";
    12 Hlt "HLT";
    13 Invd "INVD";
    14 Invlpg "INVLPG";
    15 Rdpmc "RDPMC";
    16 Rdtsc "RDTSC";
    17 Rsm "RSM";
    18 Vmcall "VMCALL";
    19 Vmclear "VMCLEAR";
    20 Vmlaunch "VMLAUNCH";
    21 Vmptrld "VMPTRLD";
    22 Vmptrst "VMPTRST";
    23 Vmread "VMREAD";
    24 Vmresume "VMRESUME";
    25 Vmwrite "VMWRITE";
    26 Vmxoff "VMXOFF";
    27 Vmxon "VMXON";
    28 ControlRegisterAccess "control-register access";
    29 MovDr "MOV DR";
    30 IoInstruction "I/O instruction";
    31 Rdmsr "RDMSR";
    32 Wrmsr "WRMSR";
    33 EntryFailureGuestState "VM-entry failure due to invalid guest state";
    34 EntryFailureMsrLoading "VM-entry failure due to MSR loading";
    36 Mwait "MWAIT";
    37 MonitorTrapFlag "monitor trap flag";
    39 Monitor "MONITOR";
    40 Pause "PAUSE";
    41 EntryFailureMachineCheck "VM-entry failure due to machine-check event";
    43 TprBelowThreshold "TPR below threshold";
    44 ApicAccess "APIC access";
    45 VirtualizedEoi "virtualized EOI";
    46 GdtrOrIdtrAccess "access to GDTR or IDTR";
    47 LdtrOrTrAccess "access to LDTR or TR";
    48 EptViolation "EPT violation";
    49 EptMisconfiguration "EPT misconfiguration";
    50 Invept "INVEPT";
    51 Rdtscp "RDTSCP";
    52 PreemptionTimerExpired "VMX-preemption timer expired";
    53 Invvpid "INVVPID";
    54 Wbinvd "WBINVD or WBNOINVD";
    55 Xsetbv "XSETBV";
    56 ApicWrite "APIC write";
    57 Rdrand "RDRAND";
    58 Invpcid "INVPCID";
    59 Vmfunc "VMFUNC";
    60 Encls "ENCLS";
    61 Rdseed "RDSEED";
    62 PageModificationLogFull "page-modification log full";
    63 Xsaves "XSAVES";
    64 Xrstors "XRSTORS";
    65 Pconfig "PCONFIG";
    66 SppEvent "sub-page-permission event";
    67 Umwait "UMWAIT";
    68 Tpause "TPAUSE";
    69 Loadiwkey "LOADIWKEY";
    70 Enclv "ENCLV";
    72 EnqcmdPasidFailure "ENQCMD PASID translation failure";
    73 EnqcmdsPasidFailure "ENQCMDS PASID translation failure";
    74 BusLock "bus lock";
    75 InstructionTimeout "instruction timeout";
    76 Seamcall "SEAMCALL";
    77 Tdcall "TDCALL";
    78 Rdmsrlist "RDMSRLIST";
    79 Wrmsrlist "WRMSRLIST";
}
