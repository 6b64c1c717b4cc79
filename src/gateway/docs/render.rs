//! OpenAPI to HTML, as far as our document goes.

use crate::gateway::page::escape;
use serde_json::Value;
use std::fmt::Write as _;

/// The whole page; `prefix` is what stands before our addresses.
pub fn html(document: &Value, style: &str, prefix: &str) -> String {
    let title = escape(text(&document["info"]["title"]));
    let version = escape(text(&document["info"]["version"]));
    let introduction = text(&document["info"]["description"]);
    // The table of codes follows as a table.
    let prose = introduction.split("\n| ").next().unwrap_or_default();
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>{title}</title><style>{style}</style></head><body><main>\
         <h1>{title} <span class=\"dim\">{version}</span></h1>{}<p>For programs: <a href=\"{}/openapi.json\">openapi.json</a>.</p>",
        paragraphs(prose),
        escape(prefix),
    );
    let tags: Vec<&Value> = document["tags"].as_array().into_iter().flatten().collect();
    page.push_str("<nav aria-label=\"Contents\"><h2>Contents</h2><ul>");
    for (path, method, operation) in operations(document) {
        let summary = escape(text(&operation["summary"]));
        let _ = write!(page, "<li><a href=\"#{}\">{summary}</a></li>", anchor(method, path));
    }
    page.push_str("<li><a href=\"#codes\">Error codes</a></li></ul></nav>");
    for tag in tags {
        let name = text(&tag["name"]);
        let _ = write!(page, "<h2>{}</h2><p>{}</p>", escape(name), inline(text(&tag["description"])));
        for (path, method, operation) in operations(document).filter(|(_, _, o)| o["tags"][0] == *name) {
            article(&mut page, document, path, method, operation);
        }
    }
    page.push_str("<h2 id=\"codes\">Error codes</h2>");
    page.push_str(&codes(document));
    page.push_str("</main></body></html>");
    page
}

fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().into_iter().flatten();
        methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

fn article(page: &mut String, document: &Value, path: &str, method: &str, operation: &Value) {
    let _ = write!(
        page,
        "<article class=\"{method}\" id=\"{}\"><h3><span class=\"method\">{}</span> <code>{}</code></h3><p><strong>{}</strong></p>{}",
        anchor(method, path),
        method.to_ascii_uppercase(),
        escape(path),
        escape(text(&operation["summary"])),
        paragraphs(text(&operation["description"])),
    );
    if operation["security"].as_array().is_some_and(|schemes| !schemes.is_empty()) {
        page.push_str("<p class=\"dim\">Needs a credential.</p>");
    }
    let parameters: Vec<&Value> = operation["parameters"].as_array().into_iter().flatten().collect();
    if !parameters.is_empty() {
        page.push_str("<h4>Parameters</h4><div class=\"wide\"><table><thead><tr><th>Name</th><th>In</th><th>Rule</th></tr></thead><tbody>");
        for parameter in parameters {
            let needed = if parameter["required"] == true { " (required)" } else { "" };
            let _ = write!(
                page,
                "<tr><td><code>{}</code></td><td>{}{needed}</td><td>{} {}</td></tr>",
                escape(text(&parameter["name"])),
                escape(text(&parameter["in"])),
                inline(text(&parameter["description"])),
                rule(document, &parameter["schema"]),
            );
        }
        page.push_str("</tbody></table></div>");
    }
    for (media, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
        let _ = write!(page, "<h4>Body, <code>{}</code></h4>", escape(media));
        schema(page, document, &content["schema"]);
    }
    page.push_str("<h4>Answers</h4><div class=\"wide\"><table><thead><tr><th>Status</th><th>When</th></tr></thead><tbody>");
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td></tr>",
            escape(status),
            inline(text(&response["description"]))
        );
    }
    page.push_str("</tbody></table></div>");
    let success = &operation["responses"]["200"]["content"]["application/json"]["schema"];
    if success["$ref"].is_string() {
        page.push_str("<h4>The answer 200</h4>");
        schema(page, document, success);
    }
    page.push_str("</article>");
}

