//! Compares the memory that decoding an image takes with the maximum that its header states.
//!
//! A separate process decodes the images, so that nothing else takes memory at the same time.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "test helpers may panic")]

use std::{env, fs, io::Cursor, process::Command};

use classify::{
    model::GEOMETRY,
    pixels::{ImageHeader, ImageLimits, crop},
};
use image::{DynamicImage, ImageFormat, RgbImage};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

const WIDTH: u16 = 2000;
const HEIGHT: u16 = 1500;

/// Environment variable that is set only in the process that decodes.
const CHILD_VARIABLE: &str = "DECODING_PROCESS";

/// Memory that the measurement adds: buffers that the thread keeps, and pages of code.
const SLACK_BYTES: u64 = 2 << 20;

fn encode_png(picture: &DynamicImage) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

fn encode_jpeg(picture: &DynamicImage, is_progressive: bool, sampling: SamplingFactor) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 80);
    encoder.set_progressive(is_progressive);
    encoder.set_sampling_factor(sampling);
    let colour = if picture.color().has_color() { ColorType::Rgb } else { ColorType::Luma };
    encoder.encode(picture.as_bytes(), WIDTH, HEIGHT, colour).unwrap();
    file
}

/// Encodes a baseline JPEG with one scan per component.
fn encode_jpeg_in_scans(picture: &DynamicImage, sampling: SamplingFactor) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 80);
    encoder.set_sampling_factor(sampling);
    // With optimised tables, the encoder writes one scan per component.
    encoder.set_optimized_huffman_tables(true);
    encoder.encode(picture.as_bytes(), WIDTH, HEIGHT, ColorType::Rgb).unwrap();
    file
}

/// Encodes the RGBA bytes of the picture as amounts of ink.
fn encode_cmyk_jpeg(picture: &DynamicImage, profile: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 80);
    encoder.add_icc_profile(profile).unwrap();
    encoder.encode(picture.to_rgba8().as_raw(), WIDTH, HEIGHT, ColorType::Cmyk).unwrap();
    file
}

/// Reads a value in kilobytes from `/proc/self/status`, and returns it in bytes.
fn read_process_status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn decoding_takes_at_most_the_memory_that_the_header_states() {
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "decoding_process", "--ignored"])
        .env(CHILD_VARIABLE, "1")
        // glibc then returns freed buffers at once. Later images could use kept buffers without raising the
        // peak.
        .env("MALLOC_MMAP_THRESHOLD_", "65536")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && output.contains("1 passed"), "{output}");
}

#[test]
#[ignore = "the other test starts it in a separate process"]
fn decoding_process() {
    if env::var_os(CHILD_VARIABLE).is_none() {
        return;
    }
    let photo = DynamicImage::from(RgbImage::from_fn(WIDTH.into(), HEIGHT.into(), |x, y| {
        let level = |number: u32| u8::try_from(number % 256).unwrap();
        image::Rgb([level(x), level(y), level(x / 16 + y / 16)])
    }));
    let files = [
        ("grey PNG with 16 bits", encode_png(&photo.to_luma16().into())),
        ("grey PNG with alpha", encode_png(&photo.to_luma_alpha8().into())),
        ("RGB PNG", encode_png(&photo)),
        ("RGBA PNG with 16 bits", encode_png(&photo.to_rgba16().into())),
        ("grey JPEG", encode_jpeg(&photo.to_luma8().into(), false, SamplingFactor::R_4_4_4)),
        ("baseline JPEG", encode_jpeg(&photo, false, SamplingFactor::R_4_2_0)),
        ("baseline JPEG in several scans", encode_jpeg_in_scans(&photo, SamplingFactor::R_4_2_0)),
        (
            "baseline JPEG in several scans without subsampling",
            encode_jpeg_in_scans(&photo, SamplingFactor::R_4_4_4),
        ),
        ("progressive JPEG", encode_jpeg(&photo, true, SamplingFactor::R_4_2_0)),
        ("progressive JPEG without subsampling", encode_jpeg(&photo, true, SamplingFactor::R_4_4_4)),
    ];
    let profile = srgb::testing::table_profile(
        resize::Channels::Cmyk,
        srgb::testing::TableType::Lut16,
        srgb::testing::ConnectionSpace::Lab,
        2,
    );
    let cmyk_file = encode_cmyk_jpeg(&photo, &profile);
    let files = files.into_iter().chain([("CMYK JPEG with a profile", cmyk_file)]);
    drop(photo);
    let limits = ImageLimits { max_pixels: u64::MAX, max_scans: 32 };
    for (name, file) in files {
        let header = ImageHeader::read(&file, &limits).unwrap();
        let max_bytes = header.max_crop_bytes(GEOMETRY);
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let resident_before = read_process_status("VmHWM:");
        crop(&file, &header, GEOMETRY).unwrap();
        let peak_bytes = read_process_status("VmHWM:").saturating_sub(resident_before);
        assert!(peak_bytes <= max_bytes + SLACK_BYTES, "{name}: {peak_bytes} of {max_bytes} bytes");
        // A maximum that is far too high would refuse images that could be decoded.
        assert!(max_bytes <= 2 * peak_bytes + SLACK_BYTES, "{name}: {peak_bytes} of {max_bytes} bytes");
    }
}
