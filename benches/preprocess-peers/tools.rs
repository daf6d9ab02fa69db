//! What is measured: each tool in each way to use it, and how it is started and asked.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{lines::LineProcess, machine, ours, peers_folder, pictures::Picture, repository};

/// A way to make pictures smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// This project on so many threads, each with pictures of its own.
    Ours {
        threads: usize,
    },
    /// Decodes all pixels.
    Pillow,
    /// Lets the JPEG decoder leave pixels out.
    PillowDraft,
    /// As it comes.
    Sharp,
    /// With Huffman tables of the standard, as the others have them.
    SharpStandardTables,
    Pyvips,
    OpenCv,
}

impl Tool {
    /// Everything, the peers first.
    pub(crate) const ALL: [Self; 8] = [
        Self::Pillow,
        Self::PillowDraft,
        Self::Pyvips,
        Self::OpenCv,
        Self::Sharp,
        Self::SharpStandardTables,
        Self::Ours { threads: 1 },
        Self::Ours { threads: 2 },
    ];

    /// As messages call it; its worker knows its version.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours { .. } => "this project",
            Self::Pillow | Self::PillowDraft => "Pillow",
            Self::Sharp | Self::SharpStandardTables => "sharp",
            Self::Pyvips => "pyvips",
            Self::OpenCv => "OpenCV",
        }
    }

    /// What is special about this way to use it.
    pub(crate) fn way(self) -> Option<&'static str> {
        match self {
            Self::PillowDraft => Some("draft 2×"),
            Self::SharpStandardTables => Some("standard Huffman tables"),
            Self::Ours { threads: 2 } => Some("2 threads"),
            _ => None,
        }
    }

    /// Threads of its worker that make pictures smaller.
    pub(crate) fn threads(self) -> usize {
        match self {
            Self::Ours { threads } => threads,
            _ => 1,
        }
    }

    /// Whether this way differs from the plain one on `picture`.
    pub(crate) fn takes(self, picture: &Picture) -> bool {
        self != Self::PillowDraft || picture.file.ends_with(".jpg")
    }

    /// `None` if it was not installed.
    fn command(self) -> Option<Command> {
        match self {
            Self::Ours { threads } => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.args([ours::ARGUMENT, &threads.to_string()]);
                Some(command)
            }
            Self::Pillow => with(python("pillow_worker.py"), "full"),
            Self::PillowDraft => with(python("pillow_worker.py"), "draft"),
            Self::Sharp => with(node("sharp_worker.mjs"), "default"),
            Self::SharpStandardTables => with(node("sharp_worker.mjs"), "standard-tables"),
            Self::Pyvips => python("pyvips_worker.py"),
            Self::OpenCv => python("opencv_worker.py"),
        }
    }
}

fn with(command: Option<Command>, argument: &str) -> Option<Command> {
    let mut command = command?;
    command.arg(argument);
    Some(command)
}

/// The Python of `benches/preprocess_peers/install`, with `script`; `None` if it was not installed.
pub(crate) fn python(script: &str) -> Option<Command> {
    let python = peers_folder().join("venv/bin/python");
    if !python.is_file() {
        return None;
    }
    let mut command = Command::new(python);
    command.arg(path_of(script)).env("PYTHONDONTWRITEBYTECODE", "1");
    Some(command)
}

/// Node with `script`, and where its packages are; `None` if they were not installed.
fn node(script: &str) -> Option<Command> {
    if !peers_folder().join("node_modules/sharp").is_dir() {
        return None;
    }
    let mut command = Command::new("node");
    command.arg(path_of(script)).arg(peers_folder());
    Some(command)
}

fn path_of(script: &str) -> PathBuf {
    repository().join("benches/preprocess-peers").join(script)
}

/// A tool that runs, and ends with this.
pub(crate) struct Worker {
    lines: LineProcess,
    /// The tool with its version, and what is special about this way to use it.
    pub(crate) name: String,
    /// The tool and the library that it stands on with their versions.
    pub(crate) version: String,
}

/// What a worker used for what it was asked.
pub(crate) struct Used {
    /// Processor time of all its threads, user and system.
    pub(crate) processor: Duration,
    /// From start to end.
    pub(crate) wall: Duration,
}

impl Worker {
    /// A worker in the folder of the pictures, on one thread unless it is this project on two; `None` if
    /// it was not installed.
    pub(crate) fn start(tool: Tool, folder: &Path) -> Option<Self> {
        let mut command = tool.command()?;
        // What libraries below the tools heed; the tools themselves are told by their workers.
        for variable in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VIPS_CONCURRENCY"] {
            command.env(variable, "1");
        }
        let mut lines = LineProcess::start(command.current_dir(folder));
        let ready = lines.read();
        let version = ready.strip_prefix("ready ").unwrap_or_else(|| panic!("{}: {ready:?}", tool.name()));
        let (name, _) = version.split_once(" with ").unwrap_or((version, ""));
        let name = [Some(name), tool.way()].into_iter().flatten().collect::<Vec<_>>().join(", ");
        Some(Self { lines, name, version: version.to_owned() })
    }

    pub(crate) fn load(&mut self, picture: &Picture) {
        let (width, height) = picture.reference.size;
        self.order(&format!("load {} {width} {height}", picture.file));
    }

    /// Makes the picture smaller so many times, on each of its threads.
    pub(crate) fn run(&mut self, picture: &Picture, times: usize) -> Used {
        let answer = self.lines.ask(&format!("run {} {times}", picture.file));
        let (processor, wall) = answer.split_once(' ').unwrap();
        let [processor, wall] = [processor, wall].map(|text| Duration::from_nanos(text.parse().unwrap()));
        Used { processor, wall }
    }

    /// The JPEG that it makes.
    pub(crate) fn jpeg(&mut self, picture: &Picture, folder: &Path) -> Vec<u8> {
        self.order(&format!("jpeg {} out", picture.file));
        fs::read(folder.join("out")).unwrap()
    }

    /// What it encodes as that JPEG, RGB.
    pub(crate) fn pixels(&mut self, picture: &Picture, folder: &Path) -> Vec<u8> {
        self.order(&format!("pixels {} out", picture.file));
        fs::read(folder.join("out")).unwrap()
    }

    /// Resident memory now and at its most, in MB.
    pub(crate) fn memory(&self) -> (f64, f64) {
        machine::memory(self.lines.child.id())
    }

    /// Lets the most memory begin again at what there is now.
    pub(crate) fn forget_most_memory(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.lines.child.id()), "5").unwrap();
    }

    fn order(&mut self, line: &str) {
        let answer = self.lines.ask(line);
        assert_eq!(answer, "done", "{}: {line}", self.name);
    }
}
