//! ICC profiles for tests, and the colours that they define.

use resize::Channels;

/// Type of the table of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableType {
    /// `mft1`, with 8 bits per entry.
    Lut8,
    /// `mft2`, with 16 bits per entry.
    Lut16,
    /// `mAB `, the type of version 4 of the standard.
    LutAToB,
}

/// Connection space of a profile, to which its table converts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionSpace {
    /// CIELAB.
    Lab,
    /// CIE XYZ.
    Xyz,
}

/// White point of the connection space.
const D50: [f64; 3] = [0.9642, 1.0, 0.8249];

/// Returns the tristimulus values of a pixel whose samples are from 0 to 1.
///
/// Lightness and colour are sums and products of samples, so that the corners of the table define all colours.
fn samples_to_lab(samples: &[f64]) -> [f64; 3] {
    match *samples {
        [cyan, magenta, yellow, black] => {
            let light = (1.0 - 0.3 * cyan) * (1.0 - 0.4 * magenta) * (1.0 - 0.1 * yellow);
            let colour = 60.0 * (1.0 - black);
            let white = 100.0 * (1.0 - 0.85 * black);
            let (red, blue) = (magenta - cyan, yellow - (cyan + magenta) / 2.0);
            [light * white, red * colour * 0.5, blue * colour * 0.5]
        }
        [red, green, blue] => {
            let light = 30.0 * red + 60.0 * green + 10.0 * blue;
            [light, 30.0 * (red - green), 30.0 * (green - blue)]
        }
        _ => [0.0; 3],
    }
}

fn lab_to_xyz([lightness, a, b]: [f64; 3]) -> [f64; 3] {
    let fy = (lightness + 16.0) / 116.0;
    let cube = |f: f64| if f > 6.0 / 29.0 { f.powi(3) } else { 108.0 / 841.0 * (f - 4.0 / 29.0) };
    let [x, y, z] = [fy + a / 500.0, fy, fy - b / 200.0].map(cube);
    [x * D50[0], y * D50[1], z * D50[2]]
}

fn quantise(value: f64, max: f64) -> u16 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the value is from 0 to 65,535"
    )]
    let quantised = (value.clamp(0.0, 1.0) * max).round() as u16;
    quantised
}

/// Returns the sRGB colour that a profile of [`table_profile`] defines for `samples`.
#[must_use]
pub fn expected_colour(samples: &[u8]) -> [u8; 3] {
    let samples: Vec<f64> = samples.iter().map(|&sample| f64::from(sample) / 255.0).collect();
    let [x, y, z] = lab_to_xyz(samples_to_lab(&samples));
    // The matrix from D50 to linear sRGB.
    let linear = [
        3.133_856 * x - 1.616_867 * y - 0.490_615 * z,
        -0.978_768 * x + 1.916_142 * y + 0.033_454 * z,
        0.071_945 * x - 0.228_991 * y + 1.405_243 * z,
    ];
    linear.map(|linear| {
        let level =
            if linear <= 0.003_130_8 { linear * 12.92 } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 };
        u8::try_from(quantise(level, 255.0)).unwrap_or(u8::MAX)
    })
}

