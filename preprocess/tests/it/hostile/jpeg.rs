//! JPEGs, written by hand: their codes are such that zero bits are a picture of any size.

use image::{RgbImage, imageops::FilterType};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::files::{
    Answer::{self, ByDecoder, ByHeader, Taken},
    File, file, length16, noise,
};
use crate::{pictures::picture, support::sample};

const SOI: [u8; 2] = [0xFF, 0xD8];
const EOI: [u8; 2] = [0xFF, 0xD9];
const BASELINE: u8 = 0xC0;
const PROGRESSIVE: u8 = 0xC2;
const ARITHMETIC: u8 = 0xC9;
const DHT: u8 = 0xC4;
const SOS: u8 = 0xDA;
const DQT: u8 = 0xDB;
const DNL: u8 = 0xDC;
const DRI: u8 = 0xDD;
const APP1: u8 = 0xE1;
const APP2: u8 = 0xE2;
const COM: u8 = 0xFE;

fn segment(marker: u8, payload: &[u8]) -> Vec<u8> {
    let length = length16(payload.len() + 2).to_be_bytes();
    [&[0xFF, marker], &length[..], payload].concat()
}

/// A frame header. `factors` are the sampling factors of each component, as one byte.
fn frame(marker: u8, (width, height): (u16, u16), factors: &[u8]) -> Vec<u8> {
    let mut payload = vec![8];
    payload.extend(height.to_be_bytes());
    payload.extend(width.to_be_bytes());
    payload.push(u8::try_from(factors.len()).unwrap());
    for (number, &factor) in (1..).zip(factors) {
        payload.extend([number, factor, 0]);
    }
    segment(marker, &payload)
}

fn scan(components: &[u8], (first, last): (u8, u8), refinement: u8, bits: &[u8]) -> Vec<u8> {
    let mut payload = vec![u8::try_from(components.len()).unwrap()];
    payload.extend(components.iter().flat_map(|&component| [component, 0]));
    payload.extend([first, last, refinement]);
    [segment(SOS, &payload), bits.to_vec()].concat()
}

/// Quantization by one, and codes of one bit: a zero is no difference for DC and `ac` for AC.
fn tables(ac: u8) -> Vec<u8> {
    let quantization = [&[0][..], &[1; 64]].concat();
    let code = |class: u8, symbol: u8| [&[class, 1][..], &[0; 15], &[symbol]].concat();
    [segment(DQT, &quantization), segment(DHT, &code(0, 0)), segment(DHT, &code(0x10, ac))].concat()
}

/// The symbol that ends a block.
const END_OF_BLOCK: u8 = 0;
/// The symbol that ends 16,384 blocks and as many more as the 14 bits after it say.
const END_OF_BLOCKS: u8 = 0xE0;

/// A baseline picture without subsampling that is grey all over, in two bits a block.
fn grey_all_over(size: (u16, u16), components: u8) -> Vec<u8> {
    let blocks = usize::from(size.0).div_ceil(8) * usize::from(size.1).div_ceil(8) * usize::from(components);
    let factors = vec![0x11; components.into()];
    let numbers: Vec<u8> = (1..=components).collect();
    let bits = vec![0; (2 * blocks).div_ceil(8)];
    let head = [&SOI[..], &tables(END_OF_BLOCK), &frame(BASELINE, size, &factors)].concat();
    [head, scan(&numbers, (0, 63), 0, &bits), EOI.to_vec()].concat()
}

/// A progressive picture in so many scans: the first with the averages, the others with nothing, one for
/// each component and the rest for the first. The first component has all the samples there are.
fn in_scans(size: (u16, u16), factors: &[u8], scans: usize) -> Vec<u8> {
    let [width, height] = [size.0, size.1].map(usize::from);
    let down = usize::from(factors[0] & 15);
    let mcus = width.div_ceil(8 * down) * height.div_ceil(8 * down);
    let blocks_of_an_mcu: usize =
        factors.iter().map(|&both| usize::from(both >> 4) * usize::from(both & 15)).sum();
    let numbers: Vec<u8> = (1..).take(factors.len()).collect();
    let averages = vec![0; (mcus * blocks_of_an_mcu).div_ceil(8)];
    let nothing = |component: u8| {
        let smaller = if component == 1 { 1 } else { down };
        let blocks = width.div_ceil(8 * smaller) * height.div_ceil(8 * smaller);
        let bits = vec![0; (blocks.div_ceil(1 << 14) * 15).div_ceil(8)];
        scan(&[component], (1, 63), 0, &bits)
    };
    let mut file = [&SOI[..], &tables(END_OF_BLOCKS), &frame(PROGRESSIVE, size, factors)].concat();
    file.extend(scan(&numbers, (0, 0), 0, &averages));
    numbers.iter().skip(1).for_each(|&component| file.extend(nothing(component)));
    file.extend(nothing(1).repeat(scans - numbers.len()));
    file.extend(EOI);
    file
}

