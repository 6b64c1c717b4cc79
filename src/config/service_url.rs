//! The URL of a service: `scheme://user:password@host:port,host:port/path?name=value`.
//!
//! Not the `url` crate, which takes one host only, and reports "invalid port number" when the password has a `#`. An error
//! shows the name of a parameter, and no other part of the value.

use secrecy::SecretString;
use std::{
    collections::HashSet,
    net::{IpAddr, Ipv6Addr},
};

/// Characters that passwords often have, and how to write them.
const ENCODE: &str =
    "percent-encode these in the user and the password: / is %2F, # is %23, ? is %3F, @ is %40, % is %25";

/// How to write the separators.
const SEPARATORS: &str =
    "write the separators of its parts without encoding: user:password@host:port/name?parameter=value";

/// How the URLs of a service are written.
pub(super) struct Service {
    /// In lower case; the URL may have any case.
    pub schemes: &'static [&'static str],
    /// How to write several nodes, for an error.
    pub several: &'static str,
}

/// The parts, percent-decoded.
pub(super) struct ServiceUrl {
    /// In lower case.
    pub scheme: String,
    pub user: Option<String>,
    pub password: Option<SecretString>,
    /// At least one, which may be empty.
    pub hosts: Vec<Host>,
    /// Without its first slash; `None` if the URL has none.
    pub path: Option<String>,
    pub parameters: Vec<Parameter>,
}

pub(super) struct Host {
    /// A name or an address, IPv6 without its brackets; or a folder, which begins with a slash.
    pub name: String,
    pub port: Option<u16>,
}

pub(super) struct Parameter {
    pub name: String,
    pub value: String,
    /// Whether an error may show the name: not if it may be the end of a password.
    shown: bool,
}

impl Parameter {
    /// The error for an unknown parameter.
    pub(super) fn unknown(&self) -> String {
        if self.shown {
            format!("has the unknown parameter {:?}; correct it or remove it", self.name)
        } else {
            format!("has an unknown parameter; correct it or remove it, and {ENCODE}")
        }
    }
}

impl ServiceUrl {
    pub(super) fn parse(text: &str, service: &Service) -> Result<Self, String> {
        if text.chars().any(char::is_control) {
            return Err("holds a line break or another control character".to_owned());
        }
        let known = text.split_once("://").map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest));
        let Some((scheme, rest)) = known.filter(|(scheme, _)| service.schemes.contains(&scheme.as_str()))
        else {
            return Err(format!("must be a URL that begins with {}://", service.schemes.join(":// or ")));
        };
        if rest.contains('#') {
            return Err(format!("holds a #; {ENCODE}"));
        }
        let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
        if holds_more_than_a_name(path) || query.split('&').any(holds_a_second_url) {
            return Err(format!(
                "has an @, a second / or a separator after its first /: if that is a second URL, {}; if it belongs to a \
                 password or a name, {ENCODE}; a comma is %2C, a semicolon %3B, a space %20",
                service.several
            ));
        }
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        let (user, password) = login.map_or((None, None), |login| match login.split_once(':') {
            Some((user, password)) => (Some(user), Some(password)),
            None => (Some(login), None),
        });
        let url = Self {
            scheme,
            user: user.filter(|user| !user.is_empty()).map(decode).transpose()?,
            password: password.map(decode).transpose()?.map(SecretString::from),
            hosts: hosts.split(',').map(Host::parse).collect::<Result<_, _>>()?,
            path: path.strip_prefix('/').map(decode).transpose()?,
            parameters: parameters(query)?,
        };
        if url.shows_a_password() {
            return Err(format!(
                "has a percent-encoded separator, so that a name may hold a password; {SEPARATORS}"
            ));
        }
        Ok(url)
    }

    /// Whether a part that an error or the log may show has a separator, which was percent-encoded, and so perhaps a password.
    fn shows_a_password(&self) -> bool {
        let user = self.user.as_deref().unwrap_or_default();
        let values =
            self.parameters.iter().filter(|one| one.name != "password").map(|one| one.value.as_str());
        (self.password.is_none() && user.contains(':'))
            || self.path.as_deref().into_iter().chain(values).chain([user]).any(holds_a_login)
    }
}

/// Whether the path has what only a second URL or the rest of a password has. It would be shown as the name of a vhost or a
/// database. A second slash alone is the vhost `/`, written in full.
fn holds_more_than_a_name(path: &str) -> bool {
    let name = path.strip_prefix('/').unwrap_or(path);
    name != "/" && name.contains(|c: char| "@,;/".contains(c) || c.is_whitespace())
}

