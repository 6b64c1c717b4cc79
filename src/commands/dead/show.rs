//! `dead show`: one dead letter, with secrets masked.

use crate::{
    dead_letters::DeadLetterView,
    output::{self, Format},
};

pub(super) fn print(shown: &DeadLetterView, format: Format) -> anyhow::Result<()> {
    format.object(shown, DeadLetterView::lines)?;
    if let (false, Some(body)) = (format.json, &shown.body) {
        output::print(&format!("\n{}", serde_json::to_string_pretty(body)?))?;
    }
    Ok(())
}
