//! JSON Web Tokens (RFC 7519) as proof of who a connection is.

use std::fmt;
use std::net::SocketAddr;

use async_trait::async_trait;
use http::header::{AUTHORIZATION, HeaderMap, SEC_WEBSOCKET_PROTOCOL};
use http::request::Parts;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use super::auth::{AuthError, Authenticator, Identity};
use super::handshake::{list, query};
use crate::error::{Code, Error};
use crate::id::UserKey;

/// What precedes the token in the sub-protocol that carries it.
const PREFIX: &str = "digi.jwt.";
/// The shortest HMAC secret, in bytes: as long as the hash (RFC 7518 §3.2).
const MIN_SECRET: usize = 32;
/// By how many seconds the clock of whoever issued a token may differ from this one.
const LEEWAY: u64 = 30;

/// A key that verifies tokens, bound to one algorithm, so that a token cannot choose another.
pub struct JwtKey {
    key: DecodingKey,
    algorithm: Algorithm,
}

impl JwtKey {
    /// A secret shared with whoever issues the tokens: HS256.
    ///
    /// # Errors
    /// [`Code::BadKey`] below 32 bytes.
    pub fn hs256(secret: impl AsRef<[u8]>) -> Result<Self, Error> {
        let secret = secret.as_ref();
        if secret.len() < MIN_SECRET {
            let length = secret.len();
            return Err(Code::BadKey.with(format!("the JWT secret has {length} bytes; it needs at least {MIN_SECRET}")));
        }
        Ok(Self { key: DecodingKey::from_secret(secret), algorithm: Algorithm::HS256 })
    }

    /// The public key of an identity provider, as JSON Web Key (RFC 7517): RSA (RS256), P-256 (ES256), P-384 (ES384)
    /// or Ed25519 (EdDSA).
    ///
    /// # Errors
    /// [`Code::BadKey`] for anything else.
    pub fn jwk(json: &str) -> Result<Self, Error> {
        // The parser's own words could quote the key.
        let jwk: Jwk = serde_json::from_str(json).map_err(|_| Code::BadKey.with("the JWK is not understood"))?;
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => Algorithm::ES384,
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
            _ => return Err(Code::BadKey.with("the JWK is no RSA, P-256, P-384 or Ed25519 key")),
        };
        let key = DecodingKey::from_jwk(&jwk).map_err(|_| Code::BadKey.with("the JWK's numbers are no base64url"))?;
        Ok(Self { key, algorithm })
    }
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwtKey({:?})", self.algorithm)
    }
}

/// Believes a JSON Web Token: `sub` is the user's key, `name` the shown name (without it, `sub`). `exp` is required
/// and checked, `nbf` checked, both with 30 seconds of grace.
///
/// The token is looked for in this order:
///
/// 1. `Authorization: Bearer <jwt>`, for clients that can set headers;
/// 2. a sub-protocol, for browsers: `new WebSocket(url, ["digi", "digi.jwt." + jwt])`; the server selects `digi`;
/// 3. the query, `?jwt=<jwt>`. Last, because proxies log URLs; Digi itself does not.
///
/// A token issued for an audience (`aud`) is refused unless [`audience`](Self::audience) names it.
///
/// ```
/// use digi_core::server::{JwtAuthenticator, JwtKey};
///
/// let this_year = JwtKey::hs256("a secret of the application, long enough")?;
/// let last_year = JwtKey::hs256("the one before, until its tokens are gone")?;
/// let logins = JwtAuthenticator::new(this_year).key(last_year).audience("chat");
/// # let _ = logins;
/// # Ok::<(), digi_core::Error>(())
/// ```
#[derive(Debug)]
pub struct JwtAuthenticator {
    keys: Vec<JwtKey>,
    audience: Option<String>,
    issuer: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    name: Option<String>,
}

impl JwtAuthenticator {
    /// Believes tokens that this key verifies.
    #[must_use]
    pub fn new(key: JwtKey) -> Self {
        // Where another crate asks jsonwebtoken for its other backend, it takes neither by itself and would panic.
        // Whichever is installed first serves both.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        Self { keys: vec![key], audience: None, issuer: None }
    }

    /// Believes tokens of this key as well, for rotation.
    #[must_use]
    pub fn key(mut self, key: JwtKey) -> Self {
        self.keys.push(key);
        self
    }

    /// Requires the claim `aud` to name this audience.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// Requires the claim `iss` to be this issuer.
    #[must_use]
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    fn verify(&self, jwt: &str) -> Option<Identity> {
        let claims = self.keys.iter().find_map(|key| {
            let checks = self.checks(key.algorithm);
            jsonwebtoken::decode::<Claims>(jwt, &key.key, &checks).ok()
        })?;
        let Claims { sub, name } = claims.claims;
        if sub.is_empty() {
            return None;
        }
        let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| sub.clone());
        Some(Identity { user: UserKey::from(sub), name: name.into(), subprotocol: None, login: None })
    }

    fn checks(&self, algorithm: Algorithm) -> Validation {
        let mut checks = Validation::new(algorithm);
        checks.leeway = LEEWAY;
        checks.validate_nbf = true;
        let mut required = vec!["exp", "sub"];
        if let Some(audience) = &self.audience {
            checks.set_audience(&[audience]);
            required.push("aud");
        }
        if let Some(issuer) = &self.issuer {
            checks.set_issuer(&[issuer]);
            required.push("iss");
        }
        checks.set_required_spec_claims(&required);
        checks
    }
}

