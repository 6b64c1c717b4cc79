//! `AMQP_URL`: one URL a node, with commas between them (<https://www.rabbitmq.com/docs/uri-spec>).
//!
//! Not lapin's own parser, which takes `localhost` for an IPv6 address and leaves out what it does not know in silence.

use super::service_url::{Parameter, Service, ServiceUrl};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use secrecy::ExposeSecret;

const BROKER: Service = Service {
    schemes: &["amqp", "amqps"],
    several: "write several nodes as whole URLs with commas between them: amqp://…@h1/vhost,amqp://…@h2/vhost",
};

/// What RabbitMQ's clients know besides (<https://www.rabbitmq.com/docs/uri-query-parameters>), and lapin does not: taken, and
/// named in a warning.
const IGNORED: [&str; 8] = [
    "cacertfile",
    "certfile",
    "keyfile",
    "password",
    "verify",
    "fail_if_no_peer_cert",
    "server_name_indication",
    "depth",
];

/// The nodes, and the names of the parameters that are not obeyed.
pub(super) fn parse(text: &str) -> Result<(Vec<AMQPUri>, Vec<&'static str>), String> {
    let mut ignored = Vec::new();
    let nodes = split(text).into_iter().map(|url| node(url, &mut ignored)).collect::<Result<_, _>>()?;
    Ok((nodes, ignored))
}

/// Each `,amqp://` or `,amqps://` begins one: other commas may be part of a password.
fn split(text: &str) -> Vec<&str> {
    let begins = |rest: &str| {
        let rest = rest.trim_start();
        ["amqp://", "amqps://"]
            .into_iter()
            .any(|scheme| rest.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
    };
    let commas = text.match_indices(',').map(|(at, _)| at).filter(|at| begins(&text[at + 1..]));
    let mut from = 0;
    let mut urls = Vec::new();
    for comma in commas {
        urls.push(text[from..comma].trim());
        from = comma + 1;
    }
    urls.push(text[from..].trim());
    urls
}

fn node(text: &str, ignored: &mut Vec<&'static str>) -> Result<AMQPUri, String> {
    let url = ServiceUrl::parse(text, &BROKER)?;
    let [host] = url.hosts.as_slice() else {
        return Err(
            "has a comma in its host; each node has a URL of its own: amqp://…@h1/,amqp://…@h2/".to_owned()
        );
    };
    let scheme = if url.scheme == "amqps" { AMQPScheme::AMQPS } else { AMQPScheme::AMQP };
    let name = if host.name.is_empty() { "localhost" } else { &host.name };
    let guest = AMQPUserInfo::default();
    Ok(AMQPUri {
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: url.user.unwrap_or(guest.username),
                password: url.password.map_or(guest.password, |password| password.expose_secret().to_owned()),
            },
            host: name.to_owned(),
            port: host.port.unwrap_or_else(|| scheme.default_port()),
        },
        scheme,
        // A slash alone would be the vhost without a name, which nobody has.
        vhost: url.path.filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned()),
        query: query(&url.parameters, ignored)?,
    })
}

fn query(parameters: &[Parameter], ignored: &mut Vec<&'static str>) -> Result<AMQPQueryString, String> {
    let mut query = AMQPQueryString::default();
    for parameter in parameters {
        let value = parameter.value.as_str();
        let wrong = || format!("has a wrong value in its parameter {}", parameter.name);
        match parameter.name.as_str() {
            "heartbeat" => query.heartbeat = Some(value.parse().map_err(|_| wrong())?),
            "connection_timeout" => query.connection_timeout = Some(value.parse().map_err(|_| wrong())?),
            "channel_max" => query.channel_max = Some(value.parse().map_err(|_| wrong())?),
            "frame_max" => query.frame_max = Some(value.parse().map_err(|_| wrong())?),
            // Of several, in the order of preference, the first.
            "auth_mechanism" => {
                let mechanism = value.parse().map_err(|_| wrong())?;
                query.auth_mechanism.get_or_insert(mechanism);
            }
            name => match IGNORED.iter().find(|known| **known == name) {
                Some(known) if ignored.contains(known) => {}
                Some(known) => ignored.push(known),
                None => return Err(parameter.unknown()),
            },
        }
    }
    Ok(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(text: &str) -> Vec<AMQPUri> {
        parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}")).0
    }

    #[test]
    fn a_url_is_read_as_rabbitmq_documents_it() {
        let cases = [
            ("amqp://", ("guest", "guest", "localhost", 5672, "/")),
            ("amqp://h", ("guest", "guest", "h", 5672, "/")),
            ("amqp://h/", ("guest", "guest", "h", 5672, "/")),
            ("AMQPS://u%61:%2F%40@h/v%2fh", ("ua", "/@", "h", 5671, "v/h")),
            ("amqp://u:p,w@[::1]:7/v", ("u", "p,w", "::1", 7, "v")),
        ];
        for (text, expected) in cases {
            let node = nodes(text).remove(0);
            let AMQPAuthority { userinfo, host, port } = &node.authority;
            let found = (userinfo.username.as_str(), userinfo.password.as_str(), host.as_str(), *port);
            assert_eq!((found.0, found.1, found.2, found.3, node.vhost.as_str()), expected, "{text}");
        }
    }

    #[test]
    fn several_urls_are_several_nodes() {
        let several = nodes("amqp://u:a,b@h1/%2f,AMQPS://u:c,amqp@h2/v?heartbeat=5, amqp://h3");
        let found: Vec<_> =
            several.iter().map(|node| (node.authority.host.as_str(), node.authority.port)).collect();
        assert_eq!(found, [("h1", 5672), ("h2", 5671), ("h3", 5672)]);
        assert_eq!(several[1].query.heartbeat, Some(5));
        assert_eq!(several[1].authority.userinfo.password, "c,amqp");
        assert!(parse("amqp://h1,h2/").unwrap_err().contains("URL of its own"));
        let typo = parse("amqp://u:p@h1/%2f,ampq://u:SECRET@h2/%2f").unwrap_err();
        assert!(typo.contains("with commas between them") && !typo.contains("SECRET"), "{typo}");
    }

    #[test]
    fn parameters_are_obeyed_or_named_or_refused() {
        let url = "amqp://h/?heartbeat=7&connection_timeout=1000&channel_max=9&frame_max=8192&auth_mechanism=external\
                   &auth_mechanism=plain&cacertfile=SECRET&password=SECRET,amqp://h2/?cacertfile=SECRET";
        let (several, ignored) = parse(url).unwrap();
        assert_eq!(ignored, ["cacertfile", "password"]);
        assert_eq!(several[0].query.auth_mechanism.unwrap().name(), "EXTERNAL");
        assert_eq!(several[0].query.connection_timeout, Some(1000));
        for name in
            ["heartbeat", "connection_timeout", "channel_max", "frame_max", "auth_mechanism", "hartbeat"]
        {
            let fault = parse(&format!("amqp://h/?{name}=SECRET")).unwrap_err();
            assert!(fault.contains(name) && !fault.contains("SECRET"), "{fault}");
        }
    }
}
