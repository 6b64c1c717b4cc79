use super::*;
use crate::{refusal::Refusal, sessions::Outcome};
use WhenUnsure::{Fail, Look, Resend};
use proptest::prelude::*;
use time::OffsetDateTime;
use uuid::Uuid;

fn policy(when_unsure: WhenUnsure) -> Policy {
    Policy { max_attempts: 3, settle: Duration::from_secs(30), when_unsure }
}

/// A row whose one try may have been taken: it has surely ended 40 s ago, and the list has had its 30 s.
fn row(text_state: &str) -> Standing {
    Standing {
        id: Uuid::nil(),
        group_id: 72,
        status: "sending".to_owned(),
        text_state: Some(text_state.to_owned()),
        fence: 0,
        ticket: Uuid::nil(),
        attempts: 1,
        looks: 0,
        unsettled: false,
        abandoned: 0,
        session_key: Some("123456".to_owned()),
        token: Some("abcdefghijklmnop".to_owned()),
        session_type: Some(1),
        phone: Some("+11110000000".to_owned()),
        invitation_text: Some("code 123456".to_owned()),
        provider_message_id: None,
        created_at: OffsetDateTime::UNIX_EPOCH,
        expires_at: Some(OffsetDateTime::UNIX_EPOCH),
        error: None,
        request_sha256: None,
        same_params: true,
        blanked: false,
        content_hash: None,
        asked_params: None,
        read_at: OffsetDateTime::UNIX_EPOCH,
        age: 0.0,
        lease_left: -10.0,
        unsure_for: 40.0,
        looked_ago: None,
        session_left: 500.0,
        deadline_left: None,
    }
}

/// The same, once its text was looked for that often, the last time so long ago.
fn looked(text_state: &str, looks: i32, ago: f64) -> Standing {
    Standing { looks, looked_ago: Some(ago), ..row(text_state) }
}