/// The fields of an object, and an example.
fn schema(page: &mut String, document: &Value, schema: &Value) {
    let schema = resolved(document, schema);
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let fields = schema["properties"].as_object();
    let mut example = serde_json::Map::new();
    if let Some(fields) = fields {
        page.push_str(
            "<div class=\"wide\"><table><thead><tr><th>Field</th><th>Rule</th></tr></thead><tbody>",
        );
        for (name, field) in fields {
            let needed =
                if required.contains(&name.as_str()) { "" } else { " <span class=\"dim\">optional</span>" };
            let _ = write!(
                page,
                "<tr><td><code>{}</code>{needed}</td><td>{} {}</td></tr>",
                escape(name),
                inline(text(&field["description"])),
                rule(document, field),
            );
            if !field["example"].is_null() {
                example.insert(name.clone(), field["example"].clone());
            }
        }
        page.push_str("</tbody></table></div>");
    }
    let example =
        if schema["example"].is_null() { Value::Object(example) } else { schema["example"].clone() };
    if example.as_object().is_some_and(|fields| !fields.is_empty()) {
        let shown = serde_json::to_string_pretty(&example).unwrap_or_default();
        let _ = write!(page, "<pre><code>{}</code></pre>", escape(&shown));
    }
}

/// Type, choices and bounds in one line.
fn rule(document: &Value, schema: &Value) -> String {
    let schema = resolved(document, schema);
    let mut parts = Vec::new();
    match &schema["type"] {
        Value::String(name) => parts.push(name.clone()),
        Value::Array(names) => parts.push(names.iter().map(text).collect::<Vec<_>>().join(" or ")),
        _ => {}
    }
    if let Some(choices) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        parts.push(choices.iter().map(|choice| rule(document, choice)).collect::<Vec<_>>().join(" or "));
        return format!("<span class=\"dim\">{}</span>", parts.join(", "));
    }
    if let Some(values) = schema["enum"].as_array() {
        parts.push(values.iter().map(Value::to_string).collect::<Vec<_>>().join(", "));
    }
    match (&schema["minimum"], &schema["maximum"]) {
        (Value::Number(least), Value::Number(most)) => parts.push(format!("{least} to {most}")),
        (Value::Number(least), _) => parts.push(format!("from {least} on")),
        _ => {}
    }
    if let Some(format) = schema["format"].as_str().filter(|format| !format.starts_with("int")) {
        parts.push(format.to_owned());
    }
    if let Some(longest) = schema["maxLength"].as_u64() {
        parts.push(format!("at most {longest} characters"));
    }
    let pattern = schema["pattern"].as_str().filter(|pattern| pattern.len() < 60);
    let pattern = pattern.map(|pattern| format!(" <code>{}</code>", escape(pattern))).unwrap_or_default();
    format!("<span class=\"dim\">{}{pattern}</span>", escape(&parts.join(", ")))
}

fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let target = schema["$ref"].as_str().and_then(|name| name.strip_prefix('#'));
    target.and_then(|pointer| document.pointer(pointer)).unwrap_or(schema)
}

fn codes(document: &Value) -> String {
    let mut table = "<div class=\"wide\"><table><thead><tr><th>Code</th><th>Status</th><th>Again?</th><th>When</th></tr></thead><tbody>".to_owned();
    for code in document["x-error-codes"].as_array().into_iter().flatten() {
        let again = if code["retryable"] == true { "yes" } else { "no" };
        let _ = write!(
            table,
            "<tr><td><code>{}</code></td><td>{}</td><td>{again}</td><td>{}</td></tr>",
            escape(text(&code["code"])),
            code["status"],
            inline(text(&code["meaning"])),
        );
    }
    table.push_str("</tbody></table></div>");
    table
}

fn paragraphs(markdown: &str) -> String {
    let parts = markdown.split("\n\n").map(str::trim).filter(|part| !part.is_empty());
    parts.fold(String::new(), |mut html, part| {
        let _ = write!(html, "<p>{}</p>", inline(part));
        html
    })
}

/// Markdown's code and bold.
fn inline(markdown: &str) -> String {
    let escaped = escape(markdown);
    let code = alternate(&escaped, "`", "code");
    alternate(&code, "**", "strong")
}

fn alternate(text: &str, mark: &str, element: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for (n, part) in text.split(mark).enumerate() {
        if n > 0 {
            html.push_str(if n % 2 == 1 { "<" } else { "</" });
            html.push_str(element);
            html.push('>');
        }
        html.push_str(part);
    }
    html
}

fn anchor(method: &str, path: &str) -> String {
    let plain = path.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    format!("{method}{}", plain.collect::<String>())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_marked_up_and_nothing_else_is_markup() {
        assert_eq!(inline("a `b<c` **d**"), "a <code>b&lt;c</code> <strong>d</strong>");
        assert_eq!(paragraphs("one\n\n two\n"), "<p>one</p><p>two</p>");
        assert_eq!(anchor("get", "/s/{token}"), "get-s--token-");
    }
}
