//! Growing waits before a reconnect, or before a statement is repeated.

use std::time::Duration;

/// Doubles from `least` to `most`. Each wait varies by half, so that many clients of one server do not reconnect together.
#[derive(Debug)]
pub(crate) struct Backoff {
    least: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new(least: Duration, most: Duration) -> Self {
        Self { least, most, next: least }
    }

    /// After a success: the next wait is the shortest again.
    pub(crate) fn reset(&mut self) {
        self.next = self.least;
    }

    /// The next wait, without its random part.
    pub(crate) const fn upcoming(&self) -> Duration {
        self.next
    }

    /// Waits. A wait that is cancelled counts as well.
    pub(crate) async fn wait(&mut self) {
        let pause = self.step();
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
    }

    fn step(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.most);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_its_most_and_restarts_after_a_reset() {
        let millis = Duration::from_millis;
        let mut backoff = Backoff::new(millis(100), millis(300));
        assert_eq!([(); 4].map(|()| backoff.step()), [100, 200, 300, 300].map(millis));
        backoff.reset();
        assert_eq!(backoff.upcoming(), millis(100));
    }
}