/// The same for a parameter, whose value may be a name with commas. A parameter `password` is never shown.
fn holds_a_second_url(parameter: &str) -> bool {
    let is_password = parameter.starts_with("password=");
    !is_password
        && (parameter.contains("://")
            || parameter.split_once('=').is_some_and(|(_, value)| value.contains('@')))
}

/// Whether a decoded name has what only a URL, a login or a parameter `password` has.
fn holds_a_login(name: &str) -> bool {
    let has_login = name.split_once(':').is_some_and(|(_, rest)| rest.contains('@'));
    has_login || name.contains("://") || name.contains("password=")
}

impl Host {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (name, port) = if let Some(bracketed) = text.strip_prefix('[') {
            let (name, rest) = bracketed.split_once(']').ok_or("has a [ without its ]")?;
            let name = decode(name)?;
            // A zone may follow: fe80::1%eth0.
            let address = name.split('%').next().unwrap_or_default();
            address.parse::<Ipv6Addr>().map_err(|_| "has no IPv6 address between its brackets")?;
            let port = match rest.strip_prefix(':') {
                None if !rest.is_empty() => return Err("has no colon between its ] and the port".to_owned()),
                port => port,
            };
            (name, port)
        } else if text.matches(':').count() > 1 {
            return Err(format!(
                "has a host with several colons; write an IPv6 address in brackets, and {ENCODE}"
            ));
        } else {
            let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
            (decode(name)?, port)
        };
        if name.contains(char::is_whitespace) {
            return Err("has white space in its host".to_owned());
        }
        let is_folder = name.starts_with('/');
        if !text.starts_with('[') && (!is_folder && holds_a_separator(&name) || holds_a_login(&name)) {
            return Err(format!("has a host with a percent-encoded separator; {SEPARATORS}"));
        }
        let port = port.filter(|port| !port.is_empty()).map(Self::port).transpose()?;
        Ok(Self { name, port })
    }

    pub(super) fn port(text: &str) -> Result<u16, String> {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let port = text.parse().ok().filter(|port| *port > 0 && digits);
        port.ok_or_else(|| format!("has a port that is not a number from 1 to 65535; {ENCODE}"))
    }
}

/// A host and its port, for errors and the log.
pub(crate) fn host_and_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The first node that was named before, however its host is written.
pub(super) fn repeated_host<'a>(nodes: impl Iterator<Item = (&'a str, u16)>) -> Option<String> {
    let mut seen = HashSet::new();
    let form = |host: &str| match host.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        // A folder's name may have capitals that matter.
        Err(_) if host.starts_with('/') => host.to_owned(),
        Err(_) => host.to_ascii_lowercase(),
    };
    let mut nodes = nodes.filter(|(host, port)| !seen.insert((form(host), *port)));
    nodes.next().map(|(host, port)| host_and_port(host, port))
}

/// Whether a decoded host has a character that is in no name or address.
fn holds_a_separator(name: &str) -> bool {
    name.contains(|c: char| c.is_ascii_punctuation() && !"-._".contains(c))
}

fn parameters(query: &str) -> Result<Vec<Parameter>, String> {
    // An @ here may be the one before the host, and the text before it the end of a password.
    let shown = !query.contains('@');
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let parameter = |pair: &str| {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| format!("has a parameter without its =; {ENCODE}"))?;
        let (name, value) = (decode(name)?, decode(value)?);
        let is_name =
            name.len() <= 63 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.[]".contains(&b));
        // It may be several parameters whose separators were percent-encoded, and one of them a password.
        if !is_name {
            return Err(format!(
                "has a parameter whose name is too long, or has a character that no name has; {SEPARATORS}"
            ));
        }
        Ok(Parameter { name, value, shown })
    };
    pairs.map(parameter).collect()
}

