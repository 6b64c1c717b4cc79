//! The one style sheet and the one script. Their names have a hash of their content, so that browsers may keep them.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use std::sync::LazyLock;

/// A file that is part of the program.
struct Asset {
    /// Its address below the console.
    path: String,
    media_type: &'static str,
    content: &'static str,
}

static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("css", "text/css; charset=utf-8", include_str!("console.css")));
static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("js", "text/javascript; charset=utf-8", include_str!("console.js")));

impl Asset {
    fn new(extension: &str, media_type: &'static str, content: &'static str) -> Self {
        let hash = URL_SAFE_NO_PAD.encode(&Sha256::digest(content.as_bytes())[..9]);
        Self { path: format!("/assets/{hash}.{extension}"), media_type, content }
    }
}

pub(super) fn style() -> &'static str {
    &STYLE.path
}

pub(super) fn script() -> &'static str {
    &SCRIPT.path
}

/// The file at this address, with its media type.
pub(super) fn find(path: &str) -> Option<(&'static str, &'static str)> {
    let asset = [&*STYLE, &*SCRIPT].into_iter().find(|asset| asset.path == path)?;
    Some((asset.content, asset.media_type))
}
