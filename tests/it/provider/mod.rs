//! The text at the provider: its answers, further tries, and looks for a text whose answer was lost.

mod answers;
mod health;
mod looks;
mod retries;
