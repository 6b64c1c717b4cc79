//! What an operator's tools see: health, readiness and metrics.

use crate::support::World;

/// The value of one line of the metrics; 0 where there is none.
fn value(metrics: &str, line: &str) -> f64 {
    let found = metrics.lines().find_map(|l| l.strip_prefix(line));
    found.map_or(0.0, |rest| rest.trim().parse().expect("a metric's value is a number"))
}

#[tokio::test]
async fn metrics_count_invites_by_outcome_and_texts_by_answer() {
    let world = World::start().await;
    world.invite(&world.request()).await.sent();
    let mut request = world.request();
    request["smsPhone"] = "not a number".into();
    world.invite(&request).await.refused("rejected", "phone_invalid", 400);

    let answer = world.get("/metrics").await;
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let metrics = answer.text().await.unwrap();
    for (line, count) in [
        (r#"session_invite_replies_total{status="sent",code=""} "#, 1.0),
        (r#"session_invite_replies_total{status="rejected",code="phone_invalid"} "#, 1.0),
        (r#"session_invite_sms_attempts_total{result="accepted"} "#, 1.0),
        ("session_invite_sms_attempt_duration_seconds_count ", 1.0),
    ] {
        assert!((value(&metrics, line) - count).abs() < f64::EPSILON, "{line}\n{metrics}");
    }
    assert!(!metrics.contains("not a number"), "{metrics}");
}

#[tokio::test]
async fn health_and_readiness_answer_for_the_worker() {
    let world = World::start().await;
    assert_eq!(world.get("/healthz").await.status(), 200);
    let ready = world.get("/readyz").await;
    assert_eq!(ready.status(), 200);
    let ready: serde_json::Value = serde_json::from_str(&ready.text().await.unwrap()).unwrap();
    let good = serde_json::json!({
        "ready": true, "consuming": true, "database": true, "publishing": true, "provider": "ok", "problems": [],
    });
    assert_eq!(ready, good);
}
