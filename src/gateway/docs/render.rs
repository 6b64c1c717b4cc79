//! Renders the OpenAPI document as HTML: the parts of OpenAPI that the document uses.

use crate::gateway::{page::escape, routes};
use serde_json::Value;
use std::fmt::Write as _;

/// The whole page. `prefix` is the path of `PUBLIC_URL`.
pub(super) fn html(document: &Value, style: &str, prefix: &str) -> String {
    let title = escape(text(&document["info"]["title"]));
    let version = escape(text(&document["info"]["version"]));
    let introduction = text(&document["info"]["description"]);
    // The description ends with the table of codes. The page renders that itself.
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

/// In the order in which an integrator needs them.
fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    routes::ALL.into_iter().flat_map(move |route| {
        let methods = document["paths"][route.published()].as_object().into_iter().flatten();
        methods.map(move |(method, operation)| (route.published(), method.as_str(), operation))
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
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let parameters: Vec<_> = parameters.map(|parameter| parameter_row(document, parameter)).collect();
    if !parameters.is_empty() {
        let _ = write!(page, "<h4>Parameters</h4>{}", table(["Name", "In", "Rule"], parameters));
    }
    for (media, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
        let _ = write!(page, "<h4>Body, <code>{}</code></h4>", escape(media));
        schema(page, document, &content["schema"]);
    }
    let responses = operation["responses"].as_object().into_iter().flatten();
    let responses =
        responses.map(|(status, response)| [escape(status), inline(text(&response["description"]))]);
    let _ = write!(page, "<h4>Answers</h4>{}", table(["Status", "When"], responses));
    let success = &operation["responses"]["200"]["content"]["application/json"]["schema"];
    if success["$ref"].is_string() {
        page.push_str("<h4>The answer 200</h4>");
        schema(page, document, success);
    }
    page.push_str("</article>");
}

fn parameter_row(document: &Value, parameter: &Value) -> [String; 3] {
    let needed = if parameter["required"] == true { " (required)" } else { "" };
    let rule = rule(document, &parameter["schema"]);
    [
        format!("<code>{}</code>", escape(text(&parameter["name"]))),
        format!("{}{needed}", escape(text(&parameter["in"]))),
        format!("{} {rule}", inline(text(&parameter["description"]))),
    ]
}

/// The fields of an object, and an example.
fn schema(page: &mut String, document: &Value, schema: &Value) {
    let schema = resolved(document, schema);
    let mut rows = Vec::new();
    fields(document, schema, "", &mut rows);
    if !rows.is_empty() {
        page.push_str(&table(["Field", "Rule"], rows));
    }
    if schema["example"].is_object() {
        let shown = serde_json::to_string_pretty(&schema["example"]).unwrap_or_default();
        let _ = write!(page, "<pre><code>{}</code></pre>", escape(&shown));
    }
}

/// The fields of an object, and those of the objects in it, with dots.
fn fields(document: &Value, object: &Value, prefix: &str, rows: &mut Vec<[String; 2]>) {
    let required: Vec<&Value> = object["required"].as_array().into_iter().flatten().collect();
    for (name, field) in object["properties"].as_object().into_iter().flatten() {
        let is_required = required.iter().any(|required| *required == name);
        let needed = if is_required { "" } else { " <span class=\"dim\">optional</span>" };
        let rule = format!("{} {}", inline(text(&field["description"])), rule(document, field));
        rows.push([format!("<code>{prefix}{}</code>{needed}", escape(name)), rule]);
        fields(document, resolved(document, field), &format!("{prefix}{}.", escape(name)), rows);
    }
    if !prefix.is_empty() && object["additionalProperties"].is_object() {
        let rule = rule(document, &object["additionalProperties"]);
        rows.push([format!("<code>{prefix}</code>…"), format!("Any other name. {rule}")]);
    }
}

/// A table in HTML. A narrow screen shows each row as a block, and each cell with its heading before it. The roles keep it a
/// table for screen readers.
fn table<const N: usize>(headings: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut html = "<table role=\"table\"><thead role=\"rowgroup\"><tr role=\"row\">".to_owned();
    for heading in headings {
        let _ = write!(html, "<th role=\"columnheader\">{heading}</th>");
    }
    html.push_str("</tr></thead><tbody role=\"rowgroup\">");
    for row in rows {
        html.push_str("<tr role=\"row\">");
        for (heading, cell) in headings.into_iter().zip(row) {
            let _ = write!(html, "<td role=\"cell\" data-heading=\"{heading}\">{cell}</td>");
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table>");
    html
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
    let codes = document["x-error-codes"].as_array().into_iter().flatten();
    let rows = codes.map(|code| {
        let again = if code["retryable"] == true { "yes" } else { "no" };
        [
            format!("<code>{}</code>", escape(text(&code["code"]))),
            code["status"].to_string(),
            again.to_owned(),
            inline(text(&code["meaning"])),
        ]
    });
    table(["Code", "Status", "Again?", "When"], rows)
}

/// Markdown's paragraphs and fenced code, with an empty line between any two.
fn paragraphs(markdown: &str) -> String {
    let parts = markdown.split("\n\n").map(str::trim).filter(|part| !part.is_empty());
    parts.fold(String::new(), |mut html, part| {
        let fenced = part.strip_prefix("```sh\n").and_then(|code| code.strip_suffix("\n```"));
        let _ = match fenced {
            Some(code) => write!(html, "<pre><code>{}</code></pre>", escape(code)),
            None => write!(html, "<p>{}</p>", inline(part)),
        };
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
        assert_eq!(
            paragraphs("one\n\n```sh\na `<b>`\n```\n"),
            "<p>one</p><pre><code>a `&lt;b&gt;`</code></pre>"
        );
        assert_eq!(anchor("get", "/s/{token}"), "get-s--token-");
    }
}
