//! The tables, as Markdown.

use crate::{
    BUILD,
    figures::Series,
    goals,
    machine::{self, locked_version},
    measure::{Contender, Results},
    ours,
    pictures::{JPEG_LARGE, Picture},
    tools::Tool,
};

pub(crate) const TITLE: &str = "# From upload to stored picture, beside its peers\n\n\
    Written by `cargo bench --bench preprocess_peers`; a run replaces the part of the build that it measured.\n\
    Everybody does the same: bytes in memory, shorter side 256, JPEG of quality 95 in full colour (4:4:4), in\n\
    memory. Everything of a part is measured in one run, in turns; a figure is the median of its rounds, the\n\
    one in brackets the best. Absolute figures say something about this machine only.\n";

/// The part of this build.
pub(crate) fn section(cores: &str, pictures: &[Picture], measured: &[Contender], notes: &[String]) -> String {
    let mut pieces = vec![
        format!("## {BUILD} build"),
        describe(cores, measured),
        picture_table(pictures),
        processor_table(pictures, measured),
    ];
    pieces.extend(ratio_table(pictures, measured));
    pieces.extend([results_table(pictures, measured), throughput_table(pictures, measured)]);
    pieces.push(goal_table(pictures, measured));
    pieces.extend(notes.iter().cloned());
    pieces.join("\n\n") + "\n"
}

fn describe(cores: &str, measured: &[Contender]) -> String {
    let codecs: &[&str] = match BUILD {
        "turbo" => &["jpeg-scaled", "turbojpeg", "webpx"],
        _ => &["jpeg-scaled", "zune-jpeg", "image-webp", "jpeg-encoder"],
    };
    let crates = codecs.iter().chain(&["png", "fast_image_resize"]);
    let versions: Vec<String> = crates.map(|name| format!("{name} {}", locked_version(name))).collect();
    let mut peers: Vec<&str> = peers(measured).into_iter().map(Contender::version).collect();
    peers.dedup();
    if peers.is_empty() {
        peers.push("none");
    }
    let subject = format!(
        "- Peers: {}\n- Built with {}; recipe {}",
        peers.join(", "),
        versions.join(", "),
        ours::recipe().id_text()
    );
    let features = if BUILD == "turbo" { " --features turbo" } else { "" };
    machine::describe(cores, &subject, &format!("cargo bench --bench preprocess_peers{features}"))
}

fn picture_table(pictures: &[Picture]) -> String {
    let mut lines = vec![
        "### Pictures\n\n| picture | size | becomes | bytes | bits a pixel |".to_owned(),
        "|---|--:|--:|--:|--:|".to_owned(),
    ];
    for picture in pictures {
        let ((width, height), (to_width, to_height)) = (picture.size, picture.reference.size);
        let bits = picture.bytes as f64 * 8.0 / f64::from(width) / f64::from(height);
        lines.push(format!(
            "| {} | {width}×{height} | {to_width}×{to_height} | {} | {bits:.2} |",
            picture.name, picture.bytes
        ));
    }
    lines.push(
        "\nJPEGs are of quality 85, 4:2:0. Photos of `samples/` beside each other, with noise.".to_owned(),
    );
    lines.join("\n")
}

/// A table with a row for each tool on one thread, and in each a cell for each picture.
fn by_picture(
    pictures: &[Picture],
    contenders: &[&Contender],
    cell: impl Fn(&Contender, usize) -> Option<String>,
) -> String {
    let names: Vec<&str> = pictures.iter().map(|picture| picture.name).collect();
    let mut lines =
        vec![format!("| tool | {} |", names.join(" | ")), format!("|---|{}", "--:|".repeat(names.len()))];
    for contender in contenders {
        let cells: Vec<String> =
            (0..pictures.len()).map(|picture| cell(contender, picture).unwrap_or("–".to_owned())).collect();
        lines.push(format!("| {} | {} |", contender.name(), cells.join(" | ")));
    }
    lines.join("\n")
}

fn on_one_thread(measured: &[Contender]) -> Vec<&Contender> {
    measured.iter().filter(|contender| contender.tool.threads() == 1).collect()
}

fn processor_table(pictures: &[Picture], measured: &[Contender]) -> String {
    let table = by_picture(pictures, &on_one_thread(measured), |contender, picture| {
        let processor = &contender.results[picture].as_ref()?.processor;
        Some(format!("{:.2} ({:.2})", processor.median(), processor.least()))
    });
    format!("### Processor time an image, in milliseconds\n\n{table}")
}

fn peers(measured: &[Contender]) -> Vec<&Contender> {
    measured.iter().filter(|contender| !matches!(contender.tool, Tool::Ours { .. })).collect()
}

fn find(measured: &[Contender], tool: Tool) -> Option<&Contender> {
    measured.iter().find(|contender| contender.tool == tool)
}

fn ours(measured: &[Contender], threads: usize) -> &Contender {
    find(measured, Tool::Ours { threads }).unwrap()
}

/// How many times as fast this project is as a tool: by medians, and by the best rounds.
fn ratio(measured: &[Contender], theirs: &Contender, picture: usize) -> Option<(f64, f64)> {
    let ours = &ours(measured, 1).results[picture].as_ref()?.processor;
    let theirs = &theirs.results[picture].as_ref()?.processor;
    Some((theirs.median() / ours.median(), theirs.least() / ours.least()))
}

