//! `AMQP_URL`: one URL for each node, separated by commas (<https://www.rabbitmq.com/docs/uri-spec>).
//!
//! Not lapin's own parser, which reads `localhost` as an IPv6 address and silently ignores unknown parameters.

use super::service_url::{Parameter, Service, ServiceUrl, host_and_port, repeated_host};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use secrecy::ExposeSecret;

const BROKER: Service = Service {
    schemes: &["amqp", "amqps"],
    several: "write several nodes as whole URLs, separated by commas: amqp://…@h1/vhost,amqp://…@h2/vhost",
};

/// Parameters of other RabbitMQ clients that lapin has not (<https://www.rabbitmq.com/docs/uri-query-parameters>): accepted,
/// ignored, and named in a warning.
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

/// The nodes, and the names of the parameters that are ignored.
pub(super) fn parse(text: &str) -> Result<(Vec<AMQPUri>, Vec<&'static str>), String> {
    let mut ignored = Vec::new();
    let mut nodes: Vec<AMQPUri> = Vec::new();
    let urls = split(text);
    let mut before_is_empty = false;
    for url in &urls {
        // No URL begins or ends with a comma.
        let whole = url.trim_matches(is_separator);
        if whole.is_empty() && urls.len() > 1 {
            before_is_empty = true;
            continue;
        }
        let node = node(whole, &mut ignored)?;
        if before_is_empty || whole != *url {
            return Err(format!("has an empty entry in its list, beside {}; remove the comma", name(&node)));
        }
        nodes.push(node);
    }
    belong_together(&nodes)?;
    Ok((nodes, ignored))
}

fn is_separator(c: char) -> bool {
    c == ',' || c.is_whitespace()
}

/// The nodes of one list are one cluster: each is there once, and all have the same vhost.
fn belong_together(nodes: &[AMQPUri]) -> Result<(), String> {
    let hosts = nodes.iter().map(|node| (node.authority.host.as_str(), node.authority.port));
    if let Some(twice) = repeated_host(hosts) {
        return Err(format!("names the node {twice} twice"));
    }
    let Some(first) = nodes.first() else { return Ok(()) };
    match nodes.iter().find(|node| node.vhost != first.vhost) {
        None => Ok(()),
        Some(other) => Err(format!(
            "has the vhost {:?} for {} and {:?} for {}: the nodes of one list are one cluster, and have one vhost",
            first.vhost,
            name(first),
            other.vhost,
            name(other)
        )),
    }
}

/// The address of a node, for errors and the log.
pub(crate) fn name(node: &AMQPUri) -> String {
    host_and_port(&node.authority.host, node.authority.port)
}

/// Splits at `,amqp://` and `,amqps://`: other commas may be part of a password.
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
        // By the specification a slash alone names the vhost "", which is not in use; the default vhost is meant.
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
            // Several are in the order of preference: the first is used.
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
        let several = nodes("amqp://u:a,b@h1/v,AMQPS://u:c,amqp@h2/v?heartbeat=5, amqp://h3/v");
        let found: Vec<_> =
            several.iter().map(|node| (node.authority.host.as_str(), node.authority.port)).collect();
        assert_eq!(found, [("h1", 5672), ("h2", 5671), ("h3", 5672)]);
        assert_eq!(several[1].query.heartbeat, Some(5));
        assert_eq!(several[1].authority.userinfo.password, "c,amqp");
        assert!(parse("amqp://h1,h2/").unwrap_err().contains("URL of its own"));
        let typo = parse("amqp://u:p@h1/%2f,ampq://u:SECRET@h2/%2f").unwrap_err();
        assert!(typo.contains("separated by commas") && !typo.contains("SECRET"), "{typo}");
    }

    #[test]
    fn an_empty_entry_is_an_error_that_names_the_node_beside_it() {
        for text in [
            ",amqp://u:SECRET@h1/v",
            "amqp://u:SECRET@h1/v,",
            "amqp://u:SECRET@h1/v, ",
            "amqp://u:SECRET@h1/v,,amqp://u:SECRET@h2/v",
            "amqp://u:SECRET@h1/v, , amqp://u:SECRET@h2/v",
            "amqp://u:SECRET@h1,,amqp://u:SECRET@h2",
        ] {
            let fault = parse(text).expect_err(text);
            assert!(fault.contains("empty entry") && fault.contains("h1:5672"), "{text}: {fault}");
            assert!(!fault.contains("SECRET"), "{fault}");
        }
        assert!(parse(",").is_err() && parse(" , ").is_err());
    }

    #[test]
    fn a_node_that_is_named_twice_is_an_error() {
        for (text, node) in [
            ("amqp://u:SECRET@h/v,amqp://w:SECRET@H:5672/v", "H:5672"),
            ("amqps://h/v,amqp://h:5671/v", "h:5671"),
            ("amqp://[::1]/,amqp://[0:0::1]:5672/", "[0:0::1]:5672"),
            ("amqp:///,amqp://h/,amqp://localhost/", "localhost:5672"),
        ] {
            let fault = parse(text).expect_err(text);
            assert!(fault.contains(&format!("{node} twice")) && !fault.contains("SECRET"), "{text}: {fault}");
        }
        assert_eq!(nodes("amqp://h:1/,amqp://h:2/,amqp://127.0.0.1:1/").len(), 3);
    }

    #[test]
    fn nodes_with_different_vhosts_are_an_error() {
        let fault = parse("amqp://u:SECRET@h1/%2f,amqp://u:SECRET@h2/v").unwrap_err();
        assert!(fault.contains("\"/\" for h1:5672 and \"v\" for h2:5672"), "{fault}");
        assert!(!fault.contains("SECRET"), "{fault}");
        assert_eq!(nodes("amqp://h1,amqp://h2/,amqp://h3/%2F").len(), 3);
    }

    #[test]
    fn parameters_are_used_or_named_or_refused() {
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
