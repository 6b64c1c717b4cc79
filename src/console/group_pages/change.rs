//! What can be done with a group: a page that says what it would do, and its form.

use super::show::{find, group_of, outcomes_of};
use crate::{
    audit::Operator,
    console::{
        access::ConsoleUser,
        layout::{self, Offer, Section},
        params::{ChangePath, ConsoleForm, thing_and_verb},
        state::Console,
        words::{self, number},
    },
    db::NotRead,
    group::store::{self, StoreError},
    group_id::GroupId,
    sessions::{self, recent},
};
use axum::{extract::State, http::StatusCode, response::Response};
use maud::{Markup, html};
use std::{sync::Arc, time::Duration};
use strum::{Display, EnumString, IntoStaticStr};

/// How long a change may take.
const CHANGES_WITHIN: Duration = Duration::from_secs(10);

/// As the command and the address write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, EnumString, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
enum GroupVerb {
    Pause,
    Resume,
    Disable,
    Enable,
}

impl GroupVerb {
    fn title(self, group: GroupId) -> String {
        let verb = match self {
            Self::Pause => "Pause",
            Self::Resume => "Resume",
            Self::Disable => "Disable",
            Self::Enable => "Enable",
        };
        format!("{verb} group {group}?")
    }

    /// What it does.
    const fn meaning(self) -> &'static str {
        match self {
            Self::Pause => {
                "None of its texts goes out, and no try is used up. Its invites are taken and wait. One that gets too old \
                 meanwhile is answered invite_expired; the others go on when you resume the group. Texts that may have gone out \
                 are looked for meanwhile."
            }
            Self::Resume => "Its invites that wait go on at once, the first within 5 s.",
            Self::Disable => {
                "Its invites are answered group_disabled, its visitors' pages are closed, and agents can only end what runs. \
                 Enabling ends that; an invite that was refused meanwhile does not come again by itself."
            }
            Self::Enable => "Its invites are texted again, and its visitors' pages are open.",
        }
    }
}

/// `GET /groups/{group}/{verb}`: what it would do.
pub(in crate::console) async fn confirm(
    State(console): State<Arc<Console>>,
    user: ConsoleUser,
    path: ChangePath,
) -> Response {
    let Some((group, verb)) = thing_and_verb::<_, GroupVerb>(path, group_of) else {
        return layout::no_such_page(&console, Some(&user));
    };
    if let Err(page) = find(&console, &user, Some(group)).await {
        return *page;
    }
    let open = console.read(move |db| Box::pin(sessions::waiting_in_group(db, group))).await;
    let outcomes = console.read(move |db| Box::pin(recent::of_group(db, group))).await;
    let what = html! {
        p { (verb.meaning()) }
        (affected(open))
        h2 { "Its invites of the last hour" }
        @match &outcomes { Ok(outcomes) => (outcomes_of(outcomes)), Err(why) => (words::not_read(*why)) }
    };
    let (path, back) = (format!("/groups/{group}/{verb}"), format!("/groups/{group}"));
    let (title, command) = (verb.title(group), format!("groups {verb} {group}"));
    let offer = Offer {
        section: Section::Groups,
        titles: (&title, title.trim_end_matches('?')),
        paths: (&path, &back),
        command: &command,
    };
    layout::confirmation(&console, &user, &offer, &what)
}

fn affected(open: Result<i64, NotRead>) -> Markup {
    html! {
        @match open {
            Ok(open) => p { "Invites of the group without an outcome now: " strong { (number(open)) } "." },
            Err(why) => (words::not_read(why)),
        }
    }
}

/// `POST /groups/{group}/{verb}`: does it.
pub(in crate::console) async fn change(
    State(console): State<Arc<Console>>,
    path: ChangePath,
    form: ConsoleForm,
) -> Response {
    let user = &form.user;
    let Some((group, verb)) = thing_and_verb::<_, GroupVerb>(path, group_of) else {
        return layout::no_such_page(&console, Some(user));
    };
    let (action, title) = (format!("groups {verb}"), verb.title(group));
    let page = (Section::Groups, title.as_str());
    let Some(operator) = console.operator(user, &action, &format!("{action} {group}")) else {
        return layout::could_not_read(&console, user, page, NotRead::Away);
    };
    let carried_out = tokio::time::timeout(CHANGES_WITHIN, carry_out(&operator, group, verb)).await;
    let invites = match carried_out {
        Ok(Ok(invites)) => invites,
        Ok(Err(StoreError::NoGroup(_))) => return layout::no_such_page(&console, Some(user)),
        Ok(Err(StoreError::Database(error))) => return layout::not_changed(&console, user, page, &error),
        Ok(Err(error)) => {
            return layout::refused(&console, Some(user), StatusCode::CONFLICT, &title, &error.to_string());
        }
        Err(_) => return layout::perhaps_changed(&console, user, page),
    };
    let invites = invites.to_string();
    layout::see(&console, &format!("/groups/{group}"), &[("done", verb.into()), ("invites", &invites)])
}

/// Returns how many invites go on.
async fn carry_out(operator: &Operator, group: GroupId, verb: GroupVerb) -> Result<u64, StoreError> {
    match verb {
        GroupVerb::Pause => store::pause(operator, group).await.map(|_| 0),
        GroupVerb::Disable => store::disable(operator, group).await.map(|()| 0),
        GroupVerb::Enable => store::enable(operator, group).await.map(|()| 0),
        GroupVerb::Resume => {
            store::resume(operator, group).await?;
            // After the commit, as `groups resume` does.
            Ok(sessions::wake(operator.pool(), group).await?)
        }
    }
}
