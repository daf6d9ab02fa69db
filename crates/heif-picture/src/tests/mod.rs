//! Tests of whole files.

#[cfg(feature = "avif")]
mod av1;
mod hostile;
mod sequence;
mod slices;
mod test_file;
mod test_sequence;

use self::test_file::{QUARTERS, SIDE, TestFile, TestItem, find_in_meta, sps};
use crate::{ColourSpace, Plan, Window, is_heif};

const COLOURS: [[u8; 3]; 4] = [[220, 40, 30], [30, 180, 60], [40, 50, 200], [230, 220, 50]];

/// The colours and the alpha channel of a file.
fn decode(file: &TestFile) -> (Vec<[u8; 3]>, Vec<u8>) {
    decode_bytes(&file.write())
}

/// The colours and the alpha channel of a written file.
fn decode_bytes(file: &[u8]) -> (Vec<[u8; 3]>, Vec<u8>) {
    let plan = Plan::read(file).unwrap();
    let (mut colours, mut alpha) = (vec![7; plan.colour_bytes()], vec![7; plan.alpha_bytes()]);
    plan.decode(&mut colours, &mut alpha).unwrap();
    (colours.as_chunks().0.to_vec(), alpha)
}

/// The pixels of [`QUARTERS`].
fn quarters() -> Vec<[u8; 3]> {
    decode(&TestFile::with_picture()).0
}

#[test]
fn coded_picture_has_its_colours() {
    let plan = Plan::read(QUARTERS).unwrap();
    assert_eq!((plan.size(), plan.orientation().to_exif(), plan.is_grey()), ((SIDE, SIDE), 1, false));
    assert_eq!((plan.coded_pixels(), plan.alpha_size()), (u64::from(SIDE * SIDE), None));
    let pixels = quarters();
    for (index, expected) in [16 + 16 * 64, 48 + 16 * 64, 16 + 48 * 64, 48 + 48 * 64].into_iter().zip(COLOURS)
    {
        let near = pixels[index].iter().zip(expected).all(|(&a, b)| a.abs_diff(b) <= 4);
        assert!(near, "{index}: {:?} is not {expected:?}", pixels[index]);
    }
}

#[test]
fn tiles_are_placed_side_by_side_and_cropped_to_the_grid() {
    let (pixels, _) = decode(&TestFile::with_grid((2, 3), (150, 100)));
    let tile = quarters();
    for (index, pixel) in pixels.iter().enumerate() {
        let (x, y) = (index % 150, index / 150);
        assert_eq!(*pixel, tile[y % 64 * 64 + x % 64], "{x} {y}");
    }
    assert_eq!(pixels.len(), 150 * 100);
}

#[test]
fn grid_of_grids_is_decoded() {
    let mut file = TestFile::with_grid((1, 2), (128, 64));
    file.items.push(TestItem::grid(101, (2, 1), (128, 100)));
    file.references.push((b"dimg", 101, vec![100, 100]));
    file.primary = 101;
    let (pixels, _) = decode(&file);
    let tile = quarters();
    assert_eq!(pixels[99 * 128 + 127], tile[35 * 64 + 63]);
    assert_eq!(pixels.len(), 128 * 100);
}

#[test]
fn item_that_is_identical_to_another_one_is_transformed_on_its_own() {
    let mut file = TestFile::with_picture();
    let same = TestItem { kind: b"iden", extents: vec![], ..TestItem::picture(2) };
    file.items.push(same.with(b"irot", [3]));
    file.references.push((b"dimg", 2, vec![1]));
    file.primary = 2;
    assert_eq!(decode(&file).0, quarters());
    assert_eq!(Plan::read(&file.write()).unwrap().orientation().to_exif(), 6);
}

#[test]
fn primary_item_is_decoded_even_if_it_is_not_the_first() {
    let mut file = TestFile::with_picture();
    file.items.insert(0, TestItem::with_parameter_set(9, &sps(32, 32, None), (32, 32)));
    assert_eq!(decode(&file).0, quarters());
}

#[test]
fn brightness_of_the_alpha_item_becomes_the_alpha_channel() {
    let mut file = TestFile::with_picture();
    file.items.push(TestItem::picture(2).with_alpha_name());
    file.references.push((b"auxl", 2, vec![1]));
    let (colours, alpha) = decode(&file);
    assert_eq!(colours, quarters());
    // Yellow is brighter than blue.
    assert!(alpha[48 * 64 + 48] > 180 && alpha[48 * 64 + 16] < 100, "{alpha:?}");
    let bytes = file.write();
    let plan = Plan::read(&bytes).unwrap();
    assert_eq!((plan.alpha_size(), plan.is_premultiplied()), (Some((SIDE, SIDE)), false));
    assert_eq!(plan.coded_pixels(), u64::from(2 * SIDE * SIDE));
    for pair in [(b"prem", 1, vec![2]), (b"prem", 2, vec![1])] {
        let mut premultiplied = file.clone();
        premultiplied.references.push(pair);
        assert!(Plan::read(&premultiplied.write()).unwrap().is_premultiplied());
    }
}

