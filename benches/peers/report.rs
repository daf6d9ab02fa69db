//! The table, as Markdown.

use classify::model::spec;

use crate::{
    ceiling::Ceiling,
    engines::{self, Candidate, Contender, ONE_THREAD, SHARED_IMAGE},
    http::{self, CONNECTIONS},
};

pub(crate) const TITLE: &str = "# This project beside its peers\n\n\
    Written by `cargo bench --bench peers`; a run replaces the part of the model that it was built with.\n\
    Everything of a part is measured in one run, in turns; a figure is the median of its rounds, the one in\n\
    brackets the best. Absolute figures say something about this machine only.\n";

/// What the engines did, piece by piece: figures, ratios, those without AVX-512, ceiling.
pub(crate) fn engines(measured: &engines::Measured) -> Vec<String> {
    let limited = ratios(measured, |candidate| candidate.limited);
    [Some(engine_table(measured)), ratios(measured, |_| true), limited, ceiling(measured)]
        .into_iter()
        .flatten()
        .collect()
}

fn engine_table(measured: &engines::Measured) -> String {
    let mut lines = vec![
        format!(
            "### Engines\n\n\
             | engine | 1 thread: ms | images/s | lone image on 2 threads: ms | 2 threads: images/s | by | \
             logits from {}'s | of the FMA ceiling |",
            measured.reference
        ),
        "|---|--:|--:|--:|--:|---|--:|--:|".to_owned(),
    ];
    for candidate in &measured.candidates {
        let alone = candidate.of(ONE_THREAD);
        let best = candidate.best_of_two_threads();
        let by = match best.map(|best| best.setup) {
            Some(SHARED_IMAGE) => "two threads an image",
            Some(_) => "an image a thread",
            None => "–",
        };
        lines.push(format!(
            "| {} | {} | {} | {} | {} | {by} | {:.1e} | {} |",
            candidate.name,
            cell(alone, latency),
            cell(alone, throughput),
            cell(candidate.of(SHARED_IMAGE), latency),
            cell(best, throughput),
            candidate.difference,
            fraction(measured, alone).unwrap_or("–".to_owned())
        ));
    }
    lines.join("\n")
}

fn cell(contender: Option<&Contender>, text: impl Fn(&Contender) -> String) -> String {
    contender.map_or("–".to_owned(), text)
}

fn latency(contender: &Contender) -> String {
    format!("{:.2} ({:.2})", contender.medians.median(), contender.least.least())
}

fn throughput(contender: &Contender) -> String {
    format!("{:.0} ({:.0})", contender.throughput.median(), contender.throughput.most())
}

/// How much of what a core could do is done on one thread.
fn fraction(measured: &engines::Measured, contender: Option<&Contender>) -> Option<String> {
    let gflops = measured.flops? as f64 / 1e6 / contender?.medians.median();
    Some(format!("{:.0} %", 100.0 * gflops / measured.ceiling.alone()))
}

/// How many times as fast the first candidate of this project is as the others, among those that are
/// `wanted`.
fn ratios(measured: &engines::Measured, wanted: impl Fn(&Candidate) -> bool) -> Option<String> {
    let candidates = || measured.candidates.iter().filter(|candidate| wanted(candidate));
    let ours = candidates().find(|candidate| candidate.ours)?;
    let faster = |ours: Option<&Contender>, theirs: Option<&Contender>| {
        let ratio = theirs?.medians.median() / ours?.medians.median();
        Some(format!("{ratio:.2}"))
    };
    let more = |theirs: &Candidate| {
        let (ours, theirs) = (ours.best_of_two_threads()?, theirs.best_of_two_threads()?);
        Some(format!("{:.2}", ours.throughput.median() / theirs.throughput.median()))
    };
    let mut lines = vec![
        format!("{}, how many times as fast:\n", ours.name),
        "| as | 1 thread | lone image on 2 threads | 2 threads, images/s |".to_owned(),
        "|---|--:|--:|--:|".to_owned(),
    ];
    for theirs in candidates().filter(|theirs| theirs.name != ours.name) {
        let row = [
            faster(ours.of(ONE_THREAD), theirs.of(ONE_THREAD)),
            faster(ours.of(SHARED_IMAGE), theirs.of(SHARED_IMAGE)),
            more(theirs),
        ];
        let row = row.map(|ratio| ratio.unwrap_or("–".to_owned())).join(" | ");
        lines.push(format!("| {} | {row} |", theirs.name));
    }
    // The heading alone says nothing.
    (lines.len() > 3).then(|| lines.join("\n"))
}

