//! Points where a test ends the process or a task, between two effects. Release builds have none.
//!
//! `SESSION_INVITE_FAILPOINT=begun:die` ends the process at the first invite that reaches the point `begun`, as `kill -9`
//! would. `begun:stop` stops the process there, as SIGSTOP does. `begun:die:3` waits for the third invite, and
//! `begun:die:=x` for every invite with the message id `x`.
//!
//! `task/sweep:panic:2` makes the task of that name (`supervise::Task`) panic at its second step; its start is the first. With
//! `return` the task ends, with `hang` it never continues, and with `block` it also blocks its thread. `task/*` means every
//! task, once each. `SESSION_INVITE_MINUTE=1s` shortens the minute after which a task without a step is a problem.

/// Ends or stops the process here, if the environment names this point.
#[cfg(not(debug_assertions))]
#[inline(always)]
#[expect(clippy::inline_always, reason = "release builds must contain nothing of it")]
pub(crate) fn hit(_: &'static str) {}

/// The same, for the invite with this message id.
#[cfg(not(debug_assertions))]
#[inline(always)]
#[expect(clippy::inline_always, reason = "release builds must contain nothing of it")]
pub(crate) fn hit_by(_: &'static str, _: Option<&str>) {}

#[cfg(debug_assertions)]
pub(crate) use armed::{hit, hit_by};
#[cfg(debug_assertions)]
pub(crate) use tasks::shortened;

/// The failpoint of one task: at each step, a test may end the task. Release builds do nothing.
#[derive(Debug, Default)]
pub(crate) struct TaskFailpoint {
    #[cfg(debug_assertions)]
    action: std::sync::atomic::AtomicU8,
}

#[cfg(not(debug_assertions))]
impl TaskFailpoint {
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        clippy::unused_self,
        reason = "release builds must contain nothing of it"
    )]
    pub(crate) fn step(&self, _: &'static str) {}

    /// Runs the task to its end.
    #[expect(clippy::unused_self, reason = "as in debug builds")]
    pub(crate) async fn run<T>(&self, task: impl Future<Output = T>) -> Option<T> {
        Some(task.await)
    }
}

/// A time that tests shorten by `SESSION_INVITE_MINUTE`.
#[cfg(not(debug_assertions))]
pub(crate) fn shortened(minute: std::time::Duration) -> std::time::Duration {
    minute
}

#[cfg(debug_assertions)]
mod armed {
    use rustix::process::{Signal, getpid, kill_process};
    use std::{
        sync::{
            LazyLock,
            atomic::{AtomicU32, Ordering},
        },
        time::Duration,
    };

    /// Besides `config`, only this module reads the environment: for tests alone, and never in release builds.
    static ARMED: LazyLock<Option<Failpoint>> = LazyLock::new(|| {
        let text = std::env::var("SESSION_INVITE_FAILPOINT").ok()?;
        let mut parts = text.split(':');
        let (name, action) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let which = parts.next().unwrap_or("1");
        let message_id = which.strip_prefix('=').map(str::to_owned);
        Some(Failpoint { name, action, left: AtomicU32::new(which.parse().unwrap_or(1)), message_id })
    });

    struct Failpoint {
        name: String,
        action: String,
        left: AtomicU32,
        message_id: Option<String>,
    }

    /// Ends or stops the process here, if the environment names this point.
    pub(crate) fn hit(name: &'static str) {
        hit_by(name, None);
    }

    /// The same, for the invite with this message id.
    pub(crate) fn hit_by(name: &'static str, message_id: Option<&str>) {
        let Some(armed) = ARMED.as_ref().filter(|armed| armed.name == name) else { return };
        let is_due = match &armed.message_id {
            Some(wanted) => message_id == Some(wanted.as_str()),
            None => armed.left.fetch_sub(1, Ordering::SeqCst) == 1,
        };
        if !is_due {
            return;
        }
        match armed.action.as_str() {
            "panic" => panic!("the failpoint {name}"),
            "stop" => {
                // By a system call: an image without procps has no program `kill`.
                kill_process(getpid(), Signal::STOP).expect("a process may stop itself");
                // The signal may reach this thread late: it does nothing until then.
                std::thread::sleep(Duration::from_millis(200));
            }
            // Without any clean-up, and without another step of any task.
            _ => std::process::abort(),
        }
    }
}

#[cfg(debug_assertions)]
mod tasks {
    use super::TaskFailpoint;
    use std::{
        collections::HashMap,
        future::{Future, poll_fn},
        pin::pin,
        sync::{LazyLock, Mutex, PoisonError, atomic::Ordering},
        task::Poll,
        time::Duration,
    };

    static ARMED: LazyLock<Option<ArmedTask>> = LazyLock::new(|| {
        let text = std::env::var("SESSION_INVITE_FAILPOINT").ok()?;
        let mut parts = text.strip_prefix("task/")?.split(':').map(str::to_owned);
        let (task, action) = (parts.next()?, parts.next()?);
        let step = parts.next().map_or(1, |step| step.parse().expect("the number of a step"));
        Some(ArmedTask { task, action, step, steps: Mutex::default() })
    });

    struct ArmedTask {
        task: String,
        action: String,
        step: u32,
        /// Steps of each task, over all its runs.
        steps: Mutex<HashMap<&'static str, u32>>,
    }

    const NOTHING: u8 = 0;
    const RETURNS: u8 = 1;
    const HANGS: u8 = 2;

    impl TaskFailpoint {
        /// The task begins a step.
        pub(crate) fn step(&self, task: &'static str) {
            let Some(armed) = ARMED.as_ref().filter(|armed| [task, "*"].contains(&armed.task.as_str()))
            else {
                return;
            };
            let made = {
                let mut steps = armed.steps.lock().unwrap_or_else(PoisonError::into_inner);
                let made = steps.entry(task).or_default();
                *made += 1;
                *made
            };
            match armed.action.as_str() {
                _ if made != armed.step => {}
                "panic" => panic!("the failpoint of the task {task}"),
                "return" => self.action.store(RETURNS, Ordering::Relaxed),
                "hang" => self.action.store(HANGS, Ordering::Relaxed),
                _ => std::thread::sleep(Duration::from_hours(1)),
            }
        }

        /// Runs the task to its end. `None` if the failpoint ended it.
        pub(crate) async fn run<T>(&self, task: impl Future<Output = T>) -> Option<T> {
            let mut task = pin!(task);
            poll_fn(|context| {
                if self.action.load(Ordering::Relaxed) == HANGS {
                    return Poll::Pending;
                }
                let polled = task.as_mut().poll(context).map(Some);
                match self.action.swap(NOTHING, Ordering::Relaxed) {
                    RETURNS => Poll::Ready(None),
                    HANGS => {
                        self.action.store(HANGS, Ordering::Relaxed);
                        Poll::Pending
                    }
                    _ => polled,
                }
            })
            .await
        }
    }

    /// A time that tests shorten by `SESSION_INVITE_MINUTE`.
    pub(crate) fn shortened(minute: Duration) -> Duration {
        let shorter = std::env::var("SESSION_INVITE_MINUTE").ok();
        shorter.map_or(minute, |text| humantime::parse_duration(&text).expect("a time"))
    }
}
