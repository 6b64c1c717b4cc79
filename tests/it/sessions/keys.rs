//! The contract's section 5: session keys, and what the worker does to sessions as time passes.

use crate::support::{
    SessionStatus::{Ended, Expired},
    Setup, World,
};
use sqlx::error::DatabaseError;

/// Uses all keys of four digits in the group, so that only longer ones are free.
const FILL: &str = "insert into sessions (id, group_id, session_key, status, requested_by, key_held)
    select gen_random_uuid(), 72, lpad(n::text, 4, '0'), 'joined', 'test', true from generate_series(0, 9999) n";

#[tokio::test]
async fn keys_have_the_groups_length_and_keep_their_leading_zeros() {
    let world = Setup::default().group(&["--key-length", "4"]).start().await;
    // Only keys with a leading zero are free.
    world.database.execute(&format!("{FILL} where n >= 1000")).await;
    let mut zero = false;
    for _ in 0..12 {
        let reply = world.invite(&world.request()).await.sent();
        let key = &reply.session_key;
        let stored = format!("select count(*) from sessions where session_key = '{key}' and status = 'sent'");
        assert_eq!(
            world.database.value::<i64>(&stored).await,
            1,
            "the key is stored as it was replied: {key}"
        );
        assert!(reply.invitation_text.contains(key));
        zero |= key.len() == 4 && key.starts_with('0');
    }
    assert!(zero, "of twelve keys, each after eight draws with one chance in ten, one begins with a zero");
}

#[tokio::test]
async fn when_all_keys_are_in_use_new_ones_have_one_more_digit() {
    let world = Setup::default().group(&["--key-length", "4"]).start().await;
    world.database.execute(FILL).await;
    let reply = world.invite(&world.request()).await.sent();
    assert_eq!(reply.session_key.len(), 5, "{reply:?}");
    let other = world.invite(&world.request()).await.sent();
    assert_ne!(reply.session_key, other.session_key);
}

#[tokio::test]
async fn the_database_keeps_a_key_unique_in_its_group() {
    let world = World::start().await;
    world.invite(&world.request()).await.sent();
    let copy = "insert into sessions (id, group_id, session_key, status, requested_by, key_held)
                select gen_random_uuid(), group_id, session_key, 'sent', 'test', true from sessions";
    let twice = sqlx::raw_sql(copy).execute(&world.database.pool).await.unwrap_err();
    assert!(twice.as_database_error().is_some_and(DatabaseError::is_unique_violation), "{twice}");
}

#[tokio::test]
async fn a_session_that_is_not_joined_expires_and_its_key_is_released_after_a_rest() {
    let world = World::start().await;
    let key = world.invite(&world.request()).await.sent().session_key;
    let live = "select count(*) from live_sessions";
    assert_eq!(world.database.value::<i64>(live).await, 1);
    world.run(&["sessions", "lookup", "--group", "72", "--key", &key]).ok();

    world.database.execute("update sessions set expires_at = now(), due_at = now()").await;
    let row = world.database.until_status(Expired).await;
    assert_eq!((row.key_held, row.key()), (true, key.as_str()), "the key rests");
    assert!(row.ended_at.is_some());
    assert_eq!(world.database.value::<i64>(live).await, 0);
    let rest = "select extract(epoch from due_at - ended_at)::float8 from sessions";
    assert!((world.database.value::<f64>(rest).await - 86_400.0).abs() < 5.0);
    world.run(&["sessions", "lookup", "--group", "72", "--key", &key]).fails(1);

    world.database.execute("update sessions set due_at = now()").await;
    world.database.until_key_is_released().await;
    assert_eq!(world.database.session().await.status, Expired);
}

#[tokio::test]
async fn a_joined_session_ends_when_it_has_lasted_too_long() {
    let world = World::start().await;
    world.invite(&world.request()).await.sent();
    world.database.execute("update sessions set status = 'joined', joined_at = now(), due_at = now()").await;
    assert!(world.database.until_status(Ended).await.ended_at.is_some());
}

#[tokio::test]
async fn a_short_lived_session_expires_by_itself_within_seconds() {
    let world = Setup::default().group(&["--session-ttl", "1s", "--key-rest", "1s"]).start().await;
    world.invite(&world.request()).await.sent();
    world.database.until_status(Expired).await;
    world.database.until_key_is_released().await;
}

#[tokio::test]
async fn every_table_view_and_column_has_a_comment() {
    let world = World::start().await;
    let bare = "select count(*) from pg_attribute join pg_class c on c.oid = attrelid
                 where relnamespace = 'public'::regnamespace and relkind = 'r' and relname <> '_sqlx_migrations'
                   and attnum > 0 and not attisdropped and col_description(attrelid, attnum) is null";
    assert_eq!(world.database.value::<i64>(bare).await, 0);
    let bare =
        "select count(*) from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v')
                 and relname <> '_sqlx_migrations' and obj_description(oid) is null";
    assert_eq!(world.database.value::<i64>(bare).await, 0);
}
