//! Which web pages may open a connection.

use http::HeaderMap;
use http::header::{HOST, ORIGIN};

/// Which `Origin` a handshake may come with. Without this check any web page that a logged-in user visits could open
/// a chat in that user's name, because browsers send cookies along. A client that is no browser sends no `Origin`
/// and is let through: it could write there whatever it likes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Origins {
    /// Pages of the host and port that the request itself is for.
    #[default]
    SameHost,
    /// Pages of exactly these origins, in lower case.
    Listed(Vec<String>),
    /// Every page.
    Any,
}

impl Origins {
    /// The listed origins; `"*"` stands for every one.
    pub fn new<S: AsRef<str>>(origins: impl IntoIterator<Item = S>) -> Self {
        let listed: Vec<String> =
            origins.into_iter().map(|origin| origin.as_ref().trim_end_matches('/').to_ascii_lowercase()).collect();
        if listed.iter().any(|origin| origin == "*") { Self::Any } else { Self::Listed(listed) }
    }

    /// Whether a request with these headers may connect.
    pub(super) fn allow(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else { return true };
        let (Ok(origin), None) = (origin.to_str(), origins.next()) else { return false };
        self.allow_origin(origin, headers.get(HOST).and_then(|host| host.to_str().ok()))
    }

    /// Whether a page of `origin` may connect by a request whose `Host` header is `host`.
    pub fn allow_origin(&self, origin: &str, host: Option<&str>) -> bool {
        let origin = origin.to_ascii_lowercase();
        match self {
            Self::Any => true,
            Self::Listed(listed) => listed.contains(&origin),
            Self::SameHost => host.is_some_and(|host| same_host(&origin, host)),
        }
    }
}

fn same_host(origin: &str, host: &str) -> bool {
    // "null", as sandboxed pages send it, has no "://".
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let without_default = |host: &str| host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
    without_default(authority) == without_default(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &str, origin: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        headers.insert(ORIGIN, origin.parse().unwrap());
        headers
    }

    #[test]
    fn same_host_compares_host_and_port() {
        let allowed = |host, origin| Origins::SameHost.allow(&headers(host, origin));
        assert!(allowed("chat.example", "https://chat.example"));
        assert!(allowed("Chat.Example:443", "https://chat.example"));
        assert!(allowed("127.0.0.1:9001", "http://127.0.0.1:9001"));
        assert!(allowed("[::1]:9001", "http://[::1]:9001"));
        assert!(!allowed("chat.example", "https://evil.example"));
        assert!(!allowed("chat.example", "https://chat.example.evil.example"));
        assert!(!allowed("chat.example:9001", "http://chat.example:9002"));
        assert!(!allowed("chat.example:80", "https://chat.example"));
        assert!(!allowed("chat.example", "null"));
        assert!(!allowed("chat.example", "file://chat.example"));
    }

    #[test]
    fn listed_origins_match_exactly() {
        let origins = Origins::new(["https://App.example/", "http://localhost:3000"]);
        assert!(origins.allow(&headers("chat.example", "https://app.example")));
        assert!(origins.allow(&headers("chat.example", "http://localhost:3000")));
        assert!(!origins.allow(&headers("chat.example", "http://app.example")));
        assert!(!origins.allow(&headers("chat.example", "https://chat.example")));
        assert!(Origins::new(["*"]).allow(&headers("chat.example", "https://evil.example")));
    }

    #[test]
    fn no_origin_passes_and_two_do_not() {
        assert!(Origins::new(["https://app.example"]).allow(&HeaderMap::new()));
        let mut twice = headers("chat.example", "https://chat.example");
        twice.append(ORIGIN, "https://chat.example".parse().unwrap());
        assert!(!Origins::SameHost.allow(&twice));
    }
}
