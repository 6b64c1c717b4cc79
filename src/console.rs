//! The operators' console: pages of the gateway below `/console`, made on the server. They work without a script.
//!
//! - `access` decides who may come in, and signs forms; `ended_logins` has who logged out. `guard` makes of it the operator that
//!   each page's handler takes; `login` and `login_page` are for those who have not come in yet.
//! - `layout` has the frame of every page, `words` how values are written, and `assets` the style and the script.
//! - `params` reads queries and forms. A change takes a `ConsoleForm`, which only comes from a form of this console.
//! - `state` has what the pages share. What a page reads, it reads by `Console::read`, within a limit of time. What it
//!   changes, it changes as an [`Operator`](crate::audit::Operator), as the commands do.
//! - `router` has every address. Each subject has a file: `overview` with its `facts`, `session_pages`,
//!   `dead_pages`, `group_pages`, `audit_page`. `problems` says what is wrong by what processes and queues tell.

mod access;
mod assets;
mod audit_page;
mod dead_pages;
mod ended_logins;
mod facts;
mod group_pages;
mod guard;
mod layout;
mod login;
mod login_page;
mod overview;
mod params;
mod problem_list;
mod problems;
mod router;
mod session_pages;
mod state;
mod words;

pub(crate) use router::router;
