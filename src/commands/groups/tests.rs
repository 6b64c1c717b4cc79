use super::*;
use crate::{commands::tokens, group::tests::with_database, rate_limit::RateLimit, seal::Purpose};
use clap::{CommandFactory as _, Parser, error::ErrorKind};
use sqlx::PgPool;
use std::time::Duration;

const PUBLIC_URL: &str = "https://invite.example";

#[derive(Debug, Parser)]
enum TestCli {
    Groups(GroupsArgs),
    Tokens(tokens::TokensArgs),
}

fn secrets() -> SecretsKey {
    SecretsKey::parse(&"A".repeat(43)).unwrap()
}

async fn run_line(pool: &PgPool, line: &[&str]) -> anyhow::Result<()> {
    let operator = Operator::new(pool.clone());
    match TestCli::try_parse_from([&["session-invite"], line].concat())? {
        TestCli::Groups(args) => execute(args, &operator, || Ok(secrets()), PUBLIC_URL).await,
        TestCli::Tokens(args) => tokens::execute(args, async || Ok(operator), || Ok(secrets())).await,
    }
}

#[test]
fn the_arguments_are_sound() {
    TestCli::command().debug_assert();
}

#[test]
fn a_wrong_value_is_wrong_usage_and_names_its_flag() {
    for (flag, value) in [
        ("--region", "USA"),
        ("--phone-check", "maybe"),
        ("--countries", "US,"),
        ("--key-length", "10"),
        ("--sms-from", "5550001111"),
        ("--session-ttl", "10"),
        ("--session-max", "31days"),
        ("--per-number", "10"),
        ("--per-country", "0/1h"),
        ("--per-minute", "-1"),
        ("--join-url", "example.com"),
        ("--template", "nothing"),
        ("--template", "{key}{foo}"),
        ("--link", "ftp://x/{token}"),
        ("--jwt-kid", ""),
    ] {
        let value = format!("{flag}={value}");
        let error = TestCli::try_parse_from(["session-invite", "groups", "add", "72", &value]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(flag), "{error}");
    }
    for id in ["0", "+7", "9007199254740992", "x"] {
        let error = TestCli::try_parse_from(["session-invite", "groups", "show", id]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ValueValidation);
    }
    for (kind, ttl) in [("gkey", "25h"), ("gjwt", "121m")] {
        let line = ["session-invite", "tokens", "issue", kind, "--group", "72", "--ttl", ttl];
        assert_eq!(TestCli::try_parse_from(line).unwrap_err().kind(), ErrorKind::ValueValidation);
    }
}

#[test]
fn no_secret_is_in_the_debug_of_arguments() {
    let line = ["session-invite", "groups", "add", "72", "--api-key", "hush", "--jwt-secret", "hush"];
    assert!(!format!("{:?}", TestCli::try_parse_from(line).unwrap()).contains("hush"));
}

#[tokio::test]
async fn set_changes_what_is_given_and_an_empty_value_clears() {
    with_database(|pool| async move {
        let id = GroupId::new(72).unwrap();
        let add = [
            "groups",
            "add",
            "72",
            "--sms-from",
            "+15550001111",
            "--per-number",
            "3/1m",
            "--countries",
            "us",
        ];
        run_line(&pool, &add).await.unwrap();
        run_line(&pool, &["groups", "set", "72", "--key-length", "8"]).await.unwrap();
        let options = store::show(&pool, id).await.unwrap().options;
        assert_eq!(options.sms_from.as_deref(), Some("+15550001111"));
        assert_eq!(options.key_length, 8);
        assert_eq!(options.per_number, Some(RateLimit { count: 3, window: Duration::from_mins(1) }));

        run_line(&pool, &["groups", "set", "72", "--sms-from", "", "--countries", ""]).await.unwrap();
        let expected = GroupOptions { sms_from: None, countries: vec![], ..options };
        assert_eq!(store::show(&pool, id).await.unwrap().options, expected);

        // Each is good with another template or link: the two are checked together.
        run_line(&pool, &["groups", "set", "72", "--template", "{link}"]).await.unwrap();
        assert!(run_line(&pool, &["groups", "set", "72", "--link", "https://e.com/{group}"]).await.is_err());
        assert!(store::show(&pool, id).await.unwrap().options.link.is_none());
        run_line(&pool, &["groups", "show", "72"]).await.unwrap();
        run_line(&pool, &["groups", "list", "--json"]).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_given_key_is_the_one_that_is_stored() {
    with_database(|pool| async move {
        let id = GroupId::new(72).unwrap();
        run_line(&pool, &["groups", "add", "72", "--api-key", "k72"]).await.unwrap();
        let stored = keys::active_api_keys(&pool, Some(id)).await.unwrap();
        assert_eq!(stored.len(), 1);
        let opened = secrets().open(id, Purpose::ApiKey, &stored[0].sealed).unwrap();
        assert_eq!(opened.expose_secret(), "k72");
        assert!(!stored[0].sealed.windows(3).any(|bytes| bytes == b"k72"));
    })
    .await;
}

#[tokio::test]
async fn every_kind_of_token_is_issued() {
    with_database(|pool| async move {
        run_line(&pool, &["groups", "add", "72"]).await.unwrap();
        for kind in ["gkey", "gjwt", "gssnid"] {
            run_line(&pool, &["tokens", "issue", kind, "--group", "72", "--user", "12345"]).await.unwrap();
            assert!(run_line(&pool, &["tokens", "issue", kind, "--group", "73"]).await.is_err());
        }
        let dotted = ["tokens", "issue", "gssnid", "--group", "72", "--user", "a.b"];
        assert!(run_line(&pool, &dotted).await.is_err());
        let rows: i64 =
            sqlx::query_scalar("select count(*) from website_sessions").fetch_one(&pool).await.unwrap();
        assert_eq!(rows, 1);
    })
    .await;
}
