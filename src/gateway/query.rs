//! The query of a request, whose names match in any case.

use crate::refusal::{Code, Refusal};
use url::form_urlencoded;

/// The value of a parameter, which may be there once.
pub(super) fn value(query: Option<&str>, name: &str) -> Result<Option<String>, Refusal> {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let mut values = pairs.filter(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let first = values.next().map(std::borrow::Cow::into_owned);
    if values.next().is_some() {
        return Err(Refusal::new(Code::FieldInvalid, format!("{name} is repeated")).field(name));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_matches_in_any_case_and_once() {
        assert_eq!(value(Some("x=1&GroupID=%372"), "groupid"), Ok(Some("72".to_owned())));
        assert_eq!(value(Some("groupid"), "groupid"), Ok(Some(String::new())));
        assert_eq!(value(None, "groupid"), Ok(None));
        let twice = value(Some("groupid=72&GROUPID=72"), "groupid").unwrap_err();
        assert_eq!((twice.code, twice.field.as_deref()), (Code::FieldInvalid, Some("groupid")));
    }
}
