//! The queues: what is declared, what a sender can put on them, and what is set aside.

mod hostile;
mod nodes;
mod permissions;
mod set_aside;
mod topology;
mod undecodable;
