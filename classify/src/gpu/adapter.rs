//! The description of a GPU, as its driver reports it.

use std::fmt;

use serde::Serialize;

/// Names of software drivers, in lower case.
///
/// An adapter is software if its name or its driver contains one of these names.
const SOFTWARE_DRIVERS: [&str; 6] =
    ["llvmpipe", "lavapipe", "softpipe", "swiftshader", "microsoft basic render", "software adapter"];

/// A GPU as a graphics API lists it: hardware, or a program that emulates a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Adapter {
    /// Name that the driver reports, such as `NVIDIA L4`.
    pub name: String,
    /// Kind of the adapter: `discrete`, `integrated`, `virtual`, `cpu` or `other`.
    pub kind: &'static str,
    /// Programming interface that opens the adapter: `cuda`, `vulkan`, `metal`, `dx12` or `gl`.
    pub api: String,
    /// Name and version of the driver, as far as the driver reports them.
    pub driver: String,
    /// True if the adapter is a program that computes on the CPU instead of a GPU.
    pub software: bool,
}

impl Adapter {
    /// Creates an adapter. `kind`, `name` and `driver` decide whether the adapter is software.
    #[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "no GPU backend is compiled in"))]
    pub(crate) fn new(name: String, kind: &'static str, api: String, driver: String) -> Self {
        let names_software_driver = |text: &str| {
            let text = text.to_lowercase();
            SOFTWARE_DRIVERS.iter().any(|software| text.contains(software))
        };
        let software = kind == "cpu" || names_software_driver(&name) || names_software_driver(&driver);
        Self { name, kind, api, driver, software }
    }
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, api, driver, .. } = self;
        write!(f, "{name} ({kind}, by {api}, driver {driver})")
    }
}

#[cfg(all(test, feature = "gpu"))]
mod tests {
    use super::*;

    #[test]
    fn software_adapter_is_recognised_by_kind_name_or_driver() {
        for (name, kind, driver, software) in [
            ("NVIDIA L4", "discrete", "NVIDIA 550.90", false),
            ("AMD Radeon 780M", "integrated", "radv Mesa 24.1", false),
            ("llvmpipe (LLVM 15.0.6, 256 bits)", "cpu", "llvmpipe Mesa 22.3.6", true),
            ("llvmpipe (LLVM 15.0.6, 256 bits)", "other", "4.5 Mesa 22.3.6", true),
            ("SwiftShader Device (LLVM 16)", "virtual", "SwiftShader driver", true),
            ("Microsoft Basic Render Driver", "other", "", true),
            ("Something", "other", "lavapipe", true),
            ("Something", "cpu", "", true),
        ] {
            let adapter = Adapter::new(name.into(), kind, "vulkan".into(), driver.into());
            assert_eq!(adapter.software, software, "{adapter}");
        }
    }
}