#[test]
fn alpha_channels_of_tiles_are_joined_and_the_other_tiles_are_opaque() {
    let mut file = TestFile::with_grid((1, 2), (128, 64));
    file.items.push(TestItem::picture(3));
    file.items.push(TestItem::picture(2).with_alpha_name());
    file.references = vec![(b"dimg", 100, vec![1, 3]), (b"auxl", 2, vec![1])];
    let (_, alpha) = decode(&file);
    assert!(alpha[48 * 128 + 16] < 100);
    assert_eq!(alpha[48 * 128 + 64 + 16], 255);
    assert!(!Plan::read(&file.write()).unwrap().is_premultiplied());
    for pair in [(b"prem", 1, vec![2]), (b"prem", 2, vec![1])] {
        let mut premultiplied = file.clone();
        premultiplied.references.push(pair);
        assert!(Plan::read(&premultiplied.write()).unwrap().is_premultiplied());
        // The alpha channel of the second tile is separate.
        premultiplied.items.push(TestItem::picture(4).with_alpha_name());
        premultiplied.references.push((b"auxl", 4, vec![3]));
        assert!(!Plan::read(&premultiplied.write()).unwrap().is_premultiplied());
    }
}

/// The alpha channel is the brightness of its item.
#[test]
fn unknown_colour_matrix_of_an_alpha_item_is_ignored() {
    let mut file = TestFile::with_picture();
    file.items.push(TestItem::picture(2).with_alpha_name());
    file.references.push((b"auxl", 2, vec![1]));
    let expected = decode(&file);
    file.items[1].properties.push((b"colr", b"nclx\0\x01\0\x0D\0\x4D\x80".to_vec()));
    assert_eq!(decode(&file), expected);
}

#[test]
fn depth_maps_and_thumbnails_are_ignored_even_if_they_are_damaged() {
    let mut file = TestFile::with_picture();
    let depth = b"\0\0\0\0urn:mpeg:mpegB:cicp:systems:auxiliary:depth\0";
    file.items.push(TestItem::with_parameter_set(2, b"", (9, 9)).with(b"auxC", depth.as_slice()));
    file.items.push(TestItem::with_parameter_set(3, b"", (9, 9)));
    file.references = vec![(b"auxl", 2, vec![1]), (b"thmb", 3, vec![1])];
    assert_eq!(decode(&file).0, quarters());
    assert_eq!(Plan::read(&file.write()).unwrap().alpha_size(), None);
}

#[test]
fn auxiliary_items_that_cannot_be_read_are_ignored() {
    let mut file = TestFile::with_picture();
    let encrypted = TestItem { is_encrypted: true, ..TestItem::picture(2) };
    file.items.push(encrypted.with_alpha_name());
    // Too short for its version.
    file.items.push(TestItem::picture(3).with(b"auxC", [0]));
    // Its last property is made a missing one below.
    file.items.push(TestItem::picture(4));
    // The item 5 is missing.
    file.references = (2..=5).map(|id| (b"auxl", id, vec![1])).collect();
    let mut bytes = file.write();
    let properties = find_in_meta(&bytes, b"iprp");
    let name = bytes[properties..].windows(4).position(|window| window == b"ipma").unwrap() + properties;
    let length = u32::from_be_bytes(*bytes[name - 4..].first_chunk().unwrap()) as usize;
    bytes[name - 4..][..length].last_chunk_mut::<2>().unwrap().fill(0xFF);
    let plan = Plan::read(&bytes).unwrap();
    assert_eq!(plan.alpha_size(), None);
    let mut colours = vec![0; plan.colour_bytes()];
    plan.decode(&mut colours, &mut []).unwrap();
    assert_eq!(colours.as_chunks().0, quarters());
}

#[test]
fn units_that_continue_in_another_extent_are_decoded() {
    let mut file = TestFile::with_picture();
    let data = file.items[0].extents[0].clone();
    file.items[0].extents = data.chunks(3).map(<[u8]>::to_vec).collect();
    assert_eq!(decode(&file).0, quarters());
}

#[test]
fn crop_and_orientation_of_the_primary_item_are_reported() {
    let mut file = TestFile::with_picture();
    let crop = [32u32, 1, 16, 1, 0, 1, 0, 1].iter().flat_map(|field| field.to_be_bytes());
    file.items[0] =
        TestItem::picture(1).with(b"clap", crop.collect::<Vec<_>>()).with(b"irot", [1]).with(b"imir", [1]);
    let bytes = file.write();
    let plan = Plan::read(&bytes).unwrap();
    let crop = plan.crop();
    assert_eq!((crop.left, crop.top, crop.width, crop.height), (16, 24, 32, 16));
    assert_eq!((plan.size(), plan.orientation().to_exif()), ((SIDE, SIDE), 7));
}

