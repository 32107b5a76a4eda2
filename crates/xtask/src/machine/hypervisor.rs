//! `cargo xtask hypervisor`: boots `examples/hypervisor` in Bochs, which has VMX.

use std::path::Path;

use super::{
    Outcome,
    bochs::{Bochs, LIMIT, MODELS},
    image, packages, verdict,
};
use crate::command::Failure;

/// Boots the example hypervisor on an x86 with VMX (Bochs).
#[derive(clap::Args, Debug)]
pub(crate) struct HypervisorArgs {
    /// CPUs, 1 to 8
    #[arg(long, default_value_t = 1)]
    cpus: usize,
    /// The processor: sandy_bridge, haswell, skylake_x, tigerlake, or any other that Bochs knows, by Bochs's name
    #[arg(long, default_value = "haswell")]
    model: String,
    /// The four processors, each with 1 and with 4 CPUs
    #[arg(long, conflicts_with_all = ["cpus", "model"])]
    all: bool,
}

impl HypervisorArgs {
    /// What the tests run.
    pub(crate) const ALL: Self = Self { cpus: 1, model: String::new(), all: true };

    /// One CPU of the default model.
    pub(super) fn one() -> Self {
        Self { cpus: 1, model: "haswell".into(), all: false }
    }
}

pub(crate) fn hypervisor(args: &HypervisorArgs) -> Result<Outcome, Failure> {
    if let Err(why) = packages::require(&packages::BOCHS) {
        return Ok(Outcome::Skipped(why));
    }
    boot(args, &image::build("hypervisor", "hypervisor")?)
}

/// Boots the machines that the arguments name, with this hypervisor.
pub(super) fn boot(args: &HypervisorArgs, image: &Path) -> Result<Outcome, Failure> {
    let machines: Vec<(&str, usize)> = match args.all {
        true => MODELS.iter().flat_map(|model| [(model.0, 1), (model.0, 4)]).collect(),
        false => vec![(args.model.as_str(), args.cpus)],
    };
    let (mut checks, mut failures) = (0, Vec::new());
    for &(model, cpus) in &machines {
        let bochs_model = MODELS.iter().find(|known| known.0 == model).map_or(model, |known| known.1);
        let command_line = format!("cpus={cpus}");
        let bochs = Bochs { model: bochs_model, cpus, memory_mib: 256, command_line: &command_line };
        let ended = bochs.run(image, LIMIT)?;
        print!("{}", ended.serial);
        let seconds = ended.took.as_secs_f64();
        match verdict::last_line(&ended, "hypervisor", CHECKS_ON_A_CPU * cpus + 1) {
            Ok(passed) => {
                println!("Bochs, {model}, {cpus} CPUs: {passed} checks passed in {seconds:.1} s");
                checks += passed;
            }
            Err(why) => {
                println!("Bochs, {model}, {cpus} CPUs: FAILED after {seconds:.1} s: {why}");
                failures.push(format!("{model}, {cpus} CPUs: {why}"));
            }
        }
    }
    if failures.is_empty() {
        Ok(Outcome::Passed { runs: machines.len(), checks })
    } else {
        Err(failures.join("\n"))
    }
}

/// Two guests, each with its verdict, its words, its end and its exits; and the CPU's own end.
const CHECKS_ON_A_CPU: usize = 12;
