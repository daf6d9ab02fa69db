//! [`refuse_unwelcome_requests`] refuses requests that pages of other websites send, and most requests on a
//! reserved connection.

use std::time::Duration;

use axum::{
    extract::Request,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{HOST, ORIGIN},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    Problem,
    health::is_probe_path,
    push_guard::PUSH_PATH,
    server::{ConnectionContext, Origin},
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Retry-After of a request that is refused because the service has too many connections.
const TOO_MANY_CONNECTIONS_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Middleware that refuses a request by its headers and its connection, without reading its body.
pub(super) async fn refuse_unwelcome_requests(request: Request, next: Next) -> Response {
    let context = request.extensions().get::<ConnectionContext>();
    let path = request.uri().path();
    if context.is_some_and(|context| context.is_reserved) && !is_probe_path(path) && path != PUSH_PATH {
        return too_many_connections().into_response();
    }
    let allowed_origins = context.map_or(&[][..], |context| &context.allowed_origins);
    // A server that is reached through HTTP/1.1 finds the host in a header, or in the target of a request that
    // was sent as if to a proxy.
    let host = request
        .uri()
        .authority()
        .map(|authority| authority.as_str())
        .or_else(|| request.headers().get(HOST).and_then(|host| host.to_str().ok()));
    if !is_safe(request.method()) && is_cross_site(request.headers(), host, allowed_origins) {
        return cross_site().into_response();
    }
    next.run(request).await
}

/// Returns true if the method only reads. Web pages may send such requests, because they cannot read the
/// response of another site.
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// Returns true if a browser sent the request for a page of another origin than this service.
///
/// Browsers set the headers Origin and Sec-Fetch-Site, and pages cannot change them. Other clients usually send
/// neither. `host` is the host and the port that the request was sent to. An origin with another port of the
/// same host is another origin, because it may belong to another program. An origin in `allowed` is accepted.
fn is_cross_site(headers: &HeaderMap, host: Option<&str>, allowed: &[Origin]) -> bool {
    let origins = || headers.get_all(ORIGIN).iter();
    let is_allowed = |origin: &HeaderValue| {
        origin.to_str().is_ok_and(|origin| allowed.iter().any(|allowed| allowed.is_named_by(origin)))
    };
    if origins().next().is_some() && origins().all(is_allowed) {
        return false;
    }
    let is_own = |origin: &HeaderValue| {
        origin.to_str().is_ok_and(|origin| host.is_some_and(|host| is_origin_of(origin, host)))
    };
    let is_own_site = |site: &HeaderValue| matches!(site.as_bytes(), b"same-origin" | b"none");
    !origins().all(is_own) || !headers.get_all(SEC_FETCH_SITE).iter().all(is_own_site)
}

/// Returns true if `origin` has the host and the port of `host`. The port may be left out of both if it is the
/// default port of the origin's scheme.
///
/// The schemes are not compared, because a proxy may have removed TLS.
fn is_origin_of(origin: &str, host: &str) -> bool {
    let (default_port, authority) = match origin.split_once("://") {
        Some(("http", authority)) => (":80", authority),
        Some(("https", authority)) => (":443", authority),
        _ => return false,
    };
    let without_default_port = |text: &str| text.strip_suffix(default_port).unwrap_or(text).to_owned();
    without_default_port(authority).eq_ignore_ascii_case(&without_default_port(host))
}

fn cross_site() -> Problem {
    let detail = "Web pages of other sites may not send this request. The setting HTTP_ALLOWED_ORIGINS allows \
                  the origin of a page.";
    Problem::new(StatusCode::FORBIDDEN, "cross_site", detail)
}

fn too_many_connections() -> Problem {
    let detail = "The service has too many connections with a request in progress; try again soon.";
    Problem::unavailable("too_many_connections", detail, TOO_MANY_CONNECTIONS_RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(host: &str, headers: &[(&str, &str)], allowed: &[&str]) -> bool {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect();
        let allowed: Vec<Origin> = allowed.iter().map(|origin| origin.parse().unwrap()).collect();
        is_cross_site(&headers, Some(host), &allowed)
    }

    #[test]
    fn request_without_browser_headers_or_from_the_own_origin_is_accepted() {
        for (host, headers) in [
            ("localhost:8001", &[][..]),
            ("localhost:8001", &[("origin", "http://localhost:8001"), ("sec-fetch-site", "same-origin")]),
            ("LOCALHOST:8001", &[("origin", "http://localhost:8001")]),
            ("localhost:8001", &[("sec-fetch-site", "none")]),
            ("example.com", &[("origin", "https://example.com")]),
            ("example.com:443", &[("origin", "https://example.com")]),
            ("example.com", &[("origin", "http://example.com:80")]),
            ("[::1]:8001", &[("origin", "http://[::1]:8001")]),
        ] {
            assert!(!is_refused(host, headers, &[]), "{host} {headers:?}");
        }
    }

    #[test]
    fn request_of_another_origin_is_refused() {
        for headers in [
            &[("origin", "http://evil.example")][..],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "http://localhost:3000")],
            &[("origin", "http://localhost")],
            &[("origin", "http://localhost:8001.evil.example")],
            &[("origin", "file://localhost:8001")],
            &[("origin", "http://localhost:8001"), ("origin", "http://evil.example")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("origin", "http://localhost:8001"), ("sec-fetch-site", "cross-site")],
        ] {
            assert!(is_refused("localhost:8001", headers, &[]), "{headers:?}");
        }
        assert!(is_cross_site(&HeaderMap::from_iter([(ORIGIN, "http://a".parse().unwrap())]), None, &[]));
    }

    #[test]
    fn allowed_origin_is_accepted() {
        let headers = [("origin", "https://Page.example"), ("sec-fetch-site", "cross-site")];
        assert!(!is_refused("localhost:8001", &headers, &["https://page.example"]));
        assert!(is_refused("localhost:8001", &headers, &["https://other.example"]));
        let headers = [("origin", "https://page.example"), ("origin", "https://evil.example")];
        assert!(is_refused("localhost:8001", &headers, &["https://page.example"]));
    }
}
