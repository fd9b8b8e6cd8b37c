//! A document as one HTML file that needs nothing else: style, script and charts are in it.

use super::document::{Block, Chart, Document, Figure, Row, Section, Span, Table};
use super::escape::html as text;
use std::fmt::Write;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("sort.js");

/// The whole file.
pub(super) fn render(d: &Document) -> String {
    let mut out = String::new();
    let title = text(&d.title);
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"generator\" content=\"centime\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<header>\n<h1>{title}</h1>\n"
    );
    if !d.description.trim().is_empty() {
        let _ = writeln!(out, "<p class=\"description\">{}</p>", text(&d.description));
    }
    let links: Vec<String> =
        d.sections.iter().map(|s| format!("<a href=\"#{}\">{}</a>", text(s.id), text(s.title))).collect();
    let _ = writeln!(out, "<nav>{}</nav>\n</header>", links.join(" "));
    d.sections.iter().for_each(|s| section(&mut out, s));
    let _ = write!(
        out,
        "<footer><p>{}</p></footer>\n</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        text(&d.foot)
    );
    out
}

fn section(out: &mut String, s: &Section) {
    let _ = writeln!(out, "<section id=\"{}\">\n<h2>{}</h2>", text(s.id), text(s.title));
    // Charts that follow each other stand side by side where there is room.
    for group in s.blocks.chunk_by(|a, b| matches!((a, b), (Block::Chart(_), Block::Chart(_)))) {
        if matches!(group, [Block::Chart(_), ..]) {
            out.push_str("<div class=\"charts\">\n");
            group.iter().for_each(|b| block(out, b));
            out.push_str("</div>\n");
        } else {
            group.iter().for_each(|b| block(out, b));
        }
    }
    out.push_str("</section>\n");
}

fn block(out: &mut String, b: &Block) {
    let _ = match b {
        Block::Paragraph(spans) => writeln!(out, "<p>{}</p>", inline(spans)),
        Block::Answer(spans) => writeln!(out, "<p class=\"answer\">{}</p>", inline(spans)),
        Block::Figures(figures) => {
            let all: String = figures.iter().map(figure).collect();
            writeln!(out, "<dl class=\"figures\">\n{all}</dl>")
        }
        Block::Table(t) => {
            table(out, t);
            Ok(())
        }
        Block::Chart(c) => {
            chart(out, c);
            Ok(())
        }
        Block::List(items) => {
            let all: String = items.iter().map(|i| format!("<li>{}</li>\n", inline(i))).collect();
            writeln!(out, "<ul>\n{all}</ul>")
        }
        Block::Folded { summary, blocks } => {
            let _ = writeln!(out, "<details>\n<summary>{}</summary>", text(summary));
            blocks.iter().for_each(|b| block(out, b));
            writeln!(out, "</details>")
        }
        Block::Command(c) => writeln!(out, "<pre><code>{}</code></pre>", text(c)),
    };
}

fn inline(spans: &[Span]) -> String {
    spans
        .iter()
        .map(|s| match s {
            Span::Plain(t) => text(t),
            Span::Strong(t) => format!("<strong>{}</strong>", text(t)),
            Span::Code(t) => format!("<code>{}</code>", text(t)),
        })
        .collect()
}

fn figure(f: &Figure) -> String {
    format!(
        "<div><dd class=\"value\">{}</dd><dt>{}</dt><dd class=\"note\">{}</dd></div>\n",
        text(&f.value),
        text(&f.label),
        text(&f.note)
    )
}

fn table(out: &mut String, t: &Table) {
    out.push_str("<div class=\"scroll\"><table>\n<thead><tr>");
    for c in &t.columns {
        let class = if c.numeric { " class=\"number\"" } else { "" };
        let _ = write!(out, "<th scope=\"col\"{class}>{}</th>", text(&c.heading));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    t.rows.iter().for_each(|r| row(out, t, r));
    out.push_str("</tbody>\n</table></div>\n");
    if !t.caption.is_empty() {
        let _ = writeln!(out, "<p class=\"caption\">{}</p>", text(&t.caption));
    }
}

fn row(out: &mut String, t: &Table, r: &Row) {
    out.push_str(if r.highlighted { "<tr class=\"highlighted\">" } else { "<tr>" });
    for (c, column) in r.cells.iter().zip(&t.columns) {
        let class = if column.numeric { " class=\"number\"" } else { "" };
        let sort = c.sort.filter(|x| x.is_finite()).map_or(String::new(), |x| format!(" data-sort=\"{x}\""));
        let _ = write!(out, "<td{class}{sort}>{}</td>", text(&c.text));
    }
    out.push_str("</tr>\n");
}

fn chart(out: &mut String, c: &Chart) {
    // The SVG's own writer has escaped its text.
    let _ = writeln!(
        out,
        "<figure id=\"{}\">\n{}<figcaption>{}</figcaption>\n</figure>",
        text(&c.name),
        c.svg,
        text(&c.caption)
    );
}
