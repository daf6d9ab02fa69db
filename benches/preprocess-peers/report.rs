//! The tables, as Markdown.

use bench_harness::{
    Measurement, format_ratio,
    machine::{self, locked_crate},
    markdown::table,
};

use crate::{
    BUILD,
    pictures::{JPEG_LARGE, JPEG_MIDDLE, JPEG_SMALL, PNG_MIDDLE, PNG_OF_LIBPNG, Picture},
    tools::{Entrant, OURS, TWO_THREADS, recipe},
};

pub(crate) const TITLE: &str = "# From upload to stored picture, beside its peers\n\n\
    Written by `cargo bench -p preprocess-peers`, which replaces the section of the build that it measured.\n\
    Every tool does the same in memory: decode, scale the shorter side to 256, encode a JPEG of quality 95\n\
    in full colour (4:4:4). Everything in a section is measured in one run, in interleaved rounds. A figure\n\
    is the median of its rounds, with the best round in brackets. Absolute figures apply to this machine\n\
    only.\n";

/// Lowest accepted PSNR of the large JPEG in dB.
const MIN_PSNR: f64 = 50.0;
/// Highest accepted memory for the large JPEG in MB.
const MAX_MEMORY: f64 = 10.0;
/// Lowest accepted ratio of the throughput on two threads to that on one.
const MIN_SCALING: f64 = 1.9;
/// Lowest accepted speed as a multiple of a peer's: peer, picture, multiple.
const MIN_SPEEDS: &[(&str, &str, f64)] = if cfg!(feature = "turbo") {
    &[
        ("sharp", JPEG_LARGE, 1.1),
        ("sharp", JPEG_MIDDLE, 1.5),
        ("sharp", JPEG_SMALL, 3.0),
        ("Pillow", JPEG_LARGE, 6.0),
        ("Pillow", JPEG_MIDDLE, 5.5),
        ("Pillow", JPEG_SMALL, 4.0),
        ("sharp", PNG_MIDDLE, 1.8),
        ("sharp", PNG_OF_LIBPNG, 1.8),
    ]
} else {
    &[
        ("sharp", JPEG_LARGE, 1.0),
        ("sharp", JPEG_MIDDLE, 1.2),
        ("sharp", JPEG_SMALL, 2.0),
        ("sharp", PNG_MIDDLE, 1.8),
        ("sharp", PNG_OF_LIBPNG, 1.8),
    ]
};

/// Returns the section of this build.
pub(crate) fn section(cores: &str, pictures: &[Picture], all: &[Entrant], notes: Vec<String>) -> String {
    let single: Vec<&Entrant> = all.iter().filter(|entrant| entrant.tool.variant != TWO_THREADS).collect();
    let peers: Vec<&Entrant> = all.iter().filter(|entrant| entrant.tool.name != OURS).collect();
    let ours = find(all, OURS, None).unwrap();

    let cpu = by_picture(pictures, &single, |entrant, at| {
        Some(entrant.contender.measurements[at].as_ref()?.cpu.median_and_min(2))
    });
    let ratios = by_picture(pictures, &peers, |peer, at| Some(format_ratio(cpu_ratio(ours, peer, at)?)));
    let quality = by_picture(pictures, &single, |entrant, at| {
        entrant.outputs[at].as_ref().map(|output| format!("{:.1}, {}", output.psnr, output.bytes))
    });
    let memory = single.iter().map(|entrant| [entrant.name(), entrant.memory.median_and_min(1)]);
    let memory = table(["tool", "peak above idle"], memory);
    let mut pieces = vec![
        format!("## {BUILD} build"),
        describe(cores, &peers),
        picture_table(pictures),
        format!("### CPU time per image, in milliseconds\n\n{cpu}"),
    ];
    if !peers.is_empty() {
        pieces.push(format!("{}, how many times as fast as:\n\n{ratios}", ours.name()));
    }
    pieces.extend([
        format!(
            "### Quality in dB, and bytes of the JPEG\n\n{quality}\n\n\
             PSNR of the pixels before they are encoded, against Lanczos3 in float32 over the full decode \
             (by Pillow, or by the crate `image` if Pillow is not installed)."
        ),
        format!(
            "### Memory for {JPEG_LARGE}, in MB\n\n{memory}\n\n\
             Resident memory, by the kernel's high-water mark. The idle process has processed small \
             pictures and holds the bytes of the file. Median (minimum) of a few processes."
        ),
        scaling_table(pictures, all),
        goal_table(pictures, all),
    ]);
    pieces.extend(notes);
    pieces.join("\n\n") + "\n"
}

fn describe(cores: &str, peers: &[&Entrant]) -> String {
    let codecs: &[&str] = match BUILD {
        "turbo" => &["jpeg-scaled", "turbojpeg", "webpx"],
        _ => &["jpeg-scaled", "zune-jpeg", "image-webp", "jpeg-encoder"],
    };
    let crates = codecs.iter().chain(&["png", "fast_image_resize"]);
    let crates: Vec<String> = crates.map(|name| locked_crate(name)).collect();
    let mut versions: Vec<&str> = peers.iter().map(|peer| peer.version()).collect();
    versions.dedup();
    let versions = if versions.is_empty() { "none".to_owned() } else { versions.join(", ") };
    let recipe = recipe().id_text();
    let subject = format!("- Peers: {versions}\n- Built with {}; recipe {recipe}", crates.join(", "));
    let features = if BUILD == "turbo" { " --features turbo" } else { "" };
    machine::describe(cores, &subject, &format!("cargo bench -p preprocess-peers{features}"))
}

