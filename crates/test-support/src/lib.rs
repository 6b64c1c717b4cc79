//! What the tests, the soak and the benchmark share. It does not depend on the program.

pub mod credentials;
pub mod driver;
pub mod metrics_page;
pub mod postgres;
pub mod process;
pub mod raw_amqp;
pub mod services;
