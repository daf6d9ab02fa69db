//! Tests files with four components.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use jpeg_scaled::{ColourSpace, JpegHeader, Scale};

use crate::files::{TestPicture, decode, segment_position, usual_picture, with_inserted, without_segment};

/// Returns four samples per pixel: those of [`TestPicture::draw`] and a gradient.
pub(crate) fn draw_cmyk(test_picture: &TestPicture) -> Vec<u8> {
    let black = |index: usize| u8::try_from(index * 3 % 256).unwrap();
    let pixels = test_picture.draw();
    pixels.chunks(3).enumerate().flat_map(|(index, colour)| [colour, &[black(index)]].concat()).collect()
}

/// Encodes the samples of [`draw_cmyk`]. `colour` is [`ColorType::Cmyk`] or [`ColorType::CmykAsYcck`].
pub(crate) fn encode_cmyk(
    test_picture: &TestPicture,
    colour: ColorType,
    (across, down): (u8, u8),
    is_progressive: bool,
) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, test_picture.quality);
    encoder.set_sampling_factor(SamplingFactor::from_factors(across, down).unwrap());
    encoder.set_progressive(is_progressive);
    encoder.encode(&draw_cmyk(test_picture), test_picture.width, test_picture.height, colour).unwrap();
    file
}

#[test]
fn adobe_segment_decides_between_cmyk_and_ycck() {
    let colour_space = |file: &[u8]| JpegHeader::read(file).unwrap().colour_space;
    let cmyk = encode_cmyk(&usual_picture(), ColorType::Cmyk, (1, 1), false);
    let ycck = encode_cmyk(&usual_picture(), ColorType::CmykAsYcck, (1, 1), false);
    assert_eq!(colour_space(&cmyk), ColourSpace::Cmyk);
    assert_eq!(colour_space(&ycck), ColourSpace::Ycck);
    assert_eq!(colour_space(&without_segment(&ycck, 0xEE)), ColourSpace::Cmyk);
    let adobe = &ycck[segment_position(&ycck, 0xEE)..][..16];
    assert_eq!(colour_space(&with_inserted(&without_segment(&cmyk, 0xEE), 2, adobe)), ColourSpace::Ycck);
}

#[test]
fn cmyk_is_decoded_to_the_samples_of_the_file() {
    let test_picture = TestPicture { quality: 100, ..usual_picture() };
    let file = encode_cmyk(&test_picture, ColorType::Cmyk, (1, 1), false);
    let (_, _, samples) = decode(&file, Scale::Full).unwrap();
    // `jpeg-encoder` inverts the samples as Adobe's programs do.
    let expected = draw_cmyk(&test_picture).into_iter().map(|sample| 255 - sample);
    assert!(samples.iter().zip(expected).all(|(&sample, expected)| sample.abs_diff(expected) <= 2));
}

#[test]
fn cmyk_has_the_same_samples_in_one_scan_in_several_and_in_progressive_scans() {
    for colour in [ColorType::Cmyk, ColorType::CmykAsYcck] {
        for sampling in [(1, 1), (2, 1), (1, 2), (2, 2)] {
            let sequential = encode_cmyk(&usual_picture(), colour, sampling, false);
            let progressive = encode_cmyk(&usual_picture(), colour, sampling, true);
            let mut in_scans = Vec::new();
            let mut encoder = Encoder::new(&mut in_scans, usual_picture().quality);
            encoder.set_sampling_factor(SamplingFactor::from_factors(sampling.0, sampling.1).unwrap());
            encoder.set_optimized_huffman_tables(true);
            encoder.encode(&draw_cmyk(&usual_picture()), 45, 37, colour).unwrap();
            for scale in Scale::ALL {
                let expected = decode(&sequential, scale).unwrap();
                assert_eq!(expected.2.len(), (4 * expected.0 * expected.1) as usize);
                assert!(
                    decode(&progressive, scale).unwrap() == expected,
                    "{colour:?} {sampling:?} {scale:?}"
                );
                assert!(decode(&in_scans, scale).unwrap() == expected, "{colour:?} {sampling:?} {scale:?}");
            }
        }
    }
}
