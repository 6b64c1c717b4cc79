//! The signature of the provider's requests, `X-Twilio-Signature`. It is the base64 of an HMAC-SHA1 with the account's
//! auth token, over the URL and each parameter's name and value, sorted by name
//! (<https://www.twilio.com/docs/usage/security#validating-requests>).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha1::Sha1;
use url::Url;

/// The `X-Twilio-Signature` of this form to this URL. Names and values are decoded. They need not be text: the signature
/// is over their bytes.
pub fn sign<N: AsRef<[u8]>, V: AsRef<[u8]>>(auth_token: &SecretString, url: &str, form: &[(N, V)]) -> String {
    STANDARD.encode(mac(auth_token, url, form).finalize().into_bytes())
}

/// Whether the signature is valid, in constant time. The provider signs the URL with or without its port.
pub fn is_signed<N: AsRef<[u8]>, V: AsRef<[u8]>>(
    auth_token: &SecretString,
    url: &str,
    form: &[(N, V)],
    signature: &str,
) -> bool {
    let Ok(signature) = STANDARD.decode(signature.trim()) else { return false };
    let urls = std::iter::once(url.to_owned()).chain(with_and_without_port(url).into_iter().flatten());
    // All URLs are checked, even after a match, so that the time does not depend on the result.
    urls.fold(false, |is_valid, url| mac(auth_token, &url, form).verify_slice(&signature).is_ok() | is_valid)
}

fn mac<N: AsRef<[u8]>, V: AsRef<[u8]>>(auth_token: &SecretString, url: &str, form: &[(N, V)]) -> Hmac<Sha1> {
    let mut sorted: Vec<_> = form.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect();
    sorted.sort_unstable();
    // The provider's own libraries also drop a pair that occurs twice.
    sorted.dedup();
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha1>::new_from_slice(auth_token.expose_secret().as_bytes()).expect("any key");
    mac.update(url.as_bytes());
    for (name, value) in sorted {
        mac.update(name);
        mac.update(value);
    }
    mac
}

/// The same URL with its port, and without. All bytes after the host stay as they are.
fn with_and_without_port(url: &str) -> Option<[String; 2]> {
    let parsed = Url::parse(url).ok()?;
    let (host, port) = (parsed.host_str()?, parsed.port_or_known_default()?);
    let (scheme, rest) = url.split_once("://")?;
    let after = &rest[rest.find(['/', '?', '#']).unwrap_or(rest.len())..];
    Some([format!("{scheme}://{host}:{port}{after}"), format!("{scheme}://{host}{after}")])
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://mycompany.com/myapp.php?foo=1&bar=2";
    const SIGNATURE: &str = "RSOYDt4T1cUTdK1PDd93/VVr8B8=";
    const FORM: [(&str, &str); 5] = [
        ("Digits", "1234"),
        ("CallSid", "CA1234567890ABCDE"),
        ("To", "+18005551212"),
        ("Caller", "+14158675309"),
        ("From", "+14158675309"),
    ];

    #[test]
    fn the_signature_equals_the_example_of_the_provider() {
        assert_eq!(sign(&"12345".into(), URL, &FORM), SIGNATURE);
        assert!(is_signed(&"12345".into(), URL, &FORM, SIGNATURE));
    }

    #[test]
    fn the_url_may_have_its_port_or_not() {
        let token = "12345".into();
        for (signed, called) in [
            (URL, "https://mycompany.com:443/myapp.php?foo=1&bar=2"),
            ("https://mycompany.com:443/myapp.php?foo=1&bar=2", URL),
            ("http://a.example:8080/x", "http://a.example:8080/x"),
            ("http://a.example/x", "http://a.example:8080/x"),
            ("http://A.example/x?y=%2f", "http://A.example/x?y=%2f"),
        ] {
            assert!(is_signed(&token, called, &FORM, &sign(&token, signed, &FORM)), "{signed} {called}");
        }
    }

    #[test]
    fn any_other_signature_token_url_or_form_is_refused() {
        let token = "12345".into();
        for signature in
            ["", "x", "RSOYDt4T1cUTdK1PDd93/VVr8B9=", "RSOYDt4T1cUTdK1PDd93", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="]
        {
            assert!(!is_signed(&token, URL, &FORM, signature), "{signature}");
        }
        assert!(!is_signed(&"12346".into(), URL, &FORM, SIGNATURE));
        assert!(!is_signed(&token, "https://mycompany.com/myapp.php?foo=1&bar=3", &FORM, SIGNATURE));
        assert!(!is_signed(&token, URL, &FORM[1..], SIGNATURE));
    }
}
