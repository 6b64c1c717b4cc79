//! Places where a test lets the process die, between two effects of an invite. In release builds there are none.
//!
//! `SESSION_INVITE_FAILPOINT=begun:die` makes the process end at the first invite that comes to the point `begun`, as
//! `kill -9` would; `begun:stop` stops it there as SIGSTOP does; `begun:die:3` waits for the third invite, and
//! `begun:die:=x` meets each one with the message id `x`.
//!
//! `task/sweep:panic:2` meets the task of that name (`supervise::Task`) at its second step; its start is the first. It
//! panics, or with `return` ends, with `hang` never goes on, and with `block` keeps its thread as well. `task/*` means each
//! task, once. `SESSION_INVITE_MINUTE=1s` shortens the minute after which a task without a step is a problem.

/// Dies here, if this is what the environment says.
#[cfg(not(debug_assertions))]
#[inline(always)]
#[expect(clippy::inline_always, reason = "nothing may be left of it")]
pub fn hit(_: &'static str) {}

/// The same, for the invite with this message id.
#[cfg(not(debug_assertions))]
#[inline(always)]
#[expect(clippy::inline_always, reason = "nothing may be left of it")]
pub fn hit_by(_: &'static str, _: Option<&str>) {}

#[cfg(debug_assertions)]
pub use armed::{hit, hit_by};
#[cfg(debug_assertions)]
pub use tasks::{Fate, instead_of};

/// What a test lets a task meet: nothing.
#[cfg(not(debug_assertions))]
#[derive(Debug, Default)]
pub struct Fate;

#[cfg(not(debug_assertions))]
impl Fate {
    #[inline(always)]
    #[expect(clippy::inline_always, clippy::unused_self, reason = "nothing may be left of it")]
    pub fn meet(&self, _: &'static str) {}

    /// The life of a task, and always its result.
    #[expect(clippy::unused_self, reason = "as in debug builds")]
    pub async fn of<T>(&self, life: impl Future<Output = T>) -> Option<T> {
        Some(life.await)
    }
}

/// A time that tests shorten.
#[cfg(not(debug_assertions))]
pub fn instead_of(minute: std::time::Duration) -> std::time::Duration {
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

    /// The environment's one other reader: it is for tests alone, and not there in release builds.
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

    /// Dies or stops here, if this is what the environment says.
    pub fn hit(name: &'static str) {
        hit_by(name, None);
    }

    /// The same, for the invite with this message id.
    pub fn hit_by(name: &'static str, message_id: Option<&str>) {
        let Some(armed) = ARMED.as_ref().filter(|armed| armed.name == name) else { return };
        let meets = match &armed.message_id {
            Some(wanted) => message_id == Some(wanted.as_str()),
            None => armed.left.fetch_sub(1, Ordering::SeqCst) == 1,
        };
        if !meets {
            return;
        }
        match armed.action.as_str() {
            "panic" => panic!("the failpoint {name}"),
            "stop" => {
                // A system call: an image without procps has no program `kill`.
                kill_process(getpid(), Signal::STOP).expect("a process may stop itself");
                // The signal is on its way to all threads; this one takes no further step before it is there.
                std::thread::sleep(Duration::from_millis(200));
            }
            // Nothing is cleaned up, and no other task takes another step.
            _ => std::process::abort(),
        }
    }
}

#[cfg(debug_assertions)]
mod tasks {
    use std::{
        collections::HashMap,
        future::{Future, poll_fn},
        pin::pin,
        sync::{
            LazyLock, Mutex, PoisonError,
            atomic::{AtomicU8, Ordering},
        },
        task::Poll,
        time::Duration,
    };

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let text = std::env::var("SESSION_INVITE_FAILPOINT").ok()?;
        let mut parts = text.strip_prefix("task/")?.split(':').map(str::to_owned);
        let (task, action) = (parts.next()?, parts.next()?);
        let step = parts.next().map_or(1, |step| step.parse().expect("the number of a step"));
        Some(Armed { task, action, step, steps: Mutex::default() })
    });

    struct Armed {
        task: String,
        action: String,
        step: u32,
        /// Steps that each task has made, over all its lives.
        steps: Mutex<HashMap<&'static str, u32>>,
    }

    const NOTHING: u8 = 0;
    const RETURNS: u8 = 1;
    const HANGS: u8 = 2;

    /// What a test lets a task meet.
    #[derive(Debug, Default)]
    pub struct Fate(AtomicU8);

    impl Fate {
        /// The task makes a step.
        pub fn meet(&self, task: &'static str) {
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
                "return" => self.0.store(RETURNS, Ordering::Relaxed),
                "hang" => self.0.store(HANGS, Ordering::Relaxed),
                _ => std::thread::sleep(Duration::from_hours(1)),
            }
        }

        /// The life of a task; nothing when it is made to end.
        pub async fn of<T>(&self, life: impl Future<Output = T>) -> Option<T> {
            let mut life = pin!(life);
            poll_fn(|context| {
                if self.0.load(Ordering::Relaxed) == HANGS {
                    return Poll::Pending;
                }
                let polled = life.as_mut().poll(context).map(Some);
                match self.0.swap(NOTHING, Ordering::Relaxed) {
                    RETURNS => Poll::Ready(None),
                    HANGS => {
                        self.0.store(HANGS, Ordering::Relaxed);
                        Poll::Pending
                    }
                    _ => polled,
                }
            })
            .await
        }
    }

    /// A time that tests shorten.
    pub fn instead_of(minute: Duration) -> Duration {
        let shorter = std::env::var("SESSION_INVITE_MINUTE").ok();
        shorter.map_or(minute, |text| humantime::parse_duration(&text).expect("a time"))
    }
}
