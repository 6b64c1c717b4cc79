//! What the provider tells us: what became of a text, and what a visitor texted back. Only with its signature.

use super::{
    AsAsked, Content, Gateway,
    caller::{answered, in_time},
    problem::{Own, Problem},
};
use crate::{
    metrics,
    optouts::{Keyword, Source, keyword},
    refusal::{Code, Refusal},
    sessions::{self, Heard, Word},
    sms::signature::is_signed,
};
use axum::{
    Extension,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::IntoResponse,
};
use std::sync::Arc;
use url::form_urlencoded;
use uuid::Uuid;

const SIGNATURE: HeaderName = HeaderName::from_static("x-twilio-signature");
/// No reply to a text.
const NO_REPLY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response></Response>";
/// Characters of an id of the provider's at most.
const LONGEST_SID: usize = 64;

/// A form, proven to be the provider's.
struct Form(Vec<(String, String)>);

/// A delivery receipt
pub async fn status(
    State(gateway): State<Arc<Gateway>>,
    Path(session): Path<String>,
    Extension(asked): Extension<AsAsked>,
    headers: HeaderMap,
    body: Result<Content, Problem>,
) -> Result<StatusCode, Problem> {
    let form = signed(&gateway, &asked, &headers, &body?.0)?;
    let Ok(session) = Uuid::try_parse(&session) else {
        return Err(no_session());
    };
    let sid = form.required("MessageSid")?;
    let is_plain = sid.len() <= LONGEST_SID && sid.bytes().all(|b| b.is_ascii_alphanumeric());
    if !is_plain {
        return Err(invalid("MessageSid", "must be letters and digits").into());
    }
    let code = form.value("ErrorCode").and_then(|code| code.parse().ok());
    let Some(word) = word(form.required("MessageStatus")?, code) else {
        // A status that the provider may have one day: it proves no more than that the text is there.
        return Ok(StatusCode::NO_CONTENT);
    };
    let pool = &gateway.services()?.pool;
    let heard = answered(in_time(sessions::hear(pool, session, sid, word)).await?)?;
    metrics::receipt(word);
    metrics::heard(session, sid, &heard);
    // The provider is told whatever it cannot mend by telling it again.
    if heard == Heard::NoSession { Err(no_session()) } else { Ok(StatusCode::NO_CONTENT) }
}

/// What a status means (<https://www.twilio.com/docs/messaging/api/message-resource#message-status-values>).
fn word(status: &str, code: Option<i32>) -> Option<Word> {
    match status {
        "accepted" | "scheduled" | "queued" | "sending" | "sent" => Some(Word::Taken),
        "delivered" | "read" | "partially_delivered" => Some(Word::Delivered),
        "undelivered" | "failed" | "canceled" => Some(Word::Undelivered { code }),
        _ => None,
    }
}

/// A text from a visitor: STOP and START, in their many words
pub async fn inbound(
    State(gateway): State<Arc<Gateway>>,
    Extension(asked): Extension<AsAsked>,
    headers: HeaderMap,
    body: Result<Content, Problem>,
) -> Result<impl IntoResponse, Problem> {
    let form = signed(&gateway, &asked, &headers, &body?.0)?;
    let (from, to) = (form.required("From")?, form.required("To")?);
    let source = Source::Inbound { provider_message_id: form.required("MessageSid")? };
    let word = keyword(form.value("Body").unwrap_or_default(), form.value("OptOutType"));
    // The visitor has stopped what both stand for.
    let senders: Vec<&str> = [Some(to), form.value("MessagingServiceSid")].into_iter().flatten().collect();
    let optouts = &gateway.services()?.optouts;
    for sender in senders {
        match word {
            Some(Keyword::Stop) => {
                answered(in_time(optouts.record(sender, from, source)).await?)?;
            }
            Some(Keyword::Start) => {
                answered(in_time(optouts.remove(sender, from)).await?)?;
            }
            Some(Keyword::Help) | None => {}
        }
    }
    metrics::inbound(word);
    Ok(([(header::CONTENT_TYPE, "text/xml; charset=utf-8")], NO_REPLY))
}

/// The form, if its signature is right for the URL that the provider was given.
fn signed(gateway: &Gateway, asked: &AsAsked, headers: &HeaderMap, body: &[u8]) -> Result<Form, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let message = "the Content-Type must be application/x-www-form-urlencoded";
        return Err(Refusal::new(Code::RequestMalformed, message).status(415).into());
    }
    let form = Form(form_urlencoded::parse(body).into_owned().collect());
    let token = gateway.config.twilio_auth_token.as_ref();
    let given = headers.get(SIGNATURE).and_then(|value| value.to_str().ok());
    let url = gateway.public_address(asked);
    let is_right = token.zip(given).is_some_and(|(token, given)| is_signed(token, &url, &form.0, given));
    if !is_right {
        metrics::unsigned();
        let message = "the X-Twilio-Signature is not right for this request under PUBLIC_URL";
        return Err(Problem::new(Own::SignatureInvalid, message));
    }
    Ok(form)
}

fn no_session() -> Problem {
    Problem::new(Own::SessionNotFound, "there is no such session, or no longer")
}

fn invalid(field: &'static str, rule: &str) -> Refusal {
    Refusal::new(Code::FieldInvalid, format!("{field} {rule}")).field(field)
}

impl Form {
    fn value(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(given, _)| given == name)
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }

    fn required(&self, name: &'static str) -> Result<&str, Refusal> {
        self.value(name)
            .ok_or_else(|| Refusal::new(Code::FieldMissing, format!("{name} is missing")).field(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_meaning() {
        for status in ["accepted", "scheduled", "queued", "sending", "sent"] {
            assert_eq!(word(status, None), Some(Word::Taken), "{status}");
        }
        assert_eq!(word("delivered", None), Some(Word::Delivered));
        for status in ["undelivered", "failed", "canceled"] {
            assert_eq!(
                word(status, Some(30_003)),
                Some(Word::Undelivered { code: Some(30_003) }),
                "{status}"
            );
        }
        assert_eq!(word("receiving", None), None);
    }
}