/// Writes a crop of a picture of 64×64 pixels.
fn clap((left, top): (u32, u32), (width, height): (u32, u32)) -> Vec<u8> {
    // The offset of the centre from the centre of the picture, in halves.
    let [x, y] = [2 * left + width, 2 * top + height].map(|twice| twice.wrapping_sub(SIDE));
    [width, 1, height, 1, x, 2, y, 2].iter().flat_map(|field| field.to_be_bytes()).collect()
}

#[test]
fn alpha_channel_is_cropped_on_its_own_and_stretched_to_the_crop_of_the_colours() {
    let window = |left: u32, top: u32, width: u32, height: u32| {
        let [left, top, width, height] = [left, top, width, height].map(f64::from);
        Window { left, top, width, height }
    };
    let whole = window(0, 0, SIDE, SIDE);
    let (colour_crop, alpha_crop) = (clap((0, 8), (32, 16)), clap((20, 10), (30, 40)));
    let colours = || TestItem::picture(1);
    let alpha = || TestItem::picture(2).with_alpha_name();
    for (colours, alpha, shown, target) in [
        (colours(), alpha(), whole, whole),
        (colours(), alpha().with(b"clap", &*alpha_crop), window(20, 10, 30, 40), whole),
        (colours().with(b"clap", &*colour_crop), alpha(), whole, window(0, 8, 32, 16)),
        (
            colours().with(b"clap", &*colour_crop),
            alpha().with(b"clap", &*alpha_crop),
            window(20, 10, 30, 40),
            window(0, 8, 32, 16),
        ),
    ] {
        let file =
            TestFile { primary: 1, items: vec![colours, alpha], references: vec![(b"auxl", 2, vec![1])] };
        assert_eq!(Plan::read(&file.write()).unwrap().alpha_windows(), Some((shown, target)));
    }
    // The alpha channel belongs to the picture before the crop of the primary item.
    let same = TestItem { kind: b"iden", extents: vec![], ..TestItem::picture(3) };
    let file = TestFile {
        primary: 3,
        items: vec![colours(), alpha().with(b"clap", &*alpha_crop), same.with(b"clap", &*colour_crop)],
        references: vec![(b"auxl", 2, vec![1]), (b"dimg", 3, vec![1])],
    };
    let bytes = file.write();
    let plan = Plan::read(&bytes).unwrap();
    assert_eq!(plan.alpha_windows(), Some((window(20, 10, 30, 40), whole)));
    assert_eq!(plan.window(), window(0, 8, 32, 16));
}

#[test]
fn colour_space_comes_from_the_profile_then_the_boxes_then_the_coded_data() {
    let nclx = |primaries: u8| [b"nclx\0", &[primaries][..], &[0, 13, 0, 6, 0x80]].concat();
    let space = |file: &TestFile| format!("{:?}", Plan::read(&file.write()).unwrap().colour_space());
    let expected = |space: ColourSpace<'_>| format!("{space:?}");
    let mut grid = TestFile::with_grid((1, 1), (64, 64));
    grid.items[0] = TestItem::with_parameter_set(1, &sps(64, 64, None), (64, 64));
    assert_eq!(space(&grid), expected(ColourSpace::Unspecified));
    grid.items[0] = TestItem::with_parameter_set(1, &sps(64, 64, Some((9, 14))), (64, 64));
    assert_eq!(space(&grid), expected(ColourSpace::Cicp { primaries: 9, transfer: 14 }));
    grid.items[0].properties.push((b"colr", nclx(12)));
    assert_eq!(space(&grid), expected(ColourSpace::Cicp { primaries: 12, transfer: 13 }));
    grid.items[1].properties.push((b"colr", nclx(1)));
    assert_eq!(space(&grid), expected(ColourSpace::Cicp { primaries: 1, transfer: 13 }));
    grid.items[0].properties.push((b"colr", b"profabc".to_vec()));
    assert_eq!(space(&grid), expected(ColourSpace::Icc(b"abc")));
}

#[test]
fn files_with_a_brand_of_heif_are_recognised() {
    assert!(is_heif(QUARTERS));
    assert!(is_heif(b"\0\0\0\x14ftypmif1\0\0\0\0mif1"));
    assert!(is_heif(b"\0\0\0\x18ftypabcd\0\0\0\0efghheix"));
    // The version of the first brand is no brand.
    assert!(!is_heif(b"\0\0\0\x14ftypmp42heicisom"));
    assert!(!is_heif(b"\0\0\0\x18ftyp"));
    assert!(!is_heif(b""));
}
