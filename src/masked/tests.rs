//! No type with a secret or personal data derives `Debug`, and the masked ones do not show it.

use crate::{
    config::{BrokerArgs, DatabaseArgs, ProviderArgs, SecretsArgs},
    group::template::TemplateValues,
    group_id::GroupId,
    invite::envelope::{Envelope, HeaderValue},
    invite::reply::Reply,
    phone::PhoneNumber,
    session_key::{SessionKey, Token},
    sms_text::SmsText,
};
use std::{fmt::Debug, fs, path::Path};

/// Fields with such data, if they are text or bytes.
const PRIVATE: [&str; 27] = [
    "amqp_url",
    "auth_token",
    "authorization",
    "body",
    "console_token",
    "database_url",
    "gssnid",
    "headers",
    "invitation_text",
    "key",
    "partner_user_id",
    "password",
    "person_id",
    "phone",
    "phones",
    "requested_by",
    "secret",
    "secrets_key",
    "session_key",
    "session_params",
    "sms_phone",
    "text",
    "to",
    "token",
    "twilio_api_secret",
    "twilio_auth_token",
    "user",
];
const RAW: [&str; 10] = [
    "String",
    "&'a str",
    "Vec<u8>",
    "RawValue",
    "Value",
    "HeaderMap",
    "Box<str>",
    "Arc<str>",
    "Cow<",
    "Bytes",
];

/// Types with a field of such a name that has other data.
const OTHERWISE: [&str; 2] = [
    // The queue that a dead letter goes to.
    "LetterReplay { to",
    // The account at the provider.
    "ProviderConfig { user",
];

fn sources(folder: &Path, all: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            all.push(fs::read_to_string(&path).unwrap());
        }
    }
}

/// The types of a source that derive `Debug` although a field has such data.
fn offenders(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut derives = false;
    let mut current: Option<String> = None;
    for line in source.lines().map(str::trim) {
        if let Some(derive) = line.strip_prefix("#[derive(") {
            derives = derive.contains("Debug");
        } else if let Some((_, name)) = line.split_once("struct ") {
            current = (derives && !line.starts_with("//")).then(|| name.to_owned());
            derives = false;
        } else if line == "}" || line.starts_with("enum ") || line.starts_with("pub enum ") {
            current = None;
            derives = derives && line != "}";
        } else if let (Some(name), Some((field, kind))) = (&current, line.split_once(": ")) {
            let field = field.rsplit(' ').next().unwrap_or_default();
            if PRIVATE.contains(&field)
                && RAW.iter().any(|raw| kind.contains(raw))
                && !kind.contains("Secret")
            {
                found.push(format!("{name} {field}"));
            }
        }
    }
    found
}

#[test]
fn no_type_with_private_fields_derives_debug() {
    let mut all = Vec::new();
    for folder in ["src", "crates/sms-provider", "crates/sms-sandbox"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut all);
    }
    let found: Vec<_> = all.iter().flat_map(|source| offenders(source)).collect();
    let found: Vec<_> =
        found.iter().filter(|line| !OTHERWISE.iter().any(|name| line.starts_with(name))).collect();
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(offenders("#[derive(Debug)]\nstruct A {\n    pub phone: Option<String>,\n}\n").len(), 1);
    assert_eq!(offenders("#[derive(Clone)]\nstruct A {\n    pub phone: Option<String>,\n}\n").len(), 0);
}

#[test]
fn masked_types_do_not_show_their_data() {
    let secret = || Some("5ECRET".to_owned());
    let (key, token) = (SessionKey::draw(9, 0), Token::example());
    let phone = PhoneNumber::from_e164("+12025550123").unwrap();
    let reply = Reply {
        status: "sent",
        code: None,
        body: b"5ECRET".to_vec(),
        has_row: true,
        group: None,
        session: None,
        why: Some("5ECRET".into()),
    };
    let shown: [(&str, &dyn Debug); 12] = [
        ("database", &DatabaseArgs { database_url: secret(), ..DatabaseArgs::default() }),
        ("broker", &BrokerArgs { amqp_url: secret(), ..BrokerArgs::default() }),
        ("secrets", &SecretsArgs { secrets_key: secret(), ..SecretsArgs::default() }),
        (
            "provider",
            &ProviderArgs {
                twilio_auth_token: secret(),
                twilio_api_secret: secret(),
                ..ProviderArgs::default()
            },
        ),
        ("header", &HeaderValue::Text("5ECRET".to_owned())),
        ("envelope", &Envelope { body: b"5ECRET".to_vec(), message_id: secret(), ..Envelope::default() }),
        ("values", &TemplateValues { key: &key, token: &token, group: GroupId::new(72).unwrap() }),
        ("key", &key),
        ("token", &token),
        ("phone", &phone),
        ("text", &SmsText::from("5ECRET".to_owned())),
        ("reply", &reply),
    ];
    for (what, value) in shown {
        let text = format!("{value:?} {value:#?}");
        for hidden in ["5ECRET", "53, 69", key.as_str(), token.as_str(), "5550123"] {
            assert!(!text.contains(hidden), "{what}: {text}");
        }
    }
}
