use super::{NOW, code, group, with_char};
use crate::{
    credential::{GssnidToken, WebsiteSession, gssnid},
    refusal::Code,
};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn row() -> WebsiteSession {
    WebsiteSession { group_id: group(72), person_id: "joe".to_owned(), expired: false, revoked: false }
}

#[test]
fn every_limit_of_the_shape_is_checked() {
    let random = "0123456789abcdef";
    for good in [
        format!("joe.1589912963.{random}"),
        format!("joe.1589912963.{random}.72"),
        format!("{}.1.{}", "é".repeat(255), "-_".repeat(32)),
        format!("a.123456789012.{random}"),
    ] {
        assert!(GssnidToken::parse(&good).is_ok(), "{good}");
    }
    for bad in [
        "joe.1589912963".to_owned(),
        format!(".1589912963.{random}"),
        format!("{}.1.{random}", "é".repeat(256)),
        format!("joe green.1.{random}"),
        format!("joe\u{7f}.1.{random}"),
        format!("joe..{random}"),
        format!("joe.1234567890123.{random}"),
        format!("joe.-1.{random}"),
        format!("joe.1.{}", &random[1..]),
        format!("joe.1.{}", "a".repeat(65)),
        format!("joe.1.{random}="),
        format!("joe.1.{random}."),
        format!("joe.1.{random}.072"),
        format!("joe.1.{random}.72.1"),
    ] {
        assert_eq!(code(GssnidToken::parse(&bad)).err(), Some(Code::CredentialMalformed), "{bad}");
    }
}

#[test]
fn the_row_decides() {
    let own_group = GssnidToken::parse(&gssnid::mint("joe", NOW, Some(group(72)))).unwrap();
    let no_group = GssnidToken::parse(&gssnid::mint("joe", NOW, None)).unwrap();
    let other_group = GssnidToken::parse(&gssnid::mint("joe", NOW, Some(group(73)))).unwrap();
    let expired = WebsiteSession { expired: true, ..row() };
    let revoked = WebsiteSession { revoked: true, ..row() };
    let both = WebsiteSession { expired: true, revoked: true, ..row() };

    for token in [&own_group, &no_group] {
        assert_eq!(token.accept(Some(&row())).unwrap().to_string(), "gssnid:joe");
        assert_eq!(code(token.accept(Some(&expired))).err(), Some(Code::CredentialExpired));
        for bad in [None, Some(&revoked), Some(&both)] {
            assert_eq!(code(token.accept(bad)).err(), Some(Code::CredentialInvalid));
        }
    }
    for row in [row(), expired] {
        assert_eq!(code(other_group.accept(Some(&row))).err(), Some(Code::CredentialInvalid));
    }
}

proptest! {
    #[test]
    fn a_minted_id_has_its_own_hash_and_a_changed_one_another(
        person in "[a-zA-Z0-9_-]{1,255}",
        id in prop::option::of(1..=(1_i64 << 53) - 1),
        index in any::<usize>(),
        c in prop_oneof![any::<char>(), proptest::char::range(' ', '~')],
    ) {
        let minted = gssnid::mint(&person, NOW, id.map(group));
        let token = GssnidToken::parse(&minted).unwrap();
        let hash: [u8; 32] = Sha256::digest(&minted).into();
        prop_assert_eq!(token.sha256(), &hash);
        if let Some(Ok(changed)) = with_char(&minted, index, c).map(|text| GssnidToken::parse(&text)) {
            prop_assert_ne!(changed.sha256(), &hash);
        }
    }
}
