//! What the provider tells us: what became of a text, and what a visitor texted back. Only with its signature.

use super::{
    AsAsked, Content, Gateway,
    caller::{self, answered, in_time},
    metrics,
    problem::{Own, Problem},
};
use crate::{
    optouts::{Inbound, Keyword, keyword},
    refusal::{Code, Refusal},
    sessions::{self, Heard, Word},
};
use axum::{
    Extension,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::IntoResponse,
};
use percent_encoding::percent_decode;
use sms_provider::signature::is_signed;
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

const SIGNATURE: HeaderName = HeaderName::from_static("x-twilio-signature");
/// No reply to a text.
const NO_REPLY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response></Response>";
/// How long a STOP or START is tried. The provider waits for 15 s, and sends none of them again.
const OBEYS_WITHIN: Duration = Duration::from_secs(10);
/// Characters of an id of the provider's at most.
const LONGEST_SID: usize = 64;
/// Bytes of a number, a messaging service or an inbound text's id at most: they stand in indexes.
const LONGEST_NAME: usize = 255;
/// A field's name is repeated to its sender up to this many characters.
const LONGEST_FIELD: usize = 64;

/// A form, proven to be the provider's.
struct Form(Vec<(String, String)>);

/// A delivery receipt
pub async fn status(
    State(gateway): State<Arc<Gateway>>,
    session: Result<Path<String>, PathRejection>,
    Extension(asked): Extension<AsAsked>,
    headers: HeaderMap,
    body: Result<Content, Problem>,
) -> Result<StatusCode, Problem> {
    let form = signed(&gateway, &asked, &headers, &body?.0)?;
    let Some(session) = session.ok().and_then(|Path(id)| Uuid::try_parse(&id).ok()) else {
        return Err(no_session());
    };
    let sid = form.required_as(["MessageSid", "SmsSid"])?;
    let is_plain = sid.len() <= LONGEST_SID && sid.bytes().all(|b| b.is_ascii_alphanumeric());
    if !is_plain {
        return Err(invalid("MessageSid", "must be letters and digits").into());
    }
    let code = form.value("ErrorCode").and_then(|code| code.parse().ok());
    let Some(word) = word(form.required_as(["MessageStatus", "SmsStatus"])?, code) else {
        // A status that the provider may have one day: it proves no more than that the text is there.
        return Ok(StatusCode::NO_CONTENT);
    };
    let pool = &gateway.services()?.pool;
    let heard = answered(in_time(sessions::hear(pool, session, sid, word)).await?)?;
    metrics::receipt(word);
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
    let (from, to) = (form.name("From")?, form.name("To")?);
    let from = from.ok_or_else(|| missing("From"))?;
    let to = to.ok_or_else(|| missing("To"))?;
    let message_sid = form.required_as(["MessageSid", "SmsSid"])?;
    if message_sid.len() > LONGEST_NAME {
        return Err(too_long("MessageSid").into());
    }
    // The visitor has stopped what both stand for.
    let senders: Vec<&str> = [Some(to), form.name("MessagingServiceSid")?].into_iter().flatten().collect();
    let text = Inbound { message_sid, from, senders: &senders };
    let word = keyword(form.value("Body").unwrap_or_default(), form.value("OptOutType"));
    let optouts = &gateway.services()?.optouts;
    match word {
        Some(Keyword::Stop) => answered(caller::within(OBEYS_WITHIN, optouts.stop(text)).await?)?,
        Some(Keyword::Start) => answered(caller::within(OBEYS_WITHIN, optouts.start(text)).await?)?,
        Some(Keyword::Help) | None => {}
    }
    metrics::inbound_sms(word);
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
    let form = decoded(body);
    let token = gateway.config.twilio_auth_token.as_ref();
    let given = headers.get(SIGNATURE).and_then(|value| value.to_str().ok());
    let url = gateway.public_address(asked);
    let is_right = token.zip(given).is_some_and(|(token, given)| is_signed(token, &url, &form, given));
    if !is_right {
        metrics::signature_failed();
        let message = "the X-Twilio-Signature is not right for this request under PUBLIC_URL";
        return Err(Problem::new(Own::SignatureInvalid, message));
    }
    Ok(Form::read(form)?)
}

