use super::*;
use crate::group::tests::with_database;

const PHONE: &str = "+14155550112";
const SENDER: &str = "+15005550006";

fn secrets(keys: &[&str]) -> SecretsKey {
    let keys: Vec<_> = keys.iter().map(|key| format!("{}A", key.repeat(42))).collect();
    SecretsKey::parse(&keys.join(",")).unwrap()
}

fn inbound<'a>(message_sid: &'a str, from: &'a str, senders: &'a [&'a str]) -> InboundText<'a> {
    InboundText { message_sid, from, senders }
}

async fn count(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from optouts").fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_stop_or_start_that_comes_again_within_thirty_days_changes_nothing() {
    with_database(|pool| async move {
        let optouts = OptOuts::open(pool.clone(), &secrets(&["k"])).await.unwrap();
        let both = ["MG1", SENDER];
        optouts.stop(inbound("SM1", PHONE, &both)).await.unwrap();
        assert_eq!(count(&pool).await, 2);
        optouts.start(inbound("SM2", PHONE, &both)).await.unwrap();
        assert_eq!(count(&pool).await, 0);
        optouts.stop(inbound("SM1", PHONE, &both)).await.unwrap();
        assert_eq!(count(&pool).await, 0);
        optouts.stop(inbound("SM3", PHONE, &both)).await.unwrap();
        optouts.start(inbound("SM2", PHONE, &both)).await.unwrap();
        assert_eq!(count(&pool).await, 2);

        let mut connection = pool.acquire().await.unwrap();
        assert_eq!(forget_repeats(&mut connection, 10).await.unwrap(), 0);
        sqlx::query("update inbound_texts set received_at = now() - interval '30 days 1 minute'")
            .execute(&pool)
            .await
            .unwrap();
        optouts.start(inbound("SM2", PHONE, &both)).await.unwrap();
        assert_eq!(count(&pool).await, 0);
        assert_eq!(forget_repeats(&mut connection, 1).await.unwrap(), 1);
        assert_eq!(forget_repeats(&mut connection, 10).await.unwrap(), 1);
        optouts.stop(inbound("SM2", PHONE, &both)).await.unwrap();
        assert_eq!(count(&pool).await, 0);
    })
    .await;
}

#[tokio::test]
async fn an_opt_out_of_a_mobile_counts_for_its_twin_too() {
    with_database(|pool| async move {
        let operator = Operator::new(pool.clone());
        let optouts = OptOuts::open(pool.clone(), &secrets(&["k"])).await.unwrap();
        for (n, (one, other)) in [
            ("+5215512345678", "+525512345678"),
            ("+5491123456789", "+541123456789"),
            ("+5511987654321", "+551187654321"),
        ]
        .into_iter()
        .flat_map(|(one, other)| [(one, other), (other, one)])
        .enumerate()
        {
            let (first, second) = (format!("SM{n}a"), format!("SM{n}b"));
            optouts.stop(inbound(&first, one, &[SENDER])).await.unwrap();
            assert!(!optouts.add(&operator, SENDER, other).await.unwrap(), "{one}");
            let imported = optouts.import(&operator, &[(SENDER.to_owned(), other.to_owned())], |_| ()).await;
            assert_eq!(imported.unwrap(), 0, "{one}");
            assert_eq!(count(&pool).await, 1, "{one}");
            optouts.start(inbound(&second, other, &[SENDER])).await.unwrap();
            assert_eq!(count(&pool).await, 0, "{one}");
            assert!(optouts.record(SENDER, one, OptOutSource::Provider).await.unwrap());
            assert!(optouts.remove(&operator, SENDER, other).await.unwrap());
        }
    })
    .await;
}

#[tokio::test]
async fn an_opt_out_is_recorded_once_listed_without_its_number_and_removed() {
    with_database(|pool| async move {
        let operator = Operator::new(pool.clone());
        let optouts = OptOuts::open(pool.clone(), &secrets(&["k"])).await.unwrap();
        optouts.stop(inbound("SM1", PHONE, &[SENDER, "MG1"])).await.unwrap();
        assert!(!optouts.record(SENDER, PHONE, OptOutSource::Provider).await.unwrap());
        let all = list(&pool, None, 10).await.unwrap();
        assert_eq!(all.len(), 2);
        let own = list(&pool, Some(SENDER), 10).await.unwrap();
        assert_eq!((own.len(), own[0].last_digits.as_str(), own[0].source.as_str()), (1, "12", "inbound"));
        let rows: Vec<String> =
            sqlx::query_scalar("select o::text from optouts o").fetch_all(&pool).await.unwrap();
        assert!(rows.iter().all(|row| !row.contains("4155550")), "{rows:?}");
        assert!(optouts.remove(&operator, SENDER, PHONE).await.unwrap());
        assert!(!optouts.remove(&operator, SENDER, PHONE).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn all_processes_hash_equally_before_and_after_a_new_secrets_key() {
    with_database(|pool| async move {
        let old_key = secrets(&["o"]);
        let opening = (0..8).map(|_| OptOuts::open(pool.clone(), &old_key));
        let opened: Vec<_> =
            futures::future::join_all(opening).await.into_iter().map(Result::unwrap).collect();
        let hash = opened[0].hash(PHONE);
        assert!(opened.iter().all(|optouts| optouts.hash(PHONE) == hash));
        assert_ne!(hash, opened[0].hash("+14155550113"));

        let wrong = OptOuts::open(pool.clone(), &secrets(&["n"])).await.unwrap_err();
        assert!(wrong.to_string().contains("SECRETS_KEY does not open"), "{wrong}");
        let both = OptOuts::open(pool.clone(), &secrets(&["n", "o"])).await.unwrap();
        assert_eq!(both.hash(PHONE), hash);
        // A process that only has the old key can open it until it is resealed.
        let rotated = secrets(&["n", "o"]);
        assert!(OptOuts::open(pool.clone(), &secrets(&["n"])).await.is_err());
        assert_eq!(sealed_by(&pool, &rotated).await.unwrap(), Some(SealedBy::Older));
        assert!(reseal(&pool, &rotated).await.unwrap() && !reseal(&pool, &rotated).await.unwrap());
        assert_eq!(sealed_by(&pool, &rotated).await.unwrap(), Some(SealedBy::First));
        let new = OptOuts::open(pool.clone(), &secrets(&["n"])).await.unwrap();
        assert_eq!(new.hash(PHONE), hash);
    })
    .await;
}

#[tokio::test]
async fn an_import_counts_the_new_opt_outs() {
    with_database(|pool| async move {
        let operator = Operator::new(pool.clone());
        let optouts = OptOuts::open(pool.clone(), &secrets(&["k"])).await.unwrap();
        optouts.add(&operator, SENDER, "+12015550000").await.unwrap();
        let all: Vec<_> = (0..2_500).map(|n| (SENDER.to_owned(), format!("+1201555{n:04}"))).collect();
        let mut progress = Vec::new();
        assert_eq!(optouts.import(&operator, &all, |done| progress.push(done)).await.unwrap(), 2_499);
        assert_eq!(progress, [1_000, 2_000, 2_500]);
        assert_eq!(list(&pool, None, 5_000).await.unwrap().len(), 2_500);
    })
    .await;
}

#[test]
fn the_last_digits_are_never_the_number() {
    for (phone, expected) in [(PHONE, "12"), ("12345", "45"), ("", ""), ("é", ""), ("7", "7"), ("Shop", "")]
    {
        assert_eq!(last_digits(phone), expected, "{phone:?}");
    }
}