#[async_trait]
impl Authenticator for JwtAuthenticator {
    async fn authenticate(&self, request: &Parts, _remote: SocketAddr) -> Result<Identity, AuthError> {
        let jwt = bearer(&request.headers)
            .or_else(|| subprotocol(&request.headers))
            .map(Into::into)
            .or_else(|| query(&request.uri, "jwt"))
            .ok_or(AuthError::Unauthenticated)?;
        self.verify(&jwt).ok_or(AuthError::Unauthenticated)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, jwt) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| jwt.trim())
}

fn subprotocol(headers: &HeaderMap) -> Option<&str> {
    list(headers, &SEC_WEBSOCKET_PROTOCOL).find_map(|offer| offer.strip_prefix(PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
    use serde_json::{Value, json};

    const SECRET: &str = "the secret of the tests, long enough";

    fn authenticator() -> JwtAuthenticator {
        JwtAuthenticator::new(JwtKey::hs256(SECRET).unwrap())
    }

    fn token(secret: &str, claims: &Value) -> String {
        let _ = authenticator(); // installs the backend
        encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    fn claims() -> Value {
        json!({ "sub": "7", "name": "Ana", "exp": get_current_timestamp() + 60 })
    }

    fn with(key: &str, value: Value) -> Value {
        let mut claims = claims();
        claims[key] = value;
        claims
    }

    #[test]
    fn a_good_token_names_the_user() {
        let identity = authenticator().verify(&token(SECRET, &claims())).unwrap();
        assert_eq!(identity, Identity { user: UserKey::from("7"), name: "Ana".into(), subprotocol: None, login: None });
    }

    #[test]
    fn without_a_name_the_key_is_shown() {
        let nameless = token(SECRET, &with("name", Value::Null));
        assert_eq!(&*authenticator().verify(&nameless).unwrap().name, "7");
    }

    #[test]
    fn bad_claims_are_refused() {
        let now = get_current_timestamp();
        for bad in [
            with("exp", json!(now - LEEWAY - 5)),
            with("exp", Value::Null),
            with("exp", json!("tomorrow")),
            with("nbf", json!(now + LEEWAY + 60)),
            with("sub", json!("")),
            with("sub", Value::Null),
            with("sub", json!(7)),
            with("aud", json!("another service")),
        ] {
            assert_eq!(authenticator().verify(&token(SECRET, &bad)), None, "{bad}");
        }
    }

    #[test]
    fn audience_and_issuer_are_required_once_set() {
        let strict = authenticator().audience("chat").issuer("app");
        let good = json!({ "sub": "7", "exp": get_current_timestamp() + 60, "aud": ["chat", "mail"], "iss": "app" });
        assert!(strict.verify(&token(SECRET, &good)).is_some());
        assert!(strict.verify(&token(SECRET, &claims())).is_none());
        assert!(strict.verify(&token(SECRET, &with("aud", json!("chat")))).is_none());
        assert!(strict.verify(&token(SECRET, &with("iss", json!("app")))).is_none());
    }

    #[test]
    fn other_keys_and_algorithms_are_refused() {
        let other = "another secret that is long enough too";
        assert!(authenticator().verify(&token(other, &claims())).is_none());
        assert!(authenticator().key(JwtKey::hs256(other).unwrap()).verify(&token(other, &claims())).is_some());

        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let unsigned = format!("{}.{}.", part(&json!({ "alg": "none", "typ": "JWT" })), part(&claims()));
        assert!(authenticator().verify(&unsigned).is_none());

        let wider = Header::new(Algorithm::HS512);
        let hs512 = encode(&wider, &claims(), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap();
        assert!(authenticator().verify(&hs512).is_none());
        assert!(authenticator().verify("not.a.jwt").is_none());
    }

    /// RFC 8037 A.1, A.2: the key of the specification's own example.
    #[test]
    fn a_public_key_verifies() {
        let public = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let private = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        // PKCS #8 (RFC 8410 §7): a fixed head before the 32 bytes.
        let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        let der = [head.as_slice(), &private].concat();
        let authenticator = JwtAuthenticator::new(JwtKey::jwk(public).unwrap());
        let signed = encode(&Header::new(Algorithm::EdDSA), &claims(), &EncodingKey::from_ed_der(&der)).unwrap();
        assert!(authenticator.verify(&signed).is_some());
        // A public key must not become the secret of an HMAC.
        assert!(authenticator.verify(&token("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", &claims())).is_none());
    }

    #[test]
    fn unusable_keys_are_refused_and_none_is_printed() {
        assert_eq!(JwtKey::hs256("short").unwrap_err().code(), Code::BadKey);
        assert_eq!(JwtKey::jwk("{}").unwrap_err().code(), Code::BadKey);
        assert_eq!(JwtKey::jwk(r#"{"kty":"oct","k":"c2VjcmV0"}"#).unwrap_err().code(), Code::BadKey);
        assert!(!format!("{:?}", authenticator()).contains("secret"));
    }

    #[tokio::test]
    async fn the_token_may_stand_in_three_places() {
        let jwt = token(SECRET, &claims());
        let request = |uri: String| http::Request::get(uri);
        let requests = [
            request("/".into()).header("authorization", format!("bearer {jwt}")),
            request("/".into()).header("sec-websocket-protocol", format!("digi, digi.jwt.{jwt}")),
            request(format!("/?after=1.2&jwt={jwt}")),
        ];
        for request in requests {
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let remote = SocketAddr::from(([127, 0, 0, 1], 1));
            assert!(authenticator().authenticate(&parts, remote).await.is_ok(), "{parts:?}");
        }
    }
}
