//! Places where a test lets the process die, between two effects of an invite. In release builds there are none.
//!
//! `SESSION_INVITE_FAILPOINT=begun:die` makes the process end at the first invite that comes to the point `begun`, as
//! `kill -9` would; `begun:stop` stops it there as SIGSTOP does; `begun:die:3` waits for the third invite.

/// Dies here, if this is what the environment says.
#[cfg(not(debug_assertions))]
#[inline(always)]
#[expect(clippy::inline_always, reason = "nothing may be left of it")]
pub fn hit(_: &'static str) {}

#[cfg(debug_assertions)]
pub use armed::hit;

#[cfg(debug_assertions)]
mod armed {
    use std::{
        process::Command,
        sync::{
            LazyLock,
            atomic::{AtomicU32, Ordering},
        },
    };

    /// The environment's one other reader: it is for tests alone, and not there in release builds.
    static ARMED: LazyLock<Option<Failpoint>> = LazyLock::new(|| {
        let text = std::env::var("SESSION_INVITE_FAILPOINT").ok()?;
        let mut parts = text.split(':');
        let (name, action) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let nth = parts.next().and_then(|nth| nth.parse().ok()).unwrap_or(1);
        Some(Failpoint { name, action, left: AtomicU32::new(nth) })
    });

    struct Failpoint {
        name: String,
        action: String,
        left: AtomicU32,
    }

    /// Dies or stops here, if this is what the environment says.
    pub fn hit(name: &'static str) {
        let Some(armed) = ARMED.as_ref().filter(|armed| armed.name == name) else { return };
        if armed.left.fetch_sub(1, Ordering::SeqCst) != 1 {
            return;
        }
        match armed.action.as_str() {
            "panic" => panic!("the failpoint {name}"),
            "stop" => {
                let own = std::process::id().to_string();
                // Returns once somebody lets the process go on.
                let _ = Command::new("kill").args(["-STOP", &own]).status();
            }
            // Nothing is cleaned up, and no other task takes another step.
            _ => std::process::abort(),
        }
    }
}