/// A photo of the samples at another size, as cameras write it.
pub(crate) fn photo(width: u32, height: u32) -> Vec<u8> {
    let photo = image::load_from_memory(&sample("coffee.jpg")).unwrap().into_rgb8();
    encoded(&image::imageops::resize(&photo, width, height, FilterType::Triangle), |_| {})
}

/// 400×300 by an encoder.
fn usual(change: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    encoded(&picture(), change)
}

fn encoded(picture: &RgbImage, change: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 90);
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    change(&mut encoder);
    let (width, height) = (picture.width().try_into().unwrap(), picture.height().try_into().unwrap());
    encoder.encode(picture.as_raw(), width, height, ColorType::Rgb).unwrap();
    file
}

fn with_restarts(encoder: &mut Encoder<&mut Vec<u8>>) {
    encoder.set_restart_interval(4);
}

/// Where the segment with that marker begins.
fn position(file: &[u8], marker: u8) -> usize {
    file.windows(2).position(|pair| pair == [0xFF, marker]).unwrap()
}

/// The part of the file up to that share of it, in hundredths.
fn cut(file: &[u8], hundredths: usize) -> Vec<u8> {
    file[..file.len() * hundredths / 100].to_vec()
}

/// The same, and called whole.
fn cut_and_ended(file: &[u8], hundredths: usize) -> Vec<u8> {
    let mut part = cut(file, hundredths);
    // A marker that was cut in two would make another one.
    part.extend([0, 0]);
    part.extend(EOI);
    part
}

/// With segments before everything else.
fn begun_with(segments: &[u8], file: &[u8]) -> Vec<u8> {
    [&file[..2], segments, &file[2..]].concat()
}

fn profile_part(number: u8, of: u8, data: &[u8]) -> Vec<u8> {
    segment(APP2, &[b"ICC_PROFILE\0", &[number, of][..], data].concat())
}

/// An EXIF block whose directory says that it goes on with itself.
fn exif_loop() -> Vec<u8> {
    let mut block = b"Exif\0\0II*\0\x08\0\0\0\x01\0".to_vec();
    // A directory inside this one: this one.
    block.extend(*b"\x69\x87\x04\0\x01\0\0\0\x08\0\0\0");
    block.extend(*b"\x08\0\0\0");
    segment(APP1, &block)
}

/// EXIF with 65,535 entries of which none is there.
fn exif_of_nothing() -> Vec<u8> {
    segment(APP1, b"Exif\0\0MM\0*\0\0\0\x08\xFF\xFF")
}

/// What libjpeg-turbo answers where it is compiled in: it takes the standard's tables where there are none,
/// steps over a segment that is too short, and is stricter about restart markers.
fn or_turbo(answer: Answer, turbo: Answer) -> Answer {
    if cfg!(feature = "turbo") { turbo } else { answer }
}

