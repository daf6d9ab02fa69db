//! Formats the measurements of all tools as Markdown tables.

use bench_harness::{
    Measurement, format_ratio,
    machine::{self, locked_crate},
    markdown::table,
};

use crate::{
    BUILD,
    pictures::{JPEG_LARGE, JPEG_MIDDLE, JPEG_SMALL, PNG_MIDDLE, PNG_OF_LIBPNG, PROGRESSIVE_LARGE, Picture},
    tools::{MEMORY_PICTURES, MeasuredTool, OURS, TWO_THREADS, recipe},
};

/// The text of the file before its first section.
pub(crate) const TITLE: &str = "# From upload to stored picture, beside its peers\n\n\
    Written by `cargo bench -p preprocess-peers`, which replaces the section of the build that it measured.\n\
    Every tool does the same in memory: decode, scale the shorter side to 256, encode a JPEG of quality 95\n\
    in full colour (4:4:4). Everything in a section is measured in one run, in interleaved rounds. A figure\n\
    is the median of its rounds, with the best round in brackets. Absolute figures apply to this machine\n\
    only.\n";

/// Goal for the large JPEG: the minimum PSNR of this project's result in dB.
const GOAL_MIN_PSNR: f64 = 50.0;
/// Goals for the maximum growth of this project's peak memory in MB, in the order of [`MEMORY_PICTURES`].
const GOAL_MAX_MEMORY_GROWTH: [f64; MEMORY_PICTURES.len()] = [10.0, 14.0];
/// Goal for the large JPEG: the minimum ratio of this project's throughput on two threads to its throughput
/// on one thread.
const GOAL_MIN_SCALING: f64 = 1.9;
/// Goals for this project's speed. Each entry holds a peer, a picture and the minimum ratio of this project's
/// speed to the peer's speed.
const GOAL_MIN_SPEED_RATIOS: &[(&str, &str, f64)] = if cfg!(feature = "turbo") {
    &[
        ("sharp", JPEG_LARGE, 1.1),
        ("sharp", JPEG_MIDDLE, 1.5),
        ("sharp", JPEG_SMALL, 3.0),
        ("Pillow", JPEG_LARGE, 6.0),
        ("Pillow", JPEG_MIDDLE, 5.5),
        ("Pillow", JPEG_SMALL, 4.0),
        ("sharp", PNG_MIDDLE, 1.8),
        ("sharp", PNG_OF_LIBPNG, 1.8),
        ("sharp", PROGRESSIVE_LARGE, 1.3),
    ]
} else {
    &[
        ("sharp", JPEG_LARGE, 1.0),
        ("sharp", JPEG_MIDDLE, 1.2),
        ("sharp", JPEG_SMALL, 2.0),
        ("sharp", PNG_MIDDLE, 1.8),
        ("sharp", PNG_OF_LIBPNG, 1.8),
        ("sharp", PROGRESSIVE_LARGE, 1.3),
    ]
};

/// Formats the section of this build, with all tables and `notes`.
pub(crate) fn format_section(
    cores: &str,
    pictures: &[Picture],
    tools: &[MeasuredTool],
    notes: Vec<String>,
) -> String {
    let on_one_thread: Vec<&MeasuredTool> =
        tools.iter().filter(|measured| measured.tool.variant != TWO_THREADS).collect();
    let peers: Vec<&MeasuredTool> = tools.iter().filter(|measured| measured.tool.name != OURS).collect();
    let ours = find_tool(tools, OURS, None).unwrap();

    let cpu = table_by_picture(pictures, &on_one_thread, |tool, index| {
        Some(tool.contender.measurements[index].as_ref()?.cpu.median_and_min(2))
    });
    let ratios =
        table_by_picture(pictures, &peers, |peer, index| Some(format_ratio(cpu_ratio(ours, peer, index)?)));
    let quality = table_by_picture(pictures, &on_one_thread, |tool, index| {
        tool.outputs[index].as_ref().map(|output| format!("{:.1}, {}", output.psnr, output.jpeg_length))
    });
    let memory = on_one_thread.iter().map(|tool| {
        let [baseline, progressive] = tool.memory.each_ref().map(|series| series.median_and_min(1));
        [tool.label(), baseline, progressive]
    });
    let [baseline, progressive] = MEMORY_PICTURES;
    let memory = table(["tool", baseline, progressive], memory);
    let mut pieces = vec![
        format!("## {BUILD} build"),
        describe_run(cores, &peers),
        picture_table(pictures),
        format!("### CPU time per image, in milliseconds\n\n{cpu}"),
    ];
    if !peers.is_empty() {
        pieces.push(format!("{}, how many times as fast as:\n\n{ratios}", ours.label()));
    }
    pieces.extend([
        format!(
            "### Quality in dB, and bytes of the JPEG\n\n{quality}\n\n\
             The PSNR is that of the pixels before they are encoded. The pixels are compared with a full \
             decode (by Pillow, or by the crate `image` if Pillow is not installed) that is resized with \
             Lanczos3 in float32."
        ),
        format!(
            "### Peak memory above idle, in MB\n\n{memory}\n\n\
             A figure is the growth of the peak resident memory, which the kernel records. The idle process \
             has processed small pictures and holds the bytes of the file. The figures are medians of a few \
             processes, with the minimum in brackets."
        ),
        scaling_table(pictures, tools),
        goal_table(pictures, tools),
    ]);
    pieces.extend(notes);
    pieces.join("\n\n") + "\n"
}

