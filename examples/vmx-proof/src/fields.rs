//! The fields of a VMCS: which there are on this processor, which can be written, what is read back.
//!
//! The software is `SoftwareVmcs`, made for the processor's capabilities.

use kernel_example::memory::Kernel;
use vmx_structs::{
    VmcsRegion, VmxCapabilities,
    instructions::CurrentVmcs,
    vmcs::{FieldEncoding, FieldInfo, Group, SoftwareVmcs, VmFail, VmInstructionError, VmcsAccess},
};

use crate::report::{Outcome, Report};

const UNSUPPORTED: Result<(), VmFail> = Err(VmFail::Valid(VmInstructionError::UnsupportedField));

/// Every encoding of 15 bits: is there such a field, can it be written, what is read then?
pub fn compare(report: &mut Report, caps: &VmxCapabilities) -> Outcome {
    let region = VmcsRegion::<Kernel>::new(caps.basic)?;
    // SAFETY: in VMX root operation, and no other VMCS of this CPU is in use; the region outlives the value.
    let mut processor = unsafe { CurrentVmcs::load(region.phys_addr())? };
    let mut software = SoftwareVmcs::for_processor(caps);
    let (mut none, mut none_there) = (0, 0);
    for field in (0..0x8000).map(FieldEncoding::from_raw) {
        let answers = [software.read_raw(field).map(drop), processor.read_raw(field).map(drop)];
        if answers == [UNSUPPORTED; 2] {
            none += 1;
        } else {
            report.compare(format_args!("VMREAD of {field}"), &answers[0], &answers[1]);
        }
        let written = [software.write_raw(field, u64::MAX), processor.write_raw(field, u64::MAX)];
        if written == [UNSUPPORTED; 2] {
            none_there += 1;
        } else {
            report.compare(format_args!("VMWRITE of {field}"), &written[0], &written[1]);
        }
    }
    report.compare("encodings without a field, by VMREAD and VMWRITE", &none, &none_there);
    for raw in [0x8000, 0x6820_0000_u32, 0x1_0000, u32::MAX] {
        let field = FieldEncoding::from_raw(raw);
        let answers = [software.read_raw(field), processor.read_raw(field)];
        report.compare(format_args!("VMREAD of {raw:#x}"), &answers[0], &answers[1]);
    }
    // What was written, cut to the width of the field.
    for info in FieldInfo::ALL.iter().filter(|info| info.encoding.group() != Group::ReadOnly) {
        let values = [software.read_raw(info.encoding), processor.read_raw(info.encoding)];
        report.compare(format_args!("all ones in {}", info.encoding), &values[0], &values[1]);
    }
    processor.unload()?;
    report.blind(
        "on CPUs other than the first every encoding is a field: compared on the first alone; on the host: vmcs_fields",
    );
    Ok(())
}
