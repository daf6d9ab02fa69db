//! The tools: started as workers, their results checked, and measured in interleaved rounds.

use std::{fs, path::Path, process::Command};

use bench_harness::{
    Contender, Instance, Measurement, Series, Worker, peers_folder, python, run_interleaved,
};
use bench_harness::{script_command, serve, skip};
use image::ImageFormat;
use preprocess::{
    Settings,
    image::{Recipe, pixels, process},
};

use crate::{
    BUILD, Effort,
    pictures::{JPEG_LARGE, JPEG_SMALL, JpegSettings, Picture},
};

/// First argument of this program as a worker; the number of threads follows.
pub(crate) const WORKER_ARGUMENT: &str = "--worker";
/// A result with a lower PSNR in dB shows another picture. OpenCV's, the lowest, have 37.
const MIN_PSNR: f64 = 30.0;

/// A tool in one way of using it.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    /// Difference from the default use, if any.
    pub(crate) variant: Option<&'static str>,
    /// True if the variant differs from the default use only on JPEGs.
    jpeg_only: bool,
    /// Returns the command of the worker, or `None` if the tool is not installed.
    command: fn() -> Option<Command>,
}

/// Every tool, this project last.
static TOOLS: [Tool; 8] = {
    const fn tool(
        name: &'static str,
        variant: Option<&'static str>,
        command: fn() -> Option<Command>,
    ) -> Tool {
        Tool { name, variant, jpeg_only: false, command }
    }
    let draft = tool("Pillow", Some("draft 2×"), || python_tool("pillow-draft"));
    [
        tool("Pillow", None, || python_tool("pillow")),
        Tool { jpeg_only: true, ..draft },
        tool("pyvips", None, || python_tool("pyvips")),
        tool("OpenCV", None, || python_tool("opencv")),
        tool("sharp", None, || sharp("default")),
        tool("sharp", Some("standard Huffman tables"), || sharp("standard-tables")),
        tool(OURS, None, || ours(1)),
        tool(OURS, TWO_THREADS, || ours(2)),
    ]
};
pub(crate) const OURS: &str = "this project";
pub(crate) const TWO_THREADS: Option<&str> = Some("2 threads");

fn python_tool(tool: &str) -> Option<Command> {
    let mut command = python("preprocess-peers", "tools.py")?;
    command.arg(tool);
    Some(command)
}

fn sharp(variant: &str) -> Option<Command> {
    let packages = peers_folder("preprocess-peers");
    packages.join("node_modules/sharp").is_dir().then(|| {
        let mut command = script_command("node", "preprocess-peers", "sharp.mjs");
        command.arg(packages).arg(variant);
        command
    })
}

fn ours(threads: usize) -> Option<Command> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([WORKER_ARGUMENT, &threads.to_string()]);
    Some(command)
}

/// Returns the settings of the stored picture.
pub(crate) fn recipe() -> Recipe {
    Settings::default().recipe()
}

/// Serves this project as a worker on `threads` threads.
pub(crate) fn serve_ours(threads: usize) {
    let load = |arguments: &[&str]| (fs::read(arguments[0]).unwrap(), arguments[3] == "pixels");
    let instance = |_| -> Instance<(Vec<u8>, bool), Vec<u8>> {
        let recipe = recipe();
        Box::new(move |(bytes, wants_pixels)| match wants_pixels {
            true => pixels(bytes, &recipe).unwrap().into_raw(),
            false => process(bytes, &recipe).unwrap().jpeg.into(),
        })
    };
    serve(&format!("{OURS}, {BUILD} build"), load, (0..threads).map(instance).collect(), |bytes| bytes);
}

/// A tool and its measurements.
pub(crate) struct Entrant {
    pub(crate) tool: &'static Tool,
    /// In the order of the pictures; `None` for a picture that the tool is not measured with.
    pub(crate) contender: Contender,
    pub(crate) outputs: Vec<Option<Output>>,
    /// Peak resident memory with the large JPEG above that before it, in MB; one figure per start.
    pub(crate) memory: Series,
}

/// Quality and length of a tool's result.
pub(crate) struct Output {
    /// PSNR of the pixels before they are encoded, in dB.
    pub(crate) psnr: f64,
    /// Length of the JPEG.
    pub(crate) bytes: usize,
}

