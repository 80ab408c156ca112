//! The chat page, embedded in the binary.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use rust_embed::{Embed, EmbeddedFile};

#[derive(Embed)]
#[folder = "web"]
struct Web;

/// What the page may load, and from where. Scripts and styles only from files of ours, so that
/// no text of a user can ever become one; connections to any host, because a gate sends clients
/// to connectors on other hosts and ports.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; font-src 'self'; manifest-src 'self'; worker-src 'self'; \
     connect-src 'self' ws: wss: http: https:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// Answers with the file of the page that stands at `path`, if there is one. A browser that has
/// it already is told so.
pub(crate) fn serve(path: &str, request: &HeaderMap) -> Option<Response> {
    let name = match path.trim_start_matches('/') {
        "" => "index.html",
        name => name,
    };
    let file = Web::get(name)?;
    let tag = tag(&file);
    let known = request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == tag);
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut response = axum::body::Body::from(file.data).into_response();
        let kind = HeaderValue::from_static(content_type(name));
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    };
    let headers = response.headers_mut();
    // Files have no version in their names: ask each time, and be told that nothing has changed.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(header::ETAG, tag);
    }
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}

/// Half of the content's hash, in quotes.
fn tag(file: &EmbeddedFile) -> String {
    let hash = file.metadata.sha256_hash();
    let half: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{half}\"")
}

fn content_type(name: &str) -> &'static str {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    match extension {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "json" => "application/json",
        "webmanifest" => "application/manifest+json",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header<'a>(response: &'a Response, name: &str) -> &'a str {
        response.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[test]
    fn the_page_is_at_the_root() {
        let response = serve("/", &HeaderMap::new()).unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "content-type"), "text/html; charset=utf-8");
        assert_eq!(header(&response, "x-content-type-options"), "nosniff");
        let policy = header(&response, "content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }

    #[test]
    fn every_file_has_a_type() {
        for name in Web::iter() {
            let response = serve(&format!("/{name}"), &HeaderMap::new()).unwrap();
            assert_ne!(header(&response, "content-type"), "application/octet-stream", "{name}");
        }
    }

    #[test]
    fn a_browser_that_has_it_is_told_so() {
        let first = serve("/index.html", &HeaderMap::new()).unwrap();
        let tag = header(&first, "etag").to_owned();
        for sent in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}")] {
            let mut request = HeaderMap::new();
            request.insert(header::IF_NONE_MATCH, HeaderValue::try_from(sent).unwrap());
            assert_eq!(serve("/", &request).unwrap().status(), 304);
        }
        let mut request = HeaderMap::new();
        request.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"x\""));
        assert_eq!(serve("/", &request).unwrap().status(), 200);
    }

    #[test]
    fn nothing_else_is_served() {
        for path in ["/nothing", "/../Cargo.toml", "//etc/passwd", "/web/index.html", "/."] {
            assert!(serve(path, &HeaderMap::new()).is_none(), "{path}");
        }
    }
}
