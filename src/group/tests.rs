//! The store and the directory on a real Postgres. Each test creates a database and drops it.

use super::{
    ApiKey,
    directory::Directory,
    options::GroupOptions,
    store::{
        self, StoreError, addresses,
        keys::{self, NewJwtSecret, OldKeys},
        reseal, website_sessions,
    },
};
use crate::{audit::Operator, group_id::GroupId, hmac_key::HmacKey, seal::SecretsKey};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};
use std::{sync::Arc, time::Duration};

const PUBLIC_URL: &str = "https://invite.example";

/// Runs a test in a new database on the server of `DATABASE_URL`.
pub(crate) async fn with_database<F: Future<Output = ()>>(test: impl FnOnce(PgPool) -> F) {
    let server = test_support::services::url("DATABASE_URL");
    let name = format!("session_invite_test_{}", uuid::Uuid::new_v4().simple());
    let mut admin = PgConnection::connect(&server).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("create database {name}"))).execute(&mut admin).await.unwrap();
    let mut own = url::Url::parse(&server).unwrap();
    own.set_path(&name);
    let pool = PgPool::connect(own.as_str()).await.unwrap();
    crate::db::migrate(&pool).await.unwrap();

    // The database is dropped even when the test fails; its panic continues afterwards.
    let outcome = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(test(pool.clone()))).await;
    pool.close().await;
    sqlx::raw_sql(AssertSqlSafe(format!("drop database {name} with (force)")))
        .execute(&mut admin)
        .await
        .unwrap();
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn group(id: i64) -> GroupId {
    GroupId::new(id).unwrap()
}

fn secrets(byte: char) -> SecretsKey {
    // 43 characters of base64; the last one has no spare bits.
    SecretsKey::parse(&format!("{}A", byte.to_string().repeat(42))).unwrap()
}

fn operator(pool: &PgPool) -> Operator {
    Operator::new(pool.clone())
}

async fn add(pool: &PgPool, id: i64, key: &str) -> Result<(), StoreError> {
    let jwt = NewJwtSecret { kid: Some("first".to_owned()), secret: format!("jwt of {id}").into() };
    store::add(&operator(pool), &secrets('k'), group(id), &GroupOptions::default(), &key.into(), Some(&jwt))
        .await
}

/// Whether the keys are made of these secrets, in this order: their signatures are equal.
fn are_made_of(keys: &[ApiKey], secrets: &[&str]) -> bool {
    let signed = |key: &HmacKey| key.sign(&[b"x"]);
    keys.iter()
        .map(|key| signed(&key.key))
        .eq(secrets.iter().map(|secret| signed(&HmacKey::from_secret(secret.as_bytes()))))
}