impl Entrant {
    fn start(tool: &'static Tool, folder: &Path, pictures: &[Picture], effort: &Effort) -> Option<Self> {
        let mut worker = start_worker(tool, folder)?;
        let (mut measurements, mut outputs) = (Vec::new(), Vec::new());
        for picture in pictures {
            let is_measured = !tool.jpeg_only || picture.file.ends_with(".jpg");
            outputs.push(is_measured.then(|| check_output(&mut worker, picture, folder)));
            let prepare = || Measurement::prepare(&mut worker, picture.file, effort.slice).unwrap();
            measurements.push(is_measured.then(prepare));
        }
        let contender = Contender { worker, measurements };
        Some(Self { tool, contender, outputs, memory: Series::default() })
    }

    /// Returns the tool's name with its version and variant.
    pub(crate) fn name(&self) -> String {
        let name = self.version().split(" with ").next();
        [name, self.tool.variant].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Returns the versions of the tool and of the library below it.
    pub(crate) fn version(&self) -> &str {
        self.contender.worker.name()
    }

    /// Measures the memory for the large JPEG in a fresh worker that holds both files and has warmed up on
    /// the small one.
    fn measure_memory(&mut self, folder: &Path, large: &Picture, small: &Picture) {
        let mut worker = start_worker(self.tool, folder).unwrap();
        load(&mut worker, small, small.file, "jpeg");
        load(&mut worker, large, large.file, "jpeg");
        worker.run(small.file, 3).unwrap();
        worker.reset_peak_memory();
        let idle = worker.memory().current;
        worker.run(large.file, 3).unwrap();
        self.memory.add(worker.memory().peak - idle);
    }
}

/// Starts a tool's worker in the folder of the pictures; returns `None` if the tool is not installed.
fn start_worker(tool: &Tool, folder: &Path) -> Option<Worker> {
    let mut command = (tool.command)()?;
    // Libraries below the tools read these; the workers limit the tools themselves.
    for variable in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VIPS_CONCURRENCY"] {
        command.env(variable, "1");
    }
    Some(Worker::start(command.current_dir(folder)).unwrap())
}

fn load(worker: &mut Worker, picture: &Picture, job: &str, output: &str) {
    let (width, height) = picture.becomes.dimensions();
    worker.load(job, &format!("{} {width} {height} {output}", picture.file)).unwrap();
}

/// Loads a picture into a worker and fails unless the result is of the expected content, size and quality.
fn check_output(worker: &mut Worker, picture: &Picture, folder: &Path) -> Output {
    load(worker, picture, "pixels", "pixels");
    load(worker, picture, picture.file, "jpeg");
    let name = format!("{} with {}", worker.name(), picture.name);
    let psnr = picture.psnr(&worker.result("pixels", folder).unwrap());
    assert!(psnr > MIN_PSNR, "{name}: pixels of another picture, {psnr:.1} dB");
    let jpeg = worker.result(picture.file, folder).unwrap();
    assert_eq!(JpegSettings::read(&jpeg), picture.settings, "{name}: JPEG of another quality or sampling");
    let decoded = image::load_from_memory_with_format(&jpeg, ImageFormat::Jpeg).unwrap().into_rgb8();
    assert_eq!(decoded.dimensions(), picture.becomes.dimensions(), "{name}: JPEG of another size");
    let of_jpeg = picture.psnr(decoded.as_raw());
    assert!(of_jpeg > MIN_PSNR, "{name}: JPEG of another picture, {of_jpeg:.1} dB");
    Output { psnr, bytes: jpeg.len() }
}

/// Starts and checks every tool that is installed, then measures CPU time and afterwards memory.
pub(crate) fn measure(
    folder: &Path,
    pictures: &[Picture],
    effort: &Effort,
    notes: &mut Vec<String>,
) -> Vec<Entrant> {
    let mut entrants = Vec::new();
    for tool in &TOOLS {
        match Entrant::start(tool, folder, pictures, effort) {
            Some(entrant) => entrants.push(entrant),
            None if tool.variant.is_none() => {
                skip(notes, &format!("{}: benches/preprocess-peers/install installs it", tool.name));
            }
            None => {}
        }
    }
    let contenders = entrants.iter_mut().map(|entrant| &mut entrant.contender).collect();
    run_interleaved(effort.rounds, pictures.len(), contenders, || ());

    let named = |name| pictures.iter().find(|picture| picture.name == name).unwrap();
    for _ in 0..effort.starts {
        for entrant in &mut entrants {
            entrant.measure_memory(folder, named(JPEG_LARGE), named(JPEG_SMALL));
        }
    }
    entrants
}
