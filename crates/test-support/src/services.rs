//! Where every test finds its services, the unit tests too: in `DATABASE_URL` and `AMQP_URL`, which `./dev test` sets.
//! There is no default, so that a test never passes only because a machine happens to run a server.

/// The URL in one of these variables.
pub fn url(variable: &str) -> String {
    let url = std::env::var(variable).unwrap_or_default();
    assert!(!url.is_empty(), "{variable} is not set: ./dev test starts the services and sets it");
    url
}
