//! The codecs of pictures: HEVC and, with the feature `avif`, AV1.

#[cfg(feature = "avif")]
use crate::av1;
use crate::{container::Property, error::Error, hevc, item_data::ItemData};

/// Maximum length in bytes of a configuration. Usual ones have fewer than 500.
pub(crate) const MAX_CONFIG_BYTES: usize = 64 << 10;

/// Maximum length of a side of a coded picture in pixels. Real pictures are below half of it. The limit bounds the
/// tables that the parameter sets of HEVC can describe.
pub(crate) const MAX_SIDE: u32 = 1 << 15;

/// The configuration of a decoder, and the properties of the coded picture.
#[derive(Clone, Copy)]
pub(crate) enum Coding<'a> {
    Hevc(hevc::Config<'a>, hevc::CodedPicture),
    #[cfg(feature = "avif")]
    Av1(av1::Config, av1::CodedPicture),
}

/// A decoded picture.
pub(crate) enum Picture {
    Hevc(heifer_hevc_dec::recon::Frame),
    #[cfg(feature = "avif")]
    Av1(av1::Picture),
}

/// Returns the type of the property that configures the decoder of an item, or `None` if no decoder decodes the item.
pub(crate) fn config_kind(item_kind: &[u8; 4]) -> Option<&'static [u8; 4]> {
    match item_kind {
        b"hvc1" | b"hev1" => Some(b"hvcC"),
        #[cfg(feature = "avif")]
        b"av01" => Some(b"av1C"),
        _ => None,
    }
}

impl<'a> Coding<'a> {
    /// Reads a configuration and the sizes in it.
    pub(crate) fn read(config: &Property<'a>) -> Result<Self, Error> {
        match config.kind {
            #[cfg(feature = "avif")]
            b"av1C" => Ok(Self::Av1(av1::Config::read(config.content)?, av1::CodedPicture::default())),
            _ => {
                let config = hevc::Config::read(config.content)?;
                Ok(Self::Hevc(config, config.coded_picture()?))
            }
        }
    }

    /// Selects the layers to decode.
    #[cfg_attr(not(feature = "avif"), expect(unused_variables, reason = "only AV1 has operating points"))]
    pub(crate) fn set_operating_point(&mut self, operating_point: u8) {
        match self {
            Self::Hevc(..) => {}
            #[cfg(feature = "avif")]
            Self::Av1(config, _) => config.operating_point = operating_point,
        }
    }

    /// Adds the sizes in the headers among the data of an item.
    pub(crate) fn add_headers_in(&mut self, data: &ItemData<'_>) -> Result<(), Error> {
        match self {
            Self::Hevc(config, picture) => config.add_parameter_sets_in(data, picture),
            #[cfg(feature = "avif")]
            Self::Av1(_, picture) => picture.add_headers_in(data),
        }
    }

    /// Returns the number of pixels that are coded, according to all headers.
    pub(crate) fn pixels(&self) -> u64 {
        match self {
            Self::Hevc(_, picture) => picture.pixels,
            #[cfg(feature = "avif")]
            Self::Av1(_, picture) => picture.pixels(),
        }
    }

    /// Returns the width and height of the pixels that are shown, according to the last header.
    pub(crate) fn shown_size(&self) -> (u32, u32) {
        match self {
            Self::Hevc(_, picture) => picture.shown_size,
            #[cfg(feature = "avif")]
            Self::Av1(_, picture) => picture.shown_size,
        }
    }

    /// Returns true if a picture of another size than its item is stretched to the item, as libavif does.
    ///
    /// A picture in HEVC must have the size of its item, as libheif demands.
    pub(crate) fn is_stretched(&self) -> bool {
        match self {
            Self::Hevc(..) => false,
            #[cfg(feature = "avif")]
            Self::Av1(..) => true,
        }
    }

    pub(crate) fn is_grey(&self) -> bool {
        match self {
            Self::Hevc(_, picture) => picture.is_grey,
            #[cfg(feature = "avif")]
            Self::Av1(_, picture) => picture.is_grey,
        }
    }

    /// Returns the primaries and the transfer function, which are 2 if unspecified.
    pub(crate) fn colours(&self) -> Option<(u16, u16)> {
        match self {
            Self::Hevc(_, picture) => picture.colours,
            #[cfg(feature = "avif")]
            Self::Av1(_, picture) => picture.colours,
        }
    }

    /// Returns the maximum number of bytes that decoding needs.
    pub(crate) fn decoder_bytes(&self, stream_bytes: u64) -> u64 {
        match self {
            Self::Hevc(_, picture) => hevc::decoder_bytes(picture, stream_bytes),
            #[cfg(feature = "avif")]
            Self::Av1(_, picture) => picture.decoder_bytes(stream_bytes),
        }
    }

    pub(crate) fn decode(&self, data: &ItemData<'_>) -> Result<Picture, Error> {
        match self {
            Self::Hevc(config, picture) => config.decode(data, picture.pixels).map(Picture::Hevc),
            #[cfg(feature = "avif")]
            Self::Av1(config, picture) => config.decode(data, picture).map(Picture::Av1),
        }
    }
}
