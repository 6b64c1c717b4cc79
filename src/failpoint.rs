//! Places where a test lets the process die, between two effects of an invite. In release builds there are none.
//!
//! `SESSION_INVITE_FAILPOINT=begun:die` makes the process end at the first invite that comes to the point `begun`, as
//! `kill -9` would; `begun:stop` stops it there as SIGSTOP does; `begun:die:3` waits for the third invite, and
//! `begun:die:=x` meets each one with the message id `x`.

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
mod armed {
    use std::{
        process::Command,
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
                let own = std::process::id().to_string();
                let _ = Command::new("kill").args(["-STOP", &own]).status();
                // The signal is on its way to all threads; this one takes no further step before it is there.
                std::thread::sleep(Duration::from_millis(200));
            }
            // Nothing is cleaned up, and no other task takes another step.
            _ => std::process::abort(),
        }
    }
}