fn ratio_table(pictures: &[Picture], measured: &[Contender]) -> Option<String> {
    let peers = peers(measured);
    let table = by_picture(pictures, &peers, |theirs, picture| {
        let (median, best) = ratio(measured, theirs, picture)?;
        Some(format!("{median:.2} ({best:.2})"))
    });
    let name = ours(measured, 1).name();
    (!peers.is_empty()).then(|| format!("{name}, how many times as fast as:\n\n{table}"))
}

fn results_table(pictures: &[Picture], measured: &[Contender]) -> String {
    let contenders = on_one_thread(measured);
    let quality = by_picture(pictures, &contenders, |contender, picture| {
        let Results { psnr, bytes, .. } = contender.results[picture].as_ref()?;
        Some(format!("{psnr:.1}, {bytes}"))
    });
    let memory: Vec<String> = contenders
        .iter()
        .map(|contender| {
            let memory = &contender.memory;
            format!("| {} | {:.1} ({:.1}) |", contender.name(), memory.median(), memory.least())
        })
        .collect();
    format!(
        "### Quality in dB, and bytes of what comes out\n\n{quality}\n\n\
         PSNR of the pixels before they are encoded, against Lanczos3 in float64 over the full decode (Pillow's; \
         the crate image's where there is no Pillow).\n\n\
         ### Memory for {JPEG_LARGE}, in MB\n\n| tool | most above idle |\n|---|--:|\n{}\n\n\
         Resident, by the kernel's high-water mark; idle is after small pictures, with the file's bytes in memory. \
         Median (least) of a few processes.",
        memory.join("\n")
    )
}

/// By how much two threads do more than one, by medians and by the best rounds.
fn speed_up(measured: &[Contender], picture: usize) -> Option<(f64, f64)> {
    let [one, two] = [1, 2].map(|threads| throughput(measured, threads, picture));
    let (one, two) = (one?, two?);
    Some((two.median() / one.median(), two.most() / one.most()))
}

fn throughput(measured: &[Contender], threads: usize, picture: usize) -> Option<&Series> {
    Some(&ours(measured, threads).results[picture].as_ref()?.throughput)
}

/// How much more processor time an image takes on two threads, by medians and by the best rounds. Unlike
/// images per second it hardly depends on what else the machine does.
fn processor_growth(measured: &[Contender], picture: usize) -> Option<(f64, f64)> {
    ratio(measured, ours(measured, 2), picture)
}

fn throughput_table(pictures: &[Picture], measured: &[Contender]) -> String {
    let mut lines = vec![
        "### Images per second of this project\n".to_owned(),
        "| picture | 1 thread | 2 threads | times as many | processor time an image, times as much |"
            .to_owned(),
        "|---|--:|--:|--:|--:|".to_owned(),
    ];
    for (at, picture) in pictures.iter().enumerate() {
        let cells = [1, 2].map(|threads| {
            let throughput = throughput(measured, threads, at)?;
            Some(format!("{:.1} ({:.1})", throughput.median(), throughput.most()))
        });
        let [one, two] = cells.map(|cell| cell.unwrap_or("–".to_owned()));
        let times = [speed_up(measured, at), processor_growth(measured, at)];
        let [more, growth] = times
            .map(|times| times.map_or("–".to_owned(), |(median, best)| format!("{median:.2} ({best:.2})")));
        lines.push(format!("| {} | {one} | {two} | {more} | {growth} |", picture.name));
    }
    lines.push(
        "\nBy the wall clock: beside other work, which the load average above tells of, they say little."
            .to_owned(),
    );
    lines.join("\n")
}

fn goal_table(pictures: &[Picture], measured: &[Contender]) -> String {
    let place = |name| pictures.iter().position(|picture| picture.name == name).unwrap();
    let large = place(JPEG_LARGE);
    let reached = |reached| if reached { "yes" } else { "**no**" };
    let mut lines = vec![
        "### Goals of this build\n\n| goal | asked for | reached | |".to_owned(),
        "|---|--:|--:|---|".to_owned(),
    ];
    for &goals::Speed { peer, picture, at_least } in goals::speeds() {
        let ratio = find(measured, peer).and_then(|theirs| ratio(measured, theirs, place(picture)));
        let (figures, verdict) = match ratio {
            Some((median, best)) => (format!("{median:.2} ({best:.2})"), reached(median >= at_least)),
            None => ("–".to_owned(), "not measured"),
        };
        let peer = peer.name();
        lines.push(format!(
            "| {picture}, times as fast as {peer} | ≥ {at_least:.1} | {figures} | {verdict} |"
        ));
    }
    let one = ours(measured, 1);
    let psnr = one.results[large].as_ref().unwrap().psnr;
    let memory = one.memory.median();
    let (median, best) = speed_up(measured, large).unwrap();
    lines.extend([
        format!("| {JPEG_LARGE}, dB | ≥ {:.0} | {psnr:.1} | {} |", goals::PSNR, reached(psnr >= goals::PSNR)),
        format!(
            "| {JPEG_LARGE}, MB above idle | ≤ {:.0} | {memory:.1} | {} |",
            goals::MEMORY,
            reached(memory <= goals::MEMORY)
        ),
        format!(
            "| {JPEG_LARGE}, images per second on two threads, times those on one | ≥ {:.1} \
             | {median:.2} ({best:.2}) | {} |",
            goals::TWO_THREADS,
            reached(median >= goals::TWO_THREADS)
        ),
    ]);
    lines.join("\n")
}
