//! The services of all tests, unit tests included. `./dev test` sets `DATABASE_URL` and `AMQP_URL`. There is no default:
//! no test may pass only because the machine happens to run a server.

/// The URL in one of these two variables.
pub fn url(variable: &str) -> String {
    let url = std::env::var(variable).unwrap_or_default();
    assert!(!url.is_empty(), "{variable} is not set: ./dev test starts the services and sets it");
    url
}
