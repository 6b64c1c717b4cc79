//! The documented request's body.

use serde_json::{Value, json};

/// As docs/schemas has it for the queue, without what HTTP carries elsewhere: the credential in headers, the group in the
/// query.
pub fn invite() -> Value {
    // The file is held against the code by a test.
    let queued: Value =
        serde_json::from_str(include_str!("../../../docs/schemas/request.schema.json")).unwrap_or_default();
    let fields = &queued["properties"];
    let text = json!({"type": "string", "pattern": "^[^\\u0000]*$"});
    let mut params = fields["sessionParams"].clone();
    params["propertyNames"] = json!({"pattern": "^[^\\u0000]*$"});
    params["additionalProperties"] = json!({"anyOf": [text, {"type": ["number", "boolean", "null"]}]});
    json!({
        "type": "object",
        "description": "Whom to invite. At most 64 KiB, no field repeated; unknown fields are ignored.",
        "required": queued["required"],
        "properties": {
            "sessiontype": fields["sessiontype"],
            "smsPhone": phone(),
            "sessionParams": params,
        },
        "example": {
            "sessiontype": 1,
            "smsPhone": "111-000-0000",
            "sessionParams": {"camera": "back", "resolution": "352x288"},
        },
    })
}

/// Which strings are numbers is libphonenumber's to say, and no pattern's: this one has what is sure to be taken by a group
/// of the default region.
fn phone() -> Value {
    json!({
        "description": "Whom to text. Any way to write a number that can take a text is good: with + and country code, \
                        or as dialled in the group's region. The pattern has those that a group in the US is sure to \
                        take. No letters, no extension, no short code.",
        "anyOf": [
            {"type": "string", "pattern": "^(\\+1 ?)?[1-9][0-9]{2}[- ]?[0-9]{3}[- ]?[0-9]{4}$"},
            {"type": "integer", "minimum": 1_000_000_000_u64, "maximum": 19_999_999_999_u64},
        ],
        "examples": ["111-000-0000", "+442079460958"],
    })
}
