//! GPU access through CUDA.
//!
//! The program loads NVIDIA's driver only when it opens a device, so it also starts on a machine without the
//! driver.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
};

use burn::tensor::{Device, DeviceType};

use platform::panic;

use super::Adapter;

/// Opens the first CUDA device.
pub(super) fn open() -> Result<Adapter, String> {
    let devices = Device::enumerate(DeviceType::Cuda);
    let Some(device) = devices.first() else {
        return Err(
            "no CUDA device was found: NVIDIA's driver (libcuda.so.1) is not installed, or it offers \
             no device to this process"
                .to_owned(),
        );
    };
    // CubeCL (burn's GPU compiler) panics if the driver refuses to open the device.
    let identity = catch_unwind(AssertUnwindSafe(|| device.identity()))
        .map_err(|panic| format!("the CUDA device cannot be opened: {}", panic::message(panic.as_ref())))?;
    let name = identity.map_or_else(|| "a device without a name".to_owned(), |identity| identity.name);
    Ok(Adapter::new(name, "discrete", "cuda".to_owned(), read_driver_version()))
}

/// Returns the version of NVIDIA's kernel driver, which is also the version of the library libcuda.
fn read_driver_version() -> String {
    let version = fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    match version.lines().next() {
        Some(line) => line.trim_start_matches("NVRM version:").trim().to_owned(),
        None => "unknown".to_owned(),
    }
}