fn span(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn close_unknown() -> Step {
    Step::Close(Fate::Unknown(unknown()))
}

fn close_late() -> Step {
    Step::Close(Fate::Refused(too_late()))
}

fn close_unavailable() -> Step {
    Step::Close(Fate::Refused(unavailable(None)))
}

#[track_caller]
fn asks(row: &Standing, when_unsure: WhenUnsure, step: &Step) {
    assert_eq!(next_step(row, &policy(when_unsure), Switch::On), *step, "{when_unsure:?}: {row:#?}");
}

#[test]
fn what_has_its_outcome_is_answered_whatever_else_its_row_says() {
    for status in
        ["sent", "delivered", "undelivered", "unknown", "joined", "expired", "ended", "rejected", "failed"]
    {
        for text_state in ["accepted", "unknown", "refused", "waiting"] {
            let row = Standing { status: status.to_owned(), abandoned: 99, ..row(text_state) };
            for when_unsure in [Look, Fail, Resend] {
                asks(&row, when_unsure, &Step::Answer);
            }
        }
    }
}

#[test]
fn a_row_that_too_many_workers_died_with_is_given_up() {
    for text_state in ["begun", "waiting", "unknown"] {
        let dying = |abandoned| Standing { abandoned, ..row(text_state) };
        asks(&dying(ABANDONED_AT_MOST), Look, &Step::GiveUp);
        assert_ne!(next_step(&dying(ABANDONED_AT_MOST - 1), &policy(Look), Switch::On), Step::GiveUp);
    }
}

#[test]
fn a_row_that_waits_is_sent_again_in_its_time_and_within_its_session() {
    let waiting = |lease_left| Standing { lease_left, ..row("waiting") };
    for when_unsure in [Look, Fail, Resend] {
        for (row, step) in [
            (waiting(12.5), Step::Wait(span(12.5))),
            (waiting(0.26), Step::Wait(span(0.26))),
            (waiting(AS_GOOD_AS_DUE), Step::Send),
            (waiting(0.0), Step::Send),
            (waiting(-60.0), Step::Send),
            // A try that was withheld has cost nothing: how many there were is asked when one is refused.
            (Standing { attempts: 3, ..waiting(0.0) }, Step::Send),
            (Standing { deadline_left: Some(0.1), ..waiting(0.0) }, Step::Send),
            (Standing { deadline_left: Some(0.0), ..waiting(0.0) }, close_late()),
            (Standing { deadline_left: Some(-1.0), ..waiting(12.5) }, close_late()),
            (Standing { session_left: 0.0, ..waiting(0.0) }, close_late()),
            (Standing { session_left: -1.0, ..waiting(12.5) }, close_late()),
            (Standing { session_left: -1.0, unsettled: true, ..waiting(0.0) }, close_unknown()),
            (Standing { deadline_left: Some(-1.0), unsettled: true, ..waiting(0.0) }, close_unknown()),
        ] {
            asks(&row, when_unsure, &step);
        }
    }
}

#[test]
fn a_try_that_may_be_under_way_is_waited_for() {
    for text_state in ["begun", "unknown"] {
        for when_unsure in [Look, Fail, Resend] {
            let under_way = Standing { unsure_for: -7.5, lease_left: 37.5, ..row(text_state) };
            asks(&under_way, when_unsure, &Step::InHand(span(7.5)));
            // It is waited for to its end, whatever else is over.
            let over = Standing { session_left: -1.0, deadline_left: Some(-1.0), attempts: 9, ..under_way };
            asks(&over, when_unsure, &Step::InHand(span(7.5)));
        }
    }
    // Of a worker from before there was a ledger.
    let old = Standing { text_state: None, unsure_for: -1.0, ..row("begun") };
    asks(&old, Look, &Step::InHand(span(1.0)));
}

#[test]
fn what_was_not_settled_before_its_session_ended_is_unknown() {
    for text_state in ["begun", "unknown"] {
        for when_unsure in [Look, Fail, Resend] {
            for looks in [0, 1, 2] {
                let over = Standing { session_left: 0.0, ..looked(text_state, looks, 5.0) };
                asks(&over, when_unsure, &close_unknown());
            }
        }
    }
}

#[test]
fn a_try_of_unknown_outcome_is_followed_as_the_operator_says() {
    let resting = |lease_left| Standing { lease_left, ..row("unknown") };
    for text_state in ["begun", "unknown"] {
        let state = || Some(text_state.to_owned());
        for (when_unsure, row, step) in [
            // Looked for as well, and not sent again even when it is absent.
            (Fail, row(text_state), Step::Look),
            (Fail, looked(text_state, 2, 5.0), close_unknown()),
            (Resend, row(text_state), Step::Send),
            (Resend, Standing { text_state: state(), ..resting(0.25) }, Step::Send),
            (Resend, Standing { text_state: state(), ..resting(4.0) }, Step::Wait(span(4.0))),
            (Resend, Standing { attempts: 2, ..row(text_state) }, Step::Send),
            (Resend, Standing { attempts: 3, ..row(text_state) }, close_unknown()),
            (Resend, Standing { attempts: 3, text_state: state(), ..resting(4.0) }, close_unknown()),
            (Resend, Standing { deadline_left: Some(0.0), ..row(text_state) }, close_unknown()),
            (Look, row(text_state), Step::Look),
            (Look, looked(text_state, 2, 10.0), Step::Send),
            (Look, looked(text_state, 5, 3.0), Step::Send),
            (Look, Standing { attempts: 2, ..looked(text_state, 2, 5.0) }, Step::Send),
            (Look, Standing { attempts: 3, ..looked(text_state, 2, 5.0) }, close_unavailable()),
            (Look, Standing { deadline_left: Some(0.0), ..looked(text_state, 2, 5.0) }, close_late()),
            // Late and without a try left, it is still looked for.
            (Look, Standing { deadline_left: Some(-9.0), attempts: 3, ..row(text_state) }, Step::Look),
            (Look, Standing { attempts: 3, unsettled: true, ..looked(text_state, 2, 5.0) }, close_unknown()),
            (
                Look,
                Standing { deadline_left: Some(0.0), unsettled: true, ..looked(text_state, 2, 5.0) },
                close_unknown(),
            ),
        ] {
            asks(&row, when_unsure, &step);
        }
    }
}

#[test]
fn what_waits_for_a_group_that_is_off_is_refused_or_looked_for_and_never_sent() {
    let off = || Step::Close(Fate::Refused(group_disabled()));
    let late = |row| Standing { session_left: 0.0, ..row };
    for when_unsure in [Look, Fail, Resend] {
        for (row, step) in [
            (row("waiting"), off()),
            (Standing { lease_left: 12.5, ..row("waiting") }, off()),
            (Standing { deadline_left: Some(-1.0), ..row("waiting") }, off()),
            (Standing { unsettled: true, ..row("waiting") }, close_unknown()),
            (Standing { unsure_for: -7.5, ..row("begun") }, Step::InHand(span(7.5))),
            (late(row("unknown")), close_unknown()),
            (looked("unknown", 2, 5.0), close_unknown()),
            (Standing { status: "sent".to_owned(), ..row("accepted") }, Step::Answer),
        ] {
            assert_eq!(next_step(&row, &policy(when_unsure), Switch::Off), step, "{when_unsure:?}: {row:#?}");
        }
    }
    for (when_unsure, step) in [(Look, Step::Look), (Fail, Step::Look), (Resend, close_unknown())] {
        for text_state in ["begun", "unknown"] {
            assert_eq!(next_step(&row(text_state), &policy(when_unsure), Switch::Off), step);
        }
    }
}

#[test]
fn a_text_is_absent_when_two_looks_missed_it_the_last_of_them_after_the_list_has_settled() {
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
        let row = Standing { looks, lease_left, looked_ago, ..row("unknown") };
        let step = next_step(&row, &policy(Look), Switch::On);
        assert_eq!(step == Step::Send, absent, "{looks} {looked_ago:?} {lease_left}: {step:?}");
    }
}

