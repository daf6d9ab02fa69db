//! The tools: started, their results checked, and then measured in turns.

use std::path::Path;

use image::ImageFormat;

use crate::{
    Effort,
    figures::Series,
    jpeg::Making,
    pictures::{JPEG_LARGE, JPEG_SMALL, Picture},
    skipped,
    tools::{Tool, Worker},
};

/// Pixels that are further than this from what they should be are another picture's, in dB. OpenCV's, the
/// furthest, are at 37.
const LEAST_PSNR: f64 = 30.0;

/// A tool with what it did so far.
pub(crate) struct Contender {
    pub(crate) tool: Tool,
    worker: Worker,
    /// In the order of the pictures; `None` where it takes no part.
    pub(crate) results: Vec<Option<Results>>,
    /// Most resident memory at the large JPEG, above that before it, in MB; one figure a start.
    pub(crate) memory: Series,
}

/// What a tool did with a picture.
pub(crate) struct Results {
    /// How often a round runs it.
    times: usize,
    /// Of its pixels before they are encoded, in dB.
    pub(crate) psnr: f64,
    /// Length of the JPEG that it makes.
    pub(crate) bytes: usize,
    /// Milliseconds of processor time an image, one figure a round.
    pub(crate) processor: Series,
    /// Images per second, one figure a round.
    pub(crate) throughput: Series,
}

impl Contender {
    fn start(tool: Tool, folder: &Path, pictures: &[Picture], effort: &Effort) -> Option<Self> {
        let mut worker = Worker::start(tool, folder)?;
        let results = pictures
            .iter()
            .map(|picture| tool.takes(picture).then(|| Results::begin(&mut worker, picture, folder, effort)))
            .collect();
        Some(Self { tool, worker, results, memory: Series::default() })
    }

    /// As the tables call it.
    pub(crate) fn name(&self) -> &str {
        &self.worker.name
    }

    /// The tool and the library that it stands on.
    pub(crate) fn version(&self) -> &str {
        &self.worker.version
    }

    fn round(&mut self, at: usize, picture: &Picture) {
        let Some(results) = &mut self.results[at] else { return };
        let used = self.worker.run(picture, results.times);
        let images = self.tool.threads() * results.times;
        results.processor.add(used.processor.as_secs_f64() * 1e3 / images as f64);
        results.throughput.add(images as f64 / used.wall.as_secs_f64());
    }

    /// Starts another worker of the tool and sees how much memory the large JPEG takes. It has worked
    /// before, on a small one, and holds the bytes of both.
    fn measure_memory(&mut self, folder: &Path, large: &Picture, small: &Picture) {
        let mut worker = Worker::start(self.tool, folder).unwrap();
        worker.load(small);
        worker.load(large);
        worker.run(small, 3);
        worker.forget_most_memory();
        let (idle, _) = worker.memory();
        worker.run(large, 3);
        let (_, most) = worker.memory();
        self.memory.add(most - idle);
    }
}

impl Results {
    /// Checks what the tool makes of the picture, and finds out how many runs fill a slice.
    fn begin(worker: &mut Worker, picture: &Picture, folder: &Path, effort: &Effort) -> Self {
        worker.load(picture);
        let psnr = picture.reference.psnr(&worker.pixels(picture, folder));
        let jpeg = worker.jpeg(picture, folder);
        let name = &worker.name;
        assert!(psnr > LEAST_PSNR, "{name}: its {} is {psnr:.1} dB from what it should be", picture.name);
        assert_eq!(Making::of(&jpeg), picture.making, "{name}: its JPEG is of another quality or sampling");
        let decoded = image::load_from_memory_with_format(&jpeg, ImageFormat::Jpeg).unwrap().into_rgb8();
        assert_eq!(decoded.dimensions(), picture.reference.size, "{name}: its JPEG has another size");
        let decoded = picture.reference.psnr(decoded.as_raw());
        assert!(decoded > LEAST_PSNR, "{name}: its JPEG is {decoded:.1} dB from what it should be");

        let (processor, throughput) = Default::default();
        Self { times: times(worker, picture, effort), psnr, bytes: jpeg.len(), processor, throughput }
    }
}

fn times(worker: &mut Worker, picture: &Picture, effort: &Effort) -> usize {
    if effort.slice.is_zero() {
        return 1;
    }
    worker.run(picture, 3);
    let took = worker.run(picture, 3).wall / 3;
    usize::try_from(effort.slice.as_nanos() / took.as_nanos()).unwrap().max(1)
}

/// Starts and checks what is there, lets it run in turns, and then sees to its memory.
pub(crate) fn measure(
    folder: &Path,
    pictures: &[Picture],
    effort: &Effort,
    notes: &mut Vec<String>,
) -> Vec<Contender> {
    let mut contenders = Vec::new();
    for tool in Tool::ALL {
        match Contender::start(tool, folder, pictures, effort) {
            Some(contender) => contenders.push(contender),
            // Once for all its ways.
            None if tool.way().is_none() => {
                skipped(notes, &format!("{}: benches/preprocess_peers/install gets it", tool.name()));
            }
            None => {}
        }
    }
    for _ in 0..effort.rounds {
        for (at, picture) in pictures.iter().enumerate() {
            contenders.iter_mut().for_each(|contender| contender.round(at, picture));
        }
        // So that nobody always runs behind the same other.
        contenders.reverse();
    }
    contenders.sort_by_key(|contender| Tool::ALL.iter().position(|&tool| tool == contender.tool));

    let named = |name| pictures.iter().find(|picture| picture.name == name).unwrap();
    let (large, small) = (named(JPEG_LARGE), named(JPEG_SMALL));
    for _ in 0..effort.starts {
        contenders.iter_mut().for_each(|contender| contender.measure_memory(folder, large, small));
    }
    contenders
}
