//! `./dev demo`: one invite, from the queue to the text, and one over HTTP.

use super::setup;
use crate::{
    cli::DemoOptions,
    http, interrupt,
    names::Names,
    output::{field_a_line, say, show_end, step},
    ports, program, random,
    run::Run,
    settings::Settings,
    shell::RunToEnd as _,
};
use anyhow::{Result, bail};
use std::{
    io::{IsTerminal, Write},
    process::Stdio,
    sync::mpsc::{TryRecvError, channel},
    time::{Duration, Instant},
};

pub(crate) const GROUP: &str = "72";
/// The invite that commands of the program send.
pub(crate) const SAMPLE: [&str; 11] = [
    "send",
    "--group",
    GROUP,
    "--user",
    "12345",
    "--phone",
    "111-000-0000",
    "--camera",
    "back",
    "--resolution",
    "352x288",
];
const RECEIPT_WITHIN: Duration = Duration::from_secs(10);

pub(crate) fn run(options: &DemoOptions) -> Result<()> {
    let begun = Instant::now();
    let run = Run::begin()?;
    let names = Names::of_run("demo")?;
    let settings = setup::prepare(&run, &names, options.servers.options(), random::key)?;
    let label = format!("Migrate {}, a database for this demo", names.database);
    step(&label, || settings.invite(&["migrate"])?.run())?;
    show(&run, &settings)?;
    if options.keep {
        keep_running(&settings)?;
    }
    step("Stop, and remove what the demo made", || {
        run.end();
        Ok(())
    })?;
    say(format!("\nDone in {} s.", begun.elapsed().as_secs()));
    Ok(())
}

fn show(run: &Run, settings: &Settings) -> Result<()> {
    let public = settings.public_url();
    step(&format!("Add group {GROUP}"), || add_group(settings))?;
    let label = format!("Worker, until {} says 200", settings.readiness_url());
    step(&label, || settings.start_worker(run))?;
    step(&format!("Gateway, until {public}/readyz says 200"), || settings.start_gateway(run))?;
    let label = format!("Invite on the queue {}.requests, and its reply", settings.queue_prefix);
    step(&label, || settings.invite(&SAMPLE)?.run())?;
    step("The row in sessions", || settings.invite(&["sessions", "list"])?.run())?;
    step("The text, as the provider got it", || show_inbox(&settings.sandbox_url))?;
    step(&format!("The same over HTTP: POST {public}{}", path()), || {
        let gkey =
            settings.invite(&["tokens", "issue", "gkey", "--group", GROUP, "--user", "12345"])?.read()?;
        post_invite(&settings.public_url(), &gkey)
    })?;
    step(&format!("Its receipt came by {public}/webhooks/twilio/status/…"), || {
        wait_for_receipt(run, settings)
    })
}

/// The address of the service that this one stands in for.
fn path() -> String {
    format!("/api/SessionInvitation/smsInvite/?groupid={GROUP}")
}

/// The key goes in by standard input: on a command line, every user of the machine could read it.
fn add_group(settings: &Settings) -> Result<()> {
    let key = format!("demo-{}{}\n", random::word()?, random::word()?);
    let (from, mut to) = std::io::pipe()?;
    to.write_all(key.as_bytes())?;
    drop(to);
    settings.invite(&["groups", "add", GROUP, "--api-key", "-"])?.stdin(from).run()
}

/// Sends an invite to the gateway at that address.
pub(crate) fn post_invite(gateway: &str, gkey: &str) -> Result<()> {
    let json = r#"{"sessiontype": 1, "smsPhone": "212-555-0123", "sessionParams": {"camera": "back", "resolution": "352x288"}}"#;
    let header = format!("Authorization: Bearer GKEY {gkey}");
    let reply = http::post(ports::of_address(gateway)?, &path(), &header, json)?;
    say(field_a_line(&reply));
    Ok(())
}

pub(crate) fn show_inbox(sandbox: &str) -> Result<()> {
    say(field_a_line(http::get(ports::of_address(sandbox)?, "/sandbox/messages")?.trim_end()));
    Ok(())
}

fn wait_for_receipt(run: &Run, settings: &Settings) -> Result<()> {
    let begun = Instant::now();
    let delivered = ["sessions", "list", "--status", "delivered", "--json"];
    while !settings.invite(&delivered)?.stdin(Stdio::null()).read()?.contains("\"delivered\"") {
        if begun.elapsed() > RECEIPT_WITHIN {
            show_end(&run.log("gateway"), 15);
            bail!("no receipt came");
        }
        interrupt::pause()?;
    }
    settings.invite(&["sessions", "list"])?.run()
}

fn keep_running(settings: &Settings) -> Result<()> {
    let (inbox, gateway) = (&settings.sandbox_url, settings.public_url());
    say("");
    say(format!("Running until Enter or ctrl-C. The inbox: {inbox}/   the gateway: {gateway}/docs"));
    say(format!("The console: {gateway}/console   its token: {}", settings.console_token));
    say("To send another from a second terminal:");
    settings.print_exports();
    say(format!("    {} send --group {GROUP} --user 12345 --phone 212-555-0123", program::path()?.display()));
    wait_for_enter()
}

/// Without a terminal there is no Enter, and it waits for a signal.
fn wait_for_enter() -> Result<()> {
    let (sender, pressed) = channel();
    if std::io::stdin().is_terminal() {
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_line(&mut String::new());
            sender.send(())
        });
    } else {
        // Kept, so that the other end stays open.
        std::mem::forget(sender);
    }
    while pressed.try_recv() == Err(TryRecvError::Empty) {
        interrupt::pause()?;
    }
    Ok(())
}
