//! Functions that normalise a media type, so that it can be compared.

use axum::http::{HeaderMap, header::CONTENT_TYPE};

/// Returns `content_type` in lower case and without its parameters, such as `image/jpeg` for `Image/JPEG;
/// q=1`.
pub fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Returns the media type in the header Content-Type, or an empty string if there is no such header.
pub fn media_type_of(headers: &HeaderMap) -> String {
    media_type(headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn parameters_and_case_are_removed() {
        assert_eq!(media_type("Image/JPEG ; charset=x"), "image/jpeg");
        assert_eq!(media_type(""), "");
    }

    #[test]
    fn missing_or_unreadable_header_gives_an_empty_media_type() {
        let mut headers = HeaderMap::new();
        assert_eq!(media_type_of(&headers), "");
        headers.insert(CONTENT_TYPE, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(media_type_of(&headers), "");
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        assert_eq!(media_type_of(&headers), "text/plain");
    }
}