fn ceiling(measured: &engines::Measured) -> Option<String> {
    let ceiling = &measured.ceiling;
    let (isa, alone, both) = (Ceiling::isa(), ceiling.alone(), ceiling.both());
    let flops = measured.flops?;
    let least = flops as f64 / 1e6 / alone;
    Some(format!(
        "FMA ceiling of a core on {isa}: {alone:.0} GFLOP/s alone, {both:.0} beside the other one. The network is \
         {:.3} GFLOP by its ONNX file (two for each weight and pixel that meet): at least {least:.2} ms on a core. \
         This project begins with the crop's bytes, the peers with the normalised tensor.",
        flops as f64 / 1e9
    ))
}

/// What the servers did, in two pieces: figures, ratios.
pub(crate) fn servers(measured: &[http::Measured]) -> Vec<String> {
    [Some(server_table(measured)), server_ratios(measured)].into_iter().flatten().collect()
}

fn server_table(measured: &[http::Measured]) -> String {
    let mut lines = vec![
        "### HTTP: a JPEG of 224×224 to its label\n".to_owned(),
        format!(
            "| server | {} | memory at 8, MB | at most, MB | ready, ms | first label, ms |",
            CONNECTIONS
                .map(|connections| format!("{connections} at once: answers/s | p50, p95 ms"))
                .join(" | ")
        ),
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|".to_owned(),
    ];
    for one in measured {
        let under_load = one.under_load.each_ref().map(|load| {
            let refused =
                if load.refused > 0 { format!(", {} refused", load.refused) } else { String::new() };
            let (throughput, best) = (load.throughput.median(), load.throughput.most());
            let (p50, p95) = (load.median.median(), load.p95.median());
            format!("{throughput:.0} ({best:.0}){refused} | {p50:.1}, {p95:.1}")
        });
        lines.push(format!(
            "| {} | {} | {:.0} | {:.0} | {:.0} ({:.0}) | {:.0} ({:.0}) |",
            one.server.name,
            under_load.join(" | "),
            one.under_load[1].memory.median(),
            one.most_memory,
            one.until_ready.median(),
            one.until_ready.least(),
            one.until_label.median(),
            one.until_label.least(),
        ));
    }
    lines.join("\n")
}

/// How many times as many answers this project gives.
fn server_ratios(measured: &[http::Measured]) -> Option<String> {
    let ours = measured.iter().find(|one| one.server.ours)?;
    let columns = CONNECTIONS.map(|connections| format!("{connections} at once"));
    let mut lines = vec![
        format!("{}, answers/s, how many times as many:\n", ours.server.name),
        format!("| as | {} |", columns.join(" | ")),
        "|---|--:|--:|--:|".to_owned(),
    ];
    for theirs in measured.iter().filter(|one| !one.server.ours) {
        let pairs = ours.under_load.iter().zip(&theirs.under_load);
        let ratios: Vec<String> = pairs
            .map(|(ours, theirs)| format!("{:.2}", ours.throughput.median() / theirs.throughput.median()))
            .collect();
        lines.push(format!("| {} | {} |", theirs.server.name, ratios.join(" | ")));
    }
    (lines.len() > 3).then(|| lines.join("\n"))
}

/// The part of the compiled-in model.
pub(crate) fn section(pieces: &[String]) -> String {
    format!("## {}\n\n{}\n", spec::NAME, pieces.join("\n\n"))
}
