//! Waiting longer and longer for what passes, each waiter at moments of its own.

use std::time::Duration;

/// Doubles from `least` to `most`; jittered by half, so that many who lost the same server do not return together.
#[derive(Debug)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub const fn new(least: Duration, most: Duration) -> Self {
        Self { least, most, next: least }
    }

    /// It worked: the next wait is the shortest again.
    pub fn reset(&mut self) {
        self.next = self.least;
    }

    /// The next wait, but for its jitter.
    pub const fn upcoming(&self) -> Duration {
        self.next
    }

    /// Waits. A wait that is cut short counts as one.
    pub async fn wait(&mut self) {
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
    fn it_doubles_up_to_its_most_and_begins_anew() {
        let millis = Duration::from_millis;
        let mut backoff = Backoff::new(millis(100), millis(300));
        assert_eq!([(); 4].map(|()| backoff.step()), [100, 200, 300, 300].map(millis));
        backoff.reset();
        assert_eq!(backoff.upcoming(), millis(100));
    }
}
