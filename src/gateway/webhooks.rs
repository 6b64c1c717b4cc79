//! The provider's webhooks: delivery receipts, and texts from visitors. Both need the provider's signature.

use super::{
    Gateway, RequestBody, RequestTarget,
    caller::{from_database, from_database_within},
    metrics,
    problem::{GatewayCode, Problem},
    refused_receipts::RefusalCause,
};
use crate::{
    optouts::{InboundText, Keyword, keyword},
    refusal::{Code, Refusal},
    sessions::{self, ReportResult, TextReport, steps::ReportSource},
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
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// How long the look-up of a session may delay the refusal of its receipt.
const LOOK_WITHIN: Duration = Duration::from_secs(1);
/// Bytes of a host's name at most.
const LONGEST_HOST: usize = 255;
/// No reply to a text.
const NO_REPLY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response></Response>";
/// How long a STOP or START waits for the database. The provider waits for 15 s, and does not send it again.
const OPTOUT_PATIENCE: Duration = Duration::from_secs(10);
/// Characters of an id of the provider's at most.
const LONGEST_SID: usize = 64;
/// Bytes of a number, a messaging service or an inbound text's id at most: they are in indexes.
const LONGEST_NAME: usize = 255;
/// Characters of a field's name that a refusal shows at most.
const LONGEST_FIELD: usize = 64;

/// A form, proven to be the provider's.
struct WebhookForm(Vec<(String, String)>);

/// A delivery receipt
pub(super) async fn status(
    State(gateway): State<Arc<Gateway>>,
    session: Result<Path<String>, PathRejection>,
    Extension(target): Extension<RequestTarget>,
    headers: HeaderMap,
    body: Result<RequestBody, Problem>,
) -> Result<StatusCode, Problem> {
    let (body, session) = (body?.0, session.ok().and_then(|Path(id)| Uuid::try_parse(&id).ok()));
    let form = match signed_form(&gateway, &target, &headers, &body) {
        Ok(form) => form,
        Err(problem) => {
            if problem.status() == StatusCode::FORBIDDEN {
                note_refusal(&gateway, session, &target, &headers, &body).await;
            }
            return Err(problem);
        }
    };
    gateway.refused_receipts.accepted();
    let Some(session) = session else { return Err(no_session()) };
    let sid = form.required_as(["MessageSid", "SmsSid"])?;
    let is_plain = sid.len() <= LONGEST_SID && sid.bytes().all(|b| b.is_ascii_alphanumeric());
    if !is_plain {
        return Err(invalid("MessageSid", "must be letters and digits").into());
    }
    let code = form.value("ErrorCode").and_then(|code| code.parse().ok());
    let status = form.required_as(["MessageStatus", "SmsStatus"])?;
    let Some(word) = TextReport::of_status(status, code) else {
        // A status that this release does not know. It proves no more than that the provider has the text.
        return Ok(StatusCode::NO_CONTENT);
    };
    let pool = &gateway.services()?.pool;
    let noted = sessions::note_receipt(pool, session, sid, word, status, ReportSource::Receipt);
    let noted = from_database(noted).await?;
    metrics::receipt(word);
    // Any other receipt is taken: the same receipt again would change nothing.
    if noted == ReportResult::NoSession { Err(no_session()) } else { Ok(StatusCode::NO_CONTENT) }
}

/// Notes a receipt with a wrong signature, if its session exists.
async fn note_refusal(
    gateway: &Gateway,
    session: Option<Uuid>,
    target: &RequestTarget,
    headers: &HeaderMap,
    body: &[u8],
) {
    let (Some(session), Ok(services)) = (session, gateway.services()) else { return };
    if !gateway.refused_receipts.may_look() {
        return;
    }
    let exists = from_database_within(LOOK_WITHIN, sessions::exists(&services.pool, session)).await;
    if exists.is_ok_and(|exists| exists) {
        gateway.refused_receipts.refused(refusal_cause(gateway, target, headers, body));
    }
}

/// Why the signature is wrong: it may be right for another address that the request names.
fn refusal_cause(
    gateway: &Gateway,
    target: &RequestTarget,
    headers: &HeaderMap,
    body: &[u8],
) -> RefusalCause {
    let Some(token) = gateway.config.twilio_auth_token.as_ref() else { return RefusalCause::NoToken };
    let Some(given) = headers.get(SIGNATURE).and_then(|value| value.to_str().ok()) else {
        return RefusalCause::Other;
    };
    let form = decoded(body);
    let hosts =
        [X_FORWARDED_HOST, header::HOST].into_iter().filter_map(|name| headers.get(name)?.to_str().ok());
    let target = target.0.as_str();
    let hosts = hosts.filter(|host| host.len() <= LONGEST_HOST);
    let urls = hosts.flat_map(|host| ["https", "http"].map(|scheme| format!("{scheme}://{host}{target}")));
    let called = urls.into_iter().find(|url| is_signed(token, url, &form, given));
    let base = called.and_then(|url| Some(url.split_once("/webhooks/")?.0.to_owned()));
    base.map_or(RefusalCause::Other, RefusalCause::OtherUrl)
}

/// A text from a visitor: STOP and START, and other words for them
pub(super) async fn inbound(
    State(gateway): State<Arc<Gateway>>,
    Extension(target): Extension<RequestTarget>,
    headers: HeaderMap,
    body: Result<RequestBody, Problem>,
) -> Result<impl IntoResponse, Problem> {
    let form = signed_form(&gateway, &target, &headers, &body?.0)?;
    let (from, to) = (form.name("From")?, form.name("To")?);
    let from = from.ok_or_else(|| missing("From"))?;
    let to = to.ok_or_else(|| missing("To"))?;
    let message_sid = form.required_as(["MessageSid", "SmsSid"])?;
    if message_sid.len() > LONGEST_NAME {
        return Err(too_long("MessageSid").into());
    }
    // The visitor opts out of both: the number, and its messaging service.
    let senders: Vec<&str> = [Some(to), form.name("MessagingServiceSid")?].into_iter().flatten().collect();
    let text = InboundText { message_sid, from, senders: &senders };
    let word = keyword(form.value("Body").unwrap_or_default(), form.value("OptOutType"));
    let optouts = &gateway.services()?.optouts;
    match word {
        Some(Keyword::Stop) => from_database_within(OPTOUT_PATIENCE, optouts.stop(text)).await?,
        Some(Keyword::Start) => from_database_within(OPTOUT_PATIENCE, optouts.start(text)).await?,
        Some(Keyword::Help) | None => {}
    }
    metrics::inbound_sms(word);
    Ok(([(header::CONTENT_TYPE, "text/xml; charset=utf-8")], NO_REPLY))
}

/// The form, if its signature is right for the URL that the provider was given.
fn signed_form(
    gateway: &Gateway,
    target: &RequestTarget,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<WebhookForm, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let message = "the Content-Type must be application/x-www-form-urlencoded";
        return Err(Refusal::new(Code::RequestMalformed, message).status(415).into());
    }
    let form = decoded(body);
    let token = gateway.config.twilio_auth_token.as_ref();
    let given = headers.get(SIGNATURE).and_then(|value| value.to_str().ok());
    let url = gateway.public_url(target);
    let is_right = token.zip(given).is_some_and(|(token, given)| is_signed(token, &url, &form, given));
    if !is_right {
        metrics::signature_failed();
        let message = "the X-Twilio-Signature is not right for this request under PUBLIC_URL";
        return Err(Problem::new(GatewayCode::SignatureInvalid, message));
    }
    Ok(WebhookForm::read(form)?)
}

