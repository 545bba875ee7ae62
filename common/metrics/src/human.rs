//! The same figures for people: one page to look at, made of the text for Prometheus. It has counts and health, and no names; it runs no
//! script, and nothing can be changed there.

use std::fmt::Write as _;

/// What the page may do: take its own style.
pub(crate) const POLICY: &str =
    "default-src 'none'; style-src 'self'; frame-ancestors 'none'; form-action 'none'; base-uri 'none'";
/// Its style.
pub(crate) const STYLE: &str = include_str!("human.css");

/// Figures that are 0 while all is well.
const ZERO: &[&str] =
    &["alarms", "disk_full", "stored_chunks_lost", "stored_copies_missing", "tracker_removal_held"];
/// Figures that are 1 while all is well.
const ONE: &[&str] = &["tracker_up", "tracker_in_sync", "node_up"];
/// Labels that are left out: names, and keys that are as good as names.
const LEFT_OUT: &[&str] = &["name", "peer"];

/// The page. `text` is what [`Page::text`](crate::Page::text) gives.
pub(crate) fn page(text: &str) -> String {
    let mut rows = String::new();
    let (mut help, mut worries) = (String::new(), 0_usize);
    for line in text.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            help = said.split_once(' ').map_or(said, |(_, help)| help).trim_end_matches('.').to_owned();
        } else if let Some((figure, value)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) {
            let (name, labels) = figure.split_once('{').unwrap_or((figure, ""));
            let short = name.trim_start_matches("shoal_");
            let worries_now =
                (ZERO.contains(&short) && value != "0") || (ONE.contains(&short) && value != "1");
            worries += usize::from(worries_now);
            let class = if worries_now { " class=\"worry\"" } else { "" };
            let _ = writeln!(
                rows,
                "<tr{class}><th scope=\"row\">{}{}</th><td>{}</td></tr>",
                escaped(&help),
                escaped(&of(labels)),
                escaped(&grouped(value))
            );
        }
    }
    let health = match worries {
        0 => "All is well.".to_owned(),
        1 => "One figure needs a look.".to_owned(),
        many => format!("{many} figures need a look."),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Shoal: figures</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><link rel=\"stylesheet\" href=\"/style.css\"></head>\n\
         <body><main><h1>Figures</h1><p class=\"health\">{health} Loaded again, the page is up to date; <a href=\"/metrics\">/metrics</a> \
         has the same for programs.</p>\n<table><tbody>\n{rows}</tbody></table></main></body></html>\n"
    )
}

/// What a figure is of: its labels, but for names.
fn of(labels: &str) -> String {
    let parts = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
    let shown = parts.filter(|(name, _)| !LEFT_OUT.contains(name));
    shown.map(|(name, value)| format!(", {name} {}", value.trim_matches('"'))).collect()
}

/// A number with commas between its thousands.
fn grouped(value: &str) -> String {
    if !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return value.to_owned();
    }
    let mut text = String::new();
    for (at, digit) in value.chars().enumerate() {
        if at > 0 && (value.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Page;

    #[test]
    fn the_page_has_counts_and_health_and_no_names() {
        let mut figures = Page::default();
        figures.gauge("files", "Shared files", 1_234_567);
        figures.gauge("alarms", "Things that must not happen", 2);
        let node = |up| (vec![("name", "<b>attic</b>".to_owned()), ("peer", "12D3secret".to_owned())], up);
        figures.labelled("node_up", "Whether the storage node is connected", vec![node(0)]);
        figures.labelled("tracker_lag", "Records <behind>", vec![(vec![("tracker", "2".to_owned())], 7)]);
        let page = page(&figures.text().unwrap());
        for part in [
            "<th scope=\"row\">Shared files</th><td>1,234,567</td>",
            "<tr class=\"worry\"><th scope=\"row\">Things that must not happen</th><td>2</td>",
            "Records &lt;behind&gt;, tracker 2</th><td>7</td>",
            "2 figures need a look.",
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
        assert!(
            !page.contains("attic") && !page.contains("12D3secret") && !page.contains("<script"),
            "{page}"
        );
    }
}
