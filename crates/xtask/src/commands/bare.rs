//! `./dev bare`: the README's two commands, or another one, in a container that has cargo and nothing else: a clean
//! checkout, no variable set, and none of this machine's services.

use super::{compose::TESTS_PROJECT, images::base_image};
use crate::{
    cli::BareOptions,
    compose,
    output::quoted,
    run::Run,
    shell::{self, RunToEnd as _},
    undo::Resource,
};
use anyhow::{Context, Result};
use std::process::Stdio;

pub(crate) fn run(options: &BareOptions) -> Result<()> {
    compose::need_engine()?;
    let run = Run::begin()?;
    let name = run.name();
    run.note(Resource::Container(name.clone()))?;
    // The files are as git has them, with changes that are not committed yet. Their times are those of their arrival
    // (--touch), as cargo goes by them, and other checkouts fill the volume too.
    let files = shell::command("git").args(["ls-files", "-z"]).read()?;
    let mut archive = shell::command("tar")
        .args(["--create", "--null", "--files-from", "-"])
        .stdin(text_pipe(files)?)
        .stdout(Stdio::piped())
        .spawn()?;
    let sources = archive.stdout.take().context("its output is a pipe")?;
    let script =
        format!("cd /src && tar --extract --touch && exec </dev/null && {}", commands(&options.command));
    // Nothing is printed after the runner's own summary.
    shell::command("docker")
        .args(["run", "--rm", "--interactive", "--init", "--name", &name])
        .args(["--volume", &format!("{TESTS_PROJECT}_cargo:/usr/local/cargo/registry")])
        .args(["--volume", &format!("{TESTS_PROJECT}_target:/src/target")])
        .args([&base_image("sources")?, "bash", "-c", &script])
        .stdin(sources)
        .run()?;
    shell::as_result(shell::wait(&mut archive, None)?)
}

fn commands(words: &[String]) -> String {
    if words.is_empty() {
        return "./dev demo && ./dev test".to_owned();
    }
    let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
    format!("./dev {}", words.join(" "))
}

/// A pipe from which a text can be read. Another thread writes it, as a pipe holds 64 KiB.
fn text_pipe(text: String) -> Result<std::io::PipeReader> {
    use std::io::Write;
    let (from, mut to) = std::io::pipe()?;
    std::thread::spawn(move || to.write_all(text.as_bytes()));
    Ok(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readmes_commands_run_unless_another_is_named() {
        assert_eq!(commands(&[]), "./dev demo && ./dev test");
        assert_eq!(commands(&["test", "a b"].map(str::to_owned)), "./dev test 'a b'");
    }
}
