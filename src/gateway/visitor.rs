//! The page that a visitor's link opens: whom the session is with, its key in large digits, and a button to join. It has no
//! script. It changes nothing, as link previews open it too.

use super::{ClientAddress, Gateway, caller::from_database, page::escape, problem::Problem};
use crate::{
    group::{Group, template::TemplateValues},
    group_id::GroupId,
    pasted,
    session_key::{SessionKey, Token},
    sessions::{self, VisitedSession},
};
use axum::{
    extract::{Path, State},
    http::{StatusCode, header},
    response::Response,
};
use std::{borrow::Cow, fmt::Write as _, sync::Arc, time::Duration};

const PAGE: &str = include_str!("visitor.html");
const STYLE: &str = include_str!("visitor.css");
/// A key with more digits than this is written smaller, so that it stays on one line.
const LARGE_DIGITS: usize = 7;
/// `Retry-After` while the database is away, in seconds.
const SOON: u64 = 5;

/// The page of `/s/{token}`.
pub(super) async fn page(
    State(gateway): State<Arc<Gateway>>,
    ClientAddress(address): ClientAddress,
    token: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Response {
    // A text that cannot be a token is not looked up.
    let token = token.ok().and_then(|Path(token)| written_token(&token));
    let found = match token {
        Some(token) => find(&gateway, &token).await.map(|found| found.map(|visited| (visited, token))),
        None => Ok(None),
    };
    match found {
        Ok(Some((visited, token))) => visit(&gateway, &visited, &token),
        // A right link always opens, even if others behind the same address tried wrong ones: a token cannot be guessed.
        Ok(None) => match gateway.wrong_links.count(address) {
            Ok(()) => show(StatusCode::NOT_FOUND, &VisitorPage::Unknown, None),
            Err(after) => show(StatusCode::TOO_MANY_REQUESTS, &VisitorPage::Slower, Some(after)),
        },
        Err(_) => away(StatusCode::SERVICE_UNAVAILABLE),
    }
}

/// The page for a link that cannot be looked up at this moment.
pub(super) fn away(status: StatusCode) -> Response {
    show(status, &VisitorPage::Away, Some(Duration::from_secs(SOON)))
}

/// The token of a link, without the punctuation, white space and invisible characters around it that a reader's program has
/// taken into the link.
pub(super) fn written_token(text: &str) -> Option<Token> {
    let visible = pasted::visible(text);
    let token =
        visible.trim_matches(|c: char| !c.is_alphanumeric() && (!c.is_control() || c.is_whitespace()));
    Token::parse(token)
}

async fn find(gateway: &Gateway, token: &Token) -> Result<Option<VisitedSession>, Problem> {
    let pool = &gateway.services()?.pool;
    from_database(sessions::visit(pool, token)).await
}

fn visit(gateway: &Gateway, visited: &VisitedSession, token: &Token) -> Response {
    let directory = gateway.services().ok().map(|services| services.directory.snapshot());
    let id = GroupId::new(visited.group_id);
    let group = directory.as_ref().zip(id).and_then(|(directory, id)| directory.group(id));
    let with = name(group.map(AsRef::as_ref), visited.group_id);
    if !visited.is_live {
        return show(StatusCode::GONE, &VisitorPage::Over { with }, None);
    }
    if group.is_some_and(|group| !group.enabled) {
        return show(StatusCode::GONE, &VisitorPage::Closed { with }, None);
    }
    let join = group.zip(id).and_then(|(group, id)| {
        let values = TemplateValues { key: &visited.session_key, token, group: id };
        group.join.as_ref().map(|join| join.render(&values))
    });
    show(StatusCode::OK, &VisitorPage::Live { with, key: &visited.session_key, join }, None)
}

/// The group's name for its visitors.
fn name(group: Option<&Group>, id: i64) -> Cow<'_, str> {
    let name = group.and_then(|group| group.options.name.as_deref());
    name.map_or_else(|| format!("group {id}").into(), Cow::Borrowed)
}

enum VisitorPage<'a> {
    Live {
        with: Cow<'a, str>,
        key: &'a SessionKey,
        join: Option<String>,
    },
    Over {
        with: Cow<'a, str>,
    },
    /// The operator has switched the group off.
    Closed {
        with: Cow<'a, str>,
    },
    Unknown,
    Slower,
    Away,
}