/// Names and values of a form (<https://url.spec.whatwg.org/#urlencoded-parsing>), as bytes: the signature is over them,
/// whether they are text or not.
pub fn decoded(body: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let plain = |text: &[u8]| -> Vec<u8> {
        let spaced: Vec<u8> = text.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
        percent_decode(&spaced).collect()
    };
    let pairs = body.split(|b| *b == b'&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| {
        let at = pair.iter().position(|b| *b == b'=');
        let (name, value) = at.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
        (plain(name), plain(value))
    });
    pairs.collect()
}

/// A form's fields, as a fuzzing target looks at them.
#[cfg(fuzzing)]
pub fn form(body: &[u8]) -> Result<Vec<(String, String)>, Refusal> {
    Form::read(decoded(body)).map(|form| form.0)
}

fn no_session() -> Problem {
    Problem::new(Own::SessionNotFound, "there is no such session, or no longer")
}

fn invalid(field: &'static str, rule: &str) -> Refusal {
    Refusal::new(Code::FieldInvalid, format!("{field} {rule}")).field(field)
}

fn missing(name: &'static str) -> Refusal {
    Refusal::new(Code::FieldMissing, format!("{name} is missing")).field(name)
}

fn too_long(name: &'static str) -> Refusal {
    invalid(name, &format!("must have at most {LONGEST_NAME} bytes"))
}

impl Form {
    /// The form, if all of it is text that a database can hold.
    fn read(decoded: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Self, Refusal> {
        let fields = decoded.into_iter().map(|(name, value)| {
            let text = String::from_utf8(name);
            let shown = match &text {
                Ok(name) => name.as_str().into(),
                Err(error) => String::from_utf8_lossy(error.as_bytes()),
            };
            let shown: String = shown.chars().filter(|c| !c.is_control()).take(LONGEST_FIELD).collect();
            match (text, String::from_utf8(value)) {
                (Ok(name), Ok(value)) if !name.contains('\0') && !value.contains('\0') => Ok((name, value)),
                _ => {
                    let message = format!("{shown} must be UTF-8 without U+0000");
                    Err(Refusal::new(Code::FieldInvalid, message).field(shown))
                }
            }
        });
        fields.collect::<Result<_, _>>().map(Self)
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(given, _)| given == name)
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }

    /// A number, a messaging service or an id.
    fn name(&self, name: &'static str) -> Result<Option<&str>, Refusal> {
        match self.value(name) {
            Some(value) if value.len() > LONGEST_NAME => Err(too_long(name)),
            value => Ok(value),
        }
    }

    /// A field that goes by two names, the newer first.
    fn required_as(&self, names: [&'static str; 2]) -> Result<&str, Refusal> {
        names.into_iter().find_map(|name| self.value(name)).ok_or_else(|| missing(names[0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_decoded_as_the_url_standard_says() {
        for body in
            ["", "&", "a=1&b=2&a=3", "a", "=", "a=b=c", "a+b=%2B+%3d", "%zz=%4", "%C3%A9=é", "a=%&b=%4g"]
        {
            let expected: Vec<(String, String)> =
                url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
            assert_eq!(Form::read(decoded(body.as_bytes())).unwrap().0, expected, "{body}");
        }
    }

    #[test]
    fn what_is_no_text_is_a_fault_of_its_field() {
        for (body, field) in [
            ("From=%2B1&Body=a%00b", "Body"),
            ("Body=%ff", "Body"),
            ("Body=%ED%A0%80", "Body"),
            ("Body=%C3", "Body"),
            ("Fro%00m=1", "From"),
            ("%ff=1", "\u{fffd}"),
            ("Unknown=%00", "Unknown"),
        ] {
            let refusal = Form::read(decoded(body.as_bytes())).err().unwrap();
            assert_eq!((refusal.code, refusal.field.as_deref()), (Code::FieldInvalid, Some(field)), "{body}");
        }
    }

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
