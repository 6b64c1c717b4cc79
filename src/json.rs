//! JSON objects whose member names all differ, so that no two readers can see different values in one object.

use serde::{
    Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::HashSet, fmt, marker::PhantomData};

/// What a reader makes of the members of an object.
pub(crate) trait Members<'de>: Default {
    /// Takes one member: its name, and its value from `map`. Returns whether the name is new.
    fn add<A: MapAccess<'de>>(&mut self, name: Cow<'de, str>, map: &mut A) -> Result<bool, A::Error>;

    /// Notes a name with a lone surrogate, in WTF-8, which no known member has. Returns whether the name is new.
    fn note_broken_name(&mut self, name: Vec<u8>) -> bool;
}

/// Reads `json` as one object. Only those values are decoded that `M` decodes.
///
/// # Errors
///
/// Of the category `Data` for a value that is not an object, and for a repeated name: "a field is repeated". Of another
/// category for text that is not JSON.
pub(crate) fn read_object<'de, M: Members<'de>>(json: &'de str) -> Result<M, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let members = Deserializer::deserialize_map(&mut reader, ObjectVisitor(PhantomData))?;
    reader.end()?;
    Ok(members)
}

/// The text of a JSON string, borrowed where it has no escapes. `None` for another value, or for a lone surrogate.
pub(crate) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(raw.get()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

struct ObjectVisitor<M>(PhantomData<M>);

impl<'de, M: Members<'de>> Visitor<'de> for ObjectVisitor<M> {
    type Value = M;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<M, A::Error> {
        let mut members = M::default();
        while let Some(name) = map.next_key::<&RawValue>()? {
            let is_new = match member_name(name).map_err(A::Error::custom)? {
                MemberName::Text(name) => members.add(name, &mut map)?,
                MemberName::Broken(name) => {
                    map.next_value::<IgnoredAny>()?;
                    members.note_broken_name(name)
                }
            };
            if !is_new {
                return Err(A::Error::custom("a field is repeated"));
            }
        }
        Ok(members)
    }
}

/// Every member in the object's order, with its value as it was written.
#[derive(Default)]
pub(crate) struct RawMembers<'a> {
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// The names of the members after the first [`FEW`].
    more_names: HashSet<Cow<'a, str>>,
    broken_names: HashSet<Vec<u8>>,
}

impl<'a> RawMembers<'a> {
    /// Whether a name has a lone surrogate. Its member is left out.
    pub(crate) fn has_broken_name(&self) -> bool {
        !self.broken_names.is_empty()
    }

    pub(crate) fn into_vec(self) -> Vec<(Cow<'a, str>, &'a RawValue)> {
        self.members
    }
}

impl<'de> Members<'de> for RawMembers<'de> {
    fn add<A: MapAccess<'de>>(&mut self, name: Cow<'de, str>, map: &mut A) -> Result<bool, A::Error> {
        let is_new = self.members.iter().take(FEW).all(|(other, _)| *other != name);
        let is_new = is_new && (self.members.len() < FEW || self.more_names.insert(name.clone()));
        if is_new {
            self.members.push((name, map.next_value()?));
        }
        Ok(is_new)
    }

    fn note_broken_name(&mut self, name: Vec<u8>) -> bool {
        self.broken_names.insert(name)
    }
}

/// So many names are compared one by one, which costs less than hashing them.
const FEW: usize = 8;

/// Names seen in one object.
#[derive(Default)]
pub(crate) struct DistinctNames<'a> {
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>>,
}

impl<'a> DistinctNames<'a> {
    /// Returns whether the name is new.
    pub(crate) fn add(&mut self, name: Cow<'a, str>) -> bool {
        if self.few.contains(&name) {
            return false;
        }
        if self.few.len() == FEW {
            return self.many.insert(name);
        }
        self.few.push(name);
        true
    }
}

enum MemberName<'a> {
    /// Borrowed where it has no escapes.
    Text(Cow<'a, str>),
    /// With a lone surrogate, which JSON allows (RFC 8259, section 8.2), in WTF-8.
    Broken(Vec<u8>),
}

fn member_name(raw: &RawValue) -> Result<MemberName<'_>, serde_json::Error> {
    struct BytesVisitor;

    impl Visitor<'_> for BytesVisitor {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a name")
        }

        fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<Vec<u8>, E> {
            Ok(name.to_owned())
        }
    }

    if let Some(name) = string(raw) {
        return Ok(MemberName::Text(name));
    }
    serde_json::Deserializer::from_str(raw.get()).deserialize_bytes(BytesVisitor).map(MemberName::Broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_a_repeated_name_is_refused() {
        let json = r#"{"b":1e999,"\u0061":[2],"c":null}"#;
        let members = read_object::<RawMembers<'_>>(json).unwrap().into_vec();
        let shown: Vec<_> = members.iter().map(|(name, raw)| (name.as_ref(), raw.get())).collect();
        assert_eq!(shown, [("b", "1e999"), ("a", "[2]"), ("c", "null")]);
        for last in [0, 7, 8, 98] {
            let names: Vec<_> = (0..99).chain([last]).map(|n| format!("\"{n}\":1")).collect();
            let json = format!("{{{}}}", names.join(","));
            let error = read_object::<RawMembers<'_>>(&json).err().unwrap();
            assert!(error.is_data() && error.to_string().starts_with("a field is repeated"), "{error}");
        }
    }

    #[test]
    fn text_that_is_not_one_object_is_refused() {
        for bad in [
            "",
            "null",
            "[]",
            "{} {}",
            "{}x",
            "{\"a\"}",
            r#"{"\ud8":1}"#,
            "{\"a\nb\":1}",
            "{1:2}",
            "{\"a\":1,}",
            "\u{feff}{}",
        ] {
            assert!(read_object::<RawMembers<'_>>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_member_whose_name_has_a_lone_surrogate_is_left_out_and_may_not_be_repeated() {
        let members =
            read_object::<RawMembers<'_>>(r#"{"\ud800":[1],"a":2,"\udc00":1,"\ud800\udc00":3}"#).unwrap();
        assert!(members.has_broken_name());
        let shown: Vec<_> = members.into_vec().into_iter().map(|(name, raw)| (name, raw.get())).collect();
        assert_eq!(shown, [("a".into(), "2"), ("\u{10000}".into(), "3")]);
        let error = read_object::<RawMembers<'_>>(r#"{"\ud800":1,"\uD800":2}"#).err().unwrap();
        assert!(error.is_data() && error.to_string().starts_with("a field is repeated"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn a_string_is_read_as_serde_json_reads_it(
            inner in proptest::prop_oneof![".{0,20}", r#"(\\["\\/bfnrtu]|\\u[0-9a-fD]{4}|[a-zé"\u{7f}\u{80}]){0,9}"#],
        ) {
            if let Ok(raw) = RawValue::from_string(format!("\"{inner}\"")) {
                proptest::prop_assert_eq!(string(&raw).map(Cow::into_owned), serde_json::from_str::<String>(raw.get()).ok());
            }
        }
    }
}
