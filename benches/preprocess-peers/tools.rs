//! Starts each compared tool as a worker process, checks its results and measures all tools in interleaved
//! rounds.

use std::{fs, path::Path, process::Command};

use bench_harness::{
    Contender, Measurement, Series, Worker, WorkerInstance, peers_folder, python, run_interleaved,
};
use bench_harness::{report_skipped, script_command, serve};
use image::ImageFormat;
use preprocess::{
    Settings,
    image::{Recipe, process, process_to_pixels},
};

use crate::{
    BUILD, Effort,
    pictures::{JPEG_LARGE, JPEG_SMALL, JpegSettings, PROGRESSIVE_LARGE, Picture},
};

/// First argument that makes this program a worker. The second argument is the number of threads.
pub(crate) const WORKER_ARGUMENT: &str = "--worker";
/// Lowest accepted PSNR of a tool's result in dB. A result with a lower PSNR does not show the expected
/// picture. The lowest PSNR measured so far is OpenCV's, 37 dB.
const MIN_PSNR: f64 = 30.0;

/// A tool with one set of options.
pub(crate) struct Tool {
    /// Name in the tables and notes, without a version.
    pub(crate) name: &'static str,
    /// Difference from the tool's default options, or `None` for the default options.
    pub(crate) variant: Option<&'static str>,
    /// True if the variant differs from the default options only on JPEGs. Only JPEGs are measured then.
    jpeg_only: bool,
    /// Returns the command that starts the tool's worker, or `None` if the tool is not installed.
    command: fn() -> Option<Command>,
}

/// Every tool and variant that is compared. This project comes last.
static TOOLS: [Tool; 8] = {
    const fn tool(
        name: &'static str,
        variant: Option<&'static str>,
        command: fn() -> Option<Command>,
    ) -> Tool {
        Tool { name, variant, jpeg_only: false, command }
    }
    let draft = tool("Pillow", Some("draft 2×"), || python_command("pillow-draft"));
    [
        tool("Pillow", None, || python_command("pillow")),
        Tool { jpeg_only: true, ..draft },
        tool("pyvips", None, || python_command("pyvips")),
        tool("OpenCV", None, || python_command("opencv")),
        tool("sharp", None, || sharp_command("default")),
        tool("sharp", Some("standard Huffman tables"), || sharp_command("standard-tables")),
        tool(OURS, None, || our_command(1)),
        tool(OURS, TWO_THREADS, || our_command(2)),
    ]
};
/// Name of this project as a tool.
pub(crate) const OURS: &str = "this project";
/// Variant of this project that processes pictures on two threads.
pub(crate) const TWO_THREADS: Option<&str> = Some("2 threads");

/// Returns the command that starts `tools.py` as the worker of `tool`.
fn python_command(tool: &str) -> Option<Command> {
    let mut command = python("preprocess-peers", "tools.py")?;
    command.arg(tool);
    Some(command)
}

/// Returns the command that starts `sharp.mjs` as a worker.
fn sharp_command(variant: &str) -> Option<Command> {
    let packages = peers_folder("preprocess-peers");
    packages.join("node_modules/sharp").is_dir().then(|| {
        let mut command = script_command("node", "preprocess-peers", "sharp.mjs");
        command.arg(packages).arg(variant);
        command
    })
}

/// Returns the command that starts this program as a worker with `threads` threads.
fn our_command(threads: usize) -> Option<Command> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([WORKER_ARGUMENT, &threads.to_string()]);
    Some(command)
}

/// Returns this project's default recipe, which is the settings of the processing. Every tool must use the
/// same settings.
pub(crate) fn recipe() -> Recipe {
    Settings::default().recipe()
}

/// Runs this project as a worker that processes pictures on `threads` threads.
pub(crate) fn serve_ours(threads: usize) {
    // The arguments are the name of the file, the width and height of the result, and `jpeg` or `pixels`.
    let load = |arguments: &[&str]| (fs::read(arguments[0]).unwrap(), arguments[3] == "pixels");
    let instance = |_| -> WorkerInstance<(Vec<u8>, bool), Vec<u8>> {
        let recipe = recipe();
        Box::new(move |(bytes, wants_pixels)| match wants_pixels {
            true => process_to_pixels(bytes, &recipe).unwrap().into_raw(),
            false => process(bytes, &recipe).unwrap().jpeg.into(),
        })
    };
    serve(&format!("{OURS}, {BUILD} build"), load, (0..threads).map(instance).collect(), |bytes| bytes);
}

/// An installed tool and its measurements.
pub(crate) struct MeasuredTool {
    pub(crate) tool: &'static Tool,
    /// The tool's worker, with one measurement per picture, in the order of the pictures.
    pub(crate) contender: Contender,
    /// One entry per picture, in the order of the pictures. The entry is `None` if the tool is not measured
    /// with the picture.
    pub(crate) outputs: Vec<Option<OutputQuality>>,
    /// Growth of the peak resident memory while each of [`MEMORY_PICTURES`] is processed, in MB. One figure per
    /// started worker.
    pub(crate) memory: [Series; MEMORY_PICTURES.len()],
}

/// Names of the pictures with which memory is measured.
pub(crate) const MEMORY_PICTURES: [&str; 2] = [JPEG_LARGE, PROGRESSIVE_LARGE];

/// Quality and length of a tool's result for one picture.
pub(crate) struct OutputQuality {
    /// PSNR of the pixels before they are encoded, in dB.
    pub(crate) psnr: f64,
    /// Length of the JPEG in bytes.
    pub(crate) jpeg_length: usize,
}

