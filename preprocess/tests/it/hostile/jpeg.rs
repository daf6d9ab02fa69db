//! Hostile JPEGs. Most of them are written by hand, with Huffman tables that make zero bits valid pixels.

mod writer;

use image::RgbImage;

pub(crate) use self::writer::photo;
use self::writer::{
    APP1, ARITHMETIC, BASELINE, COM, DHT, DNL, DRI, END_OF_BLOCK, EOI, PROGRESSIVE, SOI, SOS,
    enable_restarts, encode, encode_test_image, exif_with_directory_loop, exif_without_entries, find_marker,
    frame_header, large_cmyk_profile, profile_part, profile_segments, scan, segment, swap_restarts, tables,
    truncate, truncate_and_end, uniform_grey, uniform_grey_in_scans, with_scan_count, with_segments,
};
use super::files::{
    Expected::{Processed, RefusedBeforeDecoding, RefusedByDecoder},
    HostileFile, hostile_file, noise,
};
use crate::support::read_sample;

pub(super) fn files() -> Vec<HostileFile> {
    let valid_file = encode_test_image(|_| {});
    let progressive = encode_test_image(|encoder| encoder.set_progressive(true));
    let restarts = encode_test_image(enable_restarts);
    let rocket = read_sample("rocket.jpg");
    let frame_offset = find_marker(&valid_file, BASELINE);
    let scan_offset = find_marker(&valid_file, SOS);
    let last_scan_offset = progressive.windows(2).rposition(|pair| pair == [0xFF, SOS]).unwrap();
    let mut without_height = valid_file.clone();
    without_height[frame_offset + 5..frame_offset + 7].copy_from_slice(&[0, 0]);
    let mut height_after_pixels = without_height[..without_height.len() - 2].to_vec();
    height_after_pixels.extend(segment(DNL, &300u16.to_be_bytes()));
    height_after_pixels.extend(EOI);
    let mut without_width = valid_file.clone();
    without_width[frame_offset + 7..frame_offset + 9].copy_from_slice(&[0, 0]);

    vec![
        // Decompression bombs.
        hostile_file("jpeg-64-megapixels-in-700-kb", Processed, uniform_grey((8000, 8000), 3)),
        hostile_file("jpeg-grey-64-megapixels", Processed, uniform_grey((8000, 8000), 1)),
        hostile_file("jpeg-cmyk-64-megapixels", Processed, uniform_grey((8000, 8000), 4)),
        hostile_file("jpeg-cmyk-with-a-table-of-3-mebibytes", Processed, {
            with_segments(&profile_segments(&large_cmyk_profile()), &uniform_grey((640, 480), 4))
        }),
        hostile_file(
            "jpeg-65-megapixels",
            RefusedBeforeDecoding("too_many_pixels"),
            uniform_grey((8000, 8125), 3),
        ),
        hostile_file("jpeg-one-row", Processed, uniform_grey((16_384, 1), 3)),
        hostile_file("jpeg-one-column", Processed, uniform_grey((1, 16_384), 3)),
        hostile_file(
            "jpeg-side-too-long",
            RefusedBeforeDecoding("side_too_long"),
            uniform_grey((16_385, 1), 3),
        ),
        hostile_file("jpeg-header-of-64250-squared", RefusedBeforeDecoding("side_too_long"), {
            [&SOI[..], &frame_header(PROGRESSIVE, (64_250, 64_250), &[0x11; 3]), &EOI].concat()
        }),
        hostile_file(
            "jpeg-progressive-26-megapixels-32-scans",
            Processed,
            with_scan_count((6240, 4160), &[0x11; 3], 32),
        ),
        hostile_file(
            "jpeg-progressive-30-megapixels-subsampled",
            Processed,
            with_scan_count((6000, 5000), &[0x22, 0x11, 0x11], 10),
        ),
        hostile_file(
            "jpeg-2000-scans",
            RefusedBeforeDecoding("too_many_scans"),
            with_scan_count((4000, 4000), &[0x11; 3], 2000),
        ),
        hostile_file(
            "jpeg-5000-scans",
            RefusedBeforeDecoding("too_many_pixels"),
            with_scan_count((8000, 8000), &[0x11; 3], 5000),
        ),
        hostile_file(
            "jpeg-33-scans-of-one-block",
            RefusedBeforeDecoding("too_many_scans"),
            with_scan_count((8, 8), &[0x11], 33),
        ),
        // Baseline JPEGs in several scans, which jpeg-scaled decodes.
        hostile_file("jpeg-scans-50-megapixels", Processed, uniform_grey_in_scans((8000, 6250), &[3, 1, 2])),
        hostile_file(
            "jpeg-scans-decoded-at-full-size",
            Processed,
            uniform_grey_in_scans((16_384, 1000), &[1, 2, 3]),
        ),
        hostile_file("jpeg-scans-one-row", Processed, uniform_grey_in_scans((16_384, 1), &[1, 2, 3])),
        hostile_file("jpeg-scans-one-column", Processed, uniform_grey_in_scans((1, 16_384), &[1, 2, 3])),
        hostile_file(
            "jpeg-scans-component-missing",
            RefusedByDecoder("corrupt_image"),
            uniform_grey_in_scans((64, 64), &[1, 3, 1]),
        ),
        hostile_file(
            "jpeg-scans-component-twice",
            RefusedByDecoder("corrupt_image"),
            uniform_grey_in_scans((64, 64), &[1, 2, 1, 3]),
        ),
        hostile_file("jpeg-scans-after-a-scan-of-all-components", RefusedByDecoder("corrupt_image"), {
            let end = valid_file.len() - 2;
            [&valid_file[..end], &scan(&[1], (0, 63), 0, &[0; 64]), &EOI].concat()
        }),
        hostile_file("jpeg-scans-truncated", RefusedByDecoder("corrupt_image"), {
            let whole = uniform_grey_in_scans((640, 480), &[1, 2, 3]);
            [&whole[..whole.len() - 52], &EOI].concat()
        }),
        hostile_file("jpeg-scans-bytes-in-between", RefusedByDecoder("corrupt_image"), {
            let mut file = uniform_grey_in_scans((64, 64), &[1, 2, 3]);
            let second_scan = file.windows(2).rposition(|pair| pair == [0xFF, SOS]).unwrap();
            file.splice(second_scan..second_scan, [7; 40]);
            file
        }),
        hostile_file("jpeg-frame-of-255-components", RefusedBeforeDecoding("corrupt_image"), {
            let mut payload = vec![8, 0, 8, 0, 8, 255];
            payload.extend([1, 0x11, 0]);
            [&SOI[..], &segment(BASELINE, &payload), &EOI].concat()
        }),
        hostile_file("jpeg-sampling-factor-15", RefusedByDecoder("corrupt_image"), {
            [
                &SOI[..],
                &tables(END_OF_BLOCK),
                &frame_header(PROGRESSIVE, (64, 64), &[0xFF, 0x11, 0x11]),
                &scan(&[1, 2, 3], (0, 0), 0, &[0; 64]),
                &[1, 2, 3].map(|component| scan(&[component], (1, 63), 0, &[0; 64])).concat(),
                &EOI,
            ]
            .concat()
        }),
        hostile_file("jpeg-arithmetic-coding", RefusedByDecoder("unsupported_format"), {
            [
                &SOI[..],
                &tables(END_OF_BLOCK),
                &frame_header(ARITHMETIC, (64, 64), &[0x11; 3]),
                &scan(&[1, 2, 3], (0, 63), 0, &[0; 64]),
                &EOI,
            ]
            .concat()
        }),
        hostile_file("jpeg-without-huffman-tables", Processed, {
            let tables_offset = find_marker(&valid_file, DHT);
            [&valid_file[..tables_offset], &valid_file[scan_offset..]].concat()
        }),
        // Metadata.
        hostile_file(
            "jpeg-19-mb-of-comments",
            Processed,
            with_segments(&segment(COM, &[7; 65_533]).repeat(290), &valid_file),
        ),
        hostile_file("jpeg-profile-of-16-mb", Processed, {
            let parts: Vec<u8> =
                (1..=250).flat_map(|number| profile_part(number, 250, &[7; 65_000])).collect();
            with_segments(&parts, &valid_file)
        }),
        hostile_file(
            "jpeg-profile-of-noise",
            Processed,
            with_segments(&profile_part(1, 1, &noise(3000)), &valid_file),
        ),
        hostile_file("jpeg-profile-with-a-missing-part", Processed, {
            with_segments(&[profile_part(1, 3, b"ab"), profile_part(3, 3, b"cd")].concat(), &valid_file)
        }),
        hostile_file(
            "jpeg-exif-directory-loop",
            Processed,
            with_segments(&exif_with_directory_loop(), &valid_file),
        ),
        hostile_file(
            "jpeg-exif-without-its-entries",
            Processed,
            with_segments(&exif_without_entries(), &valid_file),
        ),
        hostile_file(
            "jpeg-two-exif-segments",
            Processed,
            with_segments(&[exif_with_directory_loop(), exif_without_entries()].concat(), &valid_file),
        ),
        hostile_file("jpeg-image-in-its-exif", Processed, {
            let small = encode(&RgbImage::new(16, 16), |_| {});
            with_segments(&segment(APP1, &[b"Exif\0\0II*\0\x08\0\0\0\0\0", &small[..]].concat()), &valid_file)
        }),
        hostile_file("jpeg-fill-bytes", Processed, with_segments(&[0xFF; 100_000], &valid_file)),
        hostile_file(
            "jpeg-segment-of-length-0",
            RefusedByDecoder("corrupt_image"),
            with_segments(&[0xFF, COM, 0, 0], &valid_file),
        ),
        // Truncated and concatenated files.
        hostile_file(
            "jpeg-truncated-in-its-header",
            RefusedBeforeDecoding("corrupt_image"),
            valid_file[..frame_offset + 4].to_vec(),
        ),
        hostile_file("jpeg-truncated-in-its-tables", RefusedBeforeDecoding("corrupt_image"), {
            valid_file[..find_marker(&valid_file, DHT) + 9].to_vec()
        }),
        hostile_file(
            "jpeg-truncated-in-its-pixels",
            RefusedByDecoder("corrupt_image"),
            truncate(&rocket, 50),
        ),
        hostile_file("jpeg-without-its-end-marker", Processed, rocket[..rocket.len() - 2].to_vec()),
        hostile_file("jpeg-large-truncated-with-end-marker", RefusedByDecoder("corrupt_image"), {
            // The photo is large enough to be scaled down while it is decoded.
            truncate_and_end(&photo(1600, 1200), 60)
        }),
        hostile_file(
            "jpeg-truncated-with-end-marker",
            RefusedByDecoder("corrupt_image"),
            truncate_and_end(&rocket, 50),
        ),
        hostile_file(
            "jpeg-truncated-near-its-end-with-end-marker",
            RefusedByDecoder("corrupt_image"),
            truncate_and_end(&rocket, 90),
        ),
        hostile_file(
            "jpeg-truncated-between-restarts-with-end-marker",
            RefusedByDecoder("corrupt_image"),
            truncate_and_end(&restarts, 70),
        ),
        hostile_file(
            "jpeg-progressive-truncated-with-end-marker",
            RefusedByDecoder("corrupt_image"),
            truncate_and_end(&progressive, 50),
        ),
        hostile_file("jpeg-progressive-without-its-last-scan", Processed, {
            [&progressive[..last_scan_offset], &EOI].concat()
        }),
        hostile_file("jpeg-progressive-truncated-in-its-last-scan", RefusedByDecoder("corrupt_image"), {
            let middle = (last_scan_offset + progressive.len()) / 2;
            [&progressive[..middle], &[0, 0], &EOI].concat()
        }),
        hostile_file("jpeg-without-the-scan-of-the-last-component", RefusedByDecoder("corrupt_image"), {
            let bits = [0; 2];
            let scans = [1, 2].map(|component| scan(&[component], (0, 63), 0, &bits)).concat();
            let head =
                [&SOI[..], &tables(END_OF_BLOCK), &frame_header(BASELINE, (16, 16), &[0x11; 3])].concat();
            [head, scans, EOI.to_vec()].concat()
        }),
        hostile_file("jpeg-without-pixels", RefusedByDecoder("corrupt_image"), {
            // The header of a scan with three components has 14 bytes.
            [&valid_file[..scan_offset + 14], &EOI].concat()
        }),
        hostile_file("jpeg-trailing-noise", Processed, [&valid_file[..], &noise(50_000)].concat()),
        hostile_file("jpeg-followed-by-another-jpeg", Processed, [&valid_file[..], &progressive].concat()),
        hostile_file(
            "jpeg-two-start-markers",
            RefusedByDecoder("corrupt_image"),
            [&SOI[..], &valid_file].concat(),
        ),
        hostile_file("jpeg-two-frames", RefusedBeforeDecoding("corrupt_image"), {
            [
                &valid_file[..scan_offset],
                &frame_header(BASELINE, (16, 16), &[0x11; 3]),
                &valid_file[scan_offset..],
            ]
            .concat()
        }),
        hostile_file("jpeg-without-a-frame", RefusedBeforeDecoding("corrupt_image"), {
            [&valid_file[..frame_offset], &valid_file[scan_offset..]].concat()
        }),
        // Sizes and restarts.
        hostile_file("jpeg-zero-height", RefusedBeforeDecoding("corrupt_image"), without_height),
        hostile_file(
            "jpeg-height-after-the-pixels",
            RefusedBeforeDecoding("corrupt_image"),
            height_after_pixels,
        ),
        hostile_file("jpeg-zero-width", RefusedBeforeDecoding("corrupt_image"), without_width),
        hostile_file(
            "jpeg-restarts-in-the-wrong-order",
            RefusedByDecoder("corrupt_image"),
            swap_restarts(&restarts),
        ),
        hostile_file("jpeg-undeclared-restarts", RefusedByDecoder("corrupt_image"), {
            let offset = find_marker(&restarts, DRI);
            [&restarts[..offset], &restarts[offset + 6..]].concat()
        }),
        hostile_file(
            "jpeg-declared-restarts-are-missing",
            RefusedByDecoder("corrupt_image"),
            with_segments(&segment(DRI, &[0, 1]), &valid_file),
        ),
    ]
}