#[test]
fn looks_come_in_growing_intervals_and_again_once_the_list_has_settled() {
    for (looks, looked_ago, unsure_for, lease_left, step) in [
        // A second after the try has ended; then 5, 30, 60 s apart.
        (0, None, 0.0, 30.0, Step::Wait(span(1.0))),
        (0, None, 0.7, 29.3, Step::Wait(span(1.0 - 0.7))),
        (0, None, 0.75, 29.25, Step::Look),
        (0, None, 50.0, -20.0, Step::Look),
        (1, Some(2.0), 3.0, 27.0, Step::Wait(span(3.0))),
        (1, Some(4.8), 5.8, 24.2, Step::Look),
        (2, Some(6.0), 12.0, 300.0, Step::Wait(span(24.0))),
        (3, Some(10.0), 50.0, 300.0, Step::Wait(span(50.0))),
        (4, Some(10.0), 99.0, 300.0, Step::Wait(span(50.0))),
        (9, Some(60.0), 999.0, 300.0, Step::Look),
        // Sooner when the list has had its time.
        (2, Some(6.0), 12.0, 18.0, Step::Wait(span(18.0))),
        (2, Some(6.0), 30.0, 0.2, Step::Look),
        (1, Some(2.0), 40.0, -10.0, Step::Look),
        // But a second apart at the least.
        (2, Some(0.5), 30.0, 0.1, Step::Wait(span(0.5))),
        (1, Some(0.0), 40.0, -10.0, Step::Wait(span(1.0))),
    ] {
        let row = Standing { looks, lease_left, unsure_for, looked_ago, ..row("unknown") };
        asks(&row, Look, &step);
    }
}

#[test]
fn a_look_that_failed_is_made_again_later_and_later() {
    for (unsure_for, after) in [(0.0, 5), (59.9, 5), (60.0, 30), (600.0, 30)] {
        let row = Standing { unsure_for, ..row("unknown") };
        assert_eq!(look_again_after(&row), Duration::from_secs(after));
    }
}

fn session(attempts: i32, left: u64) -> Session {
    // Its claim is a moment old already: so much less is left.
    Session::claimed(attempts, false, Duration::from_secs(left))
}

fn unsettled(attempts: i32) -> Session {
    Session::claimed(attempts, true, Duration::from_mins(8))
}

fn later(retry_after: Option<f64>) -> Answer {
    Answer::Later { retry_after: retry_after.map(span), why: Later::Throttled }
}

fn perhaps() -> Answer {
    Answer::PerhapsSent { why: String::new() }
}

fn waiting(seconds: f64) -> Fate {
    Fate::Waiting { after: span(seconds) }
}

#[test]
fn an_answer_of_the_provider_decides_what_becomes_of_a_try() {
    let rejected = || Refusal::new(Code::PhoneInvalid, "no");
    let resent = |seconds| Fate::Unsure { rest: span(seconds), again: span(seconds) };
    let sent = Fate::Accepted { provider_message_id: "SM1".to_owned() };
    let wrong = || Answer::Refused(rejected());
    let looked_for = || Fate::Unsure { rest: span(30.0), again: span(1.0) };
    let no_line = || Answer::Later { retry_after: None, why: Later::Unreachable };
    for (answer, session, when_unsure, fate) in [
        (Answer::Accepted { sid: "SM1".to_owned() }, session(1, 0), Look, sent.clone()),
        (Answer::Accepted { sid: "SM1".to_owned() }, unsettled(9), Fail, sent),
        (wrong(), session(1, 500), Look, Fate::Refused(rejected())),
        // The last try surely failed; an earlier one may not have.
        (wrong(), unsettled(2), Resend, Fate::Unknown(unknown())),
        (later(None), unsettled(3), Resend, Fate::Unknown(unknown())),
        (later(Some(600.0)), unsettled(2), Resend, Fate::Unknown(unknown())),
        (later(None), unsettled(2), Resend, waiting(5.0)),
        // Never written: no try was lost.
        (Answer::Withheld, session(1, 500), Look, waiting(1.0)),
        (Answer::Withheld, session(3, 0), Fail, waiting(1.0)),
        (Answer::Withheld, unsettled(3), Resend, waiting(1.0)),
        (no_line(), session(2, 500), Fail, waiting(5.0)),
        (perhaps(), session(1, 500), Fail, looked_for()),
        (perhaps(), session(3, 0), Look, looked_for()),
        (perhaps(), session(1, 500), Resend, resent(1.0)),
        (perhaps(), session(2, 500), Resend, resent(5.0)),
        (perhaps(), session(3, 500), Resend, Fate::Unknown(unknown())),
        (perhaps(), session(2, 5), Resend, Fate::Unknown(unknown())),
    ] {
        let what = format!("{answer:?} {session:?} {when_unsure:?}");
        assert_eq!(after_try_jittered(answer, &session, &policy(when_unsure), JITTER.start), fate, "{what}");
    }
}

