//! One invite through the queue: what is checked, in the contract's order, and what is replied.

mod age;
mod contract_example;
mod credentials;
mod idempotency;
mod limits;
mod neighbours;
mod optouts;
mod pasted;
mod replies;
mod request;