impl VisitorPage<'_> {
    fn title(&self) -> &'static str {
        match self {
            Self::Live { .. } => "Your session",
            Self::Over { .. } => "This session is over",
            Self::Closed { .. } => "This session is closed",
            Self::Unknown => "No session here",
            Self::Slower => "One moment, please",
            Self::Away => "We will be right back",
        }
    }

    fn main(&self) -> String {
        let title = self.title();
        match self {
            Self::Live { with, key, join } => {
                let (with, key) = (escape(with), escape(key.as_str()));
                let long = if key.len() > LARGE_DIGITS { " long" } else { "" };
                let spoken = key.chars().map(String::from).collect::<Vec<_>>().join(" ");
                let mut main = format!(
                    "<h1>{title}</h1>\n<p>with <strong>{with}</strong></p>\n\
                     <p class=\"key{long}\" role=\"img\" aria-label=\"Session code {spoken}\">{key}</p>\n\
                     <p class=\"soft\">Your session code. Give it to the agent if you are asked for it.</p>"
                );
                if let Some(join) = join {
                    // Writing to a string does not fail.
                    let _ = write!(
                        main,
                        "\n<a class=\"go\" href=\"{}\" rel=\"noreferrer\">Join the session</a>",
                        escape(join)
                    );
                }
                main
            }
            Self::Over { with } => {
                let with = escape(with);
                format!(
                    "<h1>{title}</h1>\n<p>Its time is up, or it was ended.</p>\n\
                     <p class=\"soft\">If you still need help, please ask {with} for a new link.</p>"
                )
            }
            Self::Closed { with } => format!(
                "<h1>{title}</h1>\n<p>{} does not hold sessions at this time.</p>\n\
                 <p class=\"soft\">If you still need help, please contact them in another way.</p>",
                escape(with)
            ),
            Self::Unknown => format!(
                "<h1>{title}</h1>\n<p>This link does not lead to a session. It may be old, or not have come through whole.</p>\n\
                 <p class=\"soft\">Please open it from the message again, or ask for a new one.</p>"
            ),
            Self::Slower => format!(
                "<h1>{title}</h1>\n<p>Too many links were tried from here. Please open yours again in a few minutes.</p>"
            ),
            Self::Away => format!(
                "<h1>{title}</h1>\n<p>We cannot look your session up at this moment. Please try again shortly.</p>"
            ),
        }
    }
}

fn show(status: StatusCode, page: &VisitorPage<'_>, retry_after: Option<Duration>) -> Response {
    let html =
        PAGE.replace("{{style}}", STYLE).replace("{{title}}", page.title()).replace("{{main}}", &page.main());
    let mut response = super::page::page(status, STYLE, html);
    if let Some(after) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, after.as_secs().max(1).into());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_operators_wrote_is_shown_as_text() {
        let page = VisitorPage::Live {
            with: "<b>\"Ann\" & 'Bob'".into(),
            key: &SessionKey::parse("012345").unwrap(),
            join: Some("https://x.example/?a=1&b=\"".to_owned()),
        };
        let main = page.main();
        assert!(main.contains("&lt;b&gt;&quot;Ann&quot; &amp; &#39;Bob&#39;"), "{main}");
        assert!(main.contains("href=\"https://x.example/?a=1&amp;b=&quot;\""), "{main}");
        assert!(main.contains("aria-label=\"Session code 0 1 2 3 4 5\">012345<"), "{main}");
    }

    #[test]
    fn punctuation_and_invisible_characters_around_the_token_are_cut_off() {
        let token = "aB3aB3aB3aB3aB3a";
        let written = |text: &str| written_token(text).map(|token| token.as_str().to_owned());
        for after in [
            "",
            ".",
            ",",
            ")",
            ">",
            "\"",
            "'",
            "!",
            "?",
            ";",
            ":",
            "]",
            "}",
            "*",
            "_",
            "~",
            "`",
            "&",
            ").",
            ".\u{201d}",
            " ",
            "\u{a0}",
            "\n",
            "\u{2028}",
            "\u{200b}",
            "\u{feff}",
            "\u{2026}",
            "\u{3002}",
            "\u{ff09}",
            "\u{bb}",
            "\u{2019}s".trim_end_matches('s'),
            " - ",
            "/",
            "/).",
            "\u{ad}\u{200d}",
            "\u{1f642}",
        ] {
            assert_eq!(written(&format!("{token}{after}")).as_deref(), Some(token), "{after:?}");
        }
        assert_eq!(written("<aB3aB3aB\u{ad}3aB3aB3a>").as_deref(), Some(token));
        for other in ["x", "1", "\u{2019}s", ".x", "%20", "\0", "\u{7}", "é", "1."] {
            assert_eq!(written_token(&format!("{token}{other}")), None, "{other:?}");
        }
        assert_eq!(written_token("aB3aB3aB.3aB3aB3a"), None);
    }
}