#[test]
fn what_was_surely_not_taken_waits_as_long_as_the_provider_says_or_as_we_do() {
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
            let fate = after_try_jittered(later(retry_after), &session(attempts, 500), &many, jitter);
            assert_eq!(fate, waiting(after), "{attempts} {retry_after:?} {jitter}");
        }
    }
}

#[test]
fn who_has_no_try_or_no_time_left_is_refused_at_once() {
    let refused = |answer, session: &Session| match after_try(answer, session, &policy(Look)) {
        Fate::Refused(refusal) => refusal,
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
        let said = (refusal.code, refusal.retryable, refusal.retry_after_seconds, refusal.provider_code);
        assert_eq!(
            said,
            (Code::ProviderUnavailable, true, seconds, None),
            "{attempts} {left} {retry_after:?}"
        );
    }
    assert_eq!(after_try(later(Some(58.9)), &session(1, 60), &policy(Look)), waiting(59.0));
    // The operator's account: the sender cannot mend it, and may be told why.
    let account = Answer::Later { retry_after: None, why: Later::Account { provider_code: Some(20_003) } };
    let refusal = refused(account.clone(), &session(3, 500));
    assert_eq!((refusal.code, refusal.provider_code), (Code::ProviderUnavailable, Some(20_003)));
    assert_eq!(after_try_jittered(account, &session(1, 500), &policy(Look), 1.0), waiting(1.0));
}

#[test]
fn an_outcome_is_what_the_row_stored() {
    let refusal = Refusal::new(Code::OutcomeUnknown, "why");
    let unknown = Standing {
        status: "unknown".to_owned(),
        error: Some(sqlx::types::Json(refusal.clone())),
        ..row("unknown")
    };
    assert_eq!(unknown.outcome(), Some(Outcome::Refused(refusal)));
    assert_eq!(row("begun").outcome(), None);
}

proptest! {
    #[test]
    fn jitter_lengthens_a_delay_by_a_quarter_at_the_most(attempts in 1..9) {
        let many = Policy { max_attempts: 99, ..policy(Look) };
        let least = Duration::from_secs([1, 5, 30, 120][usize::try_from(attempts - 1).unwrap().min(3)]);
        let Fate::Waiting { after } = after_try(later(None), &session(attempts, 999), &many) else { panic!() };
        prop_assert!((least..=least.mul_f64(1.25)).contains(&after), "{attempts}: {after:?}");
    }

    /// A text is sent again only from a row that says that it surely was not taken, or where the operator says so.
    #[test]
    fn nothing_is_sent_that_may_have_been_taken(
        text_state in prop::sample::select(vec!["begun", "waiting", "unknown"]),
        looks in 0..4, looked_ago in prop::option::of(0.0..60.0), unsure_for in -30.0..90.0, lease_left in -60.0..60.0,
        session_left in -10.0..90.0, deadline_left in prop::option::of(-10.0..90.0), attempts in 1..5,
        unsettled: bool,
    ) {
        let row = Standing {
            attempts, looks, unsettled, lease_left, unsure_for, looked_ago, session_left, deadline_left, ..row(text_state)
        };
        let absent = looks >= 2 && looked_ago.is_some_and(|ago| ago <= -lease_left);
        let live = session_left > 0.0 && deadline_left.is_none_or(|left| left > 0.0);
        for when_unsure in [Look, Fail, Resend] {
            match next_step(&row, &policy(when_unsure), Switch::Off) {
                Step::Send => prop_assert!(false, "its group is off"),
                Step::Close(Fate::Refused(_)) => prop_assert!(!unsettled && text_state == "waiting"),
                _ => {}
            }
            match next_step(&row, &policy(when_unsure), Switch::On) {
                Step::Send if text_state == "waiting" => prop_assert!(live && lease_left <= AS_GOOD_AS_DUE),
                Step::Send => prop_assert!(live && unsure_for >= 0.0 && attempts < 3
                    && (when_unsure == Resend || when_unsure == Look && absent)),
                Step::Close(Fate::Refused(_)) => prop_assert!(!unsettled
                    && (text_state == "waiting" || when_unsure == Look && absent)),
                Step::Wait(span) | Step::InHand(span) => prop_assert!(span > Duration::ZERO),
                _ => {}
            }
        }
    }
}
