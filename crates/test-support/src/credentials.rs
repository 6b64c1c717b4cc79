//! Credentials as upstream systems make them.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::time::{SystemTime, UNIX_EPOCH};

/// Unix seconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

/// The `Authorization` header of a login key (GKEY) that is valid for one hour.
pub fn gkey(group: u64, user: &str, api_key: &str) -> String {
    gkey_until(group, user, api_key, now() + 3_600)
}

/// As [`gkey`], with an expiry in Unix seconds. `user` must not need URL encoding.
pub fn gkey_until(group: u64, user: &str, api_key: &str, exp: u64) -> String {
    let signature = sign(api_key, &format!("{group}{user}1{exp}"));
    format!("Bearer GKEY {group}&{user}&$1${exp}${signature}")
}

/// The claims of a valid token that expires in one hour.
pub fn claims(group: u64) -> Value {
    json!({"groupid": group, "sub": "joe", "iat": now(), "exp": now() + 3_600})
}

/// The `Authorization` header of a JSON web token (GJWT).
pub fn gjwt(claims: &Value, secret: &str) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({"alg": "HS256", "typ": "JWT"})), part(claims));
    format!("Bearer GJWT {signed}.{}", sign(secret, &signed))
}

fn sign(key: &str, message: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(message.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}