pub(super) fn files() -> Vec<File> {
    let usual_file = usual(|_| {});
    let progressive = usual(|encoder| encoder.set_progressive(true));
    let restarts = usual(with_restarts);
    let rocket = sample("rocket.jpg");
    let frame_at = position(&usual_file, BASELINE);
    let pixels_at = position(&usual_file, SOS);
    let last_scan_at = progressive.windows(2).rposition(|pair| pair == [0xFF, SOS]).unwrap();
    let mut without_height = usual_file.clone();
    without_height[frame_at + 5..frame_at + 7].copy_from_slice(&[0, 0]);
    let mut height_after = without_height[..without_height.len() - 2].to_vec();
    height_after.extend(segment(DNL, &300u16.to_be_bytes()));
    height_after.extend(EOI);
    let mut without_width = usual_file.clone();
    without_width[frame_at + 7..frame_at + 9].copy_from_slice(&[0, 0]);
    let swapped: Vec<u8> = swapped_restarts(&restarts);

    vec![
        // Bombs.
        file("jpeg-50-megapixels-in-600-kb", Taken, grey_all_over((8000, 6250), 3)),
        file("jpeg-grey-50-megapixels", Taken, grey_all_over((8000, 6250), 1)),
        file("jpeg-cmyk-50-megapixels", Taken, grey_all_over((8000, 6250), 4)),
        file("jpeg-51-megapixels", ByHeader("too_many_pixels"), grey_all_over((8000, 6400), 3)),
        file("jpeg-one-row", Taken, grey_all_over((16_384, 1), 3)),
        file("jpeg-one-column", Taken, grey_all_over((1, 16_384), 3)),
        file("jpeg-a-side-too-long", ByHeader("side_too_long"), grey_all_over((16_385, 1), 3)),
        file("jpeg-header-of-64250-squared", ByHeader("side_too_long"), {
            [&SOI[..], &frame(PROGRESSIVE, (64_250, 64_250), &[0x11; 3]), &EOI].concat()
        }),
        file("jpeg-progressive-25-megapixels-32-scans", Taken, in_scans((5000, 5000), &[0x11; 3], 32)),
        file("jpeg-progressive-sampled-4-times", Taken, in_scans((5000, 5000), &[0x22, 0x11, 0x11], 10)),
        file("jpeg-2000-scans", ByHeader("too_many_scans"), in_scans((4000, 4000), &[0x11; 3], 2000)),
        file("jpeg-5000-scans", ByHeader("too_many_pixels"), in_scans((8000, 8000), &[0x11; 3], 5000)),
        file("jpeg-33-scans-of-nothing", ByHeader("too_many_scans"), in_scans((8, 8), &[0x11], 33)),
        file("jpeg-a-frame-of-255-components", ByHeader("corrupt_image"), {
            let mut payload = vec![8, 0, 8, 0, 8, 255];
            payload.extend([1, 0x11, 0]);
            [&SOI[..], &segment(BASELINE, &payload), &EOI].concat()
        }),
        file("jpeg-sampled-15-times", ByDecoder("corrupt_image"), {
            [
                &SOI[..],
                &tables(END_OF_BLOCK),
                &frame(PROGRESSIVE, (64, 64), &[0xFF, 0x11, 0x11]),
                &scan(&[1, 2, 3], (0, 0), 0, &[0; 64]),
                &[1, 2, 3].map(|component| scan(&[component], (1, 63), 0, &[0; 64])).concat(),
                &EOI,
            ]
            .concat()
        }),
        file("jpeg-arithmetic-codes", ByDecoder("unsupported_format"), {
            [
                &SOI[..],
                &tables(END_OF_BLOCK),
                &frame(ARITHMETIC, (64, 64), &[0x11; 3]),
                &scan(&[1, 2, 3], (0, 63), 0, &[0; 64]),
                &EOI,
            ]
            .concat()
        }),
        file("jpeg-no-tables", or_turbo(ByDecoder("corrupt_image"), Taken), {
            let tables = position(&usual_file, DHT);
            [&usual_file[..tables], &usual_file[pixels_at..]].concat()
        }),
        // What is beside the pixels.
        file(
            "jpeg-19-mb-of-comments",
            Taken,
            begun_with(&segment(COM, &[7; 65_533]).repeat(290), &usual_file),
        ),
        file("jpeg-a-profile-of-16-mb", Taken, {
            let parts: Vec<u8> =
                (1..=250).flat_map(|number| profile_part(number, 250, &[7; 65_000])).collect();
            begun_with(&parts, &usual_file)
        }),
        file("jpeg-a-profile-of-noise", Taken, begun_with(&profile_part(1, 1, &noise(3000)), &usual_file)),
        file("jpeg-a-profile-in-parts-that-miss-one", Taken, {
            begun_with(&[profile_part(1, 3, b"ab"), profile_part(3, 3, b"cd")].concat(), &usual_file)
        }),
        file("jpeg-exif-that-goes-round", Taken, begun_with(&exif_loop(), &usual_file)),
        file("jpeg-exif-of-nothing", Taken, begun_with(&exif_of_nothing(), &usual_file)),
        file("jpeg-exif-twice", Taken, begun_with(&[exif_loop(), exif_of_nothing()].concat(), &usual_file)),
        file("jpeg-a-picture-in-its-exif", Taken, {
            let small = encoded(&RgbImage::new(16, 16), |_| {});
            begun_with(&segment(APP1, &[b"Exif\0\0II*\0\x08\0\0\0\0\0", &small[..]].concat()), &usual_file)
        }),
        file("jpeg-fill-bytes", Taken, begun_with(&[0xFF; 100_000], &usual_file)),
        file(
            "jpeg-a-segment-of-length-0",
            or_turbo(ByDecoder("corrupt_image"), Taken),
            begun_with(&[0xFF, COM, 0, 0], &usual_file),
        ),
        // Cut, and glued together.
        file("jpeg-cut-in-its-header", ByHeader("corrupt_image"), usual_file[..frame_at + 4].to_vec()),
        file("jpeg-cut-in-its-tables", ByHeader("corrupt_image"), {
            usual_file[..position(&usual_file, DHT) + 9].to_vec()
        }),
        file("jpeg-cut-in-its-pixels", ByHeader("corrupt_image"), cut(&rocket, 50)),
        file("jpeg-without-its-end", ByHeader("corrupt_image"), rocket[..rocket.len() - 2].to_vec()),
        file("jpeg-cut-and-ended-large", ByDecoder("corrupt_image"), {
            // Large enough to be decoded at half its size.
            cut_and_ended(&photo(1600, 1200), 60)
        }),
        file("jpeg-cut-and-ended", ByDecoder("corrupt_image"), cut_and_ended(&rocket, 50)),
        file("jpeg-cut-and-ended-near-its-end", ByDecoder("corrupt_image"), cut_and_ended(&rocket, 90)),
        file("jpeg-cut-and-ended-between-restarts", ByDecoder("corrupt_image"), cut_and_ended(&restarts, 70)),
        file("jpeg-progressive-cut-and-ended", ByHeader("corrupt_image"), cut_and_ended(&progressive, 50)),
        file("jpeg-progressive-without-its-last-scan", ByHeader("corrupt_image"), {
            [&progressive[..last_scan_at], &EOI].concat()
        }),
        file("jpeg-progressive-cut-in-its-last-scan", or_turbo(Taken, ByDecoder("corrupt_image")), {
            let half = (last_scan_at + progressive.len()) / 2;
            [&progressive[..half], &[0, 0], &EOI].concat()
        }),
        file("jpeg-in-planes-without-the-last", ByHeader("corrupt_image"), {
            let bits = [0; 2];
            let planes = [1, 2].map(|component| scan(&[component], (0, 63), 0, &bits)).concat();
            let head = [&SOI[..], &tables(END_OF_BLOCK), &frame(BASELINE, (16, 16), &[0x11; 3])].concat();
            [head, planes, EOI.to_vec()].concat()
        }),
        file("jpeg-no-pixels-at-all", ByDecoder("corrupt_image"), {
            [&usual_file[..pixels_at + 14], &EOI].concat()
        }),
        file("jpeg-rubbish-after", Taken, [&usual_file[..], &noise(50_000)].concat()),
        file("jpeg-another-after", Taken, [&usual_file[..], &progressive].concat()),
        file("jpeg-begun-twice", ByDecoder("corrupt_image"), [&SOI[..], &usual_file].concat()),
        file("jpeg-two-frames", ByHeader("corrupt_image"), {
            [&usual_file[..pixels_at], &frame(BASELINE, (16, 16), &[0x11; 3]), &usual_file[pixels_at..]]
                .concat()
        }),
        file("jpeg-no-frame", ByHeader("corrupt_image"), {
            [&usual_file[..frame_at], &usual_file[pixels_at..]].concat()
        }),
        // Sizes and restarts.
        file("jpeg-no-height", ByHeader("corrupt_image"), without_height),
        file("jpeg-its-height-after", ByHeader("corrupt_image"), height_after),
        file("jpeg-no-width", ByHeader("corrupt_image"), without_width),
        file("jpeg-restarts-in-the-wrong-order", Taken, swapped),
        file("jpeg-restarts-nobody-spoke-of", or_turbo(Taken, ByDecoder("corrupt_image")), {
            let dri = position(&restarts, DRI);
            [&restarts[..dri], &restarts[dri + 6..]].concat()
        }),
        file("jpeg-restarts-that-never-come", Taken, begun_with(&segment(DRI, &[0, 1]), &usual_file)),
    ]
}

/// The first two restart markers in each other's place.
fn swapped_restarts(file: &[u8]) -> Vec<u8> {
    let (first, second) = (position(file, 0xD0), position(file, 0xD1));
    let mut swapped = file.to_vec();
    swapped.swap(first + 1, second + 1);
    swapped
}