/// Returns the data of a tag with a table of the given type. All of its curves are straight.
#[must_use]
pub fn table(channels: Channels, table_type: TableType, connection_space: ConnectionSpace) -> Vec<u8> {
    /// Number of entries along an axis.
    const GRID_POINTS: u8 = 2;
    let channel_count = channels.count();
    let axes = 0..u32::from(channel_count);
    let corners = (0..1_u32 << channel_count).map(|corner| {
        // The first sample changes slowest.
        let samples: Vec<f64> = axes.clone().rev().map(|axis| f64::from(corner >> axis & 1)).collect();
        let [lightness, a, b] = samples_to_lab(&samples);
        match (connection_space, table_type) {
            (ConnectionSpace::Xyz, _) => {
                lab_to_xyz([lightness, a, b]).map(|value| quantise(value * 32_768.0 / 65_535.0, 65_535.0))
            }
            (ConnectionSpace::Lab, TableType::Lut8) => {
                [lightness / 100.0, (a + 128.0) / 255.0, (b + 128.0) / 255.0]
                    .map(|value| quantise(value, 255.0))
            }
            (ConnectionSpace::Lab, TableType::Lut16) => {
                [lightness * 652.8, (a + 128.0) * 256.0, (b + 128.0) * 256.0]
                    .map(|value| quantise(value / 65_535.0, 65_535.0))
            }
            (ConnectionSpace::Lab, TableType::LutAToB) => {
                [lightness / 100.0, (a + 128.0) / 255.0, (b + 128.0) / 255.0]
                    .map(|value| quantise(value, 65_535.0))
            }
        }
    });
    let entries: Vec<u16> = corners.flatten().collect();
    let wide_entries = || entries.iter().flat_map(|entry| entry.to_be_bytes());
    let identity_matrix =
        [1, 0, 0, 0, 1, 0, 0, 0, 1].map(|cell: u32| (cell << 16).to_be_bytes()).as_flattened().to_vec();
    let mut data = match table_type {
        TableType::Lut8 => b"mft1\0\0\0\0".to_vec(),
        TableType::Lut16 => b"mft2\0\0\0\0".to_vec(),
        TableType::LutAToB => b"mAB \0\0\0\0".to_vec(),
    };
    let outputs = 3;
    match table_type {
        TableType::Lut8 => {
            data.extend([channel_count, outputs, GRID_POINTS, 0]);
            data.extend(identity_matrix);
            data.extend((0..channel_count).flat_map(|_| 0..=u8::MAX));
            data.extend(entries.iter().map(|&entry| u8::try_from(entry).unwrap_or(u8::MAX)));
            data.extend((0..outputs).flat_map(|_| 0..=u8::MAX));
        }
        TableType::Lut16 => {
            data.extend([channel_count, outputs, GRID_POINTS, 0]);
            data.extend(identity_matrix);
            // Each curve has two points, 0 and 1.
            data.extend([0, 2, 0, 2]);
            data.extend((0..channel_count).flat_map(|_| [0, 0, 0xFF, 0xFF]));
            data.extend(wide_entries());
            data.extend((0..outputs).flat_map(|_| [0, 0, 0xFF, 0xFF]));
        }
        TableType::LutAToB => {
            /// Length of the offsets at the start of the table.
            const HEADER_BYTES: usize = 32;
            let curve = b"curv\0\0\0\0\0\0\0\0";
            let b_curves = curve.repeat(usize::from(outputs));
            let a_curves = curve.repeat(usize::from(channel_count));
            let mut grid = [0; 20];
            grid[..usize::from(channel_count)].fill(GRID_POINTS);
            // Bytes per entry.
            grid[16] = 2;
            let table_offset = HEADER_BYTES + b_curves.len();
            let a_curves_offset = table_offset + grid.len() + 2 * entries.len();
            data.extend([channel_count, outputs, 0, 0]);
            // There are no matrix and no curves next to it.
            for offset in [HEADER_BYTES, 0, 0, table_offset, a_curves_offset] {
                data.extend(u32::try_from(offset).unwrap_or_default().to_be_bytes());
            }
            data.extend(b_curves);
            data.extend(grid);
            data.extend(wide_entries());
            data.extend(a_curves);
        }
    }
    data
}

/// Writes a profile with these tags. `version` is the major version of the standard.
#[must_use]
pub fn write_profile(
    channels: Channels,
    connection_space: ConnectionSpace,
    version: u8,
    tags: &[(&[u8; 4], Vec<u8>)],
) -> Vec<u8> {
    const HEADER_BYTES: usize = 128;
    let mut profile = vec![0; HEADER_BYTES];
    let mut put = |offset: usize, bytes: &[u8]| profile[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(8, &[version]);
    put(12, if channels == Channels::Cmyk { b"prtr" } else { b"mntr" });
    put(
        16,
        match channels {
            Channels::Grey => b"GRAY",
            Channels::Rgb => b"RGB ",
            Channels::Cmyk => b"CMYK",
        },
    );
    put(20, if connection_space == ConnectionSpace::Lab { b"Lab " } else { b"XYZ " });
    put(36, b"acsp");
    // The white point.
    put(68, &[0, 0, 0xF6, 0xD6, 0, 1, 0, 0, 0, 0, 0xD3, 0x2D]);
    let length = |length: usize| u32::try_from(length).unwrap_or_default().to_be_bytes();
    profile.extend(length(tags.len()));
    let mut offset = profile.len() + 12 * tags.len();
    for (name, data) in tags {
        profile.extend(*name);
        profile.extend(length(offset));
        profile.extend(length(data.len()));
        offset += data.len().next_multiple_of(4);
    }
    for (_, data) in tags {
        profile.extend(data);
        profile.resize(profile.len().next_multiple_of(4), 0);
    }
    let size = length(profile.len());
    profile[..4].copy_from_slice(&size);
    profile
}

/// Returns a profile with one table, for all intents, whose colours are those of [`expected_colour`].
#[must_use]
pub fn table_profile(
    channels: Channels,
    table_type: TableType,
    connection_space: ConnectionSpace,
    version: u8,
) -> Vec<u8> {
    let table = table(channels, table_type, connection_space);
    write_profile(channels, connection_space, version, &[(b"A2B0", table)])
}