impl MeasuredTool {
    /// Starts the worker of `tool` and checks its results. Returns `None` if the tool is not installed.
    fn start(tool: &'static Tool, folder: &Path, pictures: &[Picture], effort: &Effort) -> Option<Self> {
        let mut worker = start_worker(tool, folder)?;
        let (mut measurements, mut outputs) = (Vec::new(), Vec::new());
        for picture in pictures {
            let is_measured = !tool.jpeg_only || picture.file_name.ends_with(".jpg");
            outputs.push(is_measured.then(|| check_output(&mut worker, picture, folder)));
            let prepare =
                || Measurement::prepare(&mut worker, picture.file_name, effort.round_duration).unwrap();
            measurements.push(is_measured.then(prepare));
        }
        let contender = Contender { worker, measurements };
        Some(Self { tool, contender, outputs, memory: Default::default() })
    }

    /// Returns the label of the tool's rows in the tables: its name, version and variant.
    pub(crate) fn label(&self) -> String {
        let name = self.versions().split(" with ").next();
        [name, self.tool.variant].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Returns the name and version of the tool and of the library that it uses.
    pub(crate) fn versions(&self) -> &str {
        self.contender.worker.name()
    }

    /// Measures how much the memory of a new worker grows while it processes a large picture, which is the one with
    /// this index in [`MEMORY_PICTURES`].
    ///
    /// The worker first loads both files and processes the small one, so that neither the files nor the
    /// libraries' first allocations are part of the growth. The worker then processes the large file three
    /// times, so that the peak includes memory that a library keeps after a run.
    fn measure_memory(&mut self, folder: &Path, index: usize, large: &Picture, small: &Picture) {
        let mut worker = start_worker(self.tool, folder).unwrap();
        load_job(&mut worker, small, small.file_name, "jpeg");
        load_job(&mut worker, large, large.file_name, "jpeg");
        worker.run(small.file_name, 3).unwrap();
        worker.reset_peak_memory();
        let idle = worker.memory().current;
        worker.run(large.file_name, 3).unwrap();
        self.memory[index].add(worker.memory().peak - idle);
    }
}

/// Starts a tool's worker in the folder of the pictures. Returns `None` if the tool is not installed.
fn start_worker(tool: &Tool, folder: &Path) -> Option<Worker> {
    let mut command = (tool.command)()?;
    // These variables limit the libraries inside the tools to one thread. Each worker sets the thread limit
    // of the tool itself.
    for variable in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VIPS_CONCURRENCY"] {
        command.env(variable, "1");
    }
    Some(Worker::start(command.current_dir(folder)).unwrap())
}

/// Loads a picture into a worker as the job `job`. `output` is the kind of the job's result: `jpeg` or
/// `pixels`.
fn load_job(worker: &mut Worker, picture: &Picture, job: &str, output: &str) {
    let (width, height) = picture.expected.dimensions();
    worker.load(job, &format!("{} {width} {height} {output}", picture.file_name)).unwrap();
}

/// Loads a picture into a worker and checks the result. Afterwards, the worker has a job that is named after
/// the picture's file and makes a JPEG.
///
/// # Panics
/// Panics if the result does not have the expected content, size and settings.
fn check_output(worker: &mut Worker, picture: &Picture, folder: &Path) -> OutputQuality {
    load_job(worker, picture, "pixels", "pixels");
    load_job(worker, picture, picture.file_name, "jpeg");
    let name = format!("{} with {}", worker.name(), picture.name);
    let psnr = picture.psnr(&worker.result("pixels", folder).unwrap());
    assert!(psnr > MIN_PSNR, "{name}: PSNR of the pixels is {psnr:.1} dB, expected more than {MIN_PSNR} dB");
    let jpeg = worker.result(picture.file_name, folder).unwrap();
    let (settings, expected) = (JpegSettings::read(&jpeg), &picture.settings);
    assert_eq!(settings, *expected, "{name}: settings of the JPEG (left) are not this project's (right)");
    let decoded = image::load_from_memory_with_format(&jpeg, ImageFormat::Jpeg).unwrap().into_rgb8();
    let (size, expected) = (decoded.dimensions(), picture.expected.dimensions());
    assert_eq!(size, expected, "{name}: size of the JPEG (left) is not the expected size (right)");
    let jpeg_psnr = picture.psnr(decoded.as_raw());
    assert!(
        jpeg_psnr > MIN_PSNR,
        "{name}: PSNR of the JPEG is {jpeg_psnr:.1} dB, expected more than {MIN_PSNR} dB"
    );
    OutputQuality { psnr, jpeg_length: jpeg.len() }
}

/// Starts and checks every installed tool, then measures the CPU time of all tools, and finally their memory.
pub(crate) fn measure(
    folder: &Path,
    pictures: &[Picture],
    effort: &Effort,
    notes: &mut Vec<String>,
) -> Vec<MeasuredTool> {
    let mut tools = Vec::new();
    for tool in &TOOLS {
        match MeasuredTool::start(tool, folder, pictures, effort) {
            Some(measured) => tools.push(measured),
            None if tool.variant.is_none() => {
                report_skipped(
                    notes,
                    &format!("{}: benches/preprocess-peers/install installs it", tool.name),
                );
            }
            None => {}
        }
    }
    let contenders = tools.iter_mut().map(|tool| &mut tool.contender).collect();
    run_interleaved(effort.round_count, pictures.len(), contenders, || ());

    let find_picture = |name| pictures.iter().find(|picture| picture.name == name).unwrap();
    for _ in 0..effort.memory_worker_count {
        for tool in &mut tools {
            for (index, name) in MEMORY_PICTURES.into_iter().enumerate() {
                tool.measure_memory(folder, index, find_picture(name), find_picture(JPEG_SMALL));
            }
        }
    }
    tools
}
