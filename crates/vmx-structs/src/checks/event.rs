//! The event that VM entry injects (SDM 26.2.1.3 and Table 24-17).

use super::{Rule, engine::Checker};
use crate::vmcs::{ControlWord, PrimaryControls, control, guest};

/// What kind of event (bits 10:8).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum EventType {
    ExternalInterrupt,
    Nmi,
    HardwareException,
    SoftwareInterrupt,
    PrivilegedSoftwareException,
    SoftwareException,
    Other,
}

/// A valid VM-entry interruption-information field.
#[derive(Clone, Copy)]
pub(super) struct Event {
    info: u32,
}

impl Event {
    pub(super) fn vector(self) -> u32 {
        self.info & 0xff
    }

    /// `None` for the reserved type 1.
    pub(super) fn event_type(self) -> Option<EventType> {
        Some(match self.info >> 8 & 7 {
            0 => EventType::ExternalInterrupt,
            2 => EventType::Nmi,
            3 => EventType::HardwareException,
            4 => EventType::SoftwareInterrupt,
            5 => EventType::PrivilegedSoftwareException,
            6 => EventType::SoftwareException,
            7 => EventType::Other,
            _ => return None,
        })
    }

    pub(super) fn is(self, event_type: EventType) -> bool {
        self.event_type() == Some(event_type)
    }

    fn delivers_error_code(self) -> bool {
        self.info >> 11 & 1 == 1
    }
}

impl Checker<'_> {
    /// The event to be injected, if any.
    pub(super) fn injected(&self) -> Option<Event> {
        let info = self.get(control::ENTRY_INTERRUPTION_INFO) as u32;
        (info >> 31 == 1).then_some(Event { info })
    }

    pub(super) fn event(&mut self) {
        let Some(event) = self.injected() else { return };
        let field = control::ENTRY_INTERRUPTION_INFO;
        let monitor_trap = PrimaryControls::MONITOR_TRAP_FLAG.is_available(self.caps);
        let Some(event_type) = event.event_type().filter(|of| *of != EventType::Other || monitor_trap) else {
            return self.require(false, Rule::InjectionType, field);
        };
        let fits = match event_type {
            EventType::Nmi => event.vector() == 2,
            EventType::HardwareException => event.vector() <= 31,
            EventType::Other => event.vector() == 0,
            _ => true,
        };
        self.require(fits, Rule::InjectionVector, field);

        // Bits 30:12, of which FRED gives bit 13 a meaning.
        let nested = if self.caps.basic.has_nested_exceptions() { 1 << 13 } else { 0 };
        self.require(event.info & 0x7fff_f000 & !nested == 0, Rule::InjectionReserved, field);

        self.error_code(event, event_type);

        let has_length = matches!(
            event_type,
            EventType::SoftwareInterrupt
                | EventType::PrivilegedSoftwareException
                | EventType::SoftwareException
        );
        let length = self.get(control::ENTRY_INSTRUCTION_LENGTH);
        let allowed = length <= 15 && (length != 0 || self.caps.misc.injects_with_zero_length());
        self.require(!has_length || allowed, Rule::InjectionLength, control::ENTRY_INSTRUCTION_LENGTH);
    }

    fn error_code(&mut self, event: Event, event_type: EventType) {
        let exception = event_type == EventType::HardwareException;
        let protected = self.get(guest::CR0) & 1 == 1;
        let any_vector = self.caps.basic.error_code_for_any_vector();
        // #DF, #TS, #NP, #SS, #GP, #PF, #AC.
        let with_code = matches!(event.vector(), 8 | 10..=14 | 17);
        let delivers = event.delivers_error_code();
        let holds = match (exception && protected, any_vector) {
            (false, _) => !delivers,
            (true, true) => true,
            (true, false) => delivers == with_code,
        };
        self.require(holds, Rule::InjectionDeliversErrorCode, control::ENTRY_INTERRUPTION_INFO);
        let code = self.get(control::ENTRY_EXCEPTION_ERROR_CODE);
        let holds = !delivers || code >> 16 == 0;
        self.require(holds, Rule::InjectionErrorCode, control::ENTRY_EXCEPTION_ERROR_CODE);
    }
}
