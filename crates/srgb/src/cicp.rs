//! Profiles for the colour spaces that ITU-T H.273 numbers.

use moxcms::{CicpColorPrimaries, CicpProfile, ColorProfile, MatrixCoefficients, TransferCharacteristics};

/// Returns an ICC profile for RGB with the primaries and the transfer function that ITU-T H.273 gives these numbers.
/// Returns `None` for sRGB.
///
/// Unknown primaries are taken to be those of sRGB. Other programs show pictures with the transfer functions of cameras
/// as if they were sRGB, and so does this function. HLG is made to be shown in the same way on displays without HDR. PQ
/// would need tone mapping, so callers should refuse it.
pub fn cicp_profile(primaries: u16, transfer: u16) -> Option<Vec<u8>> {
    let to_u8 = |number: u16| u8::try_from(number).unwrap_or_default();
    let transfer = match TransferCharacteristics::try_from(to_u8(transfer)) {
        Ok(
            known @ (TransferCharacteristics::Bt470M
            | TransferCharacteristics::Bt470Bg
            | TransferCharacteristics::Linear
            | TransferCharacteristics::Smpte428),
        ) => known,
        _ => TransferCharacteristics::Srgb,
    };
    let primaries = match CicpColorPrimaries::try_from(to_u8(primaries)) {
        Ok(known) if !matches!(known, CicpColorPrimaries::Reserved | CicpColorPrimaries::Unspecified) => {
            known
        }
        _ => CicpColorPrimaries::Bt709,
    };
    if primaries == CicpColorPrimaries::Bt709 && transfer == TransferCharacteristics::Srgb {
        return None;
    }
    let profile = ColorProfile::new_from_cicp(CicpProfile {
        color_primaries: primaries,
        transfer_characteristics: transfer,
        matrix_coefficients: MatrixCoefficients::Identity,
        full_range: true,
    });
    // Encoding fails only for a profile with tables, which this one does not have.
    profile.encode().ok()
}

#[cfg(test)]
mod tests {
    use resize::Channels;

    use super::*;
    use crate::Converter;

    #[test]
    fn colours_are_converted_by_their_primaries_and_transfer_function() {
        let convert = |primaries, transfer, pixel: [u8; 3]| {
            let profile = cicp_profile(primaries, transfer);
            Converter::default().convert(pixel.to_vec(), Channels::Rgb, profile.as_deref())
        };
        // sRGB, BT.709 as cameras write it, and unspecified.
        for (primaries, transfer) in [(1, 13), (1, 1), (2, 2)] {
            assert_eq!(cicp_profile(primaries, transfer), None);
        }
        // Display P3: pure green is outside sRGB, and grey stays grey.
        assert_eq!(convert(12, 13, [0, 255, 0]), [0, 255, 0]);
        let grey = convert(12, 13, [100, 100, 100]);
        assert!(grey.iter().all(|level| level.abs_diff(100) <= 1), "{grey:?}");
        let red = convert(12, 13, [200, 60, 60]);
        assert!(red[0] > 210 && red[1] < 60, "{red:?}");
        // Linear light: a fifth of the light is a bit less than half of the level in sRGB.
        let dark = convert(1, 8, [51, 51, 51]);
        assert!(dark.iter().all(|level| level.abs_diff(124) <= 2), "{dark:?}");
    }
}
