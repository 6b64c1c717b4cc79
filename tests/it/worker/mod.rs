//! The worker as a process: its start, its stop, its death, and what it survives.

mod crash;
mod outage;
mod shutdown;
mod startup;
mod tasks;
