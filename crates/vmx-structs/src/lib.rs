//! See the README of the workspace.
#![no_std]

pub mod capabilities;
pub mod vmcs;

pub use capabilities::{CpuFacts, CpuFeatures, CpuModel, EptVpidCap, VmxBasic, VmxCapabilities, VmxMisc};
