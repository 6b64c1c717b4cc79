//! The nodes that a URL names: AMQP_URL has a URL for each, DATABASE_URL a host for each.

/// A URL for each broker node. The soak's own URLs have no other commas.
pub(crate) fn broker_urls(amqp_url: &str) -> Vec<String> {
    amqp_url.split(',').map(str::to_owned).collect()
}

/// A URL for each database node.
pub(crate) fn database_urls(database_url: &str) -> Vec<String> {
    let Some((before, hosts, after)) = split(database_url) else { return vec![database_url.to_owned()] };
    hosts.split(',').map(|host| format!("{before}{host}{after}")).collect()
}

/// One URL for several nodes that differ in their hosts only.
pub(crate) fn database_url(of_nodes: &[String]) -> String {
    let Some((before, _, after)) = of_nodes.first().and_then(|url| split(url)) else { return String::new() };
    let hosts: Vec<_> = of_nodes.iter().filter_map(|url| Some(split(url)?.1)).collect();
    format!("{before}{}{after}", hosts.join(","))
}

/// What precedes the hosts, the hosts, and what follows them.
fn split(url: &str) -> Option<(&str, &str, &str)> {
    let authority = url.find("://")? + 3;
    let path = url[authority..].find('/').map_or(url.len(), |at| authority + at);
    let hosts = url[authority..path].rfind('@').map_or(authority, |at| authority + at + 1);
    Some((&url[..hosts], &url[hosts..path], &url[path..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_a_url_and_all_have_one() {
        let several = "postgres://me:pw@192.0.2.1:5432,192.0.2.2:5433/soak";
        let each = database_urls(several);
        assert_eq!(each, ["postgres://me:pw@192.0.2.1:5432/soak", "postgres://me:pw@192.0.2.2:5433/soak"]);
        assert_eq!(database_url(&each), several);
        assert_eq!(database_urls("postgres://me@h/soak"), ["postgres://me@h/soak"]);
        assert_eq!(broker_urls("amqp://a,amqp://b"), ["amqp://a", "amqp://b"]);
    }
}
