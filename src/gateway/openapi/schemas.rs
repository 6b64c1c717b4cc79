//! The documented request's body.

use serde_json::{Value, json};

/// The schema of the queue's requests (docs/schemas), without the fields that HTTP carries elsewhere: the credential is in
/// headers, the group in the query.
pub(super) fn invite() -> Value {
    // A test checks the file against the code.
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
            "smsPhone": phone(&fields["smsPhone"]),
            "sessionParams": params,
        },
        "example": {
            "sessiontype": 1,
            "smsPhone": "111-000-0000",
            "sessionParams": {"camera": "back", "resolution": "352x288"},
        },
    })
}

/// The queue's rule. Only libphonenumber decides which texts are numbers, so no pattern here may refuse one that it takes.
fn phone(queued: &Value) -> Value {
    let mut phone = queued.clone();
    phone["description"] =
        format!("{} {NOT_BY_A_PATTERN}", queued["description"].as_str().unwrap_or_default()).into();
    phone["examples"] = json!(["111-000-0000", "+44 20 7946 0958", 4_155_552_671_u64]);
    phone
}

const NOT_BY_A_PATTERN: &str = "libphonenumber decides what is a number, not this schema: a text or an integer that is valid \
                                here can still be refused, with 400 phone_invalid.";
