//! How our types are read from the columns that hold them. A value that the type does not allow is an error, and never a
//! default: the error names the type, and shows nothing of the value.

use super::status::{Status, TextState};
use crate::{
    group_id::GroupId,
    phone::PhoneNumber,
    session_key::{SessionKey, Token},
    sms_text::SmsText,
};
use sqlx::{
    Decode, Postgres, Type,
    error::BoxDynError,
    postgres::{PgTypeInfo, PgValueRef},
};

/// A column holds a value that this type does not allow.
#[derive(Debug, thiserror::Error)]
#[error("the column holds no valid {0}")]
struct InvalidColumn(&'static str);

macro_rules! column {
    ($raw:ty => $($type:ident: $read:expr;)+) => {$(
        impl Type<Postgres> for $type {
            fn type_info() -> PgTypeInfo {
                <$raw as Type<Postgres>>::type_info()
            }

            fn compatible(column: &PgTypeInfo) -> bool {
                <$raw as Type<Postgres>>::compatible(column)
            }
        }

        impl Decode<'_, Postgres> for $type {
            fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
                let read: fn($raw) -> Option<Self> = $read;
                let raw = <$raw as Decode<Postgres>>::decode(value)?;
                read(raw).ok_or_else(|| InvalidColumn(stringify!($type)).into())
            }
        }
    )+};
}

column! { &str =>
    Status: |word| word.parse().ok();
    TextState: |word| word.parse().ok();
    PhoneNumber: PhoneNumber::from_e164;
    SessionKey: SessionKey::parse;
    Token: Token::parse;
    SmsText: |text| Some(text.to_owned().into());
}
column! { i64 => GroupId: GroupId::new; }

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::tests::with_database;
    use sqlx::PgPool;

    async fn read<T>(pool: &PgPool, text: &str) -> Result<T, String>
    where
        T: for<'r> Decode<'r, Postgres> + Type<Postgres> + Send + Unpin,
    {
        let read = sqlx::query_scalar::<_, T>("select $1").bind(text).fetch_one(pool).await;
        read.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_column_is_read_as_its_type_and_the_error_for_a_wrong_value_hides_it() {
        with_database(|pool| async move {
            assert_eq!(read(&pool, "undelivered").await, Ok(Status::Undelivered));
            assert_eq!(read(&pool, "waiting").await, Ok(TextState::Waiting));
            let phone: PhoneNumber = read(&pool, "+11110000000").await.unwrap();
            assert_eq!(phone.as_e164(), "+11110000000");
            let key: SessionKey = read(&pool, "012345").await.unwrap();
            assert_eq!(key.as_str(), "012345");
            let token: Token = read(&pool, "aB3aB3aB3aB3aB3a").await.unwrap();
            assert_eq!(token.as_str(), "aB3aB3aB3aB3aB3a");
            assert_eq!(read::<SmsText>(&pool, "Join: 1").await.unwrap().as_str(), "Join: 1");
            for error in [
                read::<Status>(&pool, "5ECRET").await.unwrap_err(),
                read::<TextState>(&pool, "5ECRET").await.unwrap_err(),
                read::<PhoneNumber>(&pool, "5ECRET").await.unwrap_err(),
                read::<SessionKey>(&pool, "5ECRET").await.unwrap_err(),
                read::<Token>(&pool, "5ECRET").await.unwrap_err(),
            ] {
                assert!(error.contains("the column holds no valid ") && !error.contains("5ECRET"), "{error}");
            }
        })
        .await;
    }
}
