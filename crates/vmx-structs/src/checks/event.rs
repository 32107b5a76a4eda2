//! The event that VM entry injects (SDM 26.2.1.3 and Table 24-17).

use super::{Rule, engine::Checker};
use crate::vmcs::{ControlWord, EventInfo, EventKind, PrimaryControls, control, guest};

impl Checker<'_> {
    /// The event to be injected, if any.
    pub(super) fn injected(&self) -> Option<EventInfo> {
        let event = EventInfo::from_raw(self.get(control::ENTRY_INTERRUPTION_INFO) as u32);
        event.is_valid().then_some(event)
    }

    pub(super) fn event(&mut self) {
        let Some(event) = self.injected() else { return };
        let field = control::ENTRY_INTERRUPTION_INFO;
        let exists = match event.kind() {
            EventKind::Reserved => false,
            EventKind::Other => PrimaryControls::MONITOR_TRAP_FLAG.is_available(self.caps),
            _ => true,
        };
        if !exists {
            return self.require(false, Rule::InjectionType, field);
        }
        let fits = match event.kind() {
            EventKind::Nmi => event.vector() == 2,
            EventKind::HardwareException => event.vector() <= 31,
            EventKind::Other => event.vector() == 0,
            _ => true,
        };
        self.require(fits, Rule::InjectionVector, field);

        // Bits 30:12, of which FRED gives bit 13 a meaning.
        let nested = if self.caps.basic.has_nested_exceptions() { 1 << 13 } else { 0 };
        self.require(event.raw() & 0x7fff_f000 & !nested == 0, Rule::InjectionReserved, field);

        self.error_code(event);

        let length = self.get(control::ENTRY_INSTRUCTION_LENGTH);
        let allowed = length <= 15 && (length != 0 || self.caps.misc.injects_with_zero_length());
        let holds = !event.kind().has_instruction_length() || allowed;
        self.require(holds, Rule::InjectionLength, control::ENTRY_INSTRUCTION_LENGTH);
    }

    fn error_code(&mut self, event: EventInfo) {
        let exception = event.kind() == EventKind::HardwareException;
        let protected = self.get(guest::CR0) & 1 == 1;
        let any_vector = self.caps.basic.error_code_for_any_vector();
        // #DF, #TS, #NP, #SS, #GP, #PF, #AC.
        let with_code = matches!(event.vector(), 8 | 10..=14 | 17);
        let delivers = event.has_error_code();
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