/// Percent-decodes, as libpq does: a plus is a plus, and each % begins two hex digits.
fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        bytes.push(match byte {
            b'%' => match (hex(rest.next()), hex(rest.next())) {
                (Some(high), Some(low)) => u8::try_from(high * 16 + low).unwrap_or_default(),
                _ => return Err(format!("has a % without two hex digits after it; {ENCODE}")),
            },
            other => other,
        });
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err("has a percent-encoded part that is not UTF-8 text".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prop_assert, prop_assert_eq, proptest};
    use secrecy::ExposeSecret;

    const SERVICE: Service = Service { schemes: &["postgres", "amqp"], several: "write several so" };

    fn parsed(text: &str) -> ServiceUrl {
        ServiceUrl::parse(text, &SERVICE).unwrap_or_else(|fault| panic!("{text}: {fault}"))
    }

    #[test]
    fn the_parts_are_decoded_and_the_scheme_is_in_any_case() {
        let url = parsed("POSTGRES://us%40er:p%2Fw%23:x+@[::1]:5433,h2,[fe80::1%25eth0]/d%20b?a=1%26&b=x=y");
        assert_eq!((url.scheme.as_str(), url.user.as_deref()), ("postgres", Some("us@er")));
        assert_eq!(url.password.unwrap().expose_secret(), "p/w#:x+");
        let hosts: Vec<_> = url.hosts.into_iter().map(|host| (host.name, host.port)).collect();
        let expected = [("::1", Some(5433)), ("h2", None), ("fe80::1%eth0", None)];
        assert_eq!(hosts, expected.map(|(name, port)| (name.to_owned(), port)));
        assert_eq!(url.path.as_deref(), Some("d b"));
        let pairs: Vec<_> =
            url.parameters.iter().map(|one| (one.name.as_str(), one.value.as_str())).collect();
        assert_eq!(pairs, [("a", "1&"), ("b", "x=y")]);
    }

    #[test]
    fn an_unencoded_password_is_explained_and_not_shown() {
        let urls = [
            "amqp://user:SEC#RET@h/",
            "amqp://user:SEC/RET@h/",
            "amqp://user:12/SECRET@h/v",
            "amqp://user:SEC?RET@h/",
            "amqp://user:12?SECRET=1@h/",
            "amqp://user:12?SECRET@h/",
            "amqp://user:SECRET%@h/",
            "amqp://user:SECRET%zz@h/",
            "amqp://SECRET:h/",
            "amqp://SE:CR:ET/",
        ];
        for text in urls {
            let fault = match ServiceUrl::parse(text, &SERVICE) {
                Ok(url) => url.parameters.first().expect(text).unknown(),
                Err(fault) => fault,
            };
            let encode = fault.contains("percent-encode");
            let shown = ["SEC", "RET", "SE:", "CR"].into_iter().any(|part| fault.contains(part));
            assert!(encode && !shown, "{text}: {fault}");
        }
    }

    #[test]
    fn one_name_follows_the_slash() {
        for (text, path) in [
            ("amqp://h", None),
            ("amqp://h/", Some("")),
            ("amqp://h//", Some("/")),
            ("amqp://h/%2f", Some("/")),
            ("amqp://h/a%2Fb%40c%2Cd%3Be%20f", Some("a/b@c,d;e f")),
            ("amqp://h/a:b?x=1,2", Some("a:b")),
            ("amqp://h/v?password=p@w,://x", Some("v")),
        ] {
            assert_eq!(parsed(text).path.as_deref(), path, "{text}");
        }
        for text in [
            "amqp://h/a/b",
            "amqp://h///",
            "amqp://h/a,b",
            "amqp://h/a;b",
            "amqp://h/a b",
            "amqp://h/a\u{a0}b",
        ] {
            let fault = ServiceUrl::parse(text, &SERVICE).err().expect(text);
            assert!(fault.contains("write several so") && fault.contains("percent-encode"), "{fault}");
        }
    }

    #[test]
    fn other_texts_are_an_error() {
        let urls = [
            "",
            "host=h dbname=d",
            "http://h/",
            "amqp:/h",
            "amqp//u:p@h",
            "amqp://[::1/",
            "amqp://[h]/",
            "amqp://[::1]x/",
            "amqp://::1/",
            "amqp://h:0/",
            "amqp://h:65536/",
            "amqp://h:+1/",
            "amqp://h o/",
            "amqp://u:%ff@h/",
            "amqp://u:%00@h/",
            "amqp://h/\n",
            "amqp://h/?a",
        ];
        for text in urls {
            assert!(ServiceUrl::parse(text, &SERVICE).is_err(), "{text}");
        }
    }

    #[test]
    fn an_encoded_separator_does_not_turn_a_password_into_a_name() {
        for text in [
            "amqp://u%3ASECRET@h/v",
            "amqp://u%3aSECRET%40h/v",
            "amqp://u%3ASECRET%40h:5672/v",
            "amqp://h%3Fpassword=SECRET",
            "amqp://h%2Fv",
            "amqp://h/v%3Fpassword=SECRET",
            "amqp://h/v%2Cu%3ASECRET%40h2%2Fv",
            "amqp://h/v%2Camqp%3A%2F%2Fu%3ASECRET%40h2",
            "amqp://h/v?heartbeat=5%26password%3DSECRET",
            "amqp://h/v?host=u%3ASECRET%40h",
        ] {
            let fault = ServiceUrl::parse(text, &SERVICE).err().expect(text);
            assert!(fault.contains("user:password@host") && !fault.contains("SECRET"), "{text}: {fault}");
        }
        for text in [
            "amqp://u%3Aser:p@h/a%3Ab",
            "amqp://h/a%40b%3Ac",
            "amqp://%2Frun%2Fp%3Ag/v",
            "amqp://u@h_1.x-y/v",
        ] {
            parsed(text);
        }
    }

    /// The text with some of its characters percent-encoded.
    fn encoded(text: &str, which: &[bool]) -> String {
        let part = |(at, byte): (usize, u8)| {
            if which[at % which.len()] { format!("%{byte:02X}") } else { char::from(byte).to_string() }
        };
        text.bytes().enumerate().map(part).collect()
    }

    proptest! {
        /// Neither in an error nor in a part that is shown later.
        #[test]
        fn no_percent_encoding_turns_a_password_into_a_name(
            first in "(u:p@)?h?(:5672)?/?",
            second in "(,|,amqp://)?",
            rest in "user:SECRET@h2(:5673)?(/v?)?|h2(:5673)?/v?\\?(heartbeat=5&)?password=SECRET(&heartbeat=5)?",
            which in proptest::collection::vec(proptest::bool::weighted(0.3), 1..60),
        ) {
            let text = format!("amqp://{}", encoded(&format!("{first}{second}{rest}"), &which));
            match ServiceUrl::parse(&text, &SERVICE) {
                Err(fault) => prop_assert!(!fault.contains("SECRET"), "{}", fault),
                Ok(url) => {
                    let hosts = url.hosts.into_iter().map(|host| host.name);
                    let unknown = url.parameters.first().map(Parameter::unknown);
                    let values = url.parameters.into_iter().filter(|one| one.name != "password").map(|one| one.value);
                    for shown in hosts.chain(values).chain(url.path).chain(url.user).chain(unknown) {
                        prop_assert!(!shown.contains("SECRET"), "{}: {}", text, shown);
                    }
                }
            }
        }

        #[test]
        fn any_percent_encoded_login_is_read_back(user in ".{1,20}", password in ".{0,20}") {
            let encode = |text: &str| text.bytes().map(|b| format!("%{b:02x}")).collect::<Vec<_>>().concat();
            let text = format!("amqp://{}:{}@h/", encode(&user), encode(&password));
            match ServiceUrl::parse(&text, &SERVICE) {
                Ok(url) => {
                    prop_assert_eq!(url.user, Some(user));
                    let found = url.password.unwrap();
                    prop_assert_eq!(found.expose_secret(), password.as_str());
                }
                // A user that looks like a whole login is refused: it may hold a password, and users are shown.
                Err(_) => prop_assert!(user.contains('\0') || password.contains('\0') || holds_a_login(&user)),
            }
        }

        #[test]
        fn no_error_shows_the_password(before in "[a-z0-9/#?@:%]{0,8}", after in "[a-z0-9/#?@:%]{0,8}") {
            let text = format!("amqp://user:{before}SECRET{after}@host:5672/vhost");
            if let Err(fault) = ServiceUrl::parse(&text, &SERVICE) {
                prop_assert!(!fault.contains("SECRET"), "{}", fault);
            }
        }

        /// Neither in an error nor in a part that is shown later: the hosts, the path, and the parameters but a password.
        #[test]
        fn no_password_of_several_urls_becomes_a_name(
            first in "(u:p@)?h(:5672)?(/(%2f|v)?)?(\\?a=b)?",
            separator in "[,; ]{1,2}|",
            scheme in "((amqp|ampq|amqps|postgres)://)?",
            path in "(/(%2f|v)?)?",
        ) {
            let text = format!("amqp://{first}{separator}{scheme}user:SECRET@h2:5673{path}");
            match ServiceUrl::parse(&text, &SERVICE) {
                Err(fault) => prop_assert!(!fault.contains("SECRET"), "{}", fault),
                Ok(url) => {
                    let hosts = url.hosts.into_iter().map(|host| host.name);
                    let values = url.parameters.into_iter().map(|parameter| parameter.value);
                    for shown in hosts.chain(values).chain(url.path) {
                        prop_assert!(!shown.contains("SECRET"), "{}: {}", text, shown);
                    }
                }
            }
        }
    }
}
