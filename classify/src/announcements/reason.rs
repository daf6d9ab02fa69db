//! The reasons why an announced image gets no prediction, and their names in responses, records and metrics.

/// Reason why an announcement can never lead to a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// The body or the message's data is not the JSON of an announcement.
    BadJson,
    /// The message's data is not base64.
    BadBase64,
    /// The event itself, and not its image, exceeds the limit of bytes.
    EventTooLarge,
    /// The path is not `gs://BUCKET/OBJECT`.
    BadPath,
    /// The object is not in the bucket that this service reads.
    WrongBucket,
    /// There is no object at the path.
    NoSuchObject,
    /// The object cannot be decoded as an image.
    NotAnImage,
    /// The object is an image in an unsupported format.
    UnsupportedFormat,
    /// The object exceeds the limit of bytes, of pixels or of memory for decoding.
    TooLarge,
    /// Every attempt to classify the image failed, and the topic has given up.
    FailedRepeatedly,
}

/// Reason why an announcement is not for this service. A bucket announces every new object, image or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgnoreReason {
    /// The object is a prediction of this service. A prediction of a prediction would be announced and
    /// classified too, without end.
    OurPrediction,
    /// The object is the placeholder of a folder. The name of a placeholder ends with `/`.
    Folder,
    /// The object's name does not begin with the configured prefix.
    OtherPrefix,
    /// The event is not the creation of an object.
    OtherEvent,
    /// The object is not an image according to its content type or its first bytes.
    NotAnImage,
    /// The object exceeds the limit of bytes, and its content type is not an image type.
    TooLarge,
}

impl DeadReason {
    /// Returns the member `reason` of responses and records, and the label `reason` of the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::BadBase64 => "bad_base64",
            Self::EventTooLarge => "event_too_large",
            Self::BadPath => "bad_path",
            Self::WrongBucket => "wrong_bucket",
            Self::NoSuchObject => "no_such_object",
            Self::NotAnImage => "not_an_image",
            Self::UnsupportedFormat => "unsupported_format",
            Self::TooLarge => "too_large",
            Self::FailedRepeatedly => "failed_repeatedly",
        }
    }
}

impl IgnoreReason {
    /// Returns the member `reason` of responses and the label `reason` of the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OurPrediction => "our_prediction",
            Self::Folder => "folder",
            Self::OtherPrefix => "other_prefix",
            Self::OtherEvent => "other_event",
            Self::NotAnImage => "not_an_image",
            Self::TooLarge => "too_large",
        }
    }
}
