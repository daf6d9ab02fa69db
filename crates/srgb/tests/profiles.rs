//! Tests of the conversion by profiles with tables.

use resize::Channels;
use srgb::{
    Converter, MAX_PROFILE_BYTES, cmyk_to_rgb,
    testing::{ConnectionSpace, TableType, expected_colour, table, table_profile, write_profile},
};

const TABLE_TYPES: [TableType; 3] = [TableType::Lut8, TableType::Lut16, TableType::LutAToB];

/// Pixels whose colours are inside sRGB.
const CMYK_PIXELS: [[u8; 4]; 6] = [
    [0, 0, 0, 0],
    [90, 20, 40, 0],
    [10, 120, 100, 30],
    [60, 0, 120, 90],
    [128, 128, 128, 128],
    [0, 0, 0, 255],
];
const RGB_PIXELS: [[u8; 3]; 5] = [[255, 255, 255], [200, 90, 120], [60, 130, 100], [30, 30, 30], [0, 0, 0]];

fn convert(pixels: &[u8], channels: Channels, profile: &[u8]) -> Vec<u8> {
    Converter::default().convert(pixels.to_vec(), channels, Some(profile))
}

fn convert_cmyk(profile: &[u8]) -> Vec<u8> {
    convert(CMYK_PIXELS.as_flattened(), Channels::Cmyk, profile)
}

/// Returns the colours of [`CMYK_PIXELS`] that a conversion without a profile gives.
fn plain_cmyk() -> Vec<u8> {
    CMYK_PIXELS.map(cmyk_to_rgb).as_flattened().to_vec()
}

#[track_caller]
fn assert_close(found: &[u8], expected: &[u8], tolerance: u8, description: &str) {
    let is_close = found.len() == expected.len()
        && found.iter().zip(expected).all(|(&found, &expected)| found.abs_diff(expected) <= tolerance);
    assert!(is_close, "{description}: found {found:?}, expected {expected:?}");
}

/// Returns each type of table with each connection space and version that it may have.
fn kinds() -> Vec<(TableType, ConnectionSpace, u8)> {
    let mut kinds = Vec::new();
    for table_type in TABLE_TYPES {
        for version in [2, 4] {
            kinds.push((table_type, ConnectionSpace::Lab, version));
            // A table of 8 bits cannot encode XYZ.
            if table_type != TableType::Lut8 {
                kinds.push((table_type, ConnectionSpace::Xyz, version));
            }
        }
    }
    kinds
}

#[test]
fn cmyk_is_converted_by_every_type_of_table() {
    let expected = CMYK_PIXELS.map(|pixel| expected_colour(&pixel));
    for (table_type, connection_space, version) in kinds() {
        // The corners of this table define colours that are linear in Lab.
        if connection_space == ConnectionSpace::Xyz {
            continue;
        }
        let profile = table_profile(Channels::Cmyk, table_type, connection_space, version);
        let description = format!("{table_type:?}, version {version}");
        assert_close(&convert_cmyk(&profile), expected.as_flattened(), 2, &description);
    }
}

#[test]
fn rgb_is_converted_by_every_type_of_table() {
    let expected = RGB_PIXELS.map(|pixel| expected_colour(&pixel));
    for (table_type, connection_space, version) in kinds() {
        if connection_space == ConnectionSpace::Xyz {
            continue;
        }
        let profile = table_profile(Channels::Rgb, table_type, connection_space, version);
        let converted = convert(RGB_PIXELS.as_flattened(), Channels::Rgb, &profile);
        assert_close(&converted, expected.as_flattened(), 2, &format!("{table_type:?}, version {version}"));
    }
}

/// Returns the pixels at the corners of a table, where the connection space does not matter.
fn corners<const N: usize>(levels: [u8; 2]) -> Vec<[u8; N]> {
    (0..1_usize << N).map(|corner| std::array::from_fn(|axis| levels[corner >> axis & 1])).collect()
}

#[test]
fn tables_to_xyz_give_the_colours_of_their_corners() {
    for (table_type, connection_space, version) in kinds() {
        let description = format!("{table_type:?}, {connection_space:?}, version {version}");
        let pixels = corners::<4>([0, 255]);
        let expected: Vec<u8> = pixels.iter().flat_map(|pixel| expected_colour(pixel)).collect();
        let profile = table_profile(Channels::Cmyk, table_type, connection_space, version);
        let converted = convert(pixels.as_flattened(), Channels::Cmyk, &profile);
        assert_close(&converted, &expected, 3, &description);

        let pixels = corners::<3>([0, 255]);
        let expected: Vec<u8> = pixels.iter().flat_map(|pixel| expected_colour(pixel)).collect();
        let profile = table_profile(Channels::Rgb, table_type, connection_space, version);
        let converted = convert(pixels.as_flattened(), Channels::Rgb, &profile);
        assert_close(&converted, &expected, 3, &description);
    }
}

#[test]
fn colorimetric_table_is_preferred() {
    let right = table(Channels::Cmyk, TableType::Lut16, ConnectionSpace::Lab);
    // In this table, all colours are black or nearly so.
    let mut wrong = right.clone();
    wrong[68..].fill(0);
    let expected = CMYK_PIXELS.map(|pixel| expected_colour(&pixel));
    for tags in [
        [(b"A2B0", wrong.clone()), (b"A2B1", right.clone())],
        [(b"A2B1", right.clone()), (b"A2B0", wrong.clone())],
        [(b"A2B2", wrong.clone()), (b"A2B0", right.clone())],
    ] {
        let profile = write_profile(Channels::Cmyk, ConnectionSpace::Lab, 2, &tags);
        assert_close(&convert_cmyk(&profile), expected.as_flattened(), 2, "CMYK");
    }
}