#[tokio::test]
async fn options_are_read_as_they_were_set() {
    with_database(|pool| async move {
        add(&pool, 72, "key").await.unwrap();
        assert_eq!(store::show(&pool, group(72)).await.unwrap().options, GroupOptions::default());
        let wanted = GroupOptions {
            region: "DE".into(),
            countries: vec!["AT".into(), "DE".into()],
            key_length: 9,
            link: Some("https://e.com/{token}".into()),
            sms_from: Some("+15550001111".into()),
            per_number: None,
            per_minute: Some(60),
            session_ttl: Duration::from_secs(90),
            ..GroupOptions::default()
        };
        let change = wanted.clone();
        store::set(&operator(&pool), group(72), |options| {
            *options = change;
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(store::show(&pool, group(72)).await.unwrap().options, wanted);
    })
    .await;
}

#[tokio::test]
async fn a_group_is_added_once_and_a_missing_one_is_named() {
    with_database(|pool| async move {
        add(&pool, 72, "key").await.unwrap();
        let error = add(&pool, 72, "another").await.unwrap_err().to_string();
        assert!(error.starts_with("group 72 exists; use `groups set`"), "{error}");
        for error in [
            store::disable(&operator(&pool), group(73)).await.unwrap_err(),
            store::set(&operator(&pool), group(73), |_| Ok(())).await.unwrap_err(),
            addresses::add(&operator(&pool), "a.example", group(73), "1").await.unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::NoGroup(id) if id == group(73)));
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_belongs_to_one_group_even_when_two_are_added_at_once() {
    with_database(|pool| async move {
        let (one, other) = tokio::join!(add(&pool, 72, "same"), add(&pool, 7, "same"));
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
        assert!(matches!(one.and(other), Err(StoreError::KeyInUse(_))));
        assert_eq!(store::list(&pool).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn rotation_keeps_the_old_key_until_it_is_finished() {
    with_database(|pool| async move {
        add(&pool, 72, "old").await.unwrap();
        let directory = Directory::open(pool.clone(), secrets('k'), PUBLIC_URL.into()).await.unwrap();
        keys::rotate_api_key(&operator(&pool), &secrets('k'), group(72), &"new".into(), OldKeys::Keep)
            .await
            .unwrap();
        let both = directory.fresh().await.unwrap();
        assert!(are_made_of(&both.group(group(72)).unwrap().api_keys, &["old", "new"]));
        assert_eq!(keys::revoke_old(&operator(&pool), group(72)).await.unwrap(), 1);
        let new = directory.fresh().await.unwrap();
        assert!(are_made_of(&new.group(group(72)).unwrap().api_keys, &["new"]));
        keys::rotate_api_key(&operator(&pool), &secrets('k'), group(72), &"newest".into(), OldKeys::Revoke)
            .await
            .unwrap();
        let newest = directory.fresh().await.unwrap();
        assert!(are_made_of(&newest.group(group(72)).unwrap().api_keys, &["newest"]));
    })
    .await;
}

#[tokio::test]
async fn a_kid_names_one_active_secret() {
    with_database(|pool| async move {
        add(&pool, 72, "key").await.unwrap();
        let again = NewJwtSecret { kid: Some("first".into()), secret: "another".into() };
        let operator = operator(&pool);
        let rotate = |old| keys::rotate_jwt_secret(&operator, secrets_ref(), group(72), &again, old);
        assert!(matches!(rotate(OldKeys::Keep).await, Err(StoreError::KidInUse(..))));
        rotate(OldKeys::Revoke).await.unwrap();
        assert_eq!(keys::active_jwt_secrets(&pool, Some(group(72))).await.unwrap().len(), 1);
    })
    .await;
}

fn secrets_ref() -> &'static SecretsKey {
    static SECRETS: std::sync::LazyLock<SecretsKey> = std::sync::LazyLock::new(|| secrets('k'));
    &SECRETS
}

#[tokio::test]
async fn a_key_that_does_not_open_affects_no_other_group() {
    with_database(|pool| async move {
        add(&pool, 72, "key").await.unwrap();
        store::add(&operator(&pool), &secrets('x'), group(7), &GroupOptions::default(), &"lost".into(), None)
            .await
            .unwrap();
        let directory = Directory::open(pool.clone(), secrets('k'), PUBLIC_URL.into()).await.unwrap();
        let snapshot = directory.snapshot();
        assert!(are_made_of(&snapshot.group(group(72)).unwrap().api_keys, &["key"]));
        assert!(snapshot.group(group(7)).unwrap().api_keys.is_empty());
    })
    .await;
}

#[tokio::test]
async fn several_reseals_at_once_seal_each_key_once() {
    with_database(|pool| async move {
        for id in 1..=5 {
            add(&pool, id, &format!("key {id}")).await.unwrap();
        }
        keys::rotate_api_key(&operator(&pool), &secrets('k'), group(1), &"new key".into(), OldKeys::Revoke)
            .await
            .unwrap();
        store::add(&operator(&pool), &secrets('x'), group(7), &GroupOptions::default(), &"lost".into(), None)
            .await
            .unwrap();
        let both = SecretsKey::parse(&format!("{0}A,{1}A", "n".repeat(42), "k".repeat(42))).unwrap();
        let before = reseal::tally(&pool, &both).await.unwrap();
        assert_eq!((before.first, before.older, before.lost), (0, 11, 1));

        let all = (0..4).map(|_| reseal::reseal(&pool, &both, |_| {}));
        let sealed: u64 = futures::future::join_all(all).await.into_iter().map(Result::unwrap).sum();
        let after = reseal::tally(&pool, &both).await.unwrap();
        assert_eq!((sealed, after.first, after.older, after.lost), (11, 11, 0, 1));
        assert_eq!(after.groups.into_iter().collect::<Vec<_>>(), [7]);
        let directory = Directory::open(pool, secrets('n'), PUBLIC_URL.into()).await.unwrap();
        assert!(are_made_of(&directory.snapshot().group(group(1)).unwrap().api_keys, &["new key"]));
        assert!(are_made_of(&directory.snapshot().group(group(2)).unwrap().api_keys, &["key 2"]));
    })
    .await;
}

#[tokio::test]
async fn a_fresh_snapshot_has_all_that_was_added_before() {
    with_database(|pool| async move {
        let directory =
            Arc::new(Directory::open(pool.clone(), secrets('k'), PUBLIC_URL.into()).await.unwrap());
        add(&pool, 72, "key").await.unwrap();
        addresses::add(&operator(&pool), "joe.example", group(72), "12345").await.unwrap();
        assert!(directory.snapshot().group(group(72)).is_none());
        let all = futures::future::join_all((0..50).map(|_| directory.fresh())).await;
        for snapshot in all {
            let snapshot = snapshot.unwrap();
            let account = snapshot.address("joe.example").unwrap();
            assert_eq!((account.group, account.user.as_str()), (group(72), "12345"));
            assert!(snapshot.group(group(72)).unwrap().enabled);
        }
        store::disable(&operator(&pool), group(72)).await.unwrap();
        assert!(!directory.fresh().await.unwrap().group(group(72)).unwrap().enabled);
    })
    .await;
}

#[tokio::test]
async fn many_calls_at_once_share_a_few_queries() {
    with_database(|pool| async move {
        let directory = Directory::open(pool, secrets('k'), PUBLIC_URL.into()).await.unwrap();
        let began = tokio::time::Instant::now();
        futures::future::join_all((0..1000).map(|_| directory.fresh())).await;
        // One query for each call would take 100 s.
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    })
    .await;
}

#[tokio::test]
async fn the_old_snapshot_stays_while_the_database_is_away() {
    with_database(|pool| async move {
        add(&pool, 72, "key").await.unwrap();
        let directory = Directory::open(pool.clone(), secrets('k'), PUBLIC_URL.into()).await.unwrap();
        pool.close().await;
        let outcomes = futures::future::join_all((0..100).map(|_| directory.fresh())).await;
        assert!(outcomes.iter().all(Result::is_err));
        assert!(directory.snapshot().group(group(72)).is_some());
    })
    .await;
}

#[tokio::test]
async fn postgres_decides_whether_a_website_session_is_expired() {
    with_database(|pool| async move {
        let [good, over, unknown] = [[1; 32], [2; 32], [3; 32]];
        website_sessions::insert(&operator(&pool), &good, group(72), "joe", Duration::from_mins(1))
            .await
            .unwrap();
        website_sessions::insert(&operator(&pool), &over, group(72), "joe", Duration::ZERO).await.unwrap();
        let found = website_sessions::find(&pool, &good).await.unwrap().unwrap();
        assert_eq!((found.group_id, found.person_id.as_str()), (group(72), "joe"));
        assert!(!found.expired && !found.revoked);
        assert!(website_sessions::find(&pool, &over).await.unwrap().unwrap().expired);
        assert!(website_sessions::find(&pool, &unknown).await.unwrap().is_none());
        sqlx::raw_sql("update website_sessions set revoked_at = now()").execute(&pool).await.unwrap();
        assert!(website_sessions::find(&pool, &good).await.unwrap().unwrap().revoked);
    })
    .await;
}

#[tokio::test]
async fn every_table_and_column_has_a_comment() {
    with_database(|pool| async move {
        let bare: Vec<String> = sqlx::query_scalar(
            "select c.relname || coalesce('.' || a.attname, '')
               from pg_class c
               join (select attrelid, attnum, attname from pg_attribute where attnum > 0 and not attisdropped
                     union all select oid, 0, null from pg_class) a on a.attrelid = c.oid
              where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace
                and col_description(c.oid, a.attnum) is null and (a.attnum > 0 or obj_description(c.oid) is null)",
        )
        .fetch_all(&pool)
        .await
        .unwrap();
        assert!(bare.is_empty(), "{bare:?}");
    })
    .await;
}
