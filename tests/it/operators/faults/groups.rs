//! Groups whose invites all fail or wait.

use super::{
    SeededFault,
    SeenIn::{Doctor, GatewayReadiness, WorkerReadiness},
    doctors_findings, problems, seeded_faults, type_command,
};
use crate::support::{GROUP, Message, Setup, World, gkey, gkey_until, now, send};
use serde_json::json;
use tokio::sync::Mutex;

async fn without_keys(fault: SeededFault) -> u8 {
    let world = World::start().await;
    for keys in ["group_api_keys", "group_jwt_secrets"] {
        world.database.execute(&format!("update {keys} set revoked_at = now()")).await;
    }
    let look = async || problems(world.running()).await;
    fault.with(&[]).score(look, async |remedy: &str| type_command(&world, remedy)).await
}

async fn with_a_bad_template(fault: SeededFault) -> u8 {
    let world = World::start().await;
    world.expect_error("a group's templates are unusable");
    world.database.execute("update groups set template = 'Join {nonsense}'").await;
    let look = async || problems(world.running()).await;
    let repair = async |remedy: &str| {
        let args: Vec<_> = remedy.split_whitespace().skip(1).chain(["Join: {link}"]).collect();
        world.run(&args).ok();
    };
    fault.with(&[]).score(look, repair).await
}

async fn with_few_keys_left(fault: SeededFault) -> u8 {
    let world = Setup::default().group(&["--key-length", "4"]).start().await;
    world.invite(&world.request()).await.sent();
    // All keys but a few are held.
    world
        .database
        .execute(
            "insert into sessions
             select r.* from (select * from sessions limit 1) s, generate_series(0, 9998) n,
                    jsonb_populate_record(null::sessions, to_jsonb(s) || jsonb_build_object('id', gen_random_uuid(),
                        'session_key', lpad(n::text, 4, '0'), 'token', lpad(n::text, 16, 'x'), 'message_id', null,
                        'provider_message_id', 'SM' || lpad(n::text, 32, '0'), 'owns_message_id', false)) r
              where lpad(n::text, 4, '0') <> s.session_key",
        )
        .await;
    world.invite(&world.request()).await.sent();
    let look = async || problems(world.running()).await;
    fault.with(&[]).score(look, async |remedy: &str| type_command(&world, remedy)).await
}

/// All credentials are signed with a key that is none of the group's, or are over.
async fn with_wrong_credentials(fault: SeededFault, credential: impl Fn(&World) -> String) -> u8 {
    let world = World::start().await;
    for _ in 0..5 {
        let request = world.request_with(json!({ "authorization": credential(&world) }));
        drop(world.invite(&request).await);
    }
    let repair = async |remedy: &str| {
        if remedy.starts_with("session-invite") {
            type_command(&world, remedy);
        } else {
            super::type_into_a_shell(remedy);
        }
        world.invite(&world.request()).await.sent();
    };
    fault.with(&[]).score(async || problems(world.running()).await, repair).await
}

async fn with_wrong_credentials_at_the_gateway(fault: SeededFault) -> u8 {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let path = "/api/SessionInvitation/session/?groupid=72&sessionKey=123456";
    let look_up =
        async |credential: &str| send(gateway.request("GET", path).header("Authorization", credential)).await;
    for _ in 0..5 {
        look_up(&gkey(GROUP, "12345", "not the key of this group")).await.problem(401, "credential_invalid");
    }
    let repair = async |remedy: &str| {
        type_command(&world, remedy);
        // A right credential, and no such session.
        assert_eq!(look_up(&world.credential()).await.status, 404);
    };
    let points = fault.with(&[]).score(async || problems(&gateway.process).await, repair).await;
    assert!(gateway.process.stop().success());
    points
}

async fn paused(fault: SeededFault) -> u8 {
    let world = World::start().await;
    world.run(&["groups", "pause", "72"]).ok();
    let look = async || problems(world.running()).await;
    fault.with(&[]).score(look, async |remedy: &str| type_command(&world, remedy)).await
}

async fn paused_for_the_doctor(fault: SeededFault) -> u8 {
    let world = World::start().await;
    world.run(&["groups", "pause", "72"]).ok();
    let look = async || doctors_findings(&world, &[]);
    fault.with(&[]).score(look, async |remedy: &str| type_command(&world, remedy)).await
}

/// The clock of a group's publisher is wrong by so many seconds, until it is set.
async fn published_by_a_wrong_clock(fault: SeededFault, wrong: i64) -> u8 {
    let world = World::start().await;
    let publish = async |wrong: i64| {
        let at = now().checked_add_signed(wrong).expect("after 1970");
        world.call(Message::json(&world.request()).timestamp(at)).await
    };
    let is_set = Mutex::new(false);
    let look = async || {
        if !*is_set.lock().await {
            drop(publish(wrong).await);
        }
        problems(world.running()).await
    };
    let repair = async |remedy: &str| {
        super::type_into_a_shell(remedy);
        *is_set.lock().await = true;
        publish(0).await.sent();
    };
    fault.with(&[]).score(look, repair).await
}

