//! What the tests, the soak and the benchmark share. It knows nothing of the program.

pub mod credentials;
pub mod process;
pub mod raw_amqp;
pub mod services;