/// Describes the machine, the peers and the crates of this build as a Markdown list.
fn describe_run(cores: &str, peers: &[&MeasuredTool]) -> String {
    let codecs: &[&str] = match BUILD {
        "turbo" => &["jpeg-scaled", "turbojpeg", "webpx"],
        _ => &["jpeg-scaled", "image-webp", "jpeg-encoder"],
    };
    let crates = codecs.iter().chain(&["png", "fast_image_resize"]);
    let crates: Vec<String> = crates.map(|name| locked_crate(name)).collect();
    let mut versions: Vec<&str> = peers.iter().map(|peer| peer.versions()).collect();
    versions.dedup();
    let versions = if versions.is_empty() { "none".to_owned() } else { versions.join(", ") };
    let recipe = recipe().id_text();
    let subject = format!("- Peers: {versions}\n- Built with {}; recipe {recipe}", crates.join(", "));
    let features = if BUILD == "turbo" { " --features turbo" } else { "" };
    machine::describe(cores, &subject, &format!("cargo bench -p preprocess-peers{features}"))
}

/// Formats a table of the pictures that every tool processes.
fn picture_table(pictures: &[Picture]) -> String {
    let rows = pictures.iter().map(|picture| {
        let ((width, height), (to_width, to_height)) = (picture.size, picture.expected.dimensions());
        let bits = picture.file_length as f64 * 8.0 / f64::from(width) / f64::from(height);
        let [size, scaled_size] = [format!("{width}×{height}"), format!("{to_width}×{to_height}")];
        [picture.name.to_owned(), size, scaled_size, picture.file_length.to_string(), format!("{bits:.2}")]
    });
    format!(
        "### Pictures\n\n{}\n\n\
         The JPEGs have quality 85 and 4:2:0 chroma subsampling. The pictures are tiles of the photos in \
         `samples/`, with noise.",
        table(["picture", "size", "becomes", "bytes", "bits per pixel"], rows)
    )
}

/// Formats a table with a row per tool and a column per picture.
///
/// `format_cell` formats the cell for a tool and for the picture with the given index.
fn table_by_picture(
    pictures: &[Picture],
    tools: &[&MeasuredTool],
    format_cell: impl Fn(&MeasuredTool, usize) -> Option<String>,
) -> String {
    let columns = ["tool"].into_iter().chain(pictures.iter().map(|picture| picture.name));
    let rows = tools.iter().map(|tool| {
        let cells = (0..pictures.len()).map(|index| format_cell(tool, index));
        [Some(tool.label())].into_iter().chain(cells).collect::<Vec<_>>()
    });
    table(columns, rows)
}

/// Returns the tool with a name and a variant, or `None` if the tool is not installed.
fn find_tool<'a>(tools: &'a [MeasuredTool], name: &str, variant: Option<&str>) -> Option<&'a MeasuredTool> {
    tools.iter().find(|measured| measured.tool.name == name && measured.tool.variant == variant)
}