/// Names and values of a form (<https://url.spec.whatwg.org/#urlencoded-parsing>), as bytes: the signature is over them,
/// whether they are text or not.
pub(super) fn decoded(body: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
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

/// A form's fields, for a fuzzing target.
pub fn form(body: &[u8]) -> Result<Vec<(String, String)>, Refusal> {
    WebhookForm::read(decoded(body)).map(|form| form.0)
}

fn no_session() -> Problem {
    Problem::new(GatewayCode::SessionNotFound, "the session does not exist, or was deleted")
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

impl WebhookForm {
    /// The form, if all of it is text that the database can hold.
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
            assert_eq!(WebhookForm::read(decoded(body.as_bytes())).unwrap().0, expected, "{body}");
        }
    }

    #[test]
    fn a_field_that_is_not_text_is_refused_by_its_name() {
        for (body, field) in [
            ("From=%2B1&Body=a%00b", "Body"),
            ("Body=%ff", "Body"),
            ("Body=%ED%A0%80", "Body"),
            ("Body=%C3", "Body"),
            ("Fro%00m=1", "From"),
            ("%ff=1", "\u{fffd}"),
            ("Unknown=%00", "Unknown"),
        ] {
            let refusal = WebhookForm::read(decoded(body.as_bytes())).err().unwrap();
            assert_eq!((refusal.code, refusal.field.as_deref()), (Code::FieldInvalid, Some(field)), "{body}");
        }
    }
}
