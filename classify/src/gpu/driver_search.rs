//! Searches the usual places for GPU drivers and lists the files and devices that exist.
//!
//! The list is logged when a GPU is required and none can be used.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Environment variables that select the drivers to load and the devices to use.
const VARIABLES: [&str; 6] = [
    "VK_DRIVER_FILES",
    "VK_ICD_FILENAMES",
    "VK_ADD_DRIVER_FILES",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
];
/// Libraries that the backends load: Vulkan's loader and NVIDIA's driver.
const LIBRARIES: [&str; 2] = ["libvulkan.so.1", "libcuda.so.1"];
/// Library folders of Linux distributions, searched after `LD_LIBRARY_PATH`.
const LIBRARY_FOLDERS: [&str; 8] = [
    "/usr/local/nvidia/lib64",
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
];
/// Folders in which Vulkan's loader searches for driver files, each of which names the library of a driver.
const DRIVER_FILE_FOLDERS: [&str; 3] =
    ["/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/usr/share/vulkan/icd.d"];

/// Searches for GPU drivers on this machine.
pub(super) struct DriverSearch {
    /// Root of the file system. Tests use a temporary folder.
    root: PathBuf,
    /// Function that returns the value of an environment variable.
    read_variable: fn(&str) -> Option<String>,
}

impl Default for DriverSearch {
    fn default() -> Self {
        Self { root: PathBuf::from("/"), read_variable: |name| env::var(name).ok() }
    }
}

impl DriverSearch {
    /// Lists the environment variables, libraries, driver files and devices.
    pub(super) fn report(&self) -> Vec<String> {
        let variables = VARIABLES.iter().map(|&name| match (self.read_variable)(name) {
            Some(value) => format!("{name}={value}"),
            None => format!("{name} is not set"),
        });
        let files = [
            ("Vulkan's driver files", self.list_files(&DRIVER_FILE_FOLDERS, |name| name.ends_with(".json"))),
            ("devices", self.list_files(&["/dev"], |name| name.starts_with("nvidia"))),
            ("render nodes", self.list_files(&["/dev/dri"], |name| name.starts_with("render"))),
        ];
        let libraries = LIBRARIES.iter().map(|&library| match self.find_library(library) {
            Some(path) => format!("{library}: {}", path.display()),
            None => format!("{library}: not in LD_LIBRARY_PATH nor in the usual folders"),
        });
        let files = files.into_iter().map(|(kind, files)| match files.is_empty() {
            true => format!("{kind}: none"),
            false => format!("{kind}: {}", files.join(", ")),
        });
        variables.chain(libraries).chain(files).collect()
    }

    /// Returns the path at which the dynamic linker would find the library `name`.
    fn find_library(&self, name: &str) -> Option<PathBuf> {
        let search_path = (self.read_variable)("LD_LIBRARY_PATH").unwrap_or_default();
        let path_folders = search_path.split(':').filter(|folder| !folder.is_empty());
        path_folders
            .chain(LIBRARY_FOLDERS)
            .map(|folder| Path::new(folder).join(name))
            .find(|path| self.resolve(path).exists())
    }

    /// Returns the sorted paths of the files in `folders` whose names satisfy `is_wanted`.
    fn list_files(&self, folders: &[&str], is_wanted: fn(&str) -> bool) -> Vec<String> {
        let mut paths = Vec::new();
        for folder in folders {
            let entries = fs::read_dir(self.resolve(Path::new(folder))).into_iter().flatten().flatten();
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            paths.extend(names.filter(|name| is_wanted(name)).map(|name| format!("{folder}/{name}")));
        }
        paths.sort();
        paths
    }

    /// Converts an absolute path to the path of the same file within `root`.
    fn resolve(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_lists_found_and_missing_drivers() {
        let root = tempfile::tempdir().unwrap();
        for file in ["usr/share/vulkan/icd.d/lvp_icd.json", "opt/driver/libcuda.so.1", "dev/nvidia0"] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let read_variable =
            |name: &str| (name == "LD_LIBRARY_PATH").then(|| "/nowhere:/opt/driver".to_owned());
        let report = DriverSearch { root: root.path().to_owned(), read_variable }.report();
        for line in [
            "VK_DRIVER_FILES is not set",
            "LD_LIBRARY_PATH=/nowhere:/opt/driver",
            "libvulkan.so.1: not in LD_LIBRARY_PATH nor in the usual folders",
            "libcuda.so.1: /opt/driver/libcuda.so.1",
            "Vulkan's driver files: /usr/share/vulkan/icd.d/lvp_icd.json",
            "devices: /dev/nvidia0",
            "render nodes: none",
        ] {
            assert!(report.iter().any(|reported| reported == line), "{line:?} is not in {report:#?}");
        }
    }
}