/// Returns the CPU time of `other` divided by the CPU time of `ours`: the ratio of the medians and the ratio
/// of the best rounds. Returns `None` if either tool is not measured with the picture.
fn cpu_ratio(ours: &MeasuredTool, other: &MeasuredTool, picture_index: usize) -> Option<(f64, f64)> {
    let [ours, other] = [ours, other].map(|tool| tool.contender.measurements[picture_index].as_ref());
    Some(ours?.cpu_ratio(other?))
}

/// Returns the measurement of this project on one thread, then the measurement on two threads.
fn on_one_and_two_threads(tools: &[MeasuredTool], picture_index: usize) -> [&Measurement; 2] {
    [None, TWO_THREADS].map(|variant| {
        find_tool(tools, OURS, variant).unwrap().contender.measurements[picture_index].as_ref().unwrap()
    })
}

/// Returns the throughput on two threads divided by the throughput on one thread: the ratio of the medians
/// and the ratio of the best rounds.
fn throughput_ratio([one, two]: [&Measurement; 2]) -> (f64, f64) {
    let (one, two) = (&one.throughput, &two.throughput);
    (two.median() / one.median(), two.max() / one.max())
}

/// Formats a table of this project's throughput on one and on two threads.
fn scaling_table(pictures: &[Picture], tools: &[MeasuredTool]) -> String {
    let rows = pictures.iter().enumerate().map(|(index, picture)| {
        let [one, two] = on_one_and_two_threads(tools, index);
        let [throughput_of_one, throughput_of_two] =
            [one, two].map(|measurement| measurement.throughput.median_and_max(1));
        let [ratio, cpu_ratio] = [throughput_ratio([one, two]), one.cpu_ratio(two)].map(format_ratio);
        [picture.name.to_owned(), throughput_of_one, throughput_of_two, ratio, cpu_ratio]
    });
    let columns = ["picture", "1 thread", "2 threads", "times as many", "CPU time per image, times as much"];
    format!(
        "### Images per second of this project\n\n{}\n\n\
         These are wall-clock figures. Other work on the machine, which the load average above shows, \
         distorts them.",
        table(columns, rows)
    )
}

/// Formats a table of the goals, with this project's figures and whether they reach the goals.
fn goal_table(pictures: &[Picture], tools: &[MeasuredTool]) -> String {
    let verdict = |is_reached| if is_reached { "yes" } else { "**no**" }.to_owned();
    let index_of = |name| pictures.iter().position(|picture| picture.name == name);
    let ours = find_tool(tools, OURS, None).unwrap();
    let mut rows = Vec::new();
    for &(peer_name, picture_name, min_ratio) in GOAL_MIN_SPEED_RATIOS {
        let ratio = find_tool(tools, peer_name, None)
            .zip(index_of(picture_name))
            .and_then(|(peer, picture_index)| cpu_ratio(ours, peer, picture_index));
        rows.push([
            format!("{picture_name}, times as fast as {peer_name}"),
            format!("≥ {min_ratio:.1}"),
            ratio.map_or("–".to_owned(), format_ratio),
            ratio.map_or("not measured".to_owned(), |(median, _)| verdict(median >= min_ratio)),
        ]);
    }
    let large_index = index_of(JPEG_LARGE).unwrap();
    let psnr = ours.outputs[large_index].as_ref().unwrap().psnr;
    let scaling = throughput_ratio(on_one_and_two_threads(tools, large_index));
    for (goal, limit, reached, is_reached) in [
        ("dB", format!("≥ {GOAL_MIN_PSNR:.0}"), format!("{psnr:.1}"), psnr >= GOAL_MIN_PSNR),
        (
            "images per second on two threads, times those on one",
            format!("≥ {GOAL_MIN_SCALING:.1}"),
            format_ratio(scaling),
            scaling.0 >= GOAL_MIN_SCALING,
        ),
    ] {
        rows.push([format!("{JPEG_LARGE}, {goal}"), limit, reached, verdict(is_reached)]);
    }
    for ((name, series), limit) in MEMORY_PICTURES.into_iter().zip(&ours.memory).zip(GOAL_MAX_MEMORY_GROWTH) {
        let memory = series.median();
        rows.push([
            format!("{name}, MB above idle"),
            format!("≤ {limit:.0}"),
            format!("{memory:.1}"),
            verdict(memory <= limit),
        ]);
    }
    format!("### Goals of this build\n\n{}", table(["goal", "required", "reached", "met"], rows))
}
