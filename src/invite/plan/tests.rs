use super::*;
use crate::{
    group_id::GroupId,
    phone::PhoneNumber,
    refusal::Refusal,
    session_key::{SessionKey, Token},
    sessions::{Outcome, Status, TextState},
};
use WhenUnsure::{Fail, Look, Resend};
use proptest::prelude::*;
use strum::VariantNames;
use time::OffsetDateTime;
use uuid::Uuid;

fn policy(when_unsure: WhenUnsure) -> Policy {
    Policy { max_attempts: 3, settle: Duration::from_secs(30), when_unsure }
}

/// A row with one try, which the provider may have taken. The try ended 40 s ago, and the list has had 30 s to settle.
fn row(text_state: TextState) -> SessionRow {
    SessionRow {
        id: Uuid::nil(),
        group_id: GroupId::new(72).unwrap(),
        status: Status::Sending,
        text_state: Some(text_state),
        fence: 0,
        ticket: Uuid::nil(),
        attempts: 1,
        looks: 0,
        unsettled: false,
        abandoned: 0,
        session_key: Some(SessionKey::example(6)),
        token: Some(Token::example()),
        session_type: Some(1),
        phone: PhoneNumber::from_e164("+11110000000"),
        invitation_text: Some("code 123456".to_owned().into()),
        provider_message_id: None,
        created_at: OffsetDateTime::UNIX_EPOCH,
        expires_at: Some(OffsetDateTime::UNIX_EPOCH),
        look_since: None,
        error: None,
        request_sha256: None,
        same_params: true,
        blanked: false,
        content_hash: None,
        request_params: None,
        read_at: OffsetDateTime::UNIX_EPOCH,
        age: 0.0,
        lease_left: -10.0,
        unsure_for: 40.0,
        looked_ago: None,
        session_left: 500.0,
        deadline_left: None,
    }
}

/// The same, after so many looks, the last one `ago` seconds ago.
fn looked(text_state: TextState, looks: i32, ago: f64) -> SessionRow {
    SessionRow { looks, looked_ago: Some(ago), ..row(text_state) }
}

