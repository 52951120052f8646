//! URLs that cannot be used: what is wrong is named, and the password is not.

use digi_core::Code;
use digi_core::engine::Engine;
use digi_core::layer::RedisLayer;
use digi_core::token::Keyring;

use crate::tls::Authority;

fn refusal(url: &str) -> String {
    let error = RedisLayer::from_url(url).expect_err(url);
    let text = format!("{error} {error:?}");
    for secret in ["s3cret", "s3", "cret"] {
        assert!(!text.contains(secret), "{url}: {text}");
    }
    error.to_string()
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    for (url, named) in [
        ("http://a", "redis+cluster://"),
        ("redis:a", "begins with"),
        ("redis://", "lacks a host"),
        ("redis:///0", "lacks a host"),
        ("redis://:s3cret@", "lacks a host"),
        ("redis://a,,b", "lacks a host"),
        ("redis://:6379", "lacks a host"),
        ("redis://a:0", "port of host 1"),
        ("redis://a,b:65536", "port of host 2"),
        ("redis://a:x", "port of host 1"),
        ("redis://user:s3cret", "end with an @"),
        ("redis://a b", "blank"),
        ("redis://ä", "host 1"),
        ("redis://[::1", "[::1]:6379"),
        ("redis://[localhost]", "host 1"),
        ("redis://s3cret@a", "`:password@`"),
        ("redis://user:@a", "password in the layer's URL is empty"),
        ("redis://user:s3/cret@a", "percent-encoded"),
        ("redis://user:s3?cret@a", "percent-encoded"),
        ("redis://user:s3#cret@a", "percent-encoded"),
        ("redis://user:s3@cret@a", "percent-encoded"),
        ("redis://user:s3:cret@a", "percent-encoded"),
        ("redis://user:%ff@a", "UTF-8"),
        ("redis://a/x", "`/0`"),
        ("redis://a/-1", "`/0`"),
        ("redis://a/0,b", "scheme before every host"),
        ("redis://a,rediss://b", "host"),
        ("redis://a?prefix", "`prefix=…`"),
        ("redis://a?prefix=x&prefix=y", "twice"),
        ("redis://a?timeout=1", "`timeout`"),
        ("redis://a?sentinel_user=x", "`sentinel_user`"),
        ("redis://a?ca=x", "`rediss`"),
        ("rediss://a?cert=x", "go together"),
        ("rediss://a?ca=/no/such/file", "/no/such/file"),
        ("redis+sentinel://a", "`redis+sentinel://host:26379/mymaster`"),
        ("redis+sentinel://a/mymaster/x", "`/0`"),
        ("redis+sentinel://a/mymaster?sentinel_user=x", "`sentinel_password`"),
        ("redis+cluster://a/1", "database 0"),
        ("redis+cluster://a,redis+cluster://b", "only once"),
    ] {
        let error = refusal(url);
        assert!(error.contains(named), "{url}: {error}");
    }
}

#[tokio::test]
async fn files_for_tls_are_read_at_once() {
    let authority = Authority::new();
    let (ca, cert, key) = (authority.file("ca.pem"), authority.file("client.pem"), authority.file("client.key"));
    for (options, named) in [
        (format!("ca={key}"), &key),
        (format!("ca={ca}&cert={key}&key={key}"), &key),
        (format!("ca={ca}&cert={cert}&key={cert}"), &cert),
        (format!("ca={ca}&cert={ca}&key={key}"), &ca),
    ] {
        let error = refusal(&format!("rediss://a?{options}"));
        assert!(error.contains(named), "{options}: {error}");
    }
    RedisLayer::from_url(&format!("rediss://127.0.0.1:1?ca={ca}&cert={cert}&key={key}")).unwrap();
}

#[test]
fn a_runtime_is_asked_for() {
    assert!(RedisLayer::from_url("redis://a").unwrap_err().to_string().contains("tokio runtime"));
}

#[tokio::test]
async fn an_engine_says_so() {
    let keys = Keyring::new([9; 32]).unwrap();
    let error = Engine::builder().keys(keys).layer("redis://a:x").build().await.err().unwrap();
    assert_eq!(error.code(), Code::BadUrl);
    assert!(error.to_string().contains("port"), "{error}");
}