async fn there_are_none(fault: SeededFault) -> u8 {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    let look = async || doctors_findings(&world, &[]);
    fault.with(&[]).score(look, async |remedy: &str| type_command(&world, remedy)).await
}

/// The doctor, in the environment of a worker that has another key than that which sealed the groups' keys.
async fn sealed_by_another_key(fault: SeededFault) -> u8 {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    world.add_group(GROUP, &[]);
    let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let keys = Mutex::new(other.to_owned());
    let look = async || doctors_findings(&world, &[("SECRETS_KEY", &keys.lock().await)]);
    let repair = async |_: &str| {
        *keys.lock().await = format!("{other},{}", world.secrets_key());
    };
    fault.with(&[]).score(look, repair).await
}

/// After a change of the key, the old one is still needed.
async fn sealed_by_an_older_key(fault: SeededFault) -> u8 {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    world.add_group(GROUP, &[]);
    let both = format!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,{}", world.secrets_key());
    let look = async || doctors_findings(&world, &[("SECRETS_KEY", &both)]);
    let repair = async |remedy: &str| {
        let args: Vec<_> = remedy.split_whitespace().skip(1).collect();
        crate::support::run(&world.environment(&[("SECRETS_KEY", &both)]), &args).ok();
    };
    fault.with(&[]).score(look, repair).await
}

seeded_faults! {
    a_group_has_no_active_key:
        SeededFault::new(WorkerReadiness, &["group 72 has no active key"], "session-invite groups rotate-key 72", "that command"),
        without_keys;
    a_group_has_a_bad_template:
        SeededFault::new(WorkerReadiness, &["the templates of group 72 are unusable"], "session-invite groups set 72 --template", "that command, with a good template"),
        with_a_bad_template;
    a_groups_session_keys_are_nearly_used_up:
        SeededFault::new(WorkerReadiness, &["the session keys of group 72 are nearly used up"], "session-invite groups set 72 --key-length 5", "that command"),
        with_few_keys_left;
    a_group_signs_with_another_key:
        SeededFault::new(WorkerReadiness, &["all credentials of group 72 are refused: 5 in a row"], "session-invite groups show 72", "that command, and the sender signs with a key that it lists"),
        |fault| with_wrong_credentials(fault, |_| gkey(GROUP, "12345", "not the key of this group"));
    a_groups_clock_is_behind:
        SeededFault::new(WorkerReadiness, &["all credentials of group 72 are refused", "an expiry that is over"], "date -u", "that command, and the sender's clock is set"),
        |fault| with_wrong_credentials(fault, |world| gkey_until(GROUP, "12345", &world.api_key, now() - 60));
    a_group_signs_with_another_key_at_the_gateway:
        SeededFault::new(GatewayReadiness, &["all credentials of group 72 are refused: 5 in a row"], "session-invite groups show 72", "that command, and the sender signs with a key that it lists"),
        with_wrong_credentials_at_the_gateway;
    a_group_is_paused_and_forgotten:
        SeededFault::new(WorkerReadiness, &["group 72 is paused since"], "session-invite groups resume 72", "that command"),
        paused;
    a_group_is_paused_for_the_doctor:
        SeededFault::new(Doctor, &["groups: group 72 is paused since", "0 of its invites wait"], "session-invite groups resume 72", "that command"),
        paused_for_the_doctor;
    a_publishers_clock_is_an_hour_ahead:
        SeededFault::new(WorkerReadiness, &["the timestamps of group 72 lie in the future", "the last by 59m"], "date -u", "that command, and the publisher's clock is set"),
        |fault| published_by_a_wrong_clock(fault, 3_600);
    a_publishers_clock_is_an_hour_behind:
        SeededFault::new(WorkerReadiness, &["the timestamps of group 72 are older than the messages can be", "invite_expired"], "date -u", "that command, and the publisher's clock is set"),
        |fault| published_by_a_wrong_clock(fault, -3_600);
    there_is_no_group:
        SeededFault::new(Doctor, &["groups: there are none, so every invite is refused"], "session-invite groups add 72", "that command"),
        there_are_none;
    the_groups_keys_were_sealed_by_another_key:
        SeededFault::new(Doctor, &["groups: ", "SECRETS_KEY"], "after a comma", "both keys in SECRETS_KEY"),
        sealed_by_another_key;
    an_older_key_of_secrets_is_still_needed:
        SeededFault::new(Doctor, &["secrets: ", "sealed under an older key of SECRETS_KEY"], "session-invite secrets reseal", "that command"),
        sealed_by_an_older_key;
}