fn picture_table(pictures: &[Picture]) -> String {
    let rows = pictures.iter().map(|picture| {
        let ((width, height), (to_width, to_height)) = (picture.size, picture.becomes.dimensions());
        let bits = picture.bytes as f64 * 8.0 / f64::from(width) / f64::from(height);
        let [size, becomes] = [format!("{width}×{height}"), format!("{to_width}×{to_height}")];
        [picture.name.to_owned(), size, becomes, picture.bytes.to_string(), format!("{bits:.2}")]
    });
    format!(
        "### Pictures\n\n{}\n\n\
         JPEGs have quality 85 and 4:2:0. The pictures are tiles of the photos in `samples/`, with noise.",
        table(["picture", "size", "becomes", "bytes", "bits per pixel"], rows)
    )
}

/// Formats a table with a row per tool and a column per picture.
fn by_picture(
    pictures: &[Picture],
    entrants: &[&Entrant],
    cell: impl Fn(&Entrant, usize) -> Option<String>,
) -> String {
    let columns = ["tool"].into_iter().chain(pictures.iter().map(|picture| picture.name));
    let rows = entrants.iter().map(|entrant| {
        let cells = (0..pictures.len()).map(|at| cell(entrant, at));
        [Some(entrant.name())].into_iter().chain(cells).collect::<Vec<_>>()
    });
    table(columns, rows)
}

fn find<'a>(all: &'a [Entrant], name: &str, variant: Option<&str>) -> Option<&'a Entrant> {
    all.iter().find(|entrant| entrant.tool.name == name && entrant.tool.variant == variant)
}

/// Returns the ratio of another tool's CPU time to `ours`, by medians and by best rounds.
fn cpu_ratio(ours: &Entrant, other: &Entrant, picture: usize) -> Option<(f64, f64)> {
    let [ours, other] = [ours, other].map(|entrant| entrant.contender.measurements[picture].as_ref());
    Some(ours?.cpu_ratio(other?))
}

/// Returns the measurements of this project on one and on two threads.
fn on_one_and_two_threads(all: &[Entrant], picture: usize) -> [&Measurement; 2] {
    [None, TWO_THREADS]
        .map(|variant| find(all, OURS, variant).unwrap().contender.measurements[picture].as_ref().unwrap())
}

/// Returns the ratio of the throughput on two threads to that on one, by medians and by best rounds.
fn scaling([one, two]: [&Measurement; 2]) -> (f64, f64) {
    let (one, two) = (&one.throughput, &two.throughput);
    (two.median() / one.median(), two.max() / one.max())
}

fn scaling_table(pictures: &[Picture], all: &[Entrant]) -> String {
    let rows = pictures.iter().enumerate().map(|(at, picture)| {
        let [one, two] = on_one_and_two_threads(all, at);
        let [alone, both] = [one, two].map(|threads| threads.throughput.median_and_max(1));
        let [more, cpu] = [scaling([one, two]), one.cpu_ratio(two)].map(format_ratio);
        [picture.name.to_owned(), alone, both, more, cpu]
    });
    let columns = ["picture", "1 thread", "2 threads", "times as many", "CPU time per image, times as much"];
    format!(
        "### Images per second of this project\n\n{}\n\n\
         By the wall clock: other work on the machine, which the load average above shows, distorts them.",
        table(columns, rows)
    )
}

fn goal_table(pictures: &[Picture], all: &[Entrant]) -> String {
    let verdict = |is_reached| if is_reached { "yes" } else { "**no**" }.to_owned();
    let index = |name| pictures.iter().position(|picture| picture.name == name);
    let ours = find(all, OURS, None).unwrap();
    let mut rows = Vec::new();
    for &(peer, picture, at_least) in MIN_SPEEDS {
        let ratio =
            find(all, peer, None).zip(index(picture)).and_then(|(peer, at)| cpu_ratio(ours, peer, at));
        rows.push([
            format!("{picture}, times as fast as {peer}"),
            format!("≥ {at_least:.1}"),
            ratio.map_or("–".to_owned(), format_ratio),
            ratio.map_or("not measured".to_owned(), |(median, _)| verdict(median >= at_least)),
        ]);
    }
    let large = index(JPEG_LARGE).unwrap();
    let psnr = ours.outputs[large].as_ref().unwrap().psnr;
    let memory = ours.memory.median();
    let scaling = scaling(on_one_and_two_threads(all, large));
    for (goal, limit, reached, is_reached) in [
        ("dB", format!("≥ {MIN_PSNR:.0}"), format!("{psnr:.1}"), psnr >= MIN_PSNR),
        ("MB above idle", format!("≤ {MAX_MEMORY:.0}"), format!("{memory:.1}"), memory <= MAX_MEMORY),
        (
            "images per second on two threads, times those on one",
            format!("≥ {MIN_SCALING:.1}"),
            format_ratio(scaling),
            scaling.0 >= MIN_SCALING,
        ),
    ] {
        rows.push([format!("{JPEG_LARGE}, {goal}"), limit, reached, verdict(is_reached)]);
    }
    format!("### Goals of this build\n\n{}", table(["goal", "required", "reached", "met"], rows))
}