fn span(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn close_unknown() -> NextStep {
    NextStep::Close(ClaimResult::Unknown(unknown()))
}

fn close_late() -> NextStep {
    NextStep::Close(ClaimResult::Refused(too_late()))
}

fn close_unavailable() -> NextStep {
    NextStep::Close(ClaimResult::Refused(unavailable(None)))
}

#[track_caller]
fn assert_step(row: &SessionRow, when_unsure: WhenUnsure, step: &NextStep) {
    assert_eq!(next_step(row, &policy(when_unsure), GroupSwitch::On), *step, "{when_unsure:?}: {row:#?}");
}

#[test]
fn a_row_with_an_outcome_is_always_answered() {
    for status in
        Status::VARIANTS.iter().map(|word| word.parse().unwrap()).filter(|status| *status != Status::Sending)
    {
        for text_state in [TextState::Accepted, TextState::Unknown, TextState::Refused, TextState::Waiting] {
            let row = SessionRow { status, abandoned: 99, ..row(text_state) };
            for when_unsure in [Look, Fail, Resend] {
                assert_step(&row, when_unsure, &NextStep::Answer);
            }
        }
    }
}

#[test]
fn a_row_is_given_up_once_too_many_workers_died_with_it() {
    for text_state in [TextState::Begun, TextState::Waiting, TextState::Unknown] {
        let dying = |abandoned| SessionRow { abandoned, ..row(text_state) };
        assert_step(&dying(MAX_ABANDONED), Look, &NextStep::GiveUp);
        assert_ne!(next_step(&dying(MAX_ABANDONED - 1), &policy(Look), GroupSwitch::On), NextStep::GiveUp);
    }
}

#[test]
fn a_row_that_waits_is_sent_again_when_it_is_due_and_within_its_session() {
    let waiting = |lease_left| SessionRow { lease_left, ..row(TextState::Waiting) };
    for when_unsure in [Look, Fail, Resend] {
        for (row, step) in [
            (waiting(12.5), NextStep::Wait(span(12.5))),
            (waiting(0.26), NextStep::Wait(span(0.26))),
            (waiting(TOLERANCE), NextStep::Send),
            (waiting(0.0), NextStep::Send),
            (waiting(-60.0), NextStep::Send),
            // A withheld try costs nothing: attempts are compared with the limit only when a try was refused.
            (SessionRow { attempts: 3, ..waiting(0.0) }, NextStep::Send),
            (SessionRow { deadline_left: Some(0.1), ..waiting(0.0) }, NextStep::Send),
            (SessionRow { deadline_left: Some(0.0), ..waiting(0.0) }, close_late()),
            (SessionRow { deadline_left: Some(-1.0), ..waiting(12.5) }, close_late()),
            (SessionRow { session_left: 0.0, ..waiting(0.0) }, close_late()),
            (SessionRow { session_left: -1.0, ..waiting(12.5) }, close_late()),
            (SessionRow { session_left: -1.0, unsettled: true, ..waiting(0.0) }, close_unknown()),
            (SessionRow { deadline_left: Some(-1.0), unsettled: true, ..waiting(0.0) }, close_unknown()),
        ] {
            assert_step(&row, when_unsure, &step);
        }
    }
}

#[test]
fn a_try_that_may_be_under_way_is_waited_for() {
    for text_state in [TextState::Begun, TextState::Unknown] {
        for when_unsure in [Look, Fail, Resend] {
            let under_way = SessionRow { unsure_for: -7.5, lease_left: 37.5, ..row(text_state) };
            assert_step(&under_way, when_unsure, &NextStep::TryUnderWay(span(7.5)));
            // Until its end, even if the session or the deadline is over.
            let over = SessionRow { session_left: -1.0, deadline_left: Some(-1.0), attempts: 9, ..under_way };
            assert_step(&over, when_unsure, &NextStep::TryUnderWay(span(7.5)));
        }
    }
    // A row of an older version, without a text state.
    let old = SessionRow { text_state: None, unsure_for: -1.0, ..row(TextState::Begun) };
    assert_step(&old, Look, &NextStep::TryUnderWay(span(1.0)));
}

#[test]
fn an_unsettled_try_is_unknown_once_its_session_has_ended() {
    for text_state in [TextState::Begun, TextState::Unknown] {
        for when_unsure in [Look, Fail, Resend] {
            for looks in [0, 1, 2] {
                let over = SessionRow { session_left: 0.0, ..looked(text_state, looks, 5.0) };
                assert_step(&over, when_unsure, &close_unknown());
            }
        }
    }
}

#[test]
fn a_try_of_unknown_outcome_is_followed_as_the_setting_says() {
    let resting = |lease_left| SessionRow { lease_left, ..row(TextState::Unknown) };
    for text_state in [TextState::Begun, TextState::Unknown] {
        let state = Some(text_state);
        for (when_unsure, row, step) in [
            // Looked for too, but not sent again even if the text is absent.
            (Fail, row(text_state), NextStep::Look),
            (Fail, looked(text_state, 2, 5.0), close_unknown()),
            (Resend, row(text_state), NextStep::Send),
            (Resend, SessionRow { text_state: state, ..resting(0.25) }, NextStep::Send),
            (Resend, SessionRow { text_state: state, ..resting(4.0) }, NextStep::Wait(span(4.0))),
            (Resend, SessionRow { attempts: 2, ..row(text_state) }, NextStep::Send),
            (Resend, SessionRow { attempts: 3, ..row(text_state) }, close_unknown()),
            (Resend, SessionRow { attempts: 3, text_state: state, ..resting(4.0) }, close_unknown()),
            (Resend, SessionRow { deadline_left: Some(0.0), ..row(text_state) }, close_unknown()),
            (Look, row(text_state), NextStep::Look),
            (Look, looked(text_state, 2, 10.0), NextStep::Send),
            (Look, looked(text_state, 5, 3.0), NextStep::Send),
            (Look, SessionRow { attempts: 2, ..looked(text_state, 2, 5.0) }, NextStep::Send),
            (Look, SessionRow { attempts: 3, ..looked(text_state, 2, 5.0) }, close_unavailable()),
            (Look, SessionRow { deadline_left: Some(0.0), ..looked(text_state, 2, 5.0) }, close_late()),
            // Even if it is late and has no try left, its text is looked for.
            (Look, SessionRow { deadline_left: Some(-9.0), attempts: 3, ..row(text_state) }, NextStep::Look),
            (
                Look,
                SessionRow { attempts: 3, unsettled: true, ..looked(text_state, 2, 5.0) },
                close_unknown(),
            ),
            (
                Look,
                SessionRow { deadline_left: Some(0.0), unsettled: true, ..looked(text_state, 2, 5.0) },
                close_unknown(),
            ),
        ] {
            assert_step(&row, when_unsure, &step);
        }
    }
}

#[test]
fn an_invite_of_a_group_that_is_off_is_refused_or_looked_for_and_never_sent() {
    let off = || NextStep::Close(ClaimResult::Refused(group_disabled()));
    let late = |row| SessionRow { session_left: 0.0, ..row };
    for when_unsure in [Look, Fail, Resend] {
        for (row, step) in [
            (row(TextState::Waiting), off()),
            (SessionRow { lease_left: 12.5, ..row(TextState::Waiting) }, off()),
            (SessionRow { deadline_left: Some(-1.0), ..row(TextState::Waiting) }, off()),
            (SessionRow { unsettled: true, ..row(TextState::Waiting) }, close_unknown()),
            (SessionRow { unsure_for: -7.5, ..row(TextState::Begun) }, NextStep::TryUnderWay(span(7.5))),
            (late(row(TextState::Unknown)), close_unknown()),
            (looked(TextState::Unknown, 2, 5.0), close_unknown()),
            (SessionRow { status: Status::Sent, ..row(TextState::Accepted) }, NextStep::Answer),
        ] {
            assert_eq!(
                next_step(&row, &policy(when_unsure), GroupSwitch::Off),
                step,
                "{when_unsure:?}: {row:#?}"
            );
        }
    }
    for (when_unsure, step) in [(Look, NextStep::Look), (Fail, NextStep::Look), (Resend, close_unknown())] {
        for text_state in [TextState::Begun, TextState::Unknown] {
            assert_eq!(next_step(&row(text_state), &policy(when_unsure), GroupSwitch::Off), step);
        }
    }
}

#[test]
fn a_text_is_absent_after_two_looks_the_last_one_after_the_list_has_settled() {
    for (looks, looked_ago, lease_left, absent) in [
        (0, None, -100.0, false),
        (1, Some(5.0), -100.0, false),
        (2, None, -100.0, false),
        (2, Some(10.0), -9.9, false),
        (2, Some(10.0), -10.0, true),
        (2, Some(0.0), 0.0, true),
        (2, Some(0.0), 0.1, false),
        (7, Some(1.0), -30.0, true),
    ] {
        let row = SessionRow { looks, lease_left, looked_ago, ..row(TextState::Unknown) };
        let step = next_step(&row, &policy(Look), GroupSwitch::On);
        assert_eq!(step == NextStep::Send, absent, "{looks} {looked_ago:?} {lease_left}: {step:?}");
    }
}

#[test]
fn looks_come_in_growing_intervals_and_again_once_the_list_has_settled() {
    for (looks, looked_ago, unsure_for, lease_left, step) in [
        // One second after the try has ended, then after 5, 30 and 60 s.
        (0, None, 0.0, 30.0, NextStep::Wait(span(1.0))),
        (0, None, 0.7, 29.3, NextStep::Wait(span(1.0 - 0.7))),
        (0, None, 0.75, 29.25, NextStep::Look),
        (0, None, 50.0, -20.0, NextStep::Look),
        (1, Some(2.0), 3.0, 27.0, NextStep::Wait(span(3.0))),
        (1, Some(4.8), 5.8, 24.2, NextStep::Look),
        (2, Some(6.0), 12.0, 300.0, NextStep::Wait(span(24.0))),
        (3, Some(10.0), 50.0, 300.0, NextStep::Wait(span(50.0))),
        (4, Some(10.0), 99.0, 300.0, NextStep::Wait(span(50.0))),
        (9, Some(60.0), 999.0, 300.0, NextStep::Look),
        // Earlier once the list has settled.
        (2, Some(6.0), 12.0, 18.0, NextStep::Wait(span(18.0))),
        (2, Some(6.0), 30.0, 0.2, NextStep::Look),
        (1, Some(2.0), 40.0, -10.0, NextStep::Look),
        // But at least a second apart.
        (2, Some(0.5), 30.0, 0.1, NextStep::Wait(span(0.5))),
        (1, Some(0.0), 40.0, -10.0, NextStep::Wait(span(1.0))),
    ] {
        let row = SessionRow { looks, lease_left, unsure_for, looked_ago, ..row(TextState::Unknown) };
        assert_step(&row, Look, &step);
    }
}

#[test]
fn a_failed_look_is_repeated_after_growing_delays() {
    for (unsure_for, after) in [(0.0, 5), (59.9, 5), (60.0, 30), (600.0, 30)] {
        let row = SessionRow { unsure_for, ..row(TextState::Unknown) };
        assert_eq!(look_again_after(&row), Duration::from_secs(after));
    }
}

fn session(attempts: i32, left: u64) -> Claim {
    // The claim is a moment old: `left` counts from its beginning.
    Claim::claimed(attempts, false, Duration::from_secs(left))
}

fn unsettled(attempts: i32) -> Claim {
    Claim::claimed(attempts, true, Duration::from_mins(8))
}

fn later(retry_after: Option<f64>) -> TryResult {
    TryResult::Later { status: None, retry_after: retry_after.map(span), why: RetryReason::Throttled }
}

fn perhaps() -> TryResult {
    TryResult::PerhapsSent { why: String::new() }
}

fn waiting(seconds: f64) -> ClaimResult {
    ClaimResult::Waiting { after: span(seconds) }
}

#[test]
fn the_providers_answer_decides_the_result_of_a_try() {
    let rejected = || Refusal::new(Code::PhoneInvalid, "no");
    let resent = |seconds| ClaimResult::Unsure { rest: span(seconds), again: span(seconds) };
    let sent = ClaimResult::Accepted { provider_message_id: "SM1".to_owned() };
    let refused = || TryResult::Refused(rejected());
    let looked_for = || ClaimResult::Unsure { rest: span(30.0), again: span(1.0) };
    let unreachable = || TryResult::Later { status: None, retry_after: None, why: RetryReason::Unreachable };
    for (answer, session, when_unsure, result) in [
        (TryResult::Accepted { sid: "SM1".to_owned() }, session(1, 0), Look, sent.clone()),
        (TryResult::Accepted { sid: "SM1".to_owned() }, unsettled(9), Fail, sent),
        (refused(), session(1, 500), Look, ClaimResult::Refused(rejected())),
        // The last try surely failed, but an earlier one may not have.
        (refused(), unsettled(2), Resend, ClaimResult::Unknown(unknown())),
        (later(None), unsettled(3), Resend, ClaimResult::Unknown(unknown())),
        (later(Some(600.0)), unsettled(2), Resend, ClaimResult::Unknown(unknown())),
        (later(None), unsettled(2), Resend, waiting(5.0)),
        // Never written, so the try does not count.
        (TryResult::Withheld, session(1, 500), Look, waiting(1.0)),
        (TryResult::Withheld, session(3, 0), Fail, waiting(1.0)),
        (TryResult::Withheld, unsettled(3), Resend, waiting(1.0)),
        (unreachable(), session(2, 500), Fail, waiting(5.0)),
        (perhaps(), session(1, 500), Fail, looked_for()),
        (perhaps(), session(3, 0), Look, looked_for()),
        (perhaps(), session(1, 500), Resend, resent(1.0)),
        (perhaps(), session(2, 500), Resend, resent(5.0)),
        (perhaps(), session(3, 500), Resend, ClaimResult::Unknown(unknown())),
        (perhaps(), session(2, 5), Resend, ClaimResult::Unknown(unknown())),
    ] {
        let what = format!("{answer:?} {session:?} {when_unsure:?}");
        assert_eq!(
            after_try_jittered(answer, &session, &policy(when_unsure), JITTER.start),
            result,
            "{what}"
        );
    }
}

#[test]
fn a_try_that_was_surely_not_taken_waits_for_the_longer_of_our_delay_and_the_providers() {
    let many = Policy { max_attempts: 9, ..policy(Look) };
    for (attempts, retry_after, least, most) in [
        (1, None, 1.0, 1.25),
        (2, None, 5.0, 6.25),
        (3, None, 30.0, 37.5),
        (4, None, 120.0, 150.0),
        (7, None, 120.0, 150.0),
        (1, Some(0.0), 1.0, 1.25),
        (1, Some(3.0), 3.0, 3.0),
        (1, Some(3.001), 4.0, 4.0),
        (2, Some(3.0), 5.0, 6.25),
        (2, Some(5.5), 6.0, 6.25),
    ] {
        for (jitter, after) in [(JITTER.start, least), (JITTER.end, most)] {
            let result = after_try_jittered(later(retry_after), &session(attempts, 500), &many, jitter);
            assert_eq!(result, waiting(after), "{attempts} {retry_after:?} {jitter}");
        }
    }
}

#[test]
fn an_invite_without_a_try_or_time_left_is_refused_at_once() {
    let refused = |answer, session: &Claim| match after_try(answer, session, &policy(Look)) {
        ClaimResult::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    };
    for (attempts, left, retry_after, seconds) in [
        (3, 500, None, None),
        (4, 500, None, None),
        (3, 500, Some(7.2), Some(8)),
        (1, 1, None, None),
        (2, 5, None, None),
        (1, 60, Some(60.0), Some(60)),
        (1, 60, Some(59.5), Some(60)),
        (1, 0, Some(0.0), Some(0)),
    ] {
        let refusal = refused(later(retry_after), &session(attempts, left));
        let shown = (refusal.code, refusal.retryable, refusal.retry_after_seconds, refusal.provider_code);
        assert_eq!(
            shown,
            (Code::ProviderUnavailable, true, seconds, None),
            "{attempts} {left} {retry_after:?}"
        );
    }
    assert_eq!(after_try(later(Some(58.9)), &session(1, 60), &policy(Look)), waiting(59.0));
    // A fault of the operator's account. The sender cannot correct it, but the reply may name it.
    let account = TryResult::Later {
        status: None,
        retry_after: None,
        why: RetryReason::Account { provider_code: Some(20_003) },
    };
    let refusal = refused(account.clone(), &session(3, 500));
    assert_eq!((refusal.code, refusal.provider_code), (Code::ProviderUnavailable, Some(20_003)));
    assert_eq!(after_try_jittered(account, &session(1, 500), &policy(Look), 1.0), waiting(1.0));
}

#[test]
fn an_outcome_is_read_from_the_row() {
    let refusal = Refusal::new(Code::OutcomeUnknown, "why");
    let unknown = SessionRow {
        status: Status::Unknown,
        error: Some(sqlx::types::Json(refusal.clone())),
        ..row(TextState::Unknown)
    };
    assert_eq!(unknown.outcome(), Some(Outcome::Refused(refusal)));
    assert_eq!(row(TextState::Begun).outcome(), None);
}

proptest! {
    #[test]
    fn jitter_lengthens_a_delay_by_a_quarter_at_the_most(attempts in 1..9) {
        let many = Policy { max_attempts: 99, ..policy(Look) };
        let least = Duration::from_secs([1, 5, 30, 120][usize::try_from(attempts - 1).unwrap().min(3)]);
        let ClaimResult::Waiting { after } = after_try(later(None), &session(attempts, 999), &many) else { panic!() };
        prop_assert!((least..=least.mul_f64(1.25)).contains(&after), "{attempts}: {after:?}");
    }

    /// A text is sent again only if the row shows that it surely was not taken, or if the operator's setting allows it.
    #[test]
    fn no_text_is_sent_that_may_have_been_taken(
        text_state in prop::sample::select(vec![TextState::Begun, TextState::Waiting, TextState::Unknown]),
        looks in 0..4, looked_ago in prop::option::of(0.0..60.0), unsure_for in -30.0..90.0, lease_left in -60.0..60.0,
        session_left in -10.0..90.0, deadline_left in prop::option::of(-10.0..90.0), attempts in 1..5,
        unsettled: bool,
    ) {
        let row = SessionRow {
            attempts, looks, unsettled, lease_left, unsure_for, looked_ago, session_left, deadline_left, ..row(text_state)
        };
        let absent = looks >= 2 && looked_ago.is_some_and(|ago| ago <= -lease_left);
        let live = session_left > 0.0 && deadline_left.is_none_or(|left| left > 0.0);
        for when_unsure in [Look, Fail, Resend] {
            match next_step(&row, &policy(when_unsure), GroupSwitch::Off) {
                NextStep::Send => prop_assert!(false, "its group is off"),
                NextStep::Close(ClaimResult::Refused(_)) => prop_assert!(!unsettled && text_state == TextState::Waiting),
                _ => {}
            }
            match next_step(&row, &policy(when_unsure), GroupSwitch::On) {
                NextStep::Send if text_state == TextState::Waiting => prop_assert!(live && lease_left <= TOLERANCE),
                NextStep::Send => prop_assert!(live && unsure_for >= 0.0 && attempts < 3
                    && (when_unsure == Resend || when_unsure == Look && absent)),
                NextStep::Close(ClaimResult::Refused(_)) => prop_assert!(!unsettled
                    && (text_state == TextState::Waiting || when_unsure == Look && absent)),
                NextStep::Wait(span) | NextStep::TryUnderWay(span) => prop_assert!(span > Duration::ZERO),
                _ => {}
            }
        }
    }
}
