//! A server, and where it comes from.

/// Where a server comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Source {
    /// The variables, or what answers on the default ports
    Running,
    /// Docker Compose
    Compose,
    /// Private instances of the distribution's packages
    Private,
}

/// A server that was found or started.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub url: String,
    pub source: Source,
}
