//! The HTTP half of a WebSocket (RFC 6455 §4.2): is this a handshake, and the answer that accepts it.

use bytes::Bytes;
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri, Version};
use percent_encoding::percent_decode_str;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::auth::SUBPROTOCOL;
use super::http::plain;

/// Whether the client wants a WebSocket, well or badly asked for.
pub(super) fn is_upgrade(request: &Parts) -> bool {
    list(&request.headers, &UPGRADE).any(|protocol| protocol.eq_ignore_ascii_case("websocket"))
}

/// The client's key, or the answer that says what is wrong with the handshake.
pub(super) fn key(request: &Parts) -> Result<&HeaderValue, Box<Response<Bytes>>> {
    if !is_upgrade(request) {
        let mut answer = plain(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket");
        answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        return Err(answer.into());
    }
    let headers = &request.headers;
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut answer = plain(StatusCode::UPGRADE_REQUIRED, "only version 13 of WebSocket is spoken here");
        answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(answer.into());
    }
    let asks = request.method == Method::GET
        && request.version >= Version::HTTP_11
        && list(headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"));
    // 16 bytes in base64.
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| asks && key.len() == 24);
    key.ok_or_else(|| plain(StatusCode::BAD_REQUEST, "a malformed WebSocket handshake").into())
}

/// The answer after which the connection is a WebSocket.
pub(super) fn accept(request: &Parts, key: &HeaderValue, wanted: Option<&str>) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Ok(accepted) = HeaderValue::try_from(derive_accept_key(key.as_bytes())) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    }
    // Also when the connection is about to be refused: a browser whose offers were all passed over does not show the
    // page any close code.
    let wanted = wanted.unwrap_or(SUBPROTOCOL);
    if let Some(selected) = list(&request.headers, &SEC_WEBSOCKET_PROTOCOL).find(|offer| *offer == wanted)
        && let Ok(selected) = HeaderValue::from_str(selected)
    {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, selected);
    }
    answer
}

/// The items of a header that is a list, over all its lines.
pub(super) fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// The first value of a query parameter.
pub(super) fn query(uri: &Uri, name: &str) -> Option<String> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| decode(value))
}

/// Percent decoding. What is no UTF-8 becomes something that no token or cursor contains.
pub(super) fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The token in a path under the route: one segment, with or without a slash after it.
pub(super) fn token(path: &str, route: &str) -> Option<String> {
    let rest = path.strip_prefix(route)?;
    let segment = rest.strip_suffix('/').unwrap_or(rest);
    (!segment.is_empty() && !segment.contains('/')).then(|| decode(segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_one_segment() {
        let token = |path| token(path, "/ws/chat/");
        assert_eq!(token("/ws/chat/abc/").as_deref(), Some("abc"));
        assert_eq!(token("/ws/chat/abc").as_deref(), Some("abc"));
        assert_eq!(token("/ws/chat/Z0FB%3D%3D/").as_deref(), Some("Z0FB=="));
        for path in ["/ws/chat/", "/ws/chat//", "/ws/chat/a/b/", "/ws/other/abc/", "/", "/ws/chat"] {
            assert_eq!(token(path), None, "{path}");
        }
    }

    #[test]
    fn query_parameters_are_found_and_decoded() {
        let uri: Uri = "/ws/chat/abc/?jwtx=1&after=17.4%32&flag".parse().unwrap();
        assert_eq!(query(&uri, "after").as_deref(), Some("17.42"));
        assert_eq!(query(&uri, "jwt"), None);
        assert_eq!(query(&"/".parse().unwrap(), "after"), None);
    }
}