#[test]
fn damage_in_a_tag_that_does_not_matter_is_ignored() {
    let table = table(Channels::Cmyk, TableType::Lut16, ConnectionSpace::Lab);
    let tags = [(b"A2B0", table), (b"B2A0", vec![7; 60]), (b"gamt", vec![]), (b"cprt", vec![1; 5])];
    let profile = write_profile(Channels::Cmyk, ConnectionSpace::Lab, 2, &tags);
    let expected = CMYK_PIXELS.map(|pixel| expected_colour(&pixel));
    assert_close(&convert_cmyk(&profile), expected.as_flattened(), 2, "CMYK");
}

#[test]
fn profile_for_other_channels_is_ignored() {
    let rgb_profile = table_profile(Channels::Rgb, TableType::Lut16, ConnectionSpace::Lab, 2);
    assert_eq!(convert_cmyk(&rgb_profile), plain_cmyk());
    // The header states CMYK, but the table is one for RGB.
    let rgb_table = table(Channels::Rgb, TableType::Lut16, ConnectionSpace::Lab);
    let lie = write_profile(Channels::Cmyk, ConnectionSpace::Lab, 2, &[(b"A2B0", rgb_table)]);
    assert_eq!(convert_cmyk(&lie), plain_cmyk());

    let cmyk_profile = table_profile(Channels::Cmyk, TableType::Lut16, ConnectionSpace::Lab, 2);
    let rgb = convert(RGB_PIXELS.as_flattened(), Channels::Rgb, &cmyk_profile);
    assert_eq!(rgb, RGB_PIXELS.as_flattened());
    assert_eq!(convert(&[7, 200], Channels::Grey, &cmyk_profile), [7, 7, 7, 200, 200, 200]);
    assert_eq!(convert(&[7, 200], Channels::Grey, &rgb_profile), [7, 7, 7, 200, 200, 200]);
}

#[test]
fn truncated_profile_is_ignored() {
    let profile = table_profile(Channels::Cmyk, TableType::Lut16, ConnectionSpace::Lab, 2);
    for length in 0..profile.len() {
        assert_eq!(convert_cmyk(&profile[..length]), plain_cmyk(), "{length} bytes");
    }
}

#[test]
fn converter_follows_the_profile_and_the_channels_of_each_image() {
    let mut converter = Converter::default();
    let cmyk_profile = table_profile(Channels::Cmyk, TableType::Lut16, ConnectionSpace::Lab, 2);
    let rgb_profile = table_profile(Channels::Rgb, TableType::Lut16, ConnectionSpace::Lab, 2);
    for _ in 0..2 {
        for (pixels, channels, profile) in [
            (CMYK_PIXELS.as_flattened(), Channels::Cmyk, Some(&cmyk_profile[..])),
            (CMYK_PIXELS.as_flattened(), Channels::Cmyk, None),
            (RGB_PIXELS.as_flattened(), Channels::Rgb, Some(&cmyk_profile[..])),
            (RGB_PIXELS.as_flattened(), Channels::Rgb, Some(&rgb_profile[..])),
            (&[1, 2, 3], Channels::Grey, Some(&rgb_profile[..])),
        ] {
            let expected = Converter::default().convert(pixels.to_vec(), channels, profile);
            assert_eq!(converter.convert(pixels.to_vec(), channels, profile), expected);
        }
    }
}

/// Without the removal of repeated tags, moxcms copies 2 MB for each of 170,000 tags. A unit test counts the tags.
#[test]
fn tags_that_share_their_data_are_read_once() {
    const GRID_POINTS: u8 = 29;
    let mut table = table(Channels::Cmyk, TableType::Lut8, ConnectionSpace::Lab);
    // The number of entries along an axis.
    table[10] = GRID_POINTS;
    table.extend(vec![0; 3 * usize::from(GRID_POINTS).pow(4)]);
    let tag_count = (MAX_PROFILE_BYTES - table.len() - 200) / 12;
    let empty = (b"A2B0", Vec::new());
    let mut profile = write_profile(Channels::Cmyk, ConnectionSpace::Lab, 2, &vec![empty; tag_count]);
    let [offset, length] =
        [profile.len(), table.len()].map(|number| u32::try_from(number).unwrap().to_be_bytes());
    for tag in profile[132..].as_chunks_mut::<12>().0 {
        tag[4..8].copy_from_slice(&offset);
        tag[8..].copy_from_slice(&length);
    }
    profile.extend(table);
    assert!(profile.len() <= MAX_PROFILE_BYTES);
    assert_ne!(convert_cmyk(&profile), plain_cmyk());
}

#[test]
fn damaged_profile_never_panics() {
    let seed = 17;
    let mut random = fastrand::Rng::with_seed(seed);
    for table_type in TABLE_TYPES {
        for channels in [Channels::Cmyk, Channels::Rgb] {
            let intact = table_profile(channels, table_type, ConnectionSpace::Lab, 4);
            for _ in 0..20 {
                let mut profile = intact.clone();
                for _ in 0..random.usize(1..8) {
                    // The header, the table of tags and the start of the data decide how the rest is read.
                    let end = if random.bool() { 260 } else { profile.len() };
                    let index = random.usize(..end.min(profile.len()));
                    profile[index] = random.u8(..);
                }
                let pixels = vec![200; 4 * 3 * 10];
                let pixel_count = pixels.len() / usize::from(channels.count());
                assert_eq!(convert(&pixels, channels, &profile).len(), 3 * pixel_count);
            }
        }
    }
}
